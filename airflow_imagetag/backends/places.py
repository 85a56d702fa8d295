"""Objects and folders of storages, under exactly the names that their URIs have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_imagetag.backends.storage_faults import all_statuses
from airflow_imagetag.backends.storages import connect
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_local, local_path, split_object

RANGE_NOT_SATISFIABLE = 416
"""HTTP status of a ranged request for an object without bytes (RFC 9110, 15.5.17)."""

_EXPRESSION = re.compile(r"\{\{.*?\}\}", re.DOTALL)
"""A template that must have a value; a statement such as ``{% if %}`` need not."""

_UNUSUAL = re.compile(r"[?#]|^/|//|/$")
"""Parts of a path that libraries of storages may read as something else than a name."""


@dataclass(frozen=True, slots=True)
class Place:
    """An object or a folder of a storage.

    :param file_system: one of fsspec's.
    :param path: bucket and name, or an absolute local path, exactly as the URI has it.
    :param conn_id: the storage's connection; None without one.
    """

    file_system: Any
    path: str
    conn_id: str | None = None


def place_of(uri: str, conn_id: str | None = None, *, max_age: float = 0) -> Place:
    """Return the place that a URI names.

    :param conn_id: connection of the storage; None if the URI names one, or none is needed.
    :param max_age: number of seconds in which the connection is not read again.
    :raises ConfigurationError: the storage's connection or package is missing, or cannot be used.
    :raises StorageError: the storage failed, perhaps for a while.
    """
    if is_local(uri):
        from fsspec.implementations.local import LocalFileSystem

        path = str(Path(local_path(uri)).absolute())
        return Place(LocalFileSystem(), re.sub("^//+", "/", path))
    # Only the bucket goes through the path object, which would change a name with a tab, or with a
    # dot alone between slashes.
    storage, slash, name = split_object(uri)
    found = connect(storage, conn_id, max_age=max_age)
    return Place(found.file_system, f"{found.path}{slash}{name}", found.conn_id)


def is_named_exactly(place: Place) -> bool:
    """Tell whether the storage's library takes the whole path for the name of an object.

    Some read ``?versionId=`` in it as a version, or leave out a slash.
    """
    split_path = getattr(place.file_system, "split_path", None)
    # Few names need the question.
    if split_path is None or not _UNUSUAL.search(place.path):
        return True
    return "/".join(map(str, split_path(place.path)[:2])) == place.path


def check_folder(path: str, written: str) -> None:
    """Check that no part of a folder's path is empty because a template has rendered to nothing.

    :param path: the path or URI.
    :param written: the same as the author of the DAG file wrote it.
    :raises ConfigurationError: names the path.
    """
    below = _below_scheme(path)
    if not is_local(path) and not below.partition("/")[0].rpartition("@")[2]:
        raise ConfigurationError(f"The path {redact(path)!r} names no bucket. Correct it.")
    is_templated = "{" in written
    is_empty = not below or below.endswith("//") or (is_templated and "//" in below)
    if is_templated and not is_empty and "{%" not in written:
        least = _names(_below_scheme(_EXPRESSION.sub("x", written)))
        is_empty = len(_names(below)) < len(least)
    if is_empty:
        origin = f", which {redact(written)!r} was rendered to," if is_templated else ""
        raise ConfigurationError(
            f"The path {redact(path)!r}{origin} has an empty part, and so would name other images "
            "than those that were meant. Give each of its parts a name."
        )


def _below_scheme(path: str) -> str:
    return local_path(path) if is_local(path) else path.partition("://")[2]


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def read_start(place: Place, max_bytes: int) -> bytes:
    """Return up to ``max_bytes`` from the start of a file; an object takes one request."""
    file_system = place.file_system
    # Those of object storages are asynchronous, and their ``open`` asks for the size first. Those
    # of Arrow, such as hdfs, have no ``cat_file`` with a range.
    if not file_system.async_impl:
        with file_system.open(place.path, "rb") as file:
            return bytes(file.read(max_bytes))
    try:
        if not is_named_exactly(place):
            return _read_by_name(place, max_bytes)
        return bytes(file_system.cat_file(place.path, start=0, end=max_bytes))
    # Each storage's library has its own errors; the status tells them apart.
    except Exception as error:
        # S3 and Google Cloud Storage have no range of an empty object.
        if RANGE_NOT_SATISFIABLE in all_statuses(error):
            return b""
        raise


def presigned_url(place: Place, seconds: int) -> str:
    """Return a presigned URL of an object.

    :param seconds: lifetime of the URL.
    :raises NotImplementedError: the storage has no such URLs, or its credentials cannot sign them.
    """
    if is_named_exactly(place):
        try:
            return str(place.file_system.sign(place.path, expiration=seconds))
        except UnicodeError:
            # The name cannot be part of a URL.
            raise
        # Each storage's library has its own for credentials without a key.
        except (AttributeError, TypeError, ValueError) as error:
            raise NotImplementedError(str(error)) from None
    from fsspec.asyn import sync

    file_system, name = place.file_system, _s3_name(place)
    client = sync(file_system.loop, file_system.get_s3, name["Bucket"])
    sign = client.generate_presigned_url
    return str(sync(file_system.loop, sign, "get_object", Params=name, ExpiresIn=seconds))


def _read_by_name(place: Place, max_bytes: int) -> bytes:
    """Return the start of an object of S3 whose name the library would change."""
    from fsspec.asyn import sync

    file_system = place.file_system
    answer = file_system.call_s3("get_object", **_s3_name(place), Range=f"bytes=0-{max_bytes - 1}")
    return bytes(sync(file_system.loop, answer["Body"].read))


def _s3_name(place: Place) -> dict[str, str]:
    """Return bucket and key of an object of S3.

    :raises ValueError: the object is in another storage.
    """
    if not hasattr(place.file_system, "call_s3"):
        raise ValueError("the storage's library reads a part of the name as something else")
    bucket = str(place.file_system.split_path(place.path)[0])
    return {"Bucket": bucket, "Key": place.path.removeprefix(f"{bucket}/")}
