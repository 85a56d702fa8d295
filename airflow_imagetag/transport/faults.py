"""The errors of the network in our words, one place for both HTTP clients."""

from __future__ import annotations

from airflow_imagetag.errors import (
    AnswerLostError,
    Billing,
    ConfigurationError,
    ConnectionFailedError,
)
from airflow_imagetag.service.account import Account


def not_connected(account: Account, what: str) -> ConnectionFailedError:
    """Return the error for a connection that never stood."""
    return ConnectionFailedError(
        f"No connection to {account.endpoint} ({what}): nothing was sent. Check the network, the "
        "proxy and the connection's host and port."
    )


def answer_lost(account: Account, what: str) -> AnswerLostError:
    """Return the error for a request without a whole answer."""
    return AnswerLostError(
        f"No whole answer from {account.endpoint} within {account.timeout_seconds:g} s ({what}): "
        "the request was sent and may have been billed.",
        billing=Billing.UNKNOWN,
    )


def untrusted(account: Account) -> ConfigurationError:
    """Return the error for a certificate that no known authority signed."""
    return ConfigurationError(
        f"The certificate of {account.endpoint} is not trusted: nothing was sent. If it is signed "
        "by an authority of your own, set 'verify' in the connection's extra to its CA file."
    )


def unusable(account: Account) -> ConfigurationError:
    """Return the error for an endpoint, proxy or CA file that no request can be sent with."""
    return ConfigurationError(
        f"No request can be sent to {account.endpoint}: check host, port, 'proxy' and 'verify' in "
        "the connection."
    )
