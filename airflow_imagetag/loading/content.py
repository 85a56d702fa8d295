"""Load one image: its URL for the service, or its bytes from a storage, with their digest."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_imagetag.backends.connection_policy import (
    MAX_CONNECTION_AGE,
    ConnectionPolicy,
    connection_in,
)
from airflow_imagetag.backends.places import Place, place_of, presigned_url, read_start
from airflow_imagetag.backends.storage_faults import Fault, diagnose, storage_failure
from airflow_imagetag.errors import (
    ConfigurationError,
    ImageEmptyError,
    ImageNotAllowedError,
    ImageStorageError,
    ImageTagError,
    ImageTooLargeError,
    ImageUnreadableError,
    InvalidImageError,
    StorageAccessError,
    StorageError,
)
from airflow_imagetag.models import Image
from airflow_imagetag.runtime import digests
from airflow_imagetag.safety.addresses import is_link_local, names_private_host
from airflow_imagetag.safety.local_files import (
    NoRegularFileError,
    OutsideFoldersError,
    open_local,
)
from airflow_imagetag.safety.redaction import has_password, redact, redact_text
from airflow_imagetag.safety.uris import (
    BLANKS,
    LOCAL_SCHEMES,
    MAX_NAME_CHARACTERS,
    STORAGE_SCHEMES,
    is_data,
    is_http,
    is_local,
    local_path,
    name_fault,
    scheme_of,
    split_object,
)
from airflow_imagetag.services.messages import Payload

if TYPE_CHECKING:
    from airflow_imagetag.loading.download import Downloader

PRESIGNED_SECONDS = 3600
"""Lifetime of a presigned URL: longer than the image waits, retries included."""

MAX_IMAGE_BYTES = 20 * 1024 * 1024
"""Maximum size of an image that is read. No interface of the service takes one near this."""

MAX_LARGE_IMAGE_BYTES = 64 * 1024 * 1024
"""The same where images are downscaled before they are sent: a raw scan, a large PNG."""

MAX_INLINE_SHA256_BYTES = 128 * 1024
"""Maximum size of bytes whose SHA-256 takes less time than a thread needs to take over."""

MAX_INLINE_KEYED_HASH_BYTES = 1024 * 1024
"""The same for the keyed hash, which is faster."""


class ContentLoader:
    """Load images under the rules of trust.

    An http(s) URL is handed to the service, or downloaded by the worker if there is a downloader.
    An object-storage URI is read through Airflow's ObjectStoragePath. A local file is read only
    inside an allowed folder, or if the DAG's author wrote its path literally.

    :param allowed_folders: absolute paths of folders.
    :param literal_paths: paths or file URIs that the DAG's author wrote.
    :param presign: hand object-storage images to the service as presigned URLs.
    :param downloader: downloads http(s) URLs in the worker; None hands them to the service. The
        labeller that uses the loader closes it.
    :param max_bytes: maximum size of an image that is read.
    :param service_url: URL of the service. A service in the internet is given no URL of a private
        address, since it cannot fetch it. None for a service that may be in the same network.
    :param needs_sha256: whether the digests are stored, and so compared with those of other runs.
    :param storages: scheme, connection and bucket of the storages that the DAG's author named, such
        as ``s3://my_s3@photos``.
    :param connections: those that data may use in the other storages.
    :param object_key: returns the name under which the service itself reads the image behind a
        URI, or None; raises ``ImageError`` if the service labels no image of this URI. None for a
        service that reads no storage.
    :raises ConfigurationError: a folder is not an absolute path.
    """

    def __init__(
        self,
        allowed_folders: Iterable[str] = (),
        literal_paths: Collection[str] = (),
        *,
        presign: bool = False,
        downloader: Downloader | None = None,
        max_bytes: int = MAX_IMAGE_BYTES,
        service_url: str | None = None,
        needs_sha256: bool = True,
        storages: Collection[str] = (),
        connections: ConnectionPolicy | None = None,
        object_key: Callable[[str], str | None] | None = None,
    ) -> None:
        self._object_key = object_key
        self._storages = storages
        self._connections = connections or ConnectionPolicy()
        self._digest = digests.sha256 if needs_sha256 else digests.keyed_hasher()
        self._max_inline_bytes = (
            MAX_INLINE_SHA256_BYTES if needs_sha256 else MAX_INLINE_KEYED_HASH_BYTES
        )
        self._folders = [os.path.realpath(_absolute(folder)) for folder in allowed_folders]
        self._literal_paths = literal_paths
        self._presign = presign
        self.downloader = downloader
        self._max_bytes = max_bytes
        self._may_reach_private = service_url is None or names_private_host(service_url)

    def loads_bytes(self, image: Image) -> bool:
        """Tell whether the bytes of the image are loaded by the worker."""
        uri = image.uri
        if image.content is not None or uri is None:
            return False
        if is_http(uri):
            return self.downloader is not None
        return not self._presign or is_local(uri)

    def needs_io(self, image: Image) -> bool:
        """Tell whether loading the image downloads or reads it, or is left to a thread."""
        is_downloaded = self.downloader is not None and image.content is None
        return (is_downloaded and is_http(image.uri or "")) or not self._is_inline(image)

    async def fetch(self, image: Image) -> Image:
        """Download the image and return it with its bytes, if that is the worker's task.

        :return: the same image if it has bytes, is not behind an http(s) URL, or if the service
            downloads it.
        :raises ImageError: the URL names no image that may be downloaded.
        :raises StorageError: the server or the network failed.
        """
        if self.downloader is None or image.content is not None or not is_http(image.uri or ""):
            return image
        _check_name(image)
        try:
            content = await self.downloader.download(image.uri or "")
        except ImageTagError:
            raise
        # An error that was not foreseen is this image's: one row must not end a run.
        except Exception as error:
            raise _unforeseen(error, image.uri) from None
        return replace(image, content=content)

    def inline(self, image: Image) -> Payload | None:
        """Return the payload of a URL or of a few bytes; None if ``load`` would block.

        :raises ImageError: the image has neither a URI nor bytes, or its URL is not allowed.
        """
        return self.load(image) if self._is_inline(image) else None

    def _is_inline(self, image: Image) -> bool:
        if image.content is not None:
            return len(image.content) <= self._max_inline_bytes
        return image.uri is None or is_http(image.uri) or self._is_object(image.uri)

    def _is_object(self, uri: str) -> bool:
        return self._object_key is not None and self._object_key(uri) is not None

    def load(self, image: Image) -> Payload:
        """Return the payload of the image; blocks while it reads or computes a digest.

        An http(s) URL is the payload: ``fetch`` goes first where the worker downloads.

        :raises ImageError: the image names nothing that may be read.
        :raises StorageError: the storage failed.
        :raises ConfigurationError: the storage cannot make presigned URLs, or the worker cannot use
            a storage that the DAG's author named.
        """
        try:
            _check_name(image)
            content = image.content
            if content is None:
                return self._load(image.uri)
            return Payload(None, content, self._digest(content))
        except ImageTagError:
            raise
        # An error that was not foreseen is this image's: one row must not end a run.
        except Exception as error:
            raise _unforeseen(error, image.uri) from None

    def _load(self, uri: str | None) -> Payload:
        if uri is None:
            raise InvalidImageError("The image has neither a URI nor bytes. Give it one of them.")
        if self._object_key is not None and (key := self._object_key(uri)) is not None:
            return Payload(object_key=key)
        if is_http(uri):
            return self._url(uri)
        if self._presign and not is_local(uri):
            return Payload(url=self._presigned(uri))
        content = self._local(uri) if is_local(uri) else self._stored(uri)
        if not content:
            raise ImageEmptyError(f"{redact(uri)} is empty: it has zero bytes. Replace the image.")
        return Payload(None, content, self._digest(content))

    def _url(self, url: str) -> Payload:
        if is_link_local(url) or (not self._may_reach_private and names_private_host(url)):
            raise ImageNotAllowedError(
                f"{redact(url)} is an address of a private network: the service is not asked to "
                "fetch it. To have the worker send the image, use fetch='worker' and the option "
                "[imagetag] allowed_private_hosts."
            )
        return Payload(url=url)

    def _local(self, uri: str) -> bytes:
        if is_data(uri) or scheme_of(uri.lstrip(BLANKS)) not in LOCAL_SCHEMES:
            raise InvalidImageError(
                f"{redact(uri)!r} is no path of a file: it holds the bytes themselves, or begins "
                "with white space."
            )
        folders = None if uri in self._literal_paths else self._folders
        try:
            with open_local(local_path(uri), folders) as file:
                # ``read`` allocates as many bytes as it is asked for. A size of zero may be wrong,
                # as in /proc.
                found = os.fstat(file.fileno()).st_size
                size = min(found or self._max_bytes, self._max_bytes)
                return self._within_limit(file.read(size + 1), uri)
        except OutsideFoldersError:
            raise ImageNotAllowedError(
                f"{redact(uri)} is a file of the worker, outside the folders that images from data "
                "may be read from. To allow it, add its folder to the option "
                "[imagetag] allowed_local_paths; an image that a store has as failed since is "
                "labelled again by an operator with retry_failed=True and no sensor before it."
            ) from None
        except NoRegularFileError:
            raise ImageUnreadableError(f"{redact(uri)} is not a regular file.") from None
        except ValueError:
            # A zero byte, or half of a surrogate pair.
            raise ImageUnreadableError(f"{redact(uri)} is not a valid file name.") from None
        except OSError as error:
            problem = f"{redact(uri)} cannot be read: {error.strerror or type(error).__name__}."
            match diagnose(error).fault:
                case Fault.MOMENT:
                    raise StorageError(problem) from None
                case Fault.WORKER:
                    # Its disk, or its number of open files.
                    raise StorageAccessError(problem) from None
                case _:
                    raise ImageUnreadableError(problem) from None

    def _stored(self, uri: str) -> bytes:
        place = self._object(uri)
        with self._storage_errors(uri):
            return self._within_limit(read_start(place, self._max_bytes + 1), uri)

    def _presigned(self, uri: str) -> str:
        place = self._object(uri)
        with self._storage_errors(uri):
            try:
                return presigned_url(place, PRESIGNED_SECONDS)
            except NotImplementedError as error:
                reason = f" ({redact_text(str(error))[:200]})" if str(error) else ""
                raise ConfigurationError(
                    f"The storage of {redact(uri)} cannot make presigned URLs{reason}. Use "
                    "send='bytes', or give its connection credentials that can sign."
                ) from None

    def _object(self, uri: str) -> Place:
        """Return the place of an object."""
        scheme = scheme_of(uri)
        if scheme not in STORAGE_SCHEMES:
            raise InvalidImageError(
                f"{redact(uri)} has the scheme {scheme!r}, which names no image here: use http(s), "
                "a local path, or an object storage such as s3, gs or abfs."
            )
        if has_password(uri):
            raise ImageNotAllowedError(
                f"{redact(uri)} names a user with a password, which no storage is read with. Name "
                "an Airflow connection, such as s3://my_s3@bucket/name."
            )
        storage, _, name = split_object(uri)
        if not name:
            raise ImageUnreadableError(f"{redact(uri)} names a bucket. Name an object in it.")
        try:
            conn_id = None if storage in self._storages else self._connections.check(uri)
            return place_of(uri, conn_id, max_age=MAX_CONNECTION_AGE)
        except ConfigurationError as error:
            raise self._access_error(uri, error.message, type(error).__name__) from None

    def _access_error(self, uri: str, message: str, reason: str) -> ImageTagError:
        """Return the error of a storage that the worker cannot use.

        The one that the DAG's author named ends the run; one that only data named does not.
        """
        storage = split_object(uri)[0]
        is_named_by_author = storage in self._storages or uri in self._literal_paths
        if is_named_by_author or self._connections.only is not None:
            return StorageAccessError(message)
        return ImageStorageError(message, cause=f"{_shown_storage(uri)}: {reason}")

    @contextmanager
    def _storage_errors(self, uri: str) -> Iterator[None]:
        """Map the errors of a storage's library to ours."""
        try:
            yield
        except ImageTagError:
            raise
        # Each library has its own errors.
        except Exception as error:
            raise self._storage_error(error, uri) from None

    def _storage_error(self, error: Exception, uri: str) -> ImageTagError:
        found = diagnose(error)
        match found.fault:
            case Fault.MOMENT:
                return storage_failure(error, f"{redact(uri)} cannot be read")
            case Fault.WORKER:
                message = (
                    f"{redact(uri)} cannot be read: the worker cannot use the storage "
                    f"({found.reason}: {redact_text(str(error))[:300]}). Check the storage's "
                    "connection and its credentials."
                )
                return self._access_error(uri, message, found.reason)
            case Fault.REFUSED:
                return ImageUnreadableError(
                    f"{redact(uri)}: the storage refuses to read it ({found.reason}).",
                    cause=f"{_shown_storage(uri)}: {found.reason}",
                )
        if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
            return ImageUnreadableError(f"{redact(uri)} does not exist.")
        return ImageUnreadableError(
            f"{redact(uri)} cannot be read ({found.reason}): {redact_text(str(error))[:300]}"
        )

    def _within_limit(self, content: bytes, uri: str) -> bytes:
        if len(content) > self._max_bytes:
            raise ImageTooLargeError(
                f"{redact(uri)} is larger than {self._max_bytes // 1024 // 1024} MB, the most that "
                "is read: no interface of the service takes it. Make the image smaller."
            )
        return content


def _check_name(image: Image) -> None:
    """Check the lengths of an image's texts: a source of another package may not have."""
    for text in (image.key, image.uri, image.version):
        if text is not None and len(text) > MAX_NAME_CHARACTERS:
            raise InvalidImageError(name_fault(image.key, image.uri, image.version) or "")


def _absolute(folder: str) -> str:
    if not Path(folder).is_absolute():
        raise ConfigurationError(
            f"[imagetag] allowed_local_paths holds {folder!r}, which is not an absolute path."
        )
    return folder


def _shown_storage(uri: str) -> str:
    """Return the connection that a URI names, or its storage, for a message."""
    conn_id = connection_in(uri)
    return redact(split_object(uri)[0]) if conn_id is None else f"connection {conn_id!r}"


def _unforeseen(error: Exception, uri: str | None) -> ImageUnreadableError:
    reason = f"{type(error).__name__}: {redact_text(str(error))[:300]}"
    return ImageUnreadableError(f"{redact(uri or 'The image')} cannot be read: {reason}")
