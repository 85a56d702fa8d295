"""Makes signed GET requests of one bucket."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from airflow_imagetag.services.account import Account
from airflow_imagetag.services.ci.signature import encode, sign_cos
from airflow_imagetag.services.messages import Request

CLOCK_TOLERANCE_SECONDS = 60
"""How far the life of a signature begins in the past: the worker's clock may be a little ahead."""

LIFETIME_SECONDS = 900
"""How long a signature lives: a request is signed right before it is sent."""


class Signer:
    """Makes signed GET requests of the bucket that an account names.

    :param account: the fields of the connection.
    :param clock: wall clock, in Unix seconds.
    """

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        self._account = account
        self._clock = clock
        self._headers = {"Host": urlsplit(account.endpoint).netloc}
        if account.token:
            self._headers["x-cos-security-token"] = account.token

    def get(self, key: str, params: Mapping[str, str]) -> Request:
        """Return the signed request for an object, or for the bucket itself.

        :param key: name of the object, exactly as it is; empty for the bucket.
        :param params: parameters of the query.
        """
        now = int(self._clock())
        signature = sign_cos(
            self._account.secret_id,
            self._account.secret_key,
            method="GET",
            path=f"/{key}",
            params=params,
            headers=self._headers,
            begins=now - CLOCK_TOLERANCE_SECONDS,
            ends=now + LIFETIME_SECONDS,
        )
        query = "&".join(f"{name}={encode(value)}" for name, value in params.items())
        url = f"{self._account.endpoint}/{_path(key)}?{query}"
        return Request(url, self._headers | {"Authorization": signature}, b"", "GET")


def _path(key: str) -> str:
    # No HTTP library may take a part of the name for a step to another folder. The vendor's client
    # writes the slash behind a dot in the same way.
    return quote(key, safe="/-_.~").replace("./", ".%2F")
