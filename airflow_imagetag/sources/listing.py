"""Private: list the objects below a path, one page or folder at a time."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from airflow_imagetag.backends.places import Place, place_of
from airflow_imagetag.backends.storage_faults import storage_error
from airflow_imagetag.errors import (
    ConfigurationError,
    ImageEmptyError,
    ImageTagError,
    InvalidImageError,
    StorageError,
)
from airflow_imagetag.models import Entry, Image, RejectedImage
from airflow_imagetag.safety.redaction import redact, redact_text
from airflow_imagetag.safety.uris import is_local, scheme_of
from airflow_imagetag.selection.rules import Window
from airflow_imagetag.selection.shards import Shard
from airflow_imagetag.sources.cos_listing import COS_SCHEME, list_bucket
from airflow_imagetag.sources.suffixes import LeftOut

log = logging.getLogger(__name__)

S3_SCHEMES = ("s3", "s3a", "s3n")
_TIME_NAMES = ("mtime", "LastModified", "last_modified", "updated")
"""Names under which file systems of fsspec give the time of writing."""


class Folder(NamedTuple):
    """The objects that are listed.

    :param path: a bucket or folder.
    :param conn_id: the storage's connection, if the path names none.
    :param pattern: only objects whose path below the folder matches; None for the suffixes.
    :param suffixes: endings of the names of images, in lower case.
    """

    path: str
    conn_id: str | None
    pattern: str | None
    suffixes: tuple[str, ...]

    def is_image(self) -> Callable[[str], bool]:
        """Return the test of an object's path below the folder."""
        if self.pattern is None:
            return lambda below: below.lower().endswith(self.suffixes)
        matches = re.compile(fnmatch.translate(self.pattern)).match
        return lambda below: matches(below) is not None


class _Object(NamedTuple):
    path: str
    size: int
    version: str
    modified: datetime | None


def list_images(
    folder: Folder, shard: Shard | None, window: Window | None = None
) -> Iterator[Entry]:
    """Yield the images below a path.

    :param folder: the objects that are listed.
    :param shard: only the images of this part.
    :param window: only objects that were written in this time.
    :raises ConfigurationError: the path or its connection cannot be used.
    :raises StorageError: the storage failed.
    """
    scheme = scheme_of(folder.path) or "file"
    base, conn_id, objects = _opened(folder, scheme)
    is_image = folder.is_image()
    left_out = LeftOut(redact(folder.path), _advice(folder))
    for item in objects:
        if not is_image(item.path.removeprefix(base)):
            left_out.add(item.path)
            continue
        key = f"{scheme}://{item.path}"
        if shard is not None and not shard.holds(key):
            continue
        if window is None or _was_written_in(window, item, folder.path):
            yield _entry(item, key, f"{scheme}://{conn_id}@{item.path}" if conn_id else key)
    left_out.report()


def _opened(folder: Folder, scheme: str) -> tuple[str, str | None, Iterator[_Object]]:
    """Return the path before the objects' own, the connection that URIs name, and the objects."""
    if scheme == COS_SCHEME:
        # Its objects are labelled where they lie, with the connection that labels: none is named.
        path = folder.path.partition("://")[2].rstrip("/") + "/"
        bucket, slash, prefix = path.partition("/")
        base = f"{bucket.rpartition('@')[2]}{slash}{prefix}"
        return base, None, _cos_objects(folder, base.partition("/")[0])
    place = place_of(folder.path, folder.conn_id)
    base = place.path.rstrip("/") + "/"
    return base, place.conn_id, _objects(place, base, scheme, folder.path)


def _cos_objects(folder: Folder, bucket: str) -> Iterator[_Object]:
    for item in list_bucket(folder.path, folder.conn_id):
        if not _is_folder(item.key, item.size):
            yield _Object(f"{bucket}/{item.key}", item.size, item.etag, item.modified)


def _is_folder(name: str, size: int) -> bool:
    """Tell whether an object stands for a folder: its name ends in a slash, and it has no bytes."""
    return not size and name.endswith("/")


def key_test(folder: Folder) -> Callable[[str], bool]:
    """Return the test of whether an object of some key is one of those that are listed.

    :raises ConfigurationError: the path or its connection cannot be used.
    """
    scheme = scheme_of(folder.path) or "file"
    base = f"{scheme}://{_opened(folder, scheme)[0]}"
    is_image = folder.is_image()
    return lambda key: key.startswith(base) and is_image(key.removeprefix(base))


def _advice(folder: Folder) -> str:
    if folder.pattern is not None:
        return f"They do not match the pattern {folder.pattern!r}."
    return (
        f"The suffixes that the service takes are {' '.join(folder.suffixes)}; pattern='*' takes "
        "objects of any name."
    )


