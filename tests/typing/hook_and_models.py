"""Code of a task that calls the hook and reads stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, assert_type

from airflow_imagetag.errors import (
    ConfigurationError,
    ImageError,
    ImageTagError,
    RequestRefusedError,
    TransientError,
)
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.models import Image, Label, TagResult
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore

if TYPE_CHECKING:
    import pandas as pd


def names(images: list[str]) -> dict[str, list[str]]:
    """Label images one by one and return the names of the labels."""
    hook = ImageTagHook("imagetag_default", oversize="downscale")
    found = {}
    for image in images:
        try:
            result = hook.tag(image)
        except ImageError as error:
            assert_type(error.code, str | None)
            continue
        assert_type(result, TagResult)
        assert_type(result.labels, tuple[Label, ...])
        assert_type(result.tagged_at, datetime)
        found[result.image_key] = [label.name for label in result.labels]
    return found


async def label(content: bytes) -> float:
    """Label bytes in asyncio and return the probability of the first label."""
    async with ImageTagHook() as hook:
        result = await hook.atag(Image("photograph", content=content, version="1"))
    assert_type(result.image_uri, str | None)
    return max((one.probability for one in result.labels), default=0.0)


def advice(error: ImageTagError) -> str:
    """Return the next step after an error."""
    if isinstance(error, ConfigurationError | RequestRefusedError):
        return "mend the connection"
    if isinstance(error, TransientError):
        return "try again"
    return str(error.request_id)


def frames() -> Iterator[pd.DataFrame]:
    """Read the labels of both kinds of store."""
    yield from SqlLabelStore("warehouse").labels(frame_rows=1_000, originals=True)
    yield from ParquetLabelStore("/data/labels").labels()


assert_type(ImageTagHook().test_connection(), tuple[bool, str])


def renamed(found: Label) -> Label:
    """Return the label with another name: a label itself does not change."""
    found.name = "cat"  # type: ignore[misc]
    return replace(found, name="cat")
