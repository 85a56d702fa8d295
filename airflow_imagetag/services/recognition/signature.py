"""The signature of the recognition service, versions 1 and 2 of the label API.

Source: the vendor's page on signing, https://cloud.tencent.com/document/product/865/17723.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_NONCE = 9_999_999_999
"""The nonce is an unsigned decimal of at most ten digits."""

MAX_LIFETIME_SECONDS = 90 * 24 * 3600
"""A reusable signature lives at most three months."""


def sign(
    app_id: str,
    secret_id: str,
    secret_key: str,
    *,
    bucket: str = "",
    now: int,
    expires: int,
    nonce: int,
    file_id: str = "",
) -> str:
    """Return the value of the ``Authorization`` header.

    It is ``Base64(HMAC-SHA1(secret_key, original) + original)`` in the standard alphabet, where
    ``original`` lists the fields below in the vendor's order. The function is pure.

    :param app_id: the account's AppID.
    :param secret_id: the SecretId of the key.
    :param secret_key: the SecretKey of the key.
    :param bucket: a field of older accounts; may be empty.
    :param now: time of signing, in Unix seconds.
    :param expires: end of life, in Unix seconds; 0 makes a single-use signature for ``file_id``.
    :param nonce: a random unsigned decimal of at most ten digits.
    :param file_id: the resource that a single-use signature is bound to; empty for a reusable one.
    """
    original = (
        f"a={app_id}&b={bucket}&k={secret_id}&e={expires}&t={now}&r={nonce}&f={file_id}"
    ).encode()
    digest = hmac.new(secret_key.encode(), original, hashlib.sha1).digest()
    return base64.b64encode(digest + original).decode("ascii")


@dataclass(slots=True)
class ReusableSignature:
    """Signs once and reuses the signature until shortly before it expires.

    :param lifetime_seconds: how long each signature is valid.
    :param renew_before_seconds: how long before the end a new one is made, so that neither a
        request on its way nor a clock that is a little off meets an expired one.
    :param clock: wall clock, in Unix seconds.
    :param nonce: source of the random number in the signature.
    """

    app_id: str
    secret_id: str = field(repr=False)
    secret_key: str = field(repr=False)
    bucket: str = ""
    lifetime_seconds: int = 3600
    renew_before_seconds: int = 600
    clock: Callable[[], float] = field(default=time.time, repr=False)
    nonce: Callable[[], int] = field(default=lambda: secrets.randbelow(MAX_NONCE + 1), repr=False)
    # The signature, and the first and the last moment at which it is good for a request.
    _current: tuple[str, int, int] = field(default=("", 0, 0), init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def value(self) -> str:
        """Return a signature that stays valid for at least ``renew_before_seconds``."""
        now = int(self.clock())
        signature, begin, end = self._current
        # A clock set back past the time of signing would make the service see a signature from the
        # future, so that renews too.
        return signature if begin <= now < end else self._renewed(now)

    def _renewed(self, now: int) -> str:
        with self._lock:
            # Another thread may have signed meanwhile.
            signature, begin, end = self._current
            if begin <= now < end:
                return signature
            expires = now + self.lifetime_seconds
            signature = sign(
                self.app_id,
                self.secret_id,
                self.secret_key,
                bucket=self.bucket,
                now=now,
                expires=expires,
                nonce=self.nonce(),
            )
            self._current = (signature, now, expires - self.renew_before_seconds)
            return signature
