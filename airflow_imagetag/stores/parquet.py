"""Private: labels in Parquet files on any storage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_imagetag.stores.base import DEFAULT_FRAME_ROWS, StoreMode
from airflow_imagetag.stores.folders import FolderLabelStore

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from airflow_imagetag.selection.missing import HeldImage
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
    ``compact()`` keep only its latest rows.

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

    def labels(
        self, *, frame_rows: int = DEFAULT_FRAME_ROWS, originals: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield the labels of all interfaces as frames; of each image only the latest.

        :param frame_rows: approximate number of rows in a frame.
        :param originals: add the column ``original_label``.
        :raises StoreError: the dataset was compacted meanwhile.
        """
        with self._dataset() as dataset:
            yield from dataset.labels(frame_rows=frame_rows, originals=originals)

    def held(self, *, api: str | None = None) -> Iterator[list[HeldImage]]:
        """Yield the images that the dataset holds, some at a time.

        :param api: only those of this interface; None for all.
        :raises StoreError: the storage failed, or the dataset was compacted meanwhile.
        """
        with self._images(api) as images:
            yield from images.held()

    def mark(
        self, keys: Iterable[str], *, missing_since: datetime | None, api: str | None = None
    ) -> int:
        """Set or take away ``missing_since`` of images; their labels stay.

        :param keys: keys of images; those that the store does not hold are left out.
        :param missing_since: the time, with a zone; None takes the mark away.
        :param api: only images of this interface; None for all.
        :return: the number of images that were changed.
        :raises StoreError: the storage failed, or the dataset was compacted meanwhile.
        """
        from airflow_imagetag.stores.key_sets import key_set

        with key_set(keys) as digests, self._images(api) as images:
            return images.mark(digests, missing_since)

    def delete(self, keys: Iterable[str], *, api: str | None = None) -> int:
        """Delete the rows of images and of their labels, and copies of them in checkpoints.

        Files that hold such a row are replaced by one without it. Writers may go on meanwhile; run
        one deletion or compaction at a time. A deleted image is new if its source still has it,
        and is paid for again.

        :param keys: keys of images; those that the store does not hold are left out.
        :param api: only images of this interface; None for all.
        :return: the number of deleted images; one that several interfaces have labelled counts for
            each.
        :raises StoreError: the storage failed, or the dataset was compacted meanwhile.
        """
        from airflow_imagetag.stores.checkpoints import delete_from_checkpoints
        from airflow_imagetag.stores.key_sets import key_set

        with key_set(keys) as digests:
            with self._images(api) as images:
                deleted = images.delete(digests)
            delete_from_checkpoints(digests, api)
        return deleted

    def images(self, *, frame_rows: int = DEFAULT_FRAME_ROWS) -> Iterator[pd.DataFrame]:
        """Yield the images of all interfaces as frames; of each only the latest row.

        :param frame_rows: approximate number of rows in a frame.
        :raises StoreError: the dataset was compacted meanwhile.
        """
        with self._dataset() as dataset:
            yield from dataset.images_frames(frame_rows=frame_rows)

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

    def _dataset(self) -> AbstractContextManager[ParquetDataset]:
        from airflow_imagetag.backends.places import check_folder
        from airflow_imagetag.stores.parquet_dataset import open_dataset

        check_folder(self.path, self._written)
        return open_dataset(self.path, self.conn_id)
