"""Takes credentials and signatures out of URIs and messages. No I/O.

``without_secrets`` is for outputs: it takes the secrets away and leaves every other character, so
that the result still names the image. ``redact`` is for the eyes of people, in logs and messages.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote

from airflow_imagetag.safety.uris import (
    BLANKS,
    LOCAL_SCHEMES,
    MAX_NAME_CHARACTERS,
    STORAGE_SCHEMES,
    scheme_of,
)

SHOWN_CHARACTERS = 60
"""Number of characters that are shown of a name that is too long."""

MAX_TEXT_CHARACTERS = 20_000
"""Number of characters that are read of a message; a library's may quote megabytes."""

_Compiled = Callable[[], re.Pattern[str]]


def _lazy(pattern: str, flags: re.RegexFlag = re.NOFLAG) -> _Compiled:
    """Return a function that compiles a pattern once: the parsing of a DAG file needs none."""
    return functools.cache(lambda: re.compile(pattern, flags))


_SECRET_NAMES = (
    *("access_token", "api_token", "auth_token", "bearer_token", "deploy_token", "id_token"),
    *("job_token", "oauth_token", "private_token", "refresh_token", "security_token"),
    *("session_token", "user_token", "x_access_token", "x_auth_token", "token", "jwt"),
    *("api_key", "x_api_key", "access_key", "auth_key", "subscription_key"),
    *("api_secret", "app_secret", "client_secret", "secret_access_key", "secret_key", "secret"),
    *("auth", "authorization", "passphrase", "password", "passwd", "pwd"),
    *("hmac", "sig", "sign", "signature", "x_signature", "sas_token"),
    *("account_key", "encryption_key", "master_key", "private_key", "storage_key"),
    *("shared_access_key", "shared_access_signature"),
    *("bearer", "credential", "credentials", "creds"),
    # Signatures of content delivery networks.
    *("hdnea", "hdntl", "hdnts", "txsecret", "wssecret"),
)
"""Parameters that hold a secret in the URL of any service; ``_`` stands for one of ``_``, ``-`` and
nothing."""

_SIGNING_NAMES = (
    # AWS and Google: no parameter with these prefixes tells two images apart.
    *("x-amz-[a-z0-9-]+", "x-goog-[a-z0-9-]+"),
    # Tencent COS.
    *("q-(?:sign-algorithm|ak|sign-time|key-time|header-list|url-param-list|signature)",),
    *("x-cos-security-token",),
    # Alibaba OSS. x-oss-process is not among them: it names a part or a size of the image.
    "x-oss-(?:additional-headers|credential|date|expires|security-token|signature(?:-version)?)",
)
"""Patterns of the parameters of presigned URLs."""

_SHOWN_NAMES = (
    *("access_key_id", "aws_access_key_id", "oss_access_key_id", "google_access_id", "key_pair_id"),
    *(
        "license_key",
        "key",
        "code",
        "pass",
        "pin",
        "otp",
        "nonce",
        "ticket",
        "hash",
        "md5",
        "policy",
    ),
    *("sid", "session", "session_id", "jsessionid", "phpsessid", "cookie", "csrf", "xsrf"),
)
"""Parameters that may hold a secret, or else tell two images apart: people are not shown their
values, and outputs keep them."""

_NAME = "|".join([*_SIGNING_NAMES, *(name.replace("_", "[-_]?") for name in _SECRET_NAMES)])
_BEFORE_NAME, _AFTER_NAME = r"(?:[a-z0-9]{1,40}[-_.])*[-_]?", r"(?:[-_]?v?\d{1,3})?"
"""Words before a name, as in ``download_token``, and a number after it, as in ``token_v2``."""
_SECRET = _lazy(rf"{_BEFORE_NAME}(?:{_NAME}){_AFTER_NAME}(?:\[.*\])?", re.IGNORECASE)
_SHOWN_NAME = "|".join(name.replace("_", "[-_]?") for name in _SHOWN_NAMES)
_SIGNING = _lazy("|".join(_SIGNING_NAMES), re.IGNORECASE)

