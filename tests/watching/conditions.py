"""Makes the condition of a sensor or trigger."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores import ParquetLabelStore
from airflow_imagetag.stores.base import LabelStore
from airflow_imagetag.watching.condition import WaitCondition, parse_wait_condition

ONE_IMAGE = ValueImages(["https://x/a.jpg"])
NO_LABELS = ParquetLabelStore("/nowhere/at/all")


def condition(
    source: ImageSource = ONE_IMAGE, store: LabelStore | None = NO_LABELS, **parameters: Any
) -> WaitCondition:
    """Return a condition with the usual parameters, of one image that has no labels."""
    usual = {
        "imagetag_conn_id": "imagetag_default",
        "retag": "changed",
        "modified_after": None,
        "settle_seconds": 0,
        "min_images": 1,
        "max_images": 10,
    }
    return parse_wait_condition(source, store, SimpleNamespace(**(usual | parameters)))
