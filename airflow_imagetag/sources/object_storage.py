"""Private: images in a bucket or folder."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_below, is_local, local_path, storage_of
from airflow_imagetag.sources.base import ImageSource, Trust

if TYPE_CHECKING:
    from airflow_imagetag.adapters.dataset_refs import DatasetRef
    from airflow_imagetag.models import Entry, Image
    from airflow_imagetag.selection.rules import Window
    from airflow_imagetag.selection.shards import Shard
    from airflow_imagetag.sources.listing import Folder

SEND_CHOICES = ("bytes", "url")


@dataclass(repr=False)
class ObjectStorageImages(ImageSource):
    """Images below a path of any storage that ObjectStoragePath reaches, or of Tencent Cloud COS.

    All objects below the path are listed, page by page. Empty objects are reported in the
    failures; objects without the name of an image are left out, and the log gives their numbers.
    The ``image_key`` of the outputs is the object's URI without the connection; the version is its
    ETag, or its size and time of modification if the storage has none.

    :param path: a bucket or folder, such as ``s3://aws_default@photos/2026/``. A template in it
        must not render to nothing. A path ``cos://`` is for the api ``ci_detect_label``.
        (templated)
    :param conn_id: the storage's connection, if the path names none; of ``cos://`` that of the
        account, ``imagetag_default`` by default. (templated)
    :param pattern: only objects whose path below ``path`` matches; ``*`` stands for any text, also
        across folders, ``?`` for one character. None takes the suffixes of the formats that the
        service takes. (templated)
    :param send: ``bytes`` reads each object on the worker and sends its bytes; ``url`` sends a
        presigned URL, for storages that the service can reach.
    """

    path: str
    conn_id: str | None = None
    pattern: str | None = field(default=None, kw_only=True)
    send: str = field(default="bytes", kw_only=True)

    template_fields: ClassVar[Sequence[str]] = ("path", "conn_id", "pattern")

    def __post_init__(self) -> None:
        if self.send not in SEND_CHOICES:
            raise ConfigurationError(f"send must be 'bytes' or 'url', not {self.send!r}.")
        self._formats: frozenset[str] | None = None
        # As the author wrote it: a rendered template is data, and may name any folder.
        self._written = self.path

    @property
    def server_name(self) -> str:
        """The storage with its connection; all local folders count as one."""
        return "file://" if is_local(self.path) else storage_of(self.path, self.conn_id)

    def trust(self) -> Trust:
        """Return the storage, or the local folder if the author of the DAG file wrote it."""
        written = self._written
        if not is_local(self.path):
            return Trust(storages=frozenset({storage_of(self.path, self.conn_id)}))
        is_folder = is_local(written) and "{" not in written
        return Trust(folders=(local_path(written),) if is_folder else ())

    def check_trusted(self, allowed_folders: Collection[str]) -> None:
        """Check that a local path lies in an allowed folder; an object storage always passes.

        :param allowed_folders: absolute paths of folders.
        :raises ConfigurationError: the path is a folder that only data has named.
        """
        if not is_local(self.path):
            return
        path = os.path.realpath(local_path(self.path))
        if not any(is_below(path, folder) for folder in allowed_folders):
            raise ConfigurationError(
                f"{redact(self.path)} is a folder of the worker that a template has named. If that "
                "is meant, add it to the option [imagetag] allowed_local_paths."
            )

    def with_formats(self, formats: frozenset[str] | None) -> ObjectStorageImages:
        """Return the source that lists only names of these formats, unless it has a pattern."""
        bound = copy.copy(self)
        bound._formats = formats
        return bound

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Yield the images in the order of the storage's listing.

        :param shard: only the images of this part; the whole path is listed all the same.
        :param limit: has no effect here: pages are read as they are taken.
        :raises ConfigurationError: the path or its connection cannot be used.
        """
        del limit
        return self._list(shard)

    def images(self, *, limit: int | None = None, window: Window | None = None) -> Iterator[Image]:
        """Yield the objects that are images and not empty, in the order of the storage's listing.

        :param limit: has no effect here: pages are read as they are taken.
        :param window: only objects that were written in this time.
        :raises ConfigurationError: the path or its connection cannot be used, or the storage does
            not keep the time of writing.
        :raises StorageError: the storage failed.
        """
        del limit
        from airflow_imagetag.models import Image

        return (image for image in self._list(window=window) if isinstance(image, Image))

    def key_test(self) -> Callable[[str], bool]:
        """Return the test of whether an object of some key would be listed.

        :raises ConfigurationError: the path or its connection cannot be used.
        """
        from airflow_imagetag.sources.listing import key_test

        return key_test(self._folder())

    def dataset_refs(self) -> Sequence[DatasetRef]:
        """Return the path."""
        from airflow_imagetag.adapters.dataset_refs import FolderRef

        return [FolderRef(self.path)]

    def _list(self, shard: Shard | None = None, window: Window | None = None) -> Iterator[Entry]:
        from airflow_imagetag.sources.listing import list_images

        return list_images(self._folder(), shard, window)

    def _folder(self) -> Folder:
        from airflow_imagetag.backends.places import check_folder
        from airflow_imagetag.sources.listing import Folder
        from airflow_imagetag.sources.suffixes import suffixes_of

        check_folder(self.path, self._written)
        if self.pattern == "":
            raise ConfigurationError(
                "pattern is an empty text, which no object matches. Leave it out for all images."
            )
        return Folder(self.path, self.conn_id, self.pattern, suffixes_of(self._formats))
