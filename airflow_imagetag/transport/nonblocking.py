"""Sends requests with aiohttp."""

from __future__ import annotations

from functools import cache
from typing import Any, Self

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
from airflow_imagetag.transport.time_limit import TimeLimit


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
        # Reading the authorities takes as long as sending some hundred images.
        needs_tls = any(
            url is not None and not url.startswith("http:")
            for url in (self._account.endpoint, self._proxy)
        )
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._max_connections, ssl=ssl_context(self._account) if needs_tls else True
            ),
            timeout=aiohttp.ClientTimeout(total=None),
            # A cookie of one answer has no meaning for the next image.
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._time_limit = TimeLimit(self._account.timeout_seconds)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._time_limit.close()
        await self._session.close()

    async def send(self, request: Request) -> Answer:
        """Send one request and return its answer, whatever its status.

        :raises TransientError: no connection, or no whole answer.
        :raises ConfigurationError: the endpoint, proxy or certificates make sending impossible.
        """
        import aiohttp

        content = _body_class()(request.body)
        try:
            with self._time_limit:
                response = await self._session.post(
                    request.url,
                    data=content,
                    headers=request.headers,
                    proxy=self._proxy,
                    # A redirect would carry the signature to another host.
                    allow_redirects=False,
                )
                # It gives the connection back at the end and closes it on an error, so the context
                # manager, a twentieth of a request's cost, is not needed.
                body = await response.read()
            return Answer(response.status, response.headers, body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The one timeout runs from connecting on, so it alone does not tell what was sent.
            if isinstance(error, TimeoutError) and not content.is_sent:
                raise not_connected(self._account, type(error).__name__) from None
            raise _ours(error, self._account) from None


@cache
def _body_class() -> Any:
    """Return the class of request bodies; aiohttp is imported when it is needed first."""
    from aiohttp import payload

    class Body(payload.BytesPayload):
        """A body in one piece that knows whether it was sent.

        :param value: the bytes.
        """

        def __init__(self, value: bytes) -> None:
            # Not that of BytesPayload, which warns of large ones: an image is sent as it is.
            payload.Payload.__init__(self, value, content_type="application/octet-stream")
            self._size = len(value)
            self.is_sent = False

        async def write(self, writer: Any) -> None:
            """Send it; by now there is a connection."""
            self.is_sent = True
            await super().write(writer)

        async def write_with_length(self, writer: Any, content_length: int | None) -> None:
            """Do the same; aiohttp calls this one from version 3.12 on."""
            self.is_sent = True
            await super().write_with_length(writer, content_length)

    return Body


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
