"""The keys of a role of the vendor's access management, and new ones before they end.

The vendor's SDK knows whom to ask: the metadata server of the machine, or the service STS. It asks
the first without any timeout, so it is asked in a thread of its own, for which nobody waits longer
than for a request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from airflow_imagetag.errors import (
    AuthenticationError,
    ConnectionFailedError,
    Decision,
    ImageTagError,
)
from airflow_imagetag.runtime.threads import submit_daemon
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.tiia.envelope import meaning_of

log = logging.getLogger(__name__)

SDK_LOGGER = "tencentcloud_sdk_common"

SESSION_NAME = "airflow-provider-imagetag"
"""Names the sessions of an assumed role in the vendor's audit log."""

RENEWAL_SECONDS = 60.0
"""For so long keys are used before the SDK is asked for them again.

It answers at once, except when it replaces them, five minutes or more before their end.
"""

_NETWORK_CODES = {"ClientNetworkError", "ServerNetworkError"}
"""What the SDK calls a failed connection, and an HTTP status other than 200."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What a request is signed with.

    :param token: goes with keys that end; None with those that do not.
    """

    secret_id: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class RoleKeys:
    """Keys of the role that an account's ``credentials`` and ``role`` name; safe in threads.

    :param account: what the connection says.
    :param clock: wall clock, in Unix seconds.
    """

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        self._account = account
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: Keys | None = None
        self._renew_at = 0.0
        self._credential: Any = None
        self._asking: Future[Keys] | None = None

    @property
    def at_hand(self) -> bool:
        """Whether ``current`` asks nobody."""
        return self._keys is not None and self._clock() < self._renew_at

    def current(self) -> Keys:
        """Return the keys to sign with; where they cannot be renewed, the last ones.

        :raises AuthenticationError: the role gives no keys.
        :raises ConnectionFailedError: who gives them cannot be asked, or does not answer within the
            account's ``timeout_seconds``.
        """
        with self._lock:
            if self._keys is not None and self.at_hand:
                return self._keys
            # Whoever comes while the SDK is asked waits for the same answer.
            if self._asking is None:
                self._asking = submit_daemon(self._ask, name="imagetag-role-keys")
            asking = self._asking
        try:
            keys = asking.result(self._account.timeout_seconds)
        except TimeoutError:
            seconds = self._account.timeout_seconds
            return self._without_answer(
                asking, ConnectionFailedError(f"No keys of the role came in {seconds:g} seconds.")
            )
        except ImageTagError as error:
            return self._without_answer(asking, error)
        with self._lock:
            self._finish(asking)
            self._keys = keys
        return keys

    def _finish(self, asking: Future[Keys]) -> bool:
        """Return whether this is the first to hear how the SDK's asking ended."""
        if self._asking is not asking:
            return False
        self._asking = None
        self._renew_at = self._clock() + RENEWAL_SECONDS
        return True

    def _without_answer(self, asking: Future[Keys], error: ImageTagError) -> Keys:
        with self._lock:
            is_first = self._finish(asking)
            # A thread that hangs holds the lock of its credential for good.
            self._credential = None
            keys = self._keys
        if keys is None:
            raise error
        if is_first:
            log.warning("The last keys of the role stay in use: %s", error.message)
        return keys

    def _ask(self) -> Keys:
        from tencentcloud.common.exception import TencentCloudSDKException

        silence = _Silence()
        logger = logging.getLogger(SDK_LOGGER)
        logger.addFilter(silence)
        try:
            credential = self._credential = self._credential or self._new_credential()
            secret_id, secret_key, token = credential.get_credential_info()
        except TencentCloudSDKException as error:
            raise self._sdk_error(str(error.get_code())) from None
        except OSError as error:
            # The SDK's word for an environment variable, or the file that one names, not there.
            raise self._no_keys(str(error)) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ConnectionFailedError(
                f"The SDK does not understand the answer to its question for the role's keys: "
                f"{type(error).__name__}"
            ) from None
        finally:
            logger.removeFilter(silence)
        if not secret_id or not secret_key:
            # The SDK does not tell a machine without the role from a metadata server that is away.
            raise ConnectionFailedError(
                "The machine gives no keys of the role: it has no such role, or its metadata "
                "server does not answer. Check credentials and role in the connection's extra."
            )
        return Keys(secret_id, secret_key, token)

    def _new_credential(self) -> Any:
        """Return the SDK's object that gives the keys; making it may ask for them."""
        from tencentcloud.common import credential

        account = self._account
        if account.credentials == "cvm_role":
            return credential.CVMRoleCredential(account.role)
        if account.credentials == "assume_role":
            return credential.STSAssumeRoleCredential(
                account.secret_id, account.secret_key, account.role, SESSION_NAME
            )
        return credential.DefaultTkeOIDCRoleArnProvider().get_credential()

    def _sdk_error(self, code: str) -> ImageTagError:
        if code in _NETWORK_CODES or meaning_of(code).error.decision is Decision.RETRY:
            return ConnectionFailedError(f"The keys of the role cannot be asked for: {code}")
        return self._no_keys(f"the vendor says {code}")

    def _no_keys(self, why: str) -> ImageTagError:
        return AuthenticationError(
            f"The credentials {self._account.credentials!r} of the connection give no keys: {why}. "
            "Check credentials and role in the connection's extra."
        )


class _Silence(logging.Filter):
    """Drops what the thread that made it logs: the SDK logs requests and answers, keys included."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the records of other threads pass."""
        del record
        return threading.get_ident() != self._thread
