"""Map the errors of both HTTP libraries to ours.

Each library has one table, whose rows are asked in order. Our messages repeat nothing of the
library's: it may hold the request's headers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from airflow_imagetag.errors import (
    AnswerLostError,
    AuthenticationError,
    Billing,
    ConfigurationError,
    ConnectionFailedError,
    ImageTagError,
    MalformedAnswerError,
)
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.response_parsing import SUCCESS
from airflow_imagetag.transport.body import BodyError, BodyTooLargeError, DamagedBodyError


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """A row of a table of foreign errors.

    :param kinds: exception classes of the library.
    :param make: returns our error for one of them, or None to leave it to the next row.
    """

    kinds: tuple[type[Exception], ...]
    make: Callable[[Account, BaseException], ImageTagError | None]


@dataclass(frozen=True, slots=True)
class ErrorTable:
    """The table of one library.

    :param rows: the rows, the first that matches first.
    """

    rows: tuple[ErrorRow, ...]

    @property
    def kinds(self) -> tuple[type[Exception], ...]:
        """All classes of the table, for an ``except`` clause."""
        return tuple(kind for row in self.rows for kind in row.kinds)

    def map_error(self, causes: Iterable[BaseException], account: Account) -> ImageTagError:
        """Return our error of the first row that has one.

        :param causes: the error, and the errors that led to it.
        """
        found = list(causes)
        for row in self.rows:
            for cause in found:
                if isinstance(cause, row.kinds) and (error := row.make(account, cause)):
                    return error
        # Not in the table: it may have been billed.
        return answer_lost(account, found[0])


def not_connected(account: Account, error: BaseException) -> ConnectionFailedError:
    """Return the error for a connection that could not be made."""
    return _not_connected(account, type(error).__name__)


def no_tunnel(account: Account, status: int) -> ImageTagError:
    """Return the error for a proxy that refused to connect to the endpoint.

    :param status: HTTP status of its refusal.
    """
    if status == 407:
        return AuthenticationError(
            "The proxy wants credentials (HTTP 407): check 'proxy' in the connection.",
            code="407",
            status=407,
        )
    return _not_connected(account, f"the proxy answered HTTP {status}")


def answer_lost(account: Account, error: BaseException) -> AnswerLostError:
    """Return the error for a request without a whole response."""
    return AnswerLostError(
        f"No whole answer from {account.endpoint} within {account.timeout_seconds:g} s "
        f"({type(error).__name__}): the request was sent and may have been billed.",
        billing=Billing.UNKNOWN,
    )


def unreadable(account: Account, status: int, error: BodyError, max_bytes: int) -> ImageTagError:
    """Return the error for an answer whose body is over the limit or cannot be decoded.

    :param status: HTTP status of the answer.
    :param max_bytes: the limit.
    """
    if isinstance(error, DamagedBodyError):
        return answer_lost(account, error)
    why = (
        f"is larger than {max_bytes} bytes"
        if isinstance(error, BodyTooLargeError)
        else "has a content encoding that was not asked for"
    )
    return MalformedAnswerError(
        f"The answer of {account.endpoint} {why} (HTTP {status}): it was not read, and the call "
        "may have been billed. Check host, port and 'proxy' in the connection.",
        # The next answer will most likely be the same: the engine does not repeat a success that
        # it cannot read as often as a failure.
        code=SUCCESS,
        status=status,
        billing=Billing.UNKNOWN,
    )


def untrusted(account: Account, error: BaseException) -> ConfigurationError:
    """Return the error for a certificate that no known authority signed."""
    del error
    return ConfigurationError(
        f"The certificate of {account.endpoint} is not trusted: nothing was sent. If it is signed "
        "by an authority of your own, set 'verify' in the connection's extra to its CA file."
    )


def unusable(account: Account, error: BaseException) -> ConfigurationError:
    """Return the error for an endpoint, proxy or CA file that no request can be sent with."""
    del error
    return ConfigurationError(
        f"No request can be sent to {account.endpoint}: check host, port, 'proxy' and 'verify' in "
        "the connection."
    )


def _not_connected(account: Account, reason: str) -> ConnectionFailedError:
    return ConnectionFailedError(
        f"No connection to {account.endpoint} ({reason}): nothing was sent. Check the network, the "
        "proxy and the connection's host, port and schema, which is 'http' for an endpoint without "
        "TLS."
    )