_AZURE = frozenset(
    {"se", "st", "sp", "sv", "sr", "ss", "srt", "spr", "sip", "si"}
    | {"skoid", "sktid", "skt", "ske", "sks", "skv"}
)
_COMPANIONS = {
    "sig": _AZURE,
    # AWS's second signature version and CloudFront, Google's and Alibaba's older ones.
    "signature": frozenset(
        {"awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "policy", "key-pair-id"}
    ),
}
"""Parameters that belong to a signature beside them; alone, they may tell two images apart."""

_TIMES = frozenset(
    {"deadline", "e", "exp", "expire", "expires", "expiry", "t", "time", "timestamp", "ts"}
    | {"txtime", "wstime"}
)
"""Parameters that hold the end of a signature's life, if there is one and they hold a time."""

_TIME = _lazy(r"\d{10}|\d{13}|[0-9a-fA-F]{8}")

# Line breaks of every kind, and lone surrogates, which no encoding can write.
_CONTROL_CHARACTERS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_PLAIN = re.compile(rf"[^{_CONTROL_CHARACTERS} ?#@;]*")
_CONTROL = _lazy(rf"[{_CONTROL_CHARACTERS}]")
# Each secret parameter has one of these pieces in its name, unless the name is percent-encoded.
_SUSPECT = _lazy(
    rf"[@%{_CONTROL_CHARACTERS}]|token|jwt|key|secret|auth|pass|pwd|hmac|sig|hdn|x-|q-|bearer|cred",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.:\-]{0,60}):[/\\\s]*")
# Parsers of URLs leave out white space, also in the middle of the scheme.
_WEB = _lazy(r"\s*h\s*t\s*t\s*p\s*(?:s\s*)?:[/\\\s]*", re.IGNORECASE)
_AUTHORITY = re.compile(r"[^/?#\\]*")
_SEPARATOR = _lazy(r"(&|;(?=[^;&=]*=))")
_PATH_PARAMETER = _lazy(r";([^;/=]{1,100})=[^;/]*")
_URI_IN_TEXT = _lazy(r"[A-Za-z][A-Za-z0-9+.\-]{0,30}://[^\s\"'<>]+")
# A secret parameter outside a URI that can be parsed: in HTML (&amp;), in JSON (\u0026), or
# percent-encoded as a parameter of another URI.
_BEGIN_IN_TEXT = r"(?:(?<![a-z0-9])|(?<=%3f)|(?<=%26)|(?<=%253f)|(?<=%2526)|(?<=u0026))"
_VALUE_IN_TEXT = r"(?:(?!%26)[^\s\"'<>&\\])+"
_SECRET_IN_TEXT = _lazy(
    rf"({_BEGIN_IN_TEXT}(?:{_NAME}){_AFTER_NAME}(?:=|%3d|%253d|\\u003d)[\"']?){_VALUE_IN_TEXT}",
    re.IGNORECASE,
)
_SHOWN_IN_URI = _lazy(
    rf"([?&;#]{_BEFORE_NAME}(?:{_SHOWN_NAME}){_AFTER_NAME}=){_VALUE_IN_TEXT}", re.IGNORECASE
)
_SECRET_IN_JSON = _lazy(
    rf"((\\?[\"']|%22)(?:{_NAME}){_AFTER_NAME}\2\s*(?::|%3a)(?:\s|%20)*\2)(?:(?!\2).)+",
    re.IGNORECASE,
)
# A user with a password in a URL that is a part of another one, or that no parser would take.
_USER_IN_TEXT = _lazy(
    r"((?:https?|ftp|s3):[/\\]{0,3}|//|(?:%3a|%253a)(?:%2f|%252f){2})"
    r"[^\s/@:\"'<>%]{0,200}(?::|%3a|%253a)(?:(?!%40)[^\s/@\"'<>]){1,200}(@|%40|%2540)",
    re.IGNORECASE,
)
# The same in the escapes of JSON.
_UNSEEN = _lazy(rf"(?! )[{_CONTROL_CHARACTERS}\u00a0]|\\[bfnrt]")

