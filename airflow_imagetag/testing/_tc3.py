"""Check a TC3-HMAC-SHA256 signature, the vendor's "signature method v3".

This module follows the vendor's description and shares no code with a client, so that it cannot
repeat a client's error. The vendor lists the codes without their causes; where several codes fit,
the choice is the emulator's own.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from airflow_imagetag.testing._api import RefusalError, tiia_refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_imagetag.testing._api import EmulatorAccount, RequestHead

ALGORITHM: Final = "TC3-HMAC-SHA256"

MAX_CLOCK_SKEW_SECONDS: Final = 5 * 60
"""Maximum difference of a timestamp from the clock, the vendor's limit of five minutes."""

_REQUIRED_HEADERS: Final = {"content-type", "host"}
_UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_AUTHORIZATION: Final = re.compile(
    rf"{ALGORITHM} +Credential=([^/,\s]+)/([0-9-]+)/([^/,\s]+)/tc3_request, *"
    r"SignedHeaders=([^,\s]+), *Signature=([0-9a-f]{64})"
)
_TIMESTAMP: Final = re.compile("[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class _Authorization:
    """Parts of the header's value."""

    secret_id: str
    date: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str


def verify(
    head: RequestHead, body: bytes, account: EmulatorAccount, *, service: str, now: float
) -> None:
    """Validate the signature of a POST request.

    :param head: has the headers Authorization, X-TC-Timestamp and those that are signed.
    :param body: the whole body, as it was sent.
    :param account: the account whose signature it must be.
    :param service: the product that the signature must name, for example ``tiia``.
    :param now: wall-clock time in Unix seconds.
    :raises RefusalError: with a code AuthFailure.*, or InvalidParameterValue for a wrong timestamp.
    """
    authorization = _parse(head.headers.get("Authorization", ""))
    timestamp = head.headers.get("X-TC-Timestamp", "")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise tiia_refusal("InvalidParameterValue", "X-TC-Timestamp must be Unix seconds")
    _check_account(authorization.secret_id, head.headers.get("X-TC-Token", ""), account)
    if abs(now - int(timestamp)) > MAX_CLOCK_SKEW_SECONDS:
        raise _failure("SignatureExpire", "X-TC-Timestamp is over five minutes off")
    _check_scope(authorization, service, int(timestamp))
    text = _text_to_sign(head, body, authorization, timestamp)
    key = _signing_key(account.secret_key, authorization.date, service)
    expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(authorization.signature, expected):
        raise _failure("SignatureFailure", "the signature does not match: check the SecretKey")


def _parse(value: str) -> _Authorization:
    match = _AUTHORIZATION.fullmatch(value)
    if match is None:
        raise _failure("InvalidAuthorization", f"Authorization is not in the form of {ALGORITHM}")
    secret_id, date, service, signed, signature = match.groups()
    names = tuple(signed.split(";"))
    if list(names) != sorted({name.lower() for name in names}):
        raise _failure("InvalidAuthorization", "SignedHeaders must be lower-case, sorted and once")
    if not _REQUIRED_HEADERS.issubset(names):
        raise _failure("InvalidAuthorization", "SignedHeaders must have content-type and host")
    return _Authorization(secret_id, date, service, names, signature)


def _check_account(secret_id: str, token: str, account: EmulatorAccount) -> None:
    if secret_id != account.secret_id:
        raise _failure("SecretIdNotFound", "the signature names an unknown SecretId")
    if not hmac.compare_digest(token.encode("utf-8", "replace"), account.token.encode()):
        raise _failure("TokenFailure", "X-TC-Token is not the token of these keys")


def _check_scope(authorization: _Authorization, service: str, timestamp: int) -> None:
    if authorization.service != service:
        raise _failure("SignatureFailure", f"the signature is not for the service {service}")
    if authorization.date != datetime.fromtimestamp(timestamp, UTC).date().isoformat():
        raise _failure("SignatureFailure", "the signature's date is not that of X-TC-Timestamp")


def _text_to_sign(
    head: RequestHead, body: bytes, authorization: _Authorization, timestamp: str
) -> str:
    # The canonical query string of a POST is always empty.
    canonical_request = "\n".join(
        (
            head.method,
            head.path,
            "",
            _canonical_headers(head.headers, authorization.signed_headers),
            ";".join(authorization.signed_headers),
            _payload_digest(head.headers, body),
        )
    )
    scope = f"{authorization.date}/{authorization.service}/tc3_request"
    digest = hashlib.sha256(canonical_request.encode("utf-8", "surrogateescape")).hexdigest()
    return "\n".join((ALGORITHM, timestamp, scope, digest))


def _canonical_headers(headers: Mapping[str, str], names: tuple[str, ...]) -> str:
    missing = [name for name in names if name not in headers]
    if missing:
        raise _failure("SignatureFailure", f"signed headers are missing: {', '.join(missing)}")
    return "".join(f"{name}:{headers[name].strip().lower()}\n" for name in names)


def _payload_digest(headers: Mapping[str, str], body: bytes) -> str:
    unsigned = headers.get("X-TC-Content-SHA256") == _UNSIGNED
    return hashlib.sha256(_UNSIGNED.encode() if unsigned else body).hexdigest()


@lru_cache(maxsize=16)
def _signing_key(secret_key: str, date: str, service: str) -> bytes:
    key = f"TC3{secret_key}".encode()
    for part in (date, service, "tc3_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _failure(code: str, message: str) -> RefusalError:
    return tiia_refusal(f"AuthFailure.{code}", message)
