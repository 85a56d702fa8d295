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
)
from airflow_imagetag.services.account import Account


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
