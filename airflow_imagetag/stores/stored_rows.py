"""Private: the rows of a store in pieces, as they lie in its files or as its frames tell them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa

from airflow_imagetag.frames import ORIGINAL_LABEL
from airflow_imagetag.stores.rows import MISSING_SINCE, key_digest

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.stores.base import LabelStore

FRAME_ROWS = 20_000
"""Approximate number of rows in a frame of another store."""

_TIME = pa.timestamp("us", tz="UTC")

IMAGE_ROWS = pa.schema(
    {
        **dict.fromkeys(("api", "key_sha256", "image_key", "image_uri", "version"), pa.string()),
        **dict.fromkeys(("status", "content_sha256"), pa.string()),
        "labels_count": pa.int64(),
        **dict.fromkeys(("error", "code", "message"), pa.string()),
        "tries": pa.int64(),
        **dict.fromkeys(("first_failed_at", "next_try_at", "tagged_at", MISSING_SINCE), _TIME),
        "written_at": _TIME,
        **dict.fromkeys(("batch", "labels_batch"), pa.string()),
    }
)
"""Columns of images. ``labels_batch`` names the batch whose labels count, if it is another one."""

LABEL_ROWS = pa.schema(
    {
        **dict.fromkeys(("api", "key_sha256", "batch"), pa.string()),
        "rank": pa.int64(),
        "probability": pa.float64(),
        **dict.fromkeys(("label", "category", "subcategory", "scene"), pa.string()),
        ORIGINAL_LABEL: pa.string(),
    }
)
"""Columns of labels."""


class StoredRows(NamedTuple):
    """The rows of a store. An image may have several rows, and labels that do not count.

    :param images: tables with the columns of ``IMAGE_ROWS``.
    :param labels: tables with the columns of ``LABEL_ROWS``; read after the images.
    """

    images: Iterator[pa.Table]
    labels: Iterator[pa.Table]


def rows_of_frames(store: LabelStore) -> StoredRows:
    """Return the rows that the frames of a store tell, all of one batch.

    :raises ConfigurationError: the store does not tell its images.
    """
    return StoredRows(_images(store), _labels(store))


def _images(store: LabelStore) -> Iterator[pa.Table]:
    for frame in store.images(frame_rows=FRAME_ROWS):
        yield _table(frame.rename(columns={"labels": "labels_count"}), IMAGE_ROWS)


def _labels(store: LabelStore) -> Iterator[pa.Table]:
    for frame in store.labels(frame_rows=FRAME_ROWS, originals=True):
        yield _table(frame, LABEL_ROWS)


def _table(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    digests = [key_digest(key) for key in frame["image_key"]]
    whole = frame.assign(key_sha256=digests, batch="")
    missing = set(schema.names).difference(whole.columns)
    return pa.Table.from_pandas(
        whole.assign(**dict.fromkeys(missing))[schema.names], schema, preserve_index=False
    )
