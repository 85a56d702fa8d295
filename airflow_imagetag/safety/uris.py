"""Image URIs: their kind, and their form without credentials."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote, urlsplit, urlunsplit

_SECRET_PARAMETERS = frozenset(
    {"access_token", "api_key", "apikey", "auth", "authorization", "password", "secret", "token"}
    | {"sig", "sign", "signature", "security-token"}
)
"""Query parameters that hold a secret, whoever made the URL."""

_SIGNING_PREFIXES = ("x-amz-", "x-goog-", "x-cos-", "x-oss-", "q-")
"""Beginnings of the parameters of presigned URLs: AWS, Google, Tencent COS, Alibaba OSS."""

_COMPANIONS = frozenset(
    # AWS's second signature version and CloudFront, Google's and Alibaba's older ones.
    {"awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "expires", "policy", "key-pair-id"}
    # Azure's shared access signatures.
    | {"se", "st", "sp", "sv", "sr", "ss", "srt", "spr", "sip", "si"}
    | {"skoid", "sktid", "skt", "ske", "sks", "skv"}
)
"""Parameters that belong to a signature beside them; alone, they may tell two images apart."""

# Line breaks of every kind, and the halves of characters that no text can be encoded with.
_CONTROL_CHARACTERS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_PLAIN = re.compile(rf"[^{_CONTROL_CHARACTERS} ?#@]*")
_CONTROL = re.compile(rf"[{_CONTROL_CHARACTERS}]")
_URI_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s\"'<>]+")
# A secret parameter where no URI can be taken apart: in HTML (&amp;), in JSON (\u0026), or in
# percents as a parameter of another URI.
_SECRET_IN_TEXT = re.compile(
    r"((?:(?<![a-z0-9_\-])|(?<=%3f)|(?<=%26)|(?<=u0026))"
    rf"(?:(?:{'|'.join(_SIGNING_PREFIXES)})[a-z\-]+|{'|'.join(sorted(_SECRET_PARAMETERS))})"
    r"(?:=|%3d|\\u003d))(?:(?!%26)[^\s\"'<>&\\])+",
    re.IGNORECASE,
)


def scheme_of(uri: str) -> str:
    """Return the scheme in lower case; empty for a plain path."""
    head, separator, _ = uri.partition("://")
    return head.lower() if separator else ""


def is_http(uri: str) -> bool:
    """Tell whether the service can be given this URI as it is."""
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
    """Tell whether a real path is in a folder, whose own links are followed.

    :param path: an absolute path without links.
    :param folder: an absolute path.
    """
    real = os.path.realpath(folder)
    return os.path.commonpath((path, real)) == real


def redact(uri: str) -> str:
    """Return the URI without passwords, signatures and presigned query parameters.

    Other query parameters stay, since they may be what tells two images apart. Control characters
    are shown as ``?`` so that a URI from user data cannot forge a log line.
    """
    if _PLAIN.fullmatch(uri):
        return uri
    clean = _CONTROL.sub("?", uri)
    try:
        parts = urlsplit(clean)
        # Alone, the name before an object storage's bucket is an Airflow connection id.
        has_credentials = parts.password is not None or (
            parts.username is not None and parts.scheme in ("http", "https")
        )
    except ValueError:
        # Not a URL that can be taken apart, so nothing behind the path can be trusted.
        return clean.split("?", 1)[0]
    if not has_credentials and not parts.query and not parts.fragment:
        return clean
    netloc = parts.netloc
    if has_credentials:
        netloc = f"***@{netloc.rpartition('@')[2]}"
    return urlunsplit((parts.scheme, netloc, parts.path, _public_query(parts.query), ""))


def redact_text(text: str) -> str:
    """Return a message with every URI in it redacted, and every secret parameter outside one."""
    return _hide(_URI_IN_TEXT.sub(lambda match: redact(match.group()), text))


def _hide(text: str) -> str:
    return _SECRET_IN_TEXT.sub(r"\1***", text)


def _public_query(query: str) -> str:
    items = [(unquote(item.partition("=")[0]).lower(), item) for item in query.split("&") if item]
    hidden = {
        name
        for name, _ in items
        if name in _SECRET_PARAMETERS or name.startswith(_SIGNING_PREFIXES)
    }
    if hidden:
        hidden |= _COMPANIONS
    # What is left may hold a whole presigned URL as its value.
    return "&".join(_hide(item) for name, item in items if name not in hidden)
