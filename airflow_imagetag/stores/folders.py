"""Private: the common part of the stores in a folder of a storage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol
from urllib.parse import quote

from airflow_imagetag.safety.redaction import without_secrets
from airflow_imagetag.safety.uris import is_local, local_path, storage_of
from airflow_imagetag.stores.base import DEFAULT_FRAME_ROWS, LabelStore

if TYPE_CHECKING:
    from datetime import datetime

    import pandas as pd

    from airflow_imagetag.adapters.dataset_refs import DatasetRef
    from airflow_imagetag.selection.missing import HeldImage
    from airflow_imagetag.stores.files import Files
    from airflow_imagetag.stores.key_sets import KeySet
    from airflow_imagetag.stores.parquet_runs import ParquetRuns
    from airflow_imagetag.stores.stored_rows import StoredRows

_KEPT = "/!\"$&'()*+,:;<=>@[\\]^`{|}"
"""Characters of a folder's name that its asset URI has as they are."""


class FolderDataset(Protocol):
    """The rows of a store in a folder."""

    def labels(self, *, frame_rows: int, originals: bool) -> Iterator[pd.DataFrame]:
        """Yield the labels of all interfaces as frames; of each image only the latest."""
        ...

    def images_frames(self, *, frame_rows: int) -> Iterator[pd.DataFrame]:
        """Yield the images of all interfaces as frames; of each only the latest row."""
        ...

    def stored_rows(self) -> StoredRows:
        """Return all rows, also of a dataset that is not loaded."""
        ...


class FolderImages(Protocol):
    """The images of a store in a folder that can be marked and deleted."""

    def held(self) -> Iterator[list[HeldImage]]:
        """Yield the images, some at a time."""
        ...

    def mark(self, keys: KeySet, missing_since: datetime | None) -> int:
        """Set or take away ``missing_since`` of images, and return their number."""
        ...

    def delete(self, keys: KeySet) -> int:
        """Delete images and their labels, and return their number."""
        ...


@dataclass(repr=False)
class FolderLabelStore(LabelStore):
    """A store in a folder on any storage that ObjectStoragePath reaches.

    :param path: the folder. (templated)
    :param conn_id: the storage's connection, if the path names none. (templated)
    """

    path: str
    conn_id: str | None = None

    template_fields: ClassVar[Sequence[str]] = ("path", "conn_id")

    def __post_init__(self) -> None:
        # As the author of the DAG file wrote it.
        self._written = self.path

    def labels(
        self, *, frame_rows: int = DEFAULT_FRAME_ROWS, originals: bool = False
    ) -> Iterator[pd.DataFrame]:
        """Yield the labels of all interfaces as frames; of each image only the latest.

        :param frame_rows: approximate number of rows in a frame.
        :param originals: add the column ``original_label``.
        """
        with self._dataset() as dataset:
            yield from dataset.labels(frame_rows=frame_rows, originals=originals)

    def images(self, *, frame_rows: int = DEFAULT_FRAME_ROWS) -> Iterator[pd.DataFrame]:
        """Yield the images of all interfaces as frames; of each only the latest row.

        :param frame_rows: approximate number of rows in a frame.
        """
        with self._dataset() as dataset:
            yield from dataset.images_frames(frame_rows=frame_rows)

    def held(self, *, api: str | None = None) -> Iterator[list[HeldImage]]:
        """Yield the images that the store holds, some at a time.

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

        Writers may go on meanwhile. A deleted image is new if its source still has it, and is paid
        for again.

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

    @contextmanager
    def _stored_rows(self) -> Iterator[StoredRows]:
        with self._dataset(loads=False) as dataset:
            yield dataset.stored_rows()

    @abstractmethod
    def _dataset(self, *, loads: bool = True) -> AbstractContextManager[FolderDataset]:
        """Return a context in which the rows can be read.

        :param loads: read all images first, to know the latest row of each.
        """

    @abstractmethod
    def _images(self, api: str | None) -> AbstractContextManager[FolderImages]:
        """Return a context in which the images of an interface can be marked and deleted.

        :param api: the interface; None for all.
        """

    def _missing_place(self) -> str | None:
        files = self._files()
        return None if files.hold_rows() else f"dataset of labels in {files.place}"

    def runs(self, *, frame_rows: int = DEFAULT_FRAME_ROWS) -> Iterator[pd.DataFrame]:
        """Yield the runs that wrote to the store as frames, in the order of their starts.

        :param frame_rows: number of rows in a frame.
        """
        yield from self._runs().frames(frame_rows=frame_rows)

    def _runs(self) -> ParquetRuns:
        from airflow_imagetag.stores.parquet_runs import ParquetRuns

        return ParquetRuns(self._files())

    def _files(self) -> Files:
        from airflow_imagetag.backends.places import check_folder
        from airflow_imagetag.stores.files import Files

        check_folder(self.path, self._written)
        return Files(self.path, self.conn_id)

    @property
    def server_name(self) -> str:
        """The storage with its connection; all local folders count as one."""
        return "file://" if is_local(self.path) else storage_of(self.path, self.conn_id)

    def dataset_refs(self) -> Mapping[str, DatasetRef]:
        """Return the two folders."""
        from airflow_imagetag.adapters.dataset_refs import IMAGES, LABELS, FolderRef

        return {kind: FolderRef(f"{self.path.rstrip('/')}/{kind}") for kind in (LABELS, IMAGES)}

    @property
    def asset_uri(self) -> str:
        """The folder without the connection, such as ``s3://lake/labels``.

        What Airflow would read as a query or a fragment is percent-encoded, as are spaces and
        characters outside ASCII.
        """
        if is_local(self.path):
            return Path(local_path(self.path)).absolute().as_uri()
        scheme, _, place = without_secrets(self.path).partition("://")
        bucket, _, folder = place.partition("/")
        name = quote(folder.rstrip("/"), safe=_KEPT)
        return f"{scheme}://{bucket.rpartition('@')[2]}/{name}"
