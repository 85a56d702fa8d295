"""Private: labels in Delta tables on any storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_imagetag.stores.base import StoreMode
from airflow_imagetag.stores.folders import FolderLabelStore

if TYPE_CHECKING:
    from airflow_imagetag.stores.delta_dataset import DeltaDataset
    from airflow_imagetag.stores.delta_open import OpenDeltaStore
    from airflow_imagetag.stores.delta_removal import DeltaRemoval


@dataclass(repr=False)
class DeltaLabelStore(FolderLabelStore):
    """Labels in Delta tables, which Databricks, Snowflake, Trino, DuckDB and others read as tables.

    The folder gets two Delta tables: ``labels/``, one row for each image and label, and
    ``images/``, one row for each image. Each batch is a commit in each; rows of an image that was
    labelled before are replaced. Any number of writers may work at once. The runs are Parquet files
    in ``runs/``. Frames show the tables as they were at the first one, also while others write. Old
    versions of the tables have deleted rows until a compaction after a week. It needs the extra
    ``delta``.

    :param path: folder of the two tables, such as ``s3://aws_default@lake/labels/``. (templated)
    :param conn_id: the storage's connection, if the path names none. (templated)
    """

    def open(
        self, api: str, mode: StoreMode = StoreMode.WRITE
    ) -> AbstractContextManager[OpenDeltaStore]:
        """Return a context in which the labels of one interface can be read and written.

        :param api: the interface that labels the images.
        :param mode: in write mode, the tables are created if they do not exist.
        :raises StorageError: the storage cannot be reached.
        :raises ConfigurationError: the path, its connection or the extra ``delta`` cannot be used,
            or the folder holds other tables.
        """
        from airflow_imagetag.backends.places import check_folder
        from airflow_imagetag.stores.delta_open import open_delta_store

        check_folder(self.path, self._written)
        return open_delta_store(self.path, self.conn_id, api, mode)

    def compact(self) -> None:
        """Rewrite the tables as few files, and remove the files that no version of a week needs.

        Rows that a killed writer has left are removed, too. Readers and writers may go on
        meanwhile, and time travel reaches back a week.
        """
        with self._dataset() as dataset:
            dataset.compact()
        self._runs().compact()

    @contextmanager
    def _images(self, api: str | None) -> Iterator[DeltaRemoval]:
        from airflow_imagetag.stores.delta_removal import DeltaRemoval

        with self._dataset() as dataset:
            yield DeltaRemoval(dataset, api)

    def _dataset(self, *, loads: bool = True) -> AbstractContextManager[DeltaDataset]:
        from airflow_imagetag.backends.places import check_folder
        from airflow_imagetag.stores.delta_dataset import open_dataset

        check_folder(self.path, self._written)
        return open_dataset(self.path, self.conn_id, loads=loads)
