"""Every exception class of the HTTP libraries has an error of ours, of the kind that is meant."""

from __future__ import annotations

import builtins
import contextlib
import inspect
import socket
import ssl
from types import ModuleType

import aiohttp.client_exceptions
import pytest
import requests.exceptions
import urllib3.exceptions

from airflow_imagetag.errors import (
    AnswerLostError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    ImageTagError,
)
from airflow_imagetag.services.account import Account
from airflow_imagetag.transport import blocking, nonblocking

SECRET = "5ecre7Signature"
ACCOUNT = Account("1", "id", "key", "https://host")

LOST = AnswerLostError
"""Sent, perhaps billed, and tried again."""
NOT_SENT = ConnectionFailedError
"""Not sent, and tried again."""
WRONG = ConfigurationError
"""Nothing can be sent: the run ends."""

BUILTINS = {
    OSError: WRONG,
    BlockingIOError: WRONG,
    BrokenPipeError: LOST,
    ChildProcessError: WRONG,
    ConnectionAbortedError: LOST,
    ConnectionError: LOST,
    ConnectionRefusedError: NOT_SENT,
    ConnectionResetError: LOST,
    FileExistsError: WRONG,
    FileNotFoundError: WRONG,
    InterruptedError: WRONG,
    IsADirectoryError: WRONG,
    NotADirectoryError: WRONG,
    PermissionError: WRONG,
    ProcessLookupError: WRONG,
    TimeoutError: LOST,
    socket.gaierror: NOT_SENT,
    socket.herror: WRONG,
    ssl.SSLError: LOST,
    ssl.SSLCertVerificationError: WRONG,
    ssl.SSLEOFError: LOST,
    ssl.SSLSyscallError: LOST,
    ssl.SSLWantReadError: LOST,
    ssl.SSLWantWriteError: LOST,
    ssl.SSLZeroReturnError: LOST,
}
"""Plain errors under requests, which raises one for a file of authorities that is missing."""

REQUESTS = {
    "ChunkedEncodingError": LOST,
    "ConnectTimeout": NOT_SENT,
    "ConnectionError": LOST,
    "ContentDecodingError": LOST,
    "HTTPError": LOST,
    # requests raises it for a header of the response, too.
    "InvalidHeader": LOST,
    "InvalidJSONError": LOST,
    "InvalidProxyURL": WRONG,
    "InvalidSchema": WRONG,
    "InvalidURL": WRONG,
    "JSONDecodeError": LOST,
    "MissingSchema": WRONG,
    "ProxyError": NOT_SENT,
    "ReadTimeout": LOST,
    "RequestException": LOST,
    "RetryError": LOST,
    "SSLError": NOT_SENT,
    "StreamConsumedError": LOST,
    "Timeout": LOST,
    "TooManyRedirects": LOST,
    "URLRequired": WRONG,
    "UnrewindableBodyError": LOST,
}

URLLIB3 = {
    "BodyNotHttplibCompatible": LOST,
    "ClosedPoolError": LOST,
    "ConnectTimeoutError": NOT_SENT,
    # Another name of ProtocolError.
    "ConnectionError": LOST,
    "DecodeError": LOST,
    "EmptyPoolError": LOST,
    "FullPoolError": LOST,
    "HTTPError": LOST,
    "HeaderParsingError": LOST,
    "HostChangedError": LOST,
    "IncompleteRead": LOST,
    "InvalidChunkLength": LOST,
    "InvalidHeader": LOST,
    "LocationParseError": WRONG,
    "LocationValueError": WRONG,
    "MaxRetryError": LOST,
    "NameResolutionError": NOT_SENT,
    "NewConnectionError": NOT_SENT,
    "PoolError": LOST,
    "ProtocolError": LOST,
    "ProxyError": NOT_SENT,
    "ProxySchemeUnknown": WRONG,
    "ProxySchemeUnsupported": WRONG,
    "ReadTimeoutError": LOST,
    "RequestError": LOST,
    "ResponseError": LOST,
    "ResponseNotChunked": LOST,
    # While the body is read; a handshake that fails comes as the one of requests.
    "SSLError": LOST,
    "TimeoutError": LOST,
    "TimeoutStateError": LOST,
    "URLSchemeUnknown": WRONG,
    "UnrewindableBodyError": LOST,
}

AIOHTTP = {
    "ClientConnectionError": LOST,
    "ClientConnectionResetError": LOST,
    "ClientConnectorCertificateError": WRONG,
    "ClientConnectorDNSError": NOT_SENT,
    "ClientConnectorError": NOT_SENT,
    "ClientConnectorSSLError": NOT_SENT,
    "ClientError": LOST,
    "ClientHttpProxyError": NOT_SENT,
    "ClientOSError": LOST,
    "ClientPayloadError": LOST,
    "ClientProxyConnectionError": NOT_SENT,
    "ClientResponseError": LOST,
    "ClientSSLError": NOT_SENT,
    "ConnectionTimeoutError": NOT_SENT,
    "ContentTypeError": LOST,
    "InvalidURL": WRONG,
    "InvalidUrlClientError": WRONG,
    "InvalidUrlRedirectClientError": WRONG,
    "NonHttpUrlClientError": WRONG,
    "NonHttpUrlRedirectClientError": WRONG,
    "RedirectClientError": LOST,
    "ServerConnectionError": LOST,
    "ServerDisconnectedError": LOST,
    "ServerFingerprintMismatch": LOST,
    "ServerTimeoutError": LOST,
    "SocketTimeoutError": LOST,
    "TooManyRedirects": LOST,
    "UnixClientConnectorError": NOT_SENT,
    "UploadAbortedError": LOST,
    "WSServerHandshakeError": LOST,
}