_MARKS = frozenset(":=%\\\"'")
"""Each URI in a text, and each secret parameter outside one, has one of these characters."""


def without_secrets(uri: str) -> str:
    """Return the URI without user and password, signatures and other secret parameters.

    All other characters stay as they are. In the URI of a storage and in a path, ``?``, ``#``,
    ``&`` and ``;`` are characters of a name: of a path nothing is taken away, and of the URI of a
    storage a user with a password and what can only be a presigned query.
    """
    if _PLAIN.fullmatch(uri) or not _SUSPECT().search(uri):
        return uri
    head = _WEB().match(uri)
    if head is None:
        named = _SCHEME.match(uri)
        if named is None or "//" not in named[0]:
            return _without_user(uri, 2) if uri.startswith("//") else uri
        if named[1].lower() in LOCAL_SCHEMES:
            return _without_user(uri, named.end(), alone=False)
        if named[1].lower() in STORAGE_SCHEMES:
            place, mark, query = _without_user(uri, named.end(), alone=False).partition("?")
            return f"{place}{_public(mark, query, _SIGNING)}"
        head = named
    return _without_parameters(_without_user(uri, head.end()))


def has_password(uri: str) -> bool:
    """Tell whether the URI of an object storage names a user with a password.

    A name alone before the bucket is an Airflow connection id.
    """
    named = _SCHEME.match(uri)
    return named is not None and _without_user(uri, named.end(), alone=False) != uri


def has_secrets(value: object) -> bool:
    """Tell whether a text holds a URI with a secret, or a mapping or sequence holds such a text."""
    if isinstance(value, str):
        found = (match.group() for match in _URI_IN_TEXT().finditer(value))
        return any(without_secrets(uri) != uri for uri in (value, *found))
    if isinstance(value, Mapping):
        return any(map(has_secrets, value.values()))
    return isinstance(value, (list, tuple)) and any(map(has_secrets, value))


def redact(uri: str) -> str:
    """Return the URI as a log or a message shows it: without secrets, on one line, and short.

    The fragment of a URL is left out. Control characters become ``?``, so that a URI from user data
    cannot forge a log line. Of a URI that is too long, the beginning and the length are shown.
    """
    if len(uri) > MAX_NAME_CHARACTERS:
        return _short(uri)
    if _PLAIN.fullmatch(uri):
        return uri
    shown = without_secrets(uri)
    if _WEB().match(shown):
        shown = shown.partition("#")[0]
    if scheme_of(shown) not in LOCAL_SCHEMES:
        shown = _SHOWN_IN_URI().sub(r"\1***", _mask_parameters(shown))
    return _CONTROL().sub("?", shown)


def redact_text(text: str) -> str:
    """Return a message with every URI in it redacted, and every secret parameter outside one."""
    cut = text[:MAX_TEXT_CHARACTERS]
    if _MARKS.isdisjoint(cut):
        return cut
    redacted = _redact_uris(cut)
    # A secret may be cut in two by characters that parsers leave out.
    joined = _UNSEEN().sub("", cut)
    if joined != cut and (found := _redact_uris(joined)) != joined:
        return found
    return redacted


def _redact_uris(text: str) -> str:
    # Masked before, too: a quote ends a URI in a text, and may be the beginning of a secret.
    masked = _mask_parameters(text)
    return _mask_parameters(_URI_IN_TEXT().sub(lambda match: redact(match.group()), masked))


def output_uri(uri: str) -> str:
    """Return the URI as outputs and stores hold it: without secrets, and cut if it is too long."""
    return without_secrets(uri) if len(uri) <= MAX_NAME_CHARACTERS else storable_name(uri)


