"""Signs requests with the vendor's SDK, TC3-HMAC-SHA256, with keys of the account or of a role.

The SDK's own client would send with ``requests`` or httpx and make JSON of the whole body; here it
signs what is sent by our transport. It is imported when the first request is signed.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import Request
from airflow_imagetag.services.tiia.role_keys import Keys, RoleKeys

NEEDS_SDK = (
    "this api needs the vendor's SDK. Install it with "
    "pip install 'airflow-provider-imagetag[tiia]', or choose another api"
)


class Signer:
    """Makes signed requests of one action of TIIA.

    :param account: what the connection says.
    :param action: such as ``DetectLabelPro``.
    :param clock: wall clock, in Unix seconds.
    """

    def __init__(
        self, account: Account, action: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._action = action
        self._region = account.region
        self._clock = clock
        self._url = f"{account.endpoint}/"
        self._host = urlsplit(account.endpoint).netloc
        self._keys = Keys(account.secret_id, account.secret_key, account.token)
        self._role = None if account.credentials == "keys" else RoleKeys(account, clock=clock)

    @property
    def is_ready(self) -> bool:
        """Whether ``sign`` neither imports the SDK nor asks for a role's keys."""
        return "_client" in self.__dict__ and (self._role is None or self._role.at_hand)

    def sign(self, body: bytes) -> Request:
        """Return the signed request with this JSON body.

        :raises ConfigurationError: the SDK is not installed.
        :raises AuthenticationError: the role gives no keys.
        :raises ConnectionFailedError: who gives the role's keys cannot be asked.
        """
        client = self._client
        keys = self._keys if self._role is None else self._role.current()
        now = int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "Host": self._host,
            "X-TC-Action": self._action,
            "X-TC-Version": client._apiVersion,
            "X-TC-Region": self._region,
            "X-TC-Timestamp": str(now),
            "X-TC-RequestClient": client.request_client,
            "X-TC-Language": client.profile.language,
        }
        if keys.token:
            headers["X-TC-Token"] = keys.token
        headers["Authorization"] = _authorization(client, keys, now, headers, body)
        return Request(self._url, headers, body)

    @cached_property
    def _client(self) -> Any:
        try:
            from tencentcloud.tiia.v20190529.tiia_client import TiiaClient
        except ImportError:
            raise ConfigurationError(f"{NEEDS_SDK[0].upper()}{NEEDS_SDK[1:]}.") from None
        return TiiaClient(None, self._region)


def is_sdk_installed() -> bool:
    """Tell whether the extra ``tiia`` is installed, without importing it."""
    try:
        return importlib.util.find_spec("tencentcloud.tiia") is not None
    except (ImportError, ValueError):
        return False


def _authorization(client: Any, keys: Keys, now: int, headers: dict[str, str], body: bytes) -> str:
    from tencentcloud.common.http.request import RequestInternal

    request = RequestInternal(headers["Host"], "POST", "/", headers, body)
    date = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    service = client._service
    # Only a client of the SDK can sign, and only with methods that it does not call public.
    signature = client._get_tc3_signature(None, request, date, service, keys.secret_key)
    return (
        f"TC3-HMAC-SHA256 Credential={keys.secret_id}/{date}/{service}/tc3_request, "
        f"SignedHeaders=content-type;host, Signature={signature}"
    )
