"""Kinds of image URIs, and the paths of local ones."""

from __future__ import annotations

import os
from urllib.parse import unquote


def scheme_of(uri: str) -> str:
    """Return the scheme in lower case; empty for a plain path."""
    head, separator, _ = uri.partition("://")
    return head.lower() if separator else ""


def host_of(uri: str) -> str:
    """Return the part between scheme and path, such as ``conn@bucket``; empty for a plain path."""
    return uri.partition("://")[2].partition("/")[0]


def is_http(uri: str) -> bool:
    """Tell whether the URI is an http(s) URL, which the service can be given as it is."""
    return scheme_of(uri) in ("http", "https")


def is_local(uri: str) -> bool:
    """Tell whether the URI names a file on the worker's own disk."""
    return scheme_of(uri) in ("", "file", "local")


def is_storage(uri: str) -> bool:
    """Tell whether the URI has a scheme that is neither that of a URL nor that of a local file."""
    return not is_http(uri) and not is_local(uri)


def split_object(uri: str) -> tuple[str, str, str]:
    """Return the storage of an object's URI, the slash after it, and the object's name.

    ``s3://my_s3@photos/a/b.jpg`` is in the storage ``s3://my_s3@photos``.
    """
    scheme, _, place = uri.partition("://")
    bucket, slash, name = place.partition("/")
    return f"{scheme.lower()}://{bucket}", slash, name


def storage_of(uri: str, conn_id: str | None = None) -> str:
    """Return scheme, connection and bucket of an object's URI, such as ``s3://my_s3@photos``.

    :param conn_id: the connection, if the URI names none.
    """
    storage = split_object(uri)[0]
    if conn_id is None or "@" in storage:
        return storage
    scheme, _, bucket = storage.partition("://")
    return f"{scheme}://{conn_id}@{bucket}"


def local_path(uri: str) -> str:
    """Return the path that a local URI names."""
    if not scheme_of(uri):
        return uri
    # A file URI may carry an Airflow connection id before the path: file://conn@/data/a.jpg.
    rest = uri.partition("://")[2]
    host, slash, path = rest.partition("/")
    if slash and (host in ("", "localhost") or host.endswith("@")):
        rest = "/" + path
    return unquote(rest)


def is_below(path: str, folder: str) -> bool:
    """Tell whether a real path is in a folder, after the folder's own links are resolved.

    :param path: an absolute path without links.
    :param folder: an absolute path.
    """
    real = os.path.realpath(folder)
    return os.path.commonpath((path, real)) == real