def storable_name(text: str) -> str:
    """Return the name of an image that is refused, as the failures and a store hold it.

    A name that is too long is cut, and a digest tells it apart from others that begin alike. What
    no encoding can write becomes ``?``.
    """
    writable = text.encode("utf-8", "replace")
    if len(text) <= MAX_NAME_CHARACTERS:
        return writable.decode()
    return f"{_short(text)[:-1]}, sha256 {hashlib.sha256(writable).hexdigest()[:16]})"


def _short(uri: str) -> str:
    beginning = uri[:MAX_NAME_CHARACTERS]
    head = _WEB().match(beginning) or _SCHEME.match(beginning)
    if head is not None and not re.search(r"[/@]", beginning[head.end() :]):
        # Its end may lie behind the cut, so all of this may be a password.
        shown = f"{head[0]}***"
    else:
        shown = _CONTROL().sub("?", without_secrets(beginning))
    return f"{shown[:SHOWN_CHARACTERS]}... ({len(uri):,} characters)"


def _without_user(uri: str, start: int, *, alone: bool = True) -> str:
    """Return the URI with a mark in place of its user and password.

    :param start: where the authority begins.
    :param alone: mask a user without a password, too. Alone, the name before the bucket of an
        object storage is an Airflow connection id.
    """
    authority = _AUTHORITY.match(uri, start)
    place = authority[0] if authority else ""
    user, at, host = place.rpartition("@")
    end = start + len(place)
    if at:
        is_secret = alone or ":" in user
        return f"{uri[:start]}***@{host}{uri[end:]}" if is_secret else uri
    name, colon, port = place.rpartition(":")
    if not colon or not port.strip("0123456789") or name.startswith(("[", "arn:")):
        return uri
    # A password may hold any of the characters that end an authority.
    later = uri.find("@", end)
    return uri if later < 0 else f"{uri[:start]}***{uri[later:]}"


def _without_parameters(url: str) -> str:
    """Return the URL without secret parameters in path, query and fragment."""
    place, mark, fragment = url.partition("#")
    path, question, query = place.partition("?")
    path = _PATH_PARAMETER().sub(
        lambda found: "" if _SECRET().fullmatch(_name_of(found[1])) else found[0], path
    )
    return f"{path}{_public(question, query)}{_public(mark, fragment)}"


def _public(mark: str, parameters: str, secret: _Compiled = _SECRET) -> str:
    """Return the parameters that are no secret, with the mark before them.

    :param secret: matches the names of secret ones.
    """
    if not parameters:
        return mark
    # The parameters alternate with the separators before them.
    separated = [mark, *_SEPARATOR().split(parameters)]
    separators, items = separated[::2], separated[1::2]
    hidden = set(_hidden(items, secret()))
    if secret is not _SECRET and not hidden:
        return f"{mark}{parameters}"
    shown = "".join(
        # The value of a public parameter may be a whole presigned URL.
        separator + _mask_parameters(item)
        for place, (separator, item) in enumerate(zip(separators, items, strict=True))
        if place not in hidden
    )[1:]
    return f"{mark}{shown}" if shown or not hidden else ""


def _hidden(items: list[str], secret: re.Pattern[str]) -> Iterator[int]:
    """Yield the places of secret parameters, and of those that belong to a signature."""
    names = [_name_of(item) for item in items]
    found = {name for name in names if secret.fullmatch(name)}
    companions = frozenset().union(*(_COMPANIONS.get(name, frozenset()) for name in found))
    for place, (name, item) in enumerate(zip(names, items, strict=True)):
        if name in found or name in companions:
            yield place
        elif found and name in _TIMES:
            value = item.partition("=")[2]
            if name == "expires" or _TIME().fullmatch(value):
                yield place


def _name_of(item: str) -> str:
    return _CONTROL().sub("", unquote(item.partition("=")[0])).strip(BLANKS).lower()


def _mask_parameters(text: str) -> str:
    masked = _SECRET_IN_TEXT().sub(r"\1***", _USER_IN_TEXT().sub(r"\1***\2", text))
    return _SECRET_IN_JSON().sub(r"\1***", masked)
