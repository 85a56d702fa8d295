"""Check the Authorization header of V1 and V2.

The vendor documents HTTP 401 for a request without authorisation and 403 for a refused
signature, but no codes for the bodies of these answers: ``code`` is always -1, a number of the
emulator's own, and the message gives the reason.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from airflow_imagetag.testing._api import http_refusal

if TYPE_CHECKING:
    from airflow_imagetag.testing._api import EmulatorAccount

MAX_LIFETIME_SECONDS: Final = 90 * 24 * 3600
"""Maximum lifetime of a reusable signature, the vendor's limit of three months."""

MAX_CLOCK_SKEW_SECONDS: Final = 15 * 60
"""Maximum lead of a signature's time over the clock; the emulator's own choice."""

_DIGEST_BYTES: Final = 20  # of SHA-1
_FIELDS: Final = "abketrf"
_MAX_NONCE_DIGITS: Final = 10
_MAX_TIME_DIGITS: Final = 12


def verify(authorization: str | None, account: EmulatorAccount, *, now: float) -> None:
    """Validate the header's value.

    :param authorization: value of the Authorization header, or None.
    :param account: account that must have signed.
    :param now: wall-clock time in Unix seconds.
    :raises RefusalError: 401 without the header, 403 for a wrong value.
    """
    if not authorization:
        raise http_refusal(401, "the Authorization header is missing")
    digest, original = _split(authorization)
    fields = _parse(original)
    _check_account(fields, account)
    expected = hmac.new(account.secret_key.encode(), original, hashlib.sha1).digest()
    if not hmac.compare_digest(digest, expected):
        raise http_refusal(403, "the signature does not match: check the SecretKey")
    _check_times(fields, now)
    _check_nonce(fields["r"])
    if fields["f"]:
        raise http_refusal(403, "field f of the signature must be empty")


def _split(authorization: str) -> tuple[bytes, bytes]:
    try:
        decoded = base64.b64decode(authorization, validate=True)
    except (binascii.Error, ValueError):
        raise http_refusal(403, "the Authorization header is not standard Base64") from None
    if len(decoded) <= _DIGEST_BYTES:
        raise http_refusal(403, "the Authorization header is too short for a signature")
    return decoded[:_DIGEST_BYTES], decoded[_DIGEST_BYTES:]


def _parse(original: bytes) -> dict[str, str]:
    try:
        pairs = [part.partition("=") for part in original.decode().split("&")]
    except UnicodeDecodeError:
        raise http_refusal(403, "the signed text is not UTF-8") from None
    if "".join(name for name, _, _ in pairs) != _FIELDS or len(pairs) != len(_FIELDS):
        raise http_refusal(403, "the signed text must be a=..&b=..&k=..&e=..&t=..&r=..&f=..")
    return {name: value for name, _, value in pairs}


def _check_account(fields: dict[str, str], account: EmulatorAccount) -> None:
    if fields["a"] != account.app_id:
        raise http_refusal(403, "the signature names an unknown AppID")
    if account.bucket and fields["b"] != account.bucket:
        raise http_refusal(403, "the signature names another bucket")
    if fields["k"] != account.secret_id:
        raise http_refusal(403, "the signature names an unknown SecretId")


def _check_times(fields: dict[str, str], now: float) -> None:
    if not (
        _is_decimal(fields["e"], _MAX_TIME_DIGITS) and _is_decimal(fields["t"], _MAX_TIME_DIGITS)
    ):
        raise http_refusal(403, "fields e and t of the signature must be Unix seconds")
    expires, signed_at = int(fields["e"]), int(fields["t"])
    if expires <= signed_at:
        raise http_refusal(403, "field e of a reusable signature must be after t")
    if expires - signed_at > MAX_LIFETIME_SECONDS:
        raise http_refusal(403, "the signature is valid for more than three months")
    if now >= expires:
        raise http_refusal(403, "the signature has expired")
    if signed_at > now + MAX_CLOCK_SKEW_SECONDS:
        raise http_refusal(403, "the signature was made in the future: check the clock")


def _check_nonce(nonce: str) -> None:
    if not _is_decimal(nonce, _MAX_NONCE_DIGITS):
        raise http_refusal(403, "field r of the signature must be a decimal of at most ten digits")


def _is_decimal(text: str, max_digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= max_digits