def _entry(item: _Object, key: str, uri: str) -> Entry:
    if unwritable := _unwritable(key):
        return RejectedImage(redact(key), None, unwritable, version=item.version, is_tolerated=True)
    if is_local(uri):
        # In a file URI, a percent sign begins an escape.
        uri = uri.replace("%", "%25")
    if item.size > 0:
        return Image(key, uri, version=item.version)
    error = ImageEmptyError(f"{redact(key)} is empty: it has zero bytes. Replace the image.")
    return RejectedImage(key, uri, error, version=item.version)


def _was_written_in(window: Window, item: _Object, path: str) -> bool:
    if item.modified is None:
        raise ConfigurationError(
            f"The storage of {redact(path)} does not tell when an object was written, so "
            "modified_after and settle_seconds cannot be used with it."
        )
    after = window.after
    if after is not None:
        # S3 and others keep whole seconds, and an object of the same second must not be missed.
        window = Window(after.replace(microsecond=0), window.before)
    return window.holds(item.modified)


def _unwritable(key: str) -> InvalidImageError | None:
    try:
        key.encode()
    except UnicodeEncodeError:
        return InvalidImageError(f"The name of {redact(key)} is not a text: it is not UTF-8.")
    return None


def _objects(place: Place, base: str, scheme: str, path: str) -> Iterator[_Object]:
    try:
        if scheme in S3_SCHEMES:
            yield from _s3_objects(place, base)
        else:
            yield from _walked(place.file_system, base)
    except ImageTagError:
        raise
    except FileNotFoundError:
        raise ConfigurationError(
            f"There is no {redact(path)}. Correct the path, or create the folder."
        ) from None
    except PermissionError as error:
        raise ConfigurationError(
            f"{redact(path)} may not be listed: {redact_text(str(error))}"
        ) from None
    # Each storage's library has an error tree of its own.
    except Exception as error:
        raise storage_error(error, f"{redact(path)} cannot be listed") from None


def _s3_objects(place: Place, base: str) -> Iterator[_Object]:
    """Page through a prefix with the client of Airflow's hook.

    The file system's own listing keeps all objects of a prefix in memory at once.
    """
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, prefix = base.partition("/")
    # None takes the worker's own credentials, as reading an object does.
    hook = S3Hook(aws_conn_id=place.conn_id)
    pages = hook.get_conn().get_paginator("list_objects_v2")
    try:
        for page in pages.paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", ()):
                if not _is_folder(item["Key"], item["Size"]):
                    version = item["ETag"].strip('"')
                    path = f"{bucket}/{item['Key']}"
                    yield _Object(path, item["Size"], version, item["LastModified"])
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if status >= 500 or status == 429:
            raise StorageError(f"S3 cannot list {bucket}: {error}") from None
        raise ConfigurationError(f"S3 refuses to list {bucket}/{prefix}: {error}") from None
    except BotoCoreError as error:
        raise StorageError(f"S3 cannot list {bucket}: {type(error).__name__}: {error}") from None


def _walked(file_system: Any, base: str) -> Iterator[_Object]:
    """Walk folder by folder, with one folder's listing in memory at a time."""
    waiting = [base.rstrip("/") or "/"]
    while waiting:
        folder = waiting.pop()
        found = sorted(file_system.ls(folder, detail=True), key=lambda item: str(item["name"]))
        file_system.invalidate_cache(folder)
        for item in found:
            if item["type"] == "file" and not item.get("islink"):
                size, modified = item["size"] or 0, _modified(item)
                yield _Object(item["name"], size, _version(item), modified)
        # A symbolic link is not followed: one that points upwards would never end.
        links = sum(bool(item.get("islink")) for item in found)
        if links:
            log.info("%s: left out %d symbolic links", folder, links)
        folders = [
            item["name"]
            for item in found
            if item["type"] == "directory" and not item.get("islink") and item["name"] != folder
        ]
        waiting += reversed(folders)


def _version(item: Mapping[str, Any]) -> str:
    for name in ("ETag", "etag", "md5Hash"):
        if item.get(name):
            return str(item[name]).strip('"')
    for name in _TIME_NAMES:
        if (moment := item.get(name)) is not None:
            text = moment.isoformat() if isinstance(moment, datetime) else repr(moment)
            return f"{item.get('size')}-{text}"
    return str(item.get("size"))


def _modified(item: Mapping[str, Any]) -> datetime | None:
    for name in _TIME_NAMES:
        moment = item.get(name)
        if isinstance(moment, (int, float)):
            return datetime.fromtimestamp(moment, UTC)
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        if isinstance(moment, datetime):
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None
