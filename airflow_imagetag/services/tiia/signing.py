"""Makes signed requests of TIIA, with keys of the account or of a role."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import Request
from airflow_imagetag.services.tiia.role_keys import Keys, RoleKeys
from airflow_imagetag.services.tiia.signature import UNSIGNED_PAYLOAD, sign_tc3

API_VERSION = "2019-05-29"

SERVICE = "tiia"

LANGUAGE = "zh-CN"
"""Language of error messages; the vendor's SDK asks for the same one."""

CONTENT_TYPE = "application/json"


_UNSIGNED_SHA256 = hashlib.sha256(UNSIGNED_PAYLOAD).hexdigest()


class Signer:
    """Makes signed requests of one action of TIIA.

    :param account: the fields of the connection.
    :param action: such as ``DetectLabelPro``.
    :param clock: wall clock, in Unix seconds.
    """

    def __init__(
        self,
        account: Account,
        action: str,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._is_payload_signed = account.sign_payload
        self._url = f"{account.endpoint}/"
        self._host = urlsplit(account.endpoint).netloc
        self._keys = Keys(account.secret_id, account.secret_key, account.token)
        self._role = None if account.credentials == "keys" else RoleKeys(account, clock=clock)
        self._headers = {
            "Content-Type": CONTENT_TYPE,
            "Host": self._host,
            "X-TC-Action": action,
            "X-TC-Version": API_VERSION,
            "X-TC-Region": account.region,
            "X-TC-Language": LANGUAGE,
        }
        if not account.sign_payload:
            self._headers["X-TC-Content-SHA256"] = UNSIGNED_PAYLOAD.decode()
        self._latest: tuple[Keys, int, Mapping[str, str]] | None = None

    @property
    def needs_io(self) -> bool:
        """Whether the next ``sign`` asks for a role's keys."""
        return self._role is not None and not self._role.at_hand

    def sign(self, body: bytes | tuple[bytes, ...]) -> Request:
        """Return the signed request with this JSON body, or pieces of it.

        :raises ConfigurationError: keys of a role are asked for and the SDK is not installed.
        :raises AuthenticationError: the role gives no keys.
        :raises ConnectionFailedError: the source of the role's keys does not answer.
        """
        keys = self._keys if self._role is None else self._role.current()
        now = int(self._clock())
        headers: Mapping[str, str]
        if self._is_payload_signed:
            headers = self._signed_headers(keys, now, _sha256(body))
        else:
            headers = self._unsigned_headers(keys, now)
        return Request(self._url, headers, body)

    def _unsigned_headers(self, keys: Keys, now: int) -> Mapping[str, str]:
        """Return headers that sign no body: they are the same for all requests of a second."""
        latest = self._latest
        if latest is None or latest[0] is not keys or latest[1] != now:
            # They cannot change, so that a transport may keep its own form of them.
            headers = MappingProxyType(self._signed_headers(keys, now, _UNSIGNED_SHA256))
            latest = self._latest = keys, now, headers
        return latest[2]

    def _signed_headers(self, keys: Keys, now: int, payload_sha256: str) -> dict[str, str]:
        headers = self._headers | {"X-TC-Timestamp": str(now)}
        if keys.token:
            headers["X-TC-Token"] = keys.token
        headers["Authorization"] = sign_tc3(
            keys.secret_id,
            keys.secret_key,
            service=SERVICE,
            host=self._host,
            content_type=CONTENT_TYPE,
            now=now,
            payload_sha256=payload_sha256,
        )
        return headers


def _sha256(body: bytes | tuple[bytes, ...]) -> str:
    if isinstance(body, bytes):
        return hashlib.sha256(body).hexdigest()
    digest = hashlib.sha256()
    for piece in body:
        digest.update(piece)
    return digest.hexdigest()
