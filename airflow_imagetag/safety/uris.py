"""Kinds of image URIs, the paths of local ones, and the rules that hold for each text of a name."""

from __future__ import annotations

import os
import re
from typing import Final
from urllib.parse import unquote

MAX_NAME_CHARACTERS: Final = 4_096
"""Maximum length of a key, a URI and a version: every store holds it, and no URL of a storage or
path of Linux is longer."""

STORAGE_SCHEMES: Final = frozenset(
    {"s3", "s3a", "s3n", "gs", "gcs", "abfs", "abfss", "az", "adl", "wasb", "wasbs"}
    | {"oss", "cos", "cosn", "oci", "hdfs", "webhdfs"}
)
"""Schemes that are given to ObjectStoragePath.

fsspec knows many more, and some of them (``simplecache::file``, ``zip``, ``ftp``) would reach the
worker's disk or network behind the rules of trust.
"""

BLANKS: Final = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
    # Without a width.
    "\u180e\u200b\u200c\u200d\u2060\ufeff"
)
"""White space of Unicode, and characters that nothing shows. A URI of only these is empty."""

LOCAL_SCHEMES: Final = frozenset({"", "file", "local"})
"""Schemes of files on the worker's own disk; a plain path has none."""

# fsspec chains schemes with colons.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.:\-]{0,60})://")
_DATA = re.compile(r"data:[^,/]{0,100}/?[^,/]{0,200},", re.IGNORECASE)


def scheme_of(uri: str) -> str:
    """Return the scheme in lower case; empty for a plain path."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else ""


def is_http(uri: str) -> bool:
    """Tell whether the URI is an http(s) URL, which the service can be given as it is."""
    return scheme_of(uri) in ("http", "https")


def is_local(uri: str) -> bool:
    """Tell whether the URI names a file on the worker's own disk."""
    return scheme_of(uri) in LOCAL_SCHEMES


def is_data(uri: str) -> bool:
    """Tell whether the URI holds the bytes of the image itself (``data:image/png;base64,..``)."""
    return uri[:1] in ("d", "D") and _DATA.match(uri) is not None


def is_blank(text: str) -> bool:
    """Tell whether a text is empty, or consists of blanks only."""
    # Few texts begin with a blank.
    return not text or (text[0] in BLANKS and not text.strip(BLANKS))


def name_fault(key: str | None, uri: str | None, version: str | None) -> str | None:
    """Return the reason why no image can have these texts, as a sentence; None if it can.

    What is refused here could not be written to every table and file, or only slowly.
    """
    together = f"{key}{uri}{version}"
    if len(together) <= MAX_NAME_CHARACTERS and together.isascii() and "\0" not in together:
        return None
    for what, text in (("URI", uri), ("key", key), ("version", version)):
        if text is None:
            continue
        if len(text) > MAX_NAME_CHARACTERS:
            return f"The image's {what} is longer than {MAX_NAME_CHARACTERS:,} characters."
        if "\0" in text:
            return f"The image's {what} is not a text: it holds a zero byte."
        if not (text.isascii() or is_writable(text)):
            # JSON may hold half of a character (a lone surrogate).
            return f"The image's {what} is not a text: it holds half of a character."
    return None


def is_writable(text: str) -> bool:
    """Tell whether a text has no half of a character, which no encoding can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    # A name that is no UTF-8 comes back as the bytes that it was made of.
    return unquote(rest, errors="surrogateescape")


def is_below(path: str, folder: str) -> bool:
    """Tell whether a real path is in a folder, after the folder's own links are resolved.

    :param path: an absolute path without links.
    :param folder: an absolute path.
    """
    real = os.path.realpath(folder)
    return os.path.commonpath((path, real)) == real
