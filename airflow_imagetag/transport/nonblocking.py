"""Sends requests with aiohttp."""

from __future__ import annotations

from functools import cache
from typing import Any, Self

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
from airflow_imagetag.transport.proxy_and_tls import proxy_url, ssl_context
from airflow_imagetag.transport.time_limit import TimeLimit

SMALL_BODY_BYTES = 64 * 1024


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
        self._body = _body_class()
        self._faults = (aiohttp.ClientError, OSError, ValueError)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._time_limit.close()
        await self._session.close()

    async def send(self, request: Request) -> HttpResponse:
        """Send one request and return its answer, whatever its status.

        :raises TransientError: no connection, or no whole answer.
        :raises ConfigurationError: the endpoint, proxy or certificates make sending impossible.
        """
        content = self._body(request.body)
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
            return HttpResponse(response.status, response.headers, body)
        except self._faults as error:
            # The one timeout runs from connecting on, so it alone does not tell what was sent.
            if isinstance(error, TimeoutError) and not content.is_sent:
                raise not_connected(self._account, type(error).__name__) from None
            raise _ours(error, self._account) from None


@cache
def _body_class() -> Any:
    """Return the class of request bodies; aiohttp is imported when it is needed first."""
    from aiohttp import payload

    class Body(payload.Payload):
        """A body that knows whether it was sent.

        aiohttp's own for bytes warns of large ones, and copies them: an image is sent as it is.

        :param value: the bytes, or pieces of them.
        """

        def __init__(self, value: bytes | tuple[bytes, ...]) -> None:
            super().__init__(value, content_type="application/octet-stream")
            pieces = (value,) if isinstance(value, bytes) else value
            self._size = sum(map(len, pieces))
            # One system call costs more than copying a small image.
            self._pieces = pieces if self._size > SMALL_BODY_BYTES else (b"".join(pieces),)
            self.is_sent = False

        def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
            """Return the body as text."""
            return b"".join(self._pieces).decode(encoding, errors)

        async def write(self, writer: Any) -> None:
            """Send it; by now there is a connection."""
            self.is_sent = True
            for piece in self._pieces:
                await writer.write(piece)

        async def write_with_length(self, writer: Any, content_length: int | None) -> None:
            """Do the same; aiohttp calls this one from version 3.12 on, with the length it has."""
            del content_length
            await self.write(writer)

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
