"""Sends requests with the ``requests`` library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.service.account import Account
from airflow_imagetag.service.base import Answer, Request
from airflow_imagetag.transport.faults import answer_lost, not_connected, untrusted, unusable
from airflow_imagetag.transport.settings import ca_file, proxy_url

if TYPE_CHECKING:
    import requests


def new_session() -> requests.Session:
    """Return a session that takes nothing from the environment by itself."""
    import requests

    session = requests.Session()
    session.trust_env = False
    return session


def send(session: requests.Session, account: Account, request: Request) -> Answer:
    """Send one request and return its answer, whatever its status.

    :raises TransientError: no connection, or no whole answer.
    :raises ConfigurationError: the endpoint, proxy or certificates make sending impossible.
    """
    import requests

    content: dict[str, Any] = {"data": request.body}
    if request.file is not None:
        name, image = request.file
        content = {
            "data": dict(request.form),
            "files": {name: (name, image, "application/octet-stream")},
        }
    proxy = proxy_url(account)
    try:
        response = session.post(
            request.url,
            headers=dict(request.headers),
            timeout=account.timeout_seconds,
            proxies=None if proxy is None else {"http": proxy, "https": proxy},
            verify=ca_file(account),
            # A redirect would carry the signature to another host.
            allow_redirects=False,
            **content,
        )
    except (requests.RequestException, OSError) as error:
        raise _ours(error, account) from None
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content)


def _ours(error: Exception, account: Account) -> ImageTagError:
    """Return our error for one of requests' own; their texts may hold headers, ours do not."""
    import ssl

    import requests
    import urllib3

    causes = list(_causes(error))
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return untrusted(account)
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return unusable(account)
    if isinstance(error, requests.RequestException):
        before_sending = (
            requests.ConnectTimeout,
            requests.exceptions.SSLError,
            requests.exceptions.ProxyError,
            urllib3.exceptions.NewConnectionError,
        )
        if any(isinstance(cause, before_sending) for cause in causes):
            return not_connected(account, type(error).__name__)
        return answer_lost(account, type(error).__name__)
    # Outside requests' own tree: a file of certificates that is not there.
    return unusable(account)


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
