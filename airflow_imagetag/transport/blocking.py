"""Sends requests with the ``requests`` library."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING

from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, Request
from airflow_imagetag.transport.errors import (
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

# http.client gives the status of a proxy's refusal in this text and nowhere else.
_NO_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})\b")


def new_session() -> requests.Session:
    """Return a session that takes nothing from the environment by itself."""
    import requests

    session = requests.Session()
    session.trust_env = False
    # A cookie of one answer has no meaning for the next image.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    return session


def send(session: requests.Session, account: Account, request: Request) -> HttpResponse:
    """Send one request and return its answer, whatever its status.

    :raises TransientError: no connection, or no whole answer.
    :raises ConfigurationError: the endpoint, proxy or certificates make sending impossible.
    """
    import requests
    import urllib3

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
    # A host that no name can be comes as an error of urllib3 that requests lets through.
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _ours(error, account) from None


def _body(response: requests.Response, deadline: float) -> bytes:
    """Read the body in pieces: requests' own timeout is for each of them, ours for all."""
    chunks = []
    while chunk := response.raw.read1(_READ_BYTES, decode_content=True):
        chunks.append(chunk)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(chunks)


def _ours(error: Exception, account: Account) -> ImageTagError:
    """Return our error for one of requests' own; their texts may hold headers, ours do not."""
    import ssl

    import requests
    import urllib3

    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return untrusted(account)
    network = (requests.RequestException, urllib3.exceptions.HTTPError, TimeoutError)
    # Outside the libraries' own trees: a file of certificates that is not there.
    if not isinstance(error, network) or any(_is_unusable(cause) for cause in causes):
        return unusable(account)
    for cause in causes:
        if isinstance(cause, OSError) and (refusal := _NO_TUNNEL.match(str(cause))):
            return no_tunnel(account, int(refusal[1]))
    before_sending = (
        requests.ConnectTimeout,
        requests.exceptions.SSLError,
        requests.exceptions.ProxyError,
        urllib3.exceptions.NewConnectionError,
    )
    if any(isinstance(cause, before_sending) for cause in causes):
        return not_connected(account, type(error).__name__)
    return answer_lost(account, type(error).__name__)


def _is_unusable(cause: BaseException) -> bool:
    """Tell whether no request can be sent at all: the URL, or the file of authorities."""
    import ssl

    import requests
    import urllib3

    invalid = (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        urllib3.exceptions.LocationValueError,
    )
    # X509 is OpenSSL's part for certificates: the file of authorities holds none.
    return isinstance(cause, invalid) or (
        isinstance(cause, ssl.SSLError) and cause.library == "X509"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was made from; urllib3 hides the first cause in ``reason``."""
    waiting, seen = [error], set()
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        inner = (current.__cause__, current.__context__, getattr(current, "reason", None))
        waiting += [item for item in (*inner, *current.args) if isinstance(item, BaseException)]
