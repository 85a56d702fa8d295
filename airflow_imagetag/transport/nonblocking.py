"""Sends requests with aiohttp."""

from __future__ import annotations

import asyncio
import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.service.account import Account
from airflow_imagetag.service.base import Answer, Request
from airflow_imagetag.transport.faults import (
    answer_lost,
    no_tunnel,
    not_connected,
    untrusted,
    unusable,
)
from airflow_imagetag.transport.settings import proxy_url, ssl_context

if TYPE_CHECKING:
    import aiohttp


class Connections:
    """A pool of connections to one endpoint; open it inside the event loop that will use it.

    :param account: where to connect, and how.
    :param max_connections: bound of connections kept open.
    """

    def __init__(self, account: Account, *, max_connections: int) -> None:
        self._account = account
        self._max_connections = max_connections

    async def __aenter__(self) -> Self:
        import aiohttp

        self._proxy = proxy_url(self._account)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._max_connections, ssl=ssl_context(self._account)
            ),
            timeout=aiohttp.ClientTimeout(total=self._account.timeout_seconds),
            # A cookie of one answer has no meaning for the next image.
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[_marks_what_is_sent()],
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def send(self, request: Request) -> Answer:
        """Send one request and return its answer, whatever its status.

        :raises TransientError: no connection, or no whole answer.
        :raises ConfigurationError: the endpoint, proxy or certificates make sending impossible.
        """
        import aiohttp

        sent = asyncio.Event()
        try:
            async with self._session.post(
                request.url,
                data=_body(request),
                headers=request.headers,
                proxy=self._proxy,
                # A redirect would carry the signature to another host.
                allow_redirects=False,
                trace_request_ctx=sent,
            ) as response:
                body = await response.read()
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, headers, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The one timeout runs from connecting on, so it alone does not tell what was sent.
            if isinstance(error, TimeoutError) and not sent.is_set():
                raise not_connected(self._account, type(error).__name__) from None
            raise _ours(error, self._account) from None


def _marks_what_is_sent() -> aiohttp.TraceConfig:
    """Return what makes a session set each request's event when its first bytes go out."""
    import aiohttp

    async def mark(_session: object, context: SimpleNamespace, _parameters: object) -> None:
        context.trace_request_ctx.set()

    tracing = aiohttp.TraceConfig()
    tracing.on_request_headers_sent.append(mark)
    return tracing


def _body(request: Request) -> Any:
    import aiohttp

    if request.file is None:
        # A file object of the whole body: aiohttp warns of large plain bytes.
        return io.BytesIO(request.body or b"")
    form = aiohttp.FormData()
    for name, value in request.form.items():
        form.add_field(name, value)
    name, content = request.file
    form.add_field(
        name, io.BytesIO(content), filename=name, content_type="application/octet-stream"
    )
    return form


def _ours(error: Exception, account: Account) -> ImageTagError:
    """Return our error for one of aiohttp's own; theirs may hold the request's headers."""
    import aiohttp

    what = type(error).__name__
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return untrusted(account)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return no_tunnel(account, error.status)
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return not_connected(account, what)
    if isinstance(error, (aiohttp.InvalidURL, ValueError)):
        return unusable(account)
    return answer_lost(account, what)
