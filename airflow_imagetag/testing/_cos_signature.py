"""Check the request signature of Cloud Object Storage.

This module follows the vendor's description and shares no code with a client, so that it cannot
repeat a client's error.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote

from airflow_imagetag.testing._api import RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_imagetag.testing._api import EmulatorAccount, RequestHead

PREFIX: Final = "q-sign-algorithm="
"""How the value of the header Authorization begins."""

_TIMES: Final = re.compile(r"([0-9]{1,10});([0-9]{1,10})")


def verify(head: RequestHead, account: EmulatorAccount, *, now: float) -> None:
    """Validate the signature in the header ``Authorization``.

    :param head: the request, with its raw path and query.
    :param account: the account whose signature it must be.
    :param now: wall-clock time in Unix seconds.
    :raises RefusalError: with HTTP status 403 and one of the vendor's codes.
    """
    given = dict(parse_qsl(head.headers.get("Authorization", ""), keep_blank_values=True))
    if not given:
        raise _refusal("AccessDenied", "the request is not signed")
    times = _TIMES.fullmatch(given.get("q-sign-time", ""))
    if given.get("q-sign-algorithm") != "sha1" or times is None:
        raise _refusal("MalformedAuthorization", "Authorization is not in the form of COS", 400)
    if given.get("q-ak") != account.secret_id:
        raise _refusal("InvalidAccessKeyId", "no such SecretId")
    if head.headers.get("x-cos-security-token", "") != account.token:
        raise _refusal("InvalidToken", "x-cos-security-token is not that of the keys")
    if now < int(times[1]):
        raise _refusal("RequestTimeTooSkewed", "the signature is of the future")
    if now > int(times[2]):
        raise _refusal("RequestIsExpired", "the signature has expired")
    if given.get("q-signature") not in _signatures(head, given, account.secret_key):
        raise _refusal("SignatureDoesNotMatch", "the signature does not match: check the SecretKey")


def _signatures(head: RequestHead, given: Mapping[str, str], secret_key: str) -> list[str]:
    """Return the right signatures: the vendor's client signs the host without its port."""
    host = head.headers.get("Host", "")
    hosts = dict.fromkeys((host, host.rpartition(":")[0] or host))
    return [_signature(head, given, secret_key, shown) for shown in hosts]


def _signature(head: RequestHead, given: Mapping[str, str], secret_key: str, host: str) -> str:
    headers = {name.lower(): value for name, value in head.headers.items()} | {"host": host}
    params = {name.lower(): value for name, value in head.params.items()}
    lines = (
        head.method.lower(),
        head.object_path,
        _signed(given.get("q-url-param-list", ""), params),
        _signed(given.get("q-header-list", ""), headers),
    )
    text = "".join(f"{line}\n" for line in lines)
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    key = _hmac(secret_key, given.get("q-key-time", ""))
    return _hmac(key, f"sha1\n{given['q-sign-time']}\n{digest}\n")


def _signed(names: str, values: Mapping[str, str]) -> str:
    listed = [name for name in names.split(";") if name]
    return "&".join(f"{name}={quote(values.get(name, ''), safe='-_.~')}" for name in listed)


def _hmac(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha1).hexdigest()


def _refusal(code: str, message: str, status: int = 403) -> RefusalError:
    return RefusalError(status, code, message)