BUILTINS_UNDER_AIOHTTP: dict[type[BaseException], type[ImageTagError]] = {
    **{kind: LOST if expected is WRONG else expected for kind, expected in BUILTINS.items()},
    ssl.SSLCertVerificationError: WRONG,
    ValueError: WRONG,
    UnicodeError: WRONG,
}
"""Plain errors under aiohttp: its file of authorities is read earlier, so all are of the network,
but for those of a URL or a header that cannot be sent."""

NOT_OF_A_REQUEST = {"WSMessageTypeError"}
"""A wrong use of WebSockets, no error of a request."""


def errors_of(module: ModuleType) -> dict[str, type[Exception]]:
    """Return the exception classes that a module defines, warnings left out."""
    return {
        name: kind
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
        and kind.__module__ == module.__name__
        and name not in NOT_OF_A_REQUEST
    }


def os_errors() -> set[type[Exception]]:
    """Return the classes of ``OSError``'s family in the standard library's network modules."""
    return {
        kind
        for module in (builtins, socket, ssl)
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, OSError)
    }


def made(kind: type[Exception]) -> Exception:
    """Make an exception, without the arguments that its constructor wants."""
    error = kind.__new__(kind)
    Exception.__init__(error, SECRET)
    for name, value in {"status": 500, "message": SECRET, "reason": None}.items():
        with contextlib.suppress(AttributeError):
            setattr(error, name, value)
    return error


def check(error: ImageTagError, expected: type[ImageTagError]) -> None:
    """Compare the kind, and look for words of the original."""
    assert type(error) is expected
    assert SECRET not in repr(error)


def cases(
    module: ModuleType, intent: dict[str, type[ImageTagError]]
) -> list[tuple[type[Exception], type[ImageTagError] | None]]:
    """Return each class of a module, with None where the intent is not listed."""
    return [(kind, intent.get(name)) for name, kind in errors_of(module).items()]


def test_the_lists_are_complete():
    """Each has the classes of the library as it is installed, no more and no fewer."""
    assert set(errors_of(requests.exceptions)) == set(REQUESTS)
    assert set(errors_of(urllib3.exceptions)) == set(URLLIB3)
    assert set(errors_of(aiohttp.client_exceptions)) == set(AIOHTTP)
    assert os_errors() == set(BUILTINS)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *cases(requests.exceptions, REQUESTS),
        *cases(urllib3.exceptions, URLLIB3),
        *BUILTINS.items(),
    ],
)
def test_every_error_of_requests_and_urllib3(kind, expected):
    """It is caught and becomes ours, of the intended kind, without a word of the original."""
    assert expected is not None, "not in the list"
    assert issubclass(kind, blocking._foreign_errors().kinds)
    check(blocking.map_error(made(kind), ACCOUNT), expected)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *cases(aiohttp.client_exceptions, AIOHTTP),
        *BUILTINS_UNDER_AIOHTTP.items(),
    ],
)
def test_every_error_of_aiohttp(kind, expected):
    """It is caught and becomes ours, of the intended kind, without a word of the original."""
    assert expected is not None, "not in the list"
    assert issubclass(kind, nonblocking._foreign_errors().kinds)
    check(nonblocking.map_error(made(kind), ACCOUNT), expected)


def test_a_certificate_that_is_not_trusted_goes_first():
    """It is the cause of others, however deep, and the message names 'verify'."""
    outer = made(requests.exceptions.SSLError)
    outer.args = (made(urllib3.exceptions.MaxRetryError),)
    outer.args[0].__context__ = made(ssl.SSLCertVerificationError)
    error = blocking.map_error(outer, ACCOUNT)
    check(error, WRONG)
    assert "'verify'" in error.message


@pytest.mark.parametrize(
    ("status", "expected"), [(407, AuthenticationError), (503, ConnectionFailedError)]
)
def test_a_tunnel_that_a_proxy_refuses(status, expected):
    """Both libraries' ways to tell the status give the same error."""
    outer = made(requests.exceptions.ProxyError)
    outer.__cause__ = OSError(f"Tunnel connection failed: {status} No")
    refusal = made(aiohttp.ClientHttpProxyError)
    refusal.status = status  # type: ignore[attr-defined]
    both = [blocking.map_error(outer, ACCOUNT), nonblocking.map_error(refusal, ACCOUNT)]
    assert {type(error) for error in both} == {expected}
    assert len({error.message for error in both}) == 1


def test_a_cycle_of_causes_ends():
    """An error may be its own cause."""
    error = made(requests.exceptions.ConnectionError)
    error.__cause__ = error
    check(blocking.map_error(error, ACCOUNT), LOST)


def test_a_class_of_no_table():
    """It cannot come here; if it did, the call would count as one that may be billed."""
    check(blocking.map_error(made(KeyError), ACCOUNT), LOST)
