"""Private: the contract of a source of images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.descriptions import Description
from airflow_imagetag.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_imagetag.adapters.dataset_refs import DatasetRef
    from airflow_imagetag.models import Entry, Image
    from airflow_imagetag.selection.difference import PushDown
    from airflow_imagetag.selection.rules import Window
    from airflow_imagetag.selection.shards import Shard

__all__ = ["ImageSource", "PushDown", "Trust"]

DEFAULT_KEY_COLUMN = "image_key"
DEFAULT_URI_COLUMN = "image_uri"


def __getattr__(name: str) -> Any:
    # An import path that is kept; the parsing of a DAG file needs no push-down.
    if name != "PushDown":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("airflow_imagetag.selection.difference").PushDown


@dataclass(frozen=True, slots=True)
class Trust:
    """The places that the author of the DAG file has named.

    Every other local path counts as data and must lie inside ``[imagetag] allowed_local_paths``.
    Every other storage counts as data: its connection must be one of the storage's own type, and
    if it cannot be used, only its images fail.

    :param paths: paths or file URIs of single images.
    :param folders: absolute paths of folders.
    :param storages: scheme, connection and bucket of object storages, such as
        ``s3://my_s3@photos``.
    """

    paths: frozenset[str] = frozenset()
    folders: tuple[str, ...] = ()
    storages: frozenset[str] = frozenset()


class ImageSource(Description):
    """Where images are. A source is a description: it reads nothing until a task runs.

    Only ``entries`` must be implemented. The other members have defaults that offer nothing; a
    source overrides them to offer a total, a window of time, trusted files or a push-down.
    """

    send: str = "bytes"
    """``bytes`` sends the bytes of an object in a storage, ``url`` a presigned URL of it."""

    @property
    def is_in_memory(self) -> bool:
        """Whether ``entries`` yields each image within microseconds, without reading or hashing.

        Such a source is read in the event loop, without a thread.
        """
        return False

    @abstractmethod
    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Yield the entries, reading page by page.

        :param shard: yield only images for whose key ``shard.holds(key)`` is true. Other images
            would be labelled, and paid for, by several tasks.
        :param limit: maximum number of images that the caller takes; a source may ignore it.
        :raises ConfigurationError: the connection or a parameter is wrong.
        """

    def images(self, *, limit: int | None = None, window: Window | None = None) -> Iterator[Image]:
        """Yield only the images that can be labelled, without their bytes where that saves work.

        :param limit: maximum number of images that the caller takes.
        :param window: only images that changed in this time.
        :raises ConfigurationError: the source does not know when an image changed, or a parameter
            is wrong.
        :raises StorageError: the source cannot be reached at the moment; a sensor queries again.
        """
        if window is not None:
            raise ConfigurationError(
                f"{type(self).__name__} does not know when an image changed, so modified_after and "
                "settle_seconds cannot be used with it."
            )
        from airflow_imagetag.models import Image

        return (entry for entry in self.entries(limit=limit) if isinstance(entry, Image))

    def keys(self) -> Iterator[str]:
        """Yield the keys of all entries, also of those that cannot be labelled.

        The default reads the entries; a source overrides it to read less.

        :raises ConfigurationError: the connection or a parameter is wrong.
        :raises StorageError: the source cannot be reached.
        """
        return (entry.key for entry in self.entries() if entry.key)

    def key_test(self) -> Callable[[str], bool]:
        """Return the test of whether an image of some key may belong to the source.

        An image that a store holds and the source does not is left alone if it may not. The default
        takes every key for one of the source.

        :raises ConfigurationError: the connection or a parameter is wrong.
        """
        return _any_key

    def dataset_refs(self) -> Sequence[DatasetRef]:
        """Return the places of the images for lineage; none if they are not known."""
        return ()

    def count(self) -> int | None:
        """Return the number of entries for progress and size checks; None if counting is costly."""
        return None

    def trust(self) -> Trust:
        """Return the places that the author of the DAG file has named."""
        return Trust()

    def check_trusted(self, allowed_folders: Collection[str]) -> None:
        """Check that the place itself may be read; a single image is checked when it is read.

        :param allowed_folders: absolute paths of folders of the worker.
        :raises ConfigurationError: the source names a local place outside these folders.
        """

    @property
    def push_down(self) -> PushDown | None:
        """Reader that lets the source's database select the new images; None for no database."""
        return None

    def with_columns(self, key_column: str, uri_column: str) -> ImageSource:
        """Return the source that reads keys and URIs from these columns.

        The default returns the source itself: its own parameters name its columns.
        """
        del key_column, uri_column
        return self

    def with_formats(self, formats: frozenset[str] | None) -> ImageSource:
        """Return the source that leaves out images whose names tell of another format.

        The default returns the source itself: it gives images of any name.

        :param formats: those that the service takes, as Pillow names them; None for all.
        """
        del formats
        return self

    def shards(self, count: int) -> list[str]:
        """Return the names of ``count`` disjoint parts, for ``.expand(shard=source.shards(n))``.

        :raises ConfigurationError: ``count`` is below 1.
        """
        from airflow_imagetag.selection.shards import shard_names

        return shard_names(count)


def _any_key(key: str) -> bool:
    del key
    return True
