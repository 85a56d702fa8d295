"""Private: labels in Parquet files on any storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_imagetag.stores.base import StoreMode
from airflow_imagetag.stores.folders import FolderLabelStore

if TYPE_CHECKING:
    from airflow_imagetag.stores.parquet_dataset import ParquetDataset
    from airflow_imagetag.stores.parquet_open import OpenParquetStore
    from airflow_imagetag.stores.parquet_removal import ParquetRemoval


@dataclass(repr=False)
class ParquetLabelStore(FolderLabelStore):
    """Labels in a Parquet dataset on any storage that ObjectStoragePath reaches.

    The folder gets three datasets: ``labels/``, one row for each image and label, ``images/``,
    one row for each image, and ``runs/``, one row for each try of a task. Every batch becomes a new
    file of labels and one of images, written whole or not at all and never changed, so any number
    of writers may work at once. If an image was labelled more than once, ``labels()`` and
    ``compact()`` keep only its latest rows. ``delete()`` replaces the files that hold a row of an
    image: run one deletion or compaction at a time. A dataset that is compacted while it is read is
    a ``StoreError``.

    :param path: folder of the dataset, such as ``s3://aws_default@lake/labels/``. (templated)
    :param conn_id: the storage's connection, if the path names none. (templated)
    """

    def open(
        self, api: str, mode: StoreMode = StoreMode.WRITE
    ) -> AbstractContextManager[OpenParquetStore]:
        """Return a context in which the labels of one interface can be read and written.

        :param api: the interface that labels the images.
        :param mode: has no effect here: opening a dataset creates nothing.
        :raises StorageError: the storage cannot be reached.
        :raises ConfigurationError: the path or its connection cannot be used.
        """
        del mode
        from airflow_imagetag.backends.places import check_folder
        from airflow_imagetag.stores.parquet_open import open_parquet_store

        check_folder(self.path, self._written)
        return open_parquet_store(self.path, self.conn_id, api)

    def compact(self) -> None:
        """Rewrite the dataset as few files that hold only the latest rows of each image.

        Writers may go on meanwhile. A reader that takes the files as they are may see rows twice
        until the old files are gone. Run one compaction at a time.
        """
        with self._dataset() as dataset:
            dataset.compact()
        self._runs().compact()

    def remove(self) -> None:
        """Remove the dataset, and nothing else that the folder may hold."""
        with self._dataset() as dataset:
            dataset.remove()
        self._runs().remove()

    @contextmanager
    def _images(self, api: str | None) -> Iterator[ParquetRemoval]:
        from airflow_imagetag.stores.parquet_removal import ParquetRemoval

        with self._dataset() as dataset:
            yield ParquetRemoval(dataset, api)

    def _dataset(self, *, loads: bool = True) -> AbstractContextManager[ParquetDataset]:
        from airflow_imagetag.backends.places import check_folder
        from airflow_imagetag.stores.parquet_dataset import open_dataset

        check_folder(self.path, self._written)
        return open_dataset(self.path, self.conn_id, loads=loads)
