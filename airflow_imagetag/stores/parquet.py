"""Labels in Parquet files on any storage."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_imagetag.adapters.descriptions import described
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_local, local_path
from airflow_imagetag.stores.base import LabelStore

if TYPE_CHECKING:
    from airflow_imagetag.stores.parquet_dataset import OpenParquetStore


@dataclass(repr=False)
class ParquetLabelStore(LabelStore):
    """Labels in a Parquet dataset on any storage that ObjectStoragePath reaches.

    The folder gets two datasets: ``labels/``, one row for each image and label, and ``images/``,
    one row for each image. Every batch becomes a new file in each, written whole or not at all and
    never changed, so any number of writers may work at once. Where an image was labelled more than
    once, the latest counts; ``labels()`` and ``compact()`` see to that.

    :param path: folder of the dataset, such as ``s3://aws_default@lake/labels/``. (templated)
    :param conn_id: the storage's connection, where the path names none. (templated)
    """

    path: str
    conn_id: str | None = None

    template_fields: ClassVar[Sequence[str]] = ("path", "conn_id")

    def open(self, *, to_write: bool = True) -> AbstractContextManager[OpenParquetStore]:
        """Return a context in which the store can be read and written.

        :param to_write: has no effect here: opening a dataset creates nothing.
        :raises StorageError: the storage cannot be reached.
        :raises ConfigurationError: the path or its connection cannot be used.
        """
        del to_write
        from airflow_imagetag.stores.parquet_dataset import open_dataset

        return open_dataset(self.path, self.conn_id)

    def compact(self) -> None:
        """Rewrite the dataset as few files that hold only what counts.

        Writers may go on meanwhile. A reader that takes the files as they are may see rows twice
        until the old files are gone. One compaction at a time.
        """
        with self.open() as store:
            store.compact()

    def remove(self) -> None:
        """Remove the dataset, and nothing else that the folder may hold."""
        with self.open() as store:
            store.remove()

    @property
    def asset_uri(self) -> str:
        """The folder without the connection, such as ``s3://lake/labels``."""
        if is_local(self.path):
            return Path(local_path(self.path)).absolute().as_uri()
        scheme, _, place = redact(self.path).partition("://")
        bucket, slash, folder = place.rstrip("/").partition("/")
        return f"{scheme}://{bucket.rpartition('@')[2]}{slash}{folder}"

    def serialize(self) -> dict[str, Any]:
        """Return the description as Airflow shows it."""
        return described(self)
