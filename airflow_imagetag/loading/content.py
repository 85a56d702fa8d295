"""What the service is given of an image: its URL, or bytes read from storage."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_imagetag.backends.storages import storage_failure, storage_path
from airflow_imagetag.errors import (
    ConfigurationError,
    ImageEmptyError,
    ImageNotAllowedError,
    ImageTagError,
    ImageTooLargeError,
    ImageUnreadableError,
    InvalidImageError,
)
from airflow_imagetag.models import Image
from airflow_imagetag.runtime import digests
from airflow_imagetag.safety.addresses import is_link_local, names_private_host
from airflow_imagetag.safety.uris import (
    is_below,
    is_http,
    is_local,
    local_path,
    redact,
    redact_text,
    scheme_of,
)
from airflow_imagetag.services.messages import Payload

if TYPE_CHECKING:
    from typing import BinaryIO

STORAGE_SCHEMES = frozenset(
    {"s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl", "wasb", "wasbs"}
    | {"oss", "cos", "cosn", "oci", "hdfs", "webhdfs"}
)
"""Schemes that ObjectStoragePath may be asked for.

A list of what is allowed, since fsspec knows many more, and some of them (``simplecache::file``,
``zip``, ``ftp``) would reach the worker's disk or network behind the rules below.
"""

PRESIGNED_SECONDS = 3600
"""How long a presigned URL lives: longer than the image waits, retries included."""

MAX_IMAGE_BYTES = 20 * 1024 * 1024
"""No interface of the service takes an image anywhere near this; more is not read into memory."""

QUICK_SHA256_BYTES = 128 * 1024
"""Up to this size, the digest takes less time than handing the bytes to a thread."""

QUICK_FINGERPRINT_BYTES = 1024 * 1024
"""The same, of what is made faster."""

MAX_LARGE_IMAGE_BYTES = 64 * 1024 * 1024
"""Read where an image is made smaller before it is sent: a raw scan, a large PNG."""


class ContentLoader:
    """Reads images for the service under the rules of trust.

    An http(s) URL is handed to the service and never fetched here. An object-storage URI is read
    through Airflow's ObjectStoragePath. A local file is read only if it lies inside an allowed
    folder, or if the DAG's author wrote its path literally.

    :param allowed_folders: absolute paths of folders.
    :param literal_paths: paths or file URIs that the DAG's author wrote.
    :param presign: hand object-storage images to the service as presigned URLs.
    :param fetch: downloads an http(s) URL on the worker; None leaves that to the service.
    :param max_bytes: a larger image is not read.
    :param may_reach_private: whether the service can be in the same private network as an image;
        False refuses URLs of private addresses, which a service in the internet cannot fetch.
    :param needs_sha256: whether somebody keeps the digests, so that they must be those of others.
    :raises ConfigurationError: a folder is not an absolute path.
    """

    def __init__(
        self,
        allowed_folders: Iterable[str] = (),
        literal_paths: Collection[str] = (),
        *,
        presign: bool = False,
        fetch: Callable[[str], bytes] | None = None,
        max_bytes: int = MAX_IMAGE_BYTES,
        may_reach_private: bool = True,
        needs_sha256: bool = True,
    ) -> None:
        self._digest = digests.sha256 if needs_sha256 else digests.keyed_hasher()
        self._quick_bytes = QUICK_SHA256_BYTES if needs_sha256 else QUICK_FINGERPRINT_BYTES
        self._folders = [os.path.realpath(_absolute(folder)) for folder in allowed_folders]
        self._literal_paths = literal_paths
        self._presign = presign
        self._fetch = fetch
        self._max_bytes = max_bytes
        self._may_reach_private = may_reach_private

    def is_quick(self, image: Image) -> bool:
        """Tell whether ``payload`` takes next to no time, so that it needs no thread."""
        if image.content is not None:
            return len(image.content) < self._quick_bytes
        return self._fetch is None and image.uri is not None and is_http(image.uri)

    def payload(self, image: Image) -> Payload:
        """Return what to send of the image; blocks while it reads.

        :raises ImageError: the image names nothing that may be read.
        :raises StorageError: the storage failed.
        :raises ConfigurationError: the storage's connection or package is missing.
        """
        if image.content is not None:
            return self._payload(image.content)
        if image.uri is None:
            raise InvalidImageError("The image has neither a URI nor bytes.")
        if is_http(image.uri):
            return self._web(image.uri)
        if self._presign and not is_local(image.uri):
            return Payload(url=_presigned(image.uri))
        content = self._local(image.uri) if is_local(image.uri) else self._stored(image.uri)
        if not content:
            raise ImageEmptyError(f"{redact(image.uri)} is empty: it has zero bytes.")
        return self._payload(content)

    def _web(self, url: str) -> Payload:
        if self._fetch is not None:
            content = self._fetch(url)
            if not content:
                raise ImageEmptyError(f"{redact(url)} is empty: it has zero bytes.")
            return self._payload(content)
        if is_link_local(url) or (not self._may_reach_private and names_private_host(url)):
            raise ImageNotAllowedError(
                f"{redact(url)} is an address of a private network: the service is not asked to "
                "fetch it. To have the worker send the image, use fetch='worker' and the option "
                "[imagetag] allowed_private_hosts."
            )
        return Payload(url=url)

    def _local(self, uri: str) -> bytes:
        try:
            path = os.path.realpath(local_path(uri))
        except ValueError:
            # A zero byte, or half of a character.
            raise ImageUnreadableError(f"{redact(uri)} is no name that a file can have.") from None
        inside = any(is_below(path, folder) for folder in self._folders)
        if not inside and uri not in self._literal_paths:
            raise ImageNotAllowedError(
                f"{redact(uri)} is a file of the worker, outside the folders that images from data "
                "may be read from. If that is meant, add its folder to the option "
                "[imagetag] allowed_local_paths; an image that a store has as failed since is "
                "labelled again by an operator with retry_failed=True and no sensor before it."
            )
        try:
            # O_NONBLOCK: opening a named pipe must not wait for its writer.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ImageUnreadableError(f"{redact(uri)} is not a regular file.")
                return self._limited(file, uri)
        except OSError as error:
            raise ImageUnreadableError(
                f"{redact(uri)} cannot be read: {error.strerror or type(error).__name__}."
            ) from None

    def _stored(self, uri: str) -> bytes:
        file_system, path = _object(uri)
        with _storage_errors(uri), file_system.open(path, "rb") as file:
            return self._limited(file, uri)

    def _limited(self, file: BinaryIO, uri: str) -> bytes:
        content = file.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            raise ImageTooLargeError(
                f"{redact(uri)} is larger than {self._max_bytes // 1024 // 1024} MB: so much is "
                "not read, and no interface of the service takes it."
            )
        return content

    def _payload(self, content: bytes) -> Payload:
        return Payload(content=content, digest=self._digest(content))


def _absolute(folder: str) -> str:
    if not Path(folder).is_absolute():
        raise ConfigurationError(
            f"[imagetag] allowed_local_paths holds {folder!r}, which is not an absolute path."
        )
    return folder


def _object(uri: str) -> tuple[Any, str]:
    """Return the file system of an object, and its path there."""
    scheme = scheme_of(uri)
    if scheme not in STORAGE_SCHEMES:
        raise InvalidImageError(
            f"{redact(uri)} has the scheme {scheme!r}, which names no image here: use http(s), a "
            "local path, or an object storage such as s3, gs or abfs."
        )
    # Only the bucket goes through the path object: it would take a name with a tab or a dot alone
    # between slashes for another one.
    bucket, slash, name = uri.partition("://")[2].partition("/")
    try:
        root = storage_path(f"{scheme}://{bucket}")
    except ConfigurationError as error:
        # Connection and scheme stand in the URI, which is data: one wrong row must not end the run.
        raise ImageUnreadableError(error.message) from None
    return root.fs, f"{root.path.rstrip('/')}{slash}{name}"


def _presigned(uri: str) -> str:
    file_system, path = _object(uri)
    with _storage_errors(uri):
        try:
            return str(file_system.sign(path, expiration=PRESIGNED_SECONDS))
        except NotImplementedError:
            raise ConfigurationError(
                f"The storage of {redact(uri)} cannot make presigned URLs; use send='bytes'."
            ) from None


@contextmanager
def _storage_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except ImageTagError:
        raise
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ImageUnreadableError(f"{redact(uri)} does not exist.") from None
    except PermissionError:
        raise ImageUnreadableError(f"{redact(uri)}: the storage refuses to read it.") from None
    except ValueError as error:
        # Such as a bucket without a key: another try would meet the same.
        raise ImageUnreadableError(
            f"{redact(uri)} cannot be read: {redact_text(str(error))}"
        ) from None
    # Each storage's library has an error tree of its own; whatever it raises is retried, and then
    # recorded for this image with its name.
    except Exception as error:
        raise storage_failure(error, f"{redact(uri)} cannot be read") from None
