"""Send requests with aiohttp."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.runtime import departure
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
from airflow_imagetag.transport.proxy_and_tls import proxy_url, ssl_context
from airflow_imagetag.transport.resolver import daemon_resolver_class
from airflow_imagetag.transport.time_limit import TimeLimit

if TYPE_CHECKING:
    import aiohttp

MAX_JOINED_BODY_BYTES = 64 * 1024
"""Maximum size of a body whose pieces are copied into one: a system call costs more."""


class Connections:
    """A pool of connections to one endpoint; open it inside the event loop that will use it.

    :param account: where to connect, and how.
    :param max_connections: maximum number of connections.
    :param max_answer_bytes: maximum size of a response's body.
    """

    def __init__(
        self,
        account: Account,
        *,
        max_connections: int,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._account = account
        self._max_connections = max_connections
        self._max_answer_bytes = max_answer_bytes

    async def __aenter__(self) -> Self:
        import aiohttp

        self._proxy = proxy_url(self._account)
        # Reading the file of authorities takes as long as sending some hundred images.
        needs_tls = any(
            url is not None and not url.startswith("http:")
            for url in (self._account.endpoint, self._proxy)
        )
        self._resolver = daemon_resolver_class()()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._max_connections,
                ssl=ssl_context(self._account) if needs_tls else True,
                resolver=self._resolver,
            ),
            headers=CLIENT_HEADERS,
            # aiohttp unpacks without a limit that covers all of an answer.
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            # A cookie of one response has no meaning for the next image.
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._time_limit = TimeLimit(self._account.timeout_seconds)
        self._body = _body_class()
        self._shared_headers = SharedHeaders()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._time_limit.close()
        await self._session.close()
        await self._resolver.close()

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the decoded body; close the connection if it has not come to its end."""
        limit = self._max_answer_bytes
        try:
            body = await _body(response, limit)
            return decoded(body, response.headers.get("Content-Encoding", ""), limit)
        except BodyError as error:
            response.close()
            raise unreadable(self._account, response.status, error, limit) from None
        except BaseException:
            response.close()
            raise

    async def send(self, request: Request) -> HttpResponse:
        """Send one request and return its response, of any status.

        :raises TransientError: no connection, or no whole response.
        :raises MalformedAnswerError: the response is too large.
        :raises ConfigurationError: the endpoint, proxy or certificates make sending impossible.
        """
        content = self._body(request.body) if request.body else None
        if content is None:
            # A body reports by itself, once there is a connection.
            departure.leave()
        try:
            with self._time_limit:
                response = await self._session.request(
                    request.method,
                    request.url if request.method == "POST" else _encoded(request.url),
                    data=content,
                    headers=self._shared_headers.prepared(request.headers),
                    proxy=self._proxy,
                    # A redirect would carry the signature to another host.
                    allow_redirects=False,
                )
                length = response.content_length
                is_encoded = "Content-Encoding" in response.headers
                if length is None or length > self._max_answer_bytes or is_encoded:
                    body = await self._read(response)
                elif response.content.is_eof():
                    # It came with its headers, as most do, and the connection is given back.
                    body = response.content.read_nowait()
                else:
                    # ``read`` gives the connection back at the end and closes it on an error.
                    body = await response.read()
            return HttpResponse(response.status, response.headers, body)
        except _foreign_errors().kinds as error:
            # The timeout includes connecting, so by itself it does not tell whether it was sent.
            if isinstance(error, TimeoutError) and content is not None and not content.is_sent:
                raise not_connected(self._account, error) from None
            raise map_error(error, self._account) from None


class SharedHeaders:
    """Prepares headers once that many requests share; to aiohttp, that is a tenth of their cost."""

    def __init__(self) -> None:
        self._latest: Mapping[str, str] | None = None
        self._prepared: Mapping[str, str] = {}

    def prepared(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Return headers that cannot change in the form of aiohttp, others as they are."""
        if type(headers) is not MappingProxyType:
            return headers
        if headers is not self._latest:
            from multidict import CIMultiDict

            self._latest, self._prepared = headers, CIMultiDict(headers)
        return self._prepared


def _encoded(url: str) -> Any:
    """Return the URL as aiohttp takes it, with exactly the encoding that was signed."""
    from yarl import URL

    return URL(url, encoded=True)


async def _body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the body as it was sent.

    :raises BodyTooLargeError: it is larger, or says so.
    """
    # ``read`` gives the connection back at the end and closes it on an error. The context manager
    # would do the same, for a twentieth of a request's cost.
    length = response.content_length
    if length is not None and length <= max_bytes:
        return await response.read()
    if length is not None:
        raise BodyTooLargeError
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise BodyTooLargeError
    await response.read()
    return bytes(body)


def map_error(error: Exception, account: Account) -> ImageTagError:
    """Return our error for one that aiohttp raised."""
    return _foreign_errors().map_error([error], account)


@cache
def _body_class() -> Any:
    """Return the class of request bodies; importing aiohttp waits for the first request."""
    from aiohttp import payload

    class Body(payload.Payload):
        """A body that records whether it was sent.

        aiohttp's own class for bytes warns of large ones, and copies them.

        :param value: the bytes, or pieces of them.
        """

        def __init__(self, value: bytes | tuple[bytes, ...]) -> None:
            super().__init__(value, content_type="application/octet-stream")
            pieces = (value,) if isinstance(value, bytes) else value
            self._size = sum(map(len, pieces))
            is_small = self._size <= MAX_JOINED_BODY_BYTES
            self._pieces = (b"".join(pieces),) if is_small else pieces
            self.is_sent = False

        def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
            """Return the body as text."""
            return b"".join(self._pieces).decode(encoding, errors)

        async def write(self, writer: Any) -> None:
            """Send it; aiohttp before version 3.12 calls this one."""
            await self.write_with_length(writer, None)

        async def write_with_length(self, writer: Any, content_length: int | None) -> None:
            """Send it; aiohttp calls this once there is a connection, with the length it has."""
            del content_length
            self.is_sent = True
            departure.leave()
            for piece in self._pieces:
                await writer.write(piece)

    return Body


@cache
def _foreign_errors() -> ErrorTable:
    """Return the table of aiohttp; the first error imports it."""
    import aiohttp

    return ErrorTable(
        (
            ErrorRow(
                (ssl.SSLCertVerificationError, aiohttp.ClientConnectorCertificateError), untrusted
            ),
            ErrorRow((aiohttp.ClientHttpProxyError,), _refused_tunnel),
            ErrorRow(
                (
                    aiohttp.ClientConnectorError,
                    aiohttp.ConnectionTimeoutError,
                    ConnectionRefusedError,
                    socket.gaierror,
                ),
                not_connected,
            ),
            ErrorRow((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError), unusable),
            ErrorRow((aiohttp.ClientError, OSError), answer_lost),
        )
    )


def _refused_tunnel(account: Account, error: BaseException) -> ImageTagError:
    status: int = getattr(error, "status", 0)
    return no_tunnel(account, status)
