"""Send requests with the ``requests`` library."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import wait
from functools import cache, partial
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING

from airflow_imagetag.errors import ConfigurationError, ImageTagError
from airflow_imagetag.runtime.threads import submit_daemon
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, Request
from airflow_imagetag.transport.body import BodyError, BodyTooLargeError, decoded
from airflow_imagetag.transport.errors import (
    ErrorRow,
    ErrorTable,
    answer_lost,
    no_tunnel,
    not_connected,
    unreadable,
    untrusted,
    unusable,
)
from airflow_imagetag.transport.headers import CLIENT_HEADERS, MAX_ANSWER_BYTES
from airflow_imagetag.transport.proxy_and_tls import ca_file, proxy_url
from airflow_imagetag.transport.watched_connections import CallWatch, watched_adapter_class

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
    session.headers.update(CLIENT_HEADERS)
    adapter = watched_adapter_class()()
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    # A cookie of one response has no meaning for the next image.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    return session


def send(
    session: requests.Session,
    account: Account,
    request: Request,
    *,
    max_answer_bytes: int = MAX_ANSWER_BYTES,
) -> HttpResponse:
    """Send one request and return its response, of any status.

    A thread of its own makes the call, since nothing else bounds a look-up of a name, or an answer
    that comes byte by byte. At the time limit its connection is cut.

    :param max_answer_bytes: maximum size of the response's body.
    :raises TransientError: no connection, or no whole response.
    :raises MalformedAnswerError: the response is larger.
    :raises ConfigurationError: the endpoint, proxy or certificates make sending impossible.
    """
    watch = CallWatch()
    call = partial(_watched_call, watch, session, account, request, max_answer_bytes)
    future = submit_daemon(call, name="imagetag-call")
    try:
        if wait([future], account.timeout_seconds).not_done:
            raise _overdue(account, watch) from None
        return future.result()
    except _foreign_errors().kinds as error:
        raise map_error(error, account) from None
    finally:
        # The caller may have been interrupted, too.
        if not future.done():
            watch.cut()
        # The traceback of an error holds this frame, and the future holds the error.
        del future


def map_error(error: Exception, account: Account) -> ImageTagError:
    """Return our error for one that ``requests`` or urllib3 raised."""
    return _foreign_errors().map_error(_causes(error), account)


def _overdue(account: Account, watch: CallWatch) -> ImageTagError:
    """Return the error for a call whose time is over."""
    return (answer_lost if watch.was_connected else not_connected)(account, TimeoutError())


def _watched_call(
    watch: CallWatch,
    session: requests.Session,
    account: Account,
    request: Request,
    max_answer_bytes: int,
) -> HttpResponse:
    with watch.watching():
        try:
            return _call(session, account, request, max_answer_bytes)
        except ImageTagError:
            # A body that is not read to its end must not go on coming.
            watch.cut()
            raise


def _call(
    session: requests.Session, account: Account, request: Request, max_answer_bytes: int
) -> HttpResponse:
    proxy = proxy_url(account)
    with session.send(
        _prepared(session, request),
        timeout=account.timeout_seconds,
        proxies=None if proxy is None else {"http": proxy, "https": proxy},
        verify=ca_file(account),
        # A redirect would carry the signature to another host.
        allow_redirects=False,
        stream=True,
    ) as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        try:
            packed = _body(response, headers.get("content-length", ""), max_answer_bytes)
            body = decoded(packed, headers.get("content-encoding", ""), max_answer_bytes)
        except BodyError as error:
            raise unreadable(account, response.status_code, error, max_answer_bytes) from None
        return HttpResponse(response.status_code, headers, body)


def _prepared(session: requests.Session, request: Request) -> requests.PreparedRequest:
    import requests

    prepared = session.prepare_request(
        requests.Request(
            request.method,
            request.url,
            data=request.joined() or None,
            headers=dict(request.headers),
        )
    )
    # The library would change an encoding that is part of the signature.
    prepared.url = request.url
    return prepared


def _body(response: requests.Response, length: str, max_bytes: int) -> bytes:
    """Return the body as it was sent.

    :raises BodyTooLargeError: it is larger, or says so.
    """
    if length.isdecimal() and int(length[:20]) > max_bytes:
        raise BodyTooLargeError
    body = bytearray()
    while chunk := response.raw.read1(_READ_BYTES, decode_content=False):
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLargeError
    return bytes(body)


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
