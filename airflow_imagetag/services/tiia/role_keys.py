"""Keys of a role of the vendor's access management, renewed before they expire.

The vendor's SDK knows where to ask: the metadata server of the machine, or the service STS. It asks
the first without any timeout, so it runs in a thread of its own, and a request waits for that
thread no longer than its own timeout.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from airflow_imagetag.errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    Decision,
    ImageTagError,
)
from airflow_imagetag.runtime.threads import submit_daemon
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.tiia.envelope import meaning_of

log = logging.getLogger(__name__)

SDK_LOGGER = "tencentcloud_sdk_common"

NEEDS_SDK = (
    "credentials {!r} in extra needs the vendor's SDK. Install it with "
    "pip install 'airflow-provider-imagetag[roles]', or use credentials 'keys'"
)
"""Message about a role without the SDK that asks for its keys."""

SESSION_NAME = "airflow-provider-imagetag"
"""Names the sessions of an assumed role in the vendor's audit log."""

RENEWAL_SECONDS = 60.0
"""How long keys are used before the SDK is asked for them again.

The SDK answers from memory, except when it replaces the keys, five minutes or more before they
expire.
"""

_NETWORK_CODES = {"ClientNetworkError", "ServerNetworkError"}
"""Codes of the SDK for a failed connection, and for an HTTP status other than 200."""


def is_sdk_installed() -> bool:
    """Tell whether the SDK of the extra ``roles`` is installed, without importing it."""
    try:
        return importlib.util.find_spec("tencentcloud.common") is not None
    except (ImportError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that sign a request.

    :param token: goes with keys that expire; None with those that do not.
    """

    secret_id: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


class RoleKeys:
    """Keys of the role that an account's ``credentials`` and ``role`` name; safe in threads.

    :param account: the fields of the connection.
    :param clock: wall clock, in Unix seconds.
    """

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        self._account = account
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: Keys | None = None
        self._renew_at = 0.0
        self._credential: Any = None
        self._pending: Future[Keys] | None = None

    @property
    def at_hand(self) -> bool:
        """Whether ``current`` returns without asking the SDK."""
        return self._keys is not None and self._clock() < self._renew_at

    def current(self) -> Keys:
        """Return the keys to sign with; where they cannot be renewed, the last ones.

        :raises ConfigurationError: the SDK is not installed.
        :raises AuthenticationError: the role gives no keys.
        :raises ConnectionFailedError: the source of the keys cannot be reached, or does not answer
            within the account's ``timeout_seconds``.
        """
        with self._lock:
            if self._keys is not None and self.at_hand:
                return self._keys
            # Requests that come while the SDK is asked share its answer.
            if self._pending is None:
                self._pending = submit_daemon(self._ask, name="imagetag-role-keys")
            pending = self._pending
        try:
            keys = pending.result(self._account.timeout_seconds)
        except TimeoutError:
            seconds = self._account.timeout_seconds
            return self._last_keys(
                pending, ConnectionFailedError(f"No keys of the role came in {seconds:g} seconds.")
            )
        except ImageTagError as error:
            return self._last_keys(pending, error)
        with self._lock:
            self._finish(pending)
            self._keys = keys
        return keys

    def _finish(self, pending: Future[Keys]) -> bool:
        """End an attempt; return whether this is the first request to do so."""
        if self._pending is not pending:
            return False
        self._pending = None
        self._renew_at = self._clock() + RENEWAL_SECONDS
        return True

    def _last_keys(self, pending: Future[Keys], error: ImageTagError) -> Keys:
        """Return the last keys after an attempt that failed; without any, raise its error."""
        with self._lock:
            is_first = self._finish(pending)
            # A thread that hangs holds the lock of its credential for good.
            self._credential = None
            keys = self._keys
        if keys is None:
            raise error
        if is_first:
            log.warning("The last keys of the role stay in use: %s", error.message)
        return keys

    def _ask(self) -> Keys:
        sdk, sdk_error = _import_sdk(self._account.credentials)
        mute = _ThreadMute()
        logger = logging.getLogger(SDK_LOGGER)
        logger.addFilter(mute)
        try:
            credential = self._credential = self._credential or self._new_credential(sdk)
            secret_id, secret_key, token = credential.get_credential_info()
        except sdk_error as error:
            raise self._sdk_error(str(error.get_code())) from None
        except OSError as error:
            # The SDK raises it for an environment variable, or the file it names, that is missing.
            raise self._no_keys(str(error)) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ConnectionFailedError(
                f"The SDK does not understand the answer to its question for the role's keys: "
                f"{type(error).__name__}"
            ) from None
        finally:
            logger.removeFilter(mute)
        if not secret_id or not secret_key:
            # The SDK does not tell a machine without the role from a metadata server that is away.
            raise ConnectionFailedError(
                "The machine gives no keys of the role: it has no such role, or its metadata "
                "server does not answer. Check credentials and role in the connection's extra."
            )
        return Keys(secret_id, secret_key, token)

    def _new_credential(self, sdk: Any) -> Any:
        """Return the SDK's object that gives the keys; creating it may ask for them."""
        account = self._account
        if account.credentials == "cvm_role":
            return sdk.CVMRoleCredential(account.role)
        if account.credentials == "assume_role":
            return sdk.STSAssumeRoleCredential(
                account.secret_id, account.secret_key, account.role, SESSION_NAME
            )
        return sdk.DefaultTkeOIDCRoleArnProvider().get_credential()

    def _sdk_error(self, code: str) -> ImageTagError:
        if code in _NETWORK_CODES or meaning_of(code).error.decision is Decision.RETRY:
            return ConnectionFailedError(f"The keys of the role cannot be asked for: {code}")
        return self._no_keys(f"the vendor says {code}")

    def _no_keys(self, reason: str) -> ImageTagError:
        return AuthenticationError(
            f"The credentials {self._account.credentials!r} of the connection give no keys: "
            f"{reason}. Check credentials and role in the connection's extra."
        )


def _import_sdk(credentials: str) -> tuple[Any, Any]:
    """Return the SDK's module of credentials and the base class of its errors.

    :raises ConfigurationError: the SDK is not installed, or only in part.
    """
    try:
        from tencentcloud.common import credential
        from tencentcloud.common.exception import TencentCloudSDKException
    except ImportError:
        message = NEEDS_SDK.format(credentials)
        raise ConfigurationError(f"{message[0].upper()}{message[1:]}.") from None
    return credential, TencentCloudSDKException


class _ThreadMute(logging.Filter):
    """Drops the records of the thread that creates it.

    The SDK logs requests and answers, keys included.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the records of other threads pass."""
        del record
        return threading.get_ident() != self._thread
