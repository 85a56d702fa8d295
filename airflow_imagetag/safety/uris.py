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
