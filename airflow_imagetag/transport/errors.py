"""The errors of the network in our words, one place for both HTTP clients."""

from __future__ import annotations

from airflow_imagetag.errors import (
    AnswerLostError,
    AuthenticationError,
    Billing,
    ConfigurationError,
    ConnectionFailedError,
    ImageTagError,
)
from airflow_imagetag.services.account import Account


def not_connected(account: Account, what: str) -> ConnectionFailedError:
    """Return the error for a connection that never stood."""
    return ConnectionFailedError(
        f"No connection to {account.endpoint} ({what}): nothing was sent. Check the network, the "
        "proxy and the connection's host, port and schema, which is 'http' for an endpoint without "
        "TLS."
    )


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
    return not_connected(account, f"the proxy answered HTTP {status}")


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
