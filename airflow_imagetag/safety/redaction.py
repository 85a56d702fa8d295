"""Removes credentials, signatures and control characters from URIs and messages. No I/O."""

from __future__ import annotations

import re
from urllib.parse import unquote

_SECRET_PARAMETERS = frozenset(
    {"access_token", "api_key", "apikey", "auth", "authorization", "password", "secret", "token"}
    | {"sig", "sign", "signature", "security-token"}
)
"""Query parameters that hold a secret in the URL of any service."""

_SIGNING_PREFIXES = ("x-amz-", "x-goog-", "x-cos-", "x-oss-", "q-")
"""Prefixes of the parameters of presigned URLs: AWS, Google, Tencent COS, Alibaba OSS."""

_COMPANIONS = frozenset(
    # AWS's second signature version and CloudFront, Google's and Alibaba's older ones.
    {"awsaccesskeyid", "googleaccessid", "ossaccesskeyid", "expires", "policy", "key-pair-id"}
    # Azure's shared access signatures.
    | {"se", "st", "sp", "sv", "sr", "ss", "srt", "spr", "sip", "si"}
    | {"skoid", "sktid", "skt", "ske", "sks", "skv"}
)
"""Parameters that belong to a signature beside them; alone, they may tell two images apart."""

# Line breaks of every kind, and lone surrogates, which no encoding can write.
_CONTROL_CHARACTERS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_PLAIN = re.compile(rf"[^{_CONTROL_CHARACTERS} ?#@]*")
_CONTROL = re.compile(rf"[{_CONTROL_CHARACTERS}]")
_USER = re.compile(r"\A(?P<scheme>(?:[^/?#]*:)?)//(?P<user>[^/?#]*)@")
_URI_IN_TEXT = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s\"'<>]+")
# A secret parameter outside a URI that can be parsed: in HTML (&amp;), in JSON (\u0026), or
# percent-encoded as a parameter of another URI.
_SECRET_IN_TEXT = re.compile(
    r"((?:(?<![a-z0-9_\-])|(?<=%3f)|(?<=%26)|(?<=u0026))"
    rf"(?:(?:{'|'.join(_SIGNING_PREFIXES)})[a-z\-]+|{'|'.join(sorted(_SECRET_PARAMETERS))})"
    r"(?:=|%3d|\\u003d))(?:(?!%26)[^\s\"'<>&\\])+",
    re.IGNORECASE,
)


def redact(uri: str) -> str:
    """Return the URI without passwords, signatures, presigned query parameters and fragment.

    Other query parameters stay, since they may tell two images apart. Control characters become
    ``?``, so that a URI from user data cannot forge a log line.
    """
    if _PLAIN.fullmatch(uri):
        return uri
    # Cut up as text: a parser refuses some URIs, and writes others differently than they came.
    visible = _CONTROL.sub("?", _USER.sub(_mask_user, uri, count=1))
    location, mark, query = visible.partition("#")[0].partition("?")
    public = _public_query(query)
    return f"{location}{mark}{public}" if public or not query else location


def redact_text(text: str) -> str:
    """Return a message with every URI in it redacted, and every secret parameter outside one."""
    return _mask_parameters(_URI_IN_TEXT.sub(lambda match: redact(match.group()), text))


def _mask_user(match: re.Match[str]) -> str:
    # Alone, the name before an object storage's bucket is an Airflow connection id.
    is_secret = ":" in match["user"] or match["scheme"].lower().endswith(("http:", "https:"))
    return f"{match['scheme']}//***@" if is_secret else match[0]


def _mask_parameters(text: str) -> str:
    return _SECRET_IN_TEXT.sub(r"\1***", text)


def _public_query(query: str) -> str:
    items = [(unquote(item.partition("=")[0]).lower(), item) for item in query.split("&")]
    hidden = {
        name
        for name, _ in items
        if name in _SECRET_PARAMETERS or name.startswith(_SIGNING_PREFIXES)
    }
    if hidden:
        hidden |= _COMPANIONS
    # The value of a public parameter may be a whole presigned URL.
    return "&".join(_mask_parameters(item) for name, item in items if name not in hidden)
