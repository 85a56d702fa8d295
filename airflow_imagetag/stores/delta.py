"""Private: labels in Delta tables on any storage."""

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
    from airflow_imagetag.stores.delta_dataset import DeltaDataset
    from airflow_imagetag.stores.delta_open import OpenDeltaStore
    from airflow_imagetag.stores.delta_removal import DeltaRemoval


@dataclass(repr=False)
class DeltaLabelStore(FolderLabelStore):
    """Labels in Delta tables, which Databricks, Snowflake, Trino, DuckDB and others read as tables.

    The folder gets two Delta tables: ``labels/``, one row for each image and label, and
    ``images/``, one row for each image. Each batch is a commit in each; rows of an image that was
    labelled before are replaced. Any number of writers may work at once. The runs are Parquet files
    in ``runs/``. It needs the extra ``delta``.

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

    def labels(
        self, *, frame_rows: int = DEFAULT_FRAME_ROWS, originals: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield the labels of all interfaces as frames; of each image only the latest.

        The frames show the tables as they were at the first one, also while others write.

        :param frame_rows: approximate number of rows in a frame.
        :param originals: add the column ``original_label``.
        """
        with self._dataset() as dataset:
            yield from dataset.labels(frame_rows=frame_rows, originals=originals)

    def held(self, *, api: str | None = None) -> Iterator[list[HeldImage]]:
        """Yield the images that the tables hold, some at a time.

        :param api: only those of this interface; None for all.
        :raises StoreError: the storage failed.
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
        :raises StoreError: the storage failed.
        """
        from airflow_imagetag.stores.key_sets import key_set

        with key_set(keys) as digests, self._images(api) as images:
            return images.mark(digests, missing_since)

    def delete(self, keys: Iterable[str], *, api: str | None = None) -> int:
        """Delete the rows of images and of their labels, and copies of them in checkpoints.

        Writers may go on meanwhile. Old versions of the tables have the rows until a compaction
        after a week. A deleted image is new if its source still has it, and is paid for again.

        :param keys: keys of images; those that the store does not hold are left out.
        :param api: only images of this interface; None for all.
        :return: the number of deleted images; one that several interfaces have labelled counts for
            each.
        :raises StoreError: the storage failed.
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
        """
        with self._dataset() as dataset:
            yield from dataset.images_frames(frame_rows=frame_rows)

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

    def _dataset(self) -> AbstractContextManager[DeltaDataset]:
        from airflow_imagetag.backends.places import check_folder
        from airflow_imagetag.stores.delta_dataset import open_dataset

        check_folder(self.path, self._written)
        return open_dataset(self.path, self.conn_id)
