"""Send requests with the ``requests`` library."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING

from airflow_imagetag.errors import ConfigurationError, ImageTagError
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, Request
from airflow_imagetag.transport.errors import (
    ErrorRow,
    ErrorTable,
    answer_lost,
    no_tunnel,
    not_connected,
    untrusted,
    unusable,
)
from airflow_imagetag.transport.proxy_and_tls import ca_file, proxy_url

if TYPE_CHECKING:
    import requests

_READ_BYTES = 64 * 1024

# http.client raises an OSError with this text and no other attribute, and urllib3 and requests pass
# it on: neither has the proxy's response.
_NO_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b")


def new_session() -> requests.Session:
    """Return a session that takes nothing from the environment by itself."""
    import requests

    session = requests.Session()
    session.trust_env = False
    # A cookie of one response has no meaning for the next image.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    return session


def send(session: requests.Session, account: Account, request: Request) -> HttpResponse:
    """Send one request and return its response, of any status.

    :raises TransientError: no connection, or no whole response.
    :raises ConfigurationError: the endpoint, proxy or certificates make sending impossible.
    """
    proxy = proxy_url(account)
    deadline = time.monotonic() + account.timeout_seconds
    try:
        with session.post(
            request.url,
            data=request.joined(),
            headers=dict(request.headers),
            timeout=account.timeout_seconds,
            proxies=None if proxy is None else {"http": proxy, "https": proxy},
            verify=ca_file(account),
            # A redirect would carry the signature to another host.
            allow_redirects=False,
            stream=True,
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return HttpResponse(response.status_code, headers, _body(response, deadline))
    except _foreign_errors().kinds as error:
        raise map_error(error, account) from None


def map_error(error: Exception, account: Account) -> ImageTagError:
    """Return our error for one that ``requests`` or urllib3 raised."""
    return _foreign_errors().map_error(_causes(error), account)


def _body(response: requests.Response, deadline: float) -> bytes:
    """Read the body in pieces: the timeout of requests is for each piece, ours for all."""
    chunks = []
    while chunk := response.raw.read1(_READ_BYTES, decode_content=True):
        chunks.append(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(chunks)


@cache
def _foreign_errors() -> ErrorTable:
    """Return the table of requests and urllib3; the first error imports them."""
    import requests
    import urllib3

    return ErrorTable(
        (
            ErrorRow((ssl.SSLCertVerificationError,), untrusted),
            ErrorRow(
                (
                    requests.exceptions.InvalidSchema,
                    requests.exceptions.InvalidURL,
                    requests.exceptions.MissingSchema,
                    requests.exceptions.URLRequired,
                    # Some of urllib3's pass through requests as they are.
                    urllib3.exceptions.LocationValueError,
                    urllib3.exceptions.ProxySchemeUnsupported,
                ),
                unusable,
            ),
            ErrorRow((ssl.SSLError,), _no_authorities),
            ErrorRow((OSError,), _refused_tunnel),
            ErrorRow(
                (
                    requests.exceptions.ConnectTimeout,
                    requests.exceptions.ProxyError,
                    requests.exceptions.SSLError,
                    urllib3.exceptions.ConnectTimeoutError,
                    urllib3.exceptions.ProxyError,
                    ConnectionRefusedError,
                    socket.gaierror,
                ),
                not_connected,
            ),
            ErrorRow(
                (
                    requests.exceptions.RequestException,
                    urllib3.exceptions.HTTPError,
                    ConnectionError,
                    TimeoutError,
                    ssl.SSLError,
                ),
                answer_lost,
            ),
            # requests raises a plain one for a file of authorities that is missing.
            ErrorRow((OSError,), unusable),
        )
    )


def _no_authorities(account: Account, error: BaseException) -> ConfigurationError | None:
    """Return the error for a file of authorities that holds none: OpenSSL's part X509 reads it."""
    return unusable(account, error) if getattr(error, "library", None) == "X509" else None


def _refused_tunnel(account: Account, error: BaseException) -> ImageTagError | None:
    refusal = _NO_TUNNEL.match(str(error))
    return no_tunnel(account, int(refusal[1])) if refusal else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that led to it; urllib3 hides the first cause in ``reason``."""
    waiting, seen = [error], set()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = (current.__cause__, current.__context__, getattr(current, "reason", None))
        waiting += [item for item in (*inner, *current.args) if isinstance(item, BaseException)]
