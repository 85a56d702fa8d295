"""Signs requests with the vendor's SDK, TC3-HMAC-SHA256, with keys of the account or of a role.

The SDK's own client would send with ``requests`` or httpx and make JSON of the whole body; here it
signs what is sent by our transport. It is imported when the first request is signed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from airflow_imagetag.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    ImageTagError,
)
from airflow_imagetag.service.account import Account
from airflow_imagetag.service.base import Request

SESSION_NAME = "airflow-provider-imagetag"
"""Names the sessions of an assumed role in the vendor's audit log."""

ROLE_KEYS_SECONDS = 60.0
"""For so long the keys of a role are used before the SDK is asked whether they are to be renewed.

It renews them minutes before their end, and may have to ask another service for that.
"""


@dataclass(frozen=True, slots=True)
class _Keys:
    """What a request is signed with, and until when without asking again."""

    secret_id: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    until: float


class Signer:
    """Makes signed requests of one action of TIIA.

    :param account: what the connection says.
    :param action: such as ``DetectLabelPro``.
    :param clock: wall clock, in Unix seconds.
    """

    def __init__(
        self, account: Account, action: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._account = account
        self._action = action
        self._clock = clock
        self._url = f"{account.endpoint}/"
        self._host = urlsplit(account.endpoint).netloc
        self._keys: _Keys | None = None

    @property
    def has_keys(self) -> bool:
        """Whether ``sign`` needs to ask nobody for keys."""
        return self._keys is not None and self._clock() < self._keys.until

    def sign(self, body: bytes) -> Request:
        """Return the signed request with this JSON body.

        :raises ConfigurationError: the SDK is not installed.
        :raises AuthenticationError: the role gives no keys.
        :raises ConnectionFailedError: who gives the role's keys cannot be asked.
        """
        from tencentcloud.common.http.request import RequestInternal

        client = self._client
        keys = self._current_keys()
        now = int(self._clock())
        date = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
        headers = {
            "Content-Type": "application/json",
            "Host": self._host,
            "X-TC-Action": self._action,
            "X-TC-Version": client._apiVersion,
            "X-TC-Region": self._account.region,
            "X-TC-Timestamp": str(now),
            "X-TC-RequestClient": client.request_client,
        }
        if keys.token:
            headers["X-TC-Token"] = keys.token
        request = RequestInternal(self._host, "POST", "/", headers, body)
        service = client._service
        signature = client._get_tc3_signature(None, request, date, service, keys.secret_key)
        headers["Authorization"] = (
            f"TC3-HMAC-SHA256 Credential={keys.secret_id}/{date}/{service}/tc3_request, "
            f"SignedHeaders=content-type;host, Signature={signature}"
        )
        return Request(self._url, headers, body)

    @cached_property
    def _client(self) -> Any:
        _check_installed()
        from tencentcloud.common.profile.client_profile import ClientProfile
        from tencentcloud.common.profile.http_profile import HttpProfile
        from tencentcloud.tiia.v20190529.tiia_client import TiiaClient

        profile = ClientProfile(httpProfile=HttpProfile(endpoint=self._host))
        return TiiaClient(None, self._account.region, profile)

    @cached_property
    def _credential(self) -> Any:
        """The SDK's object that gives the keys; making it may ask for them."""
        from tencentcloud.common import credential

        account = self._account
        if account.credentials == "cvm_role":
            return credential.CVMRoleCredential(account.role)
        if account.credentials == "assume_role":
            return credential.STSAssumeRoleCredential(
                account.secret_id, account.secret_key, account.role, SESSION_NAME
            )
        if account.credentials == "tke_oidc":
            return credential.DefaultTkeOIDCRoleArnProvider().get_credential()
        return credential.Credential(account.secret_id, account.secret_key, account.token)

    def _current_keys(self) -> _Keys:
        keys = self._keys
        if keys is None or self._clock() >= keys.until:
            keys = self._keys = self._ask_for_keys()
        return keys

    def _ask_for_keys(self) -> _Keys:
        from tencentcloud.common.exception import TencentCloudSDKException

        try:
            secret_id, secret_key, token = self._credential.get_credential_info()
        except TencentCloudSDKException as error:
            raise self._no_keys(f"the vendor says {error.get_code()}") from None
        except OSError as error:
            if self._account.credentials == "tke_oidc" and not isinstance(error, ConnectionError):
                # The SDK raises it for environment variables that are not there.
                raise self._no_keys(str(error)) from None
            raise ConnectionFailedError(
                f"The keys of the role cannot be asked for: {type(error).__name__}"
            ) from None
        if not secret_id or not secret_key:
            raise self._no_keys("this machine has no such role")
        is_role = self._account.credentials != "keys"
        until = self._clock() + ROLE_KEYS_SECONDS if is_role else float("inf")
        return _Keys(secret_id, secret_key, token, until)

    def _no_keys(self, why: str) -> ImageTagError:
        return AuthenticationError(
            f"The credentials {self._account.credentials!r} of the connection give no keys: {why}. "
            "Check credentials and role in the connection's extra."
        )


def _check_installed() -> None:
    try:
        import tencentcloud.tiia  # noqa: F401
    except ImportError:
        raise ConfigurationError(
            "This api needs the vendor's SDK. Install it with "
            "pip install 'airflow-provider-imagetag[tiia]', or choose another api."
        ) from None
