"""Download images in the worker, and never from the worker's own network.

The URLs come from user data, so they must not be a way into the worker's own network: the address
is checked where the connection is made, after every redirect and every look-up of a name.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from airflow_imagetag.errors import (
    ConfigurationError,
    ImageEmptyError,
    ImageNotAllowedError,
    ImageTagError,
    ImageTooLargeError,
    ImageUnreadableError,
    InvalidImageError,
    StorageError,
)
from airflow_imagetag.loading.request_urls import RequestUrl, joined, parsed
from airflow_imagetag.safety.addresses import is_private, may_be_private_address
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_http
from airflow_imagetag.transport.body import (
    BodyTooLargeError,
    DamagedBodyError,
    UnknownEncodingError,
    decoded,
)
from airflow_imagetag.transport.headers import CLIENT_HEADERS, USER_AGENT
from airflow_imagetag.transport.resolver import daemon_resolver_class

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import ResolveResult

MAX_REDIRECTS = 5
"""Maximum number of redirects of one download."""

MAX_DOWNLOADS = 32
"""Maximum number of downloads at the same time."""

KEEPALIVE_SECONDS = 2.0
"""How long an idle connection stays open. Images of many hosts would otherwise use up the process's
file descriptors."""

CHUNK_BYTES = 64 * 1024


class Downloader:
    """Download images over http(s); an async context manager for one event loop.

    All downloads share one session, which opens at the first download, and reuse its connections.

    :param max_bytes: maximum size of an image.
    :param timeout_seconds: maximum time of a download, redirects included.
    :param allowed_hosts: host names and addresses that may be private.
    :param user_agent: the header User-Agent.
    :raises ConfigurationError: no header can hold the user agent.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        timeout_seconds: float,
        allowed_hosts: Collection[str] = (),
        user_agent: str = USER_AGENT,
    ) -> None:
        if not (user_agent.isascii() and user_agent.isprintable()):
            raise ConfigurationError(
                f"The user agent {user_agent!r} has characters that no header can hold. Use plain "
                "ASCII in the option [imagetag] user_agent."
            )
        self._headers = {**CLIENT_HEADERS, "User-Agent": user_agent}
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._allowed_hosts = frozenset(allowed_hosts)
        self._slots = asyncio.Semaphore(MAX_DOWNLOADS)
        self._session: aiohttp.ClientSession | None = None
        self._resolver: Any = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
            await self._resolver.close()

    async def download(self, url: str) -> bytes:
        """Return the bytes behind an http(s) URL.

        :raises InvalidImageError: the text is not a URL.
        :raises ImageNotAllowedError: the URL, or the target of a redirect, is in a private network.
        :raises ImageUnreadableError: the server does not serve the image.
        :raises ImageEmptyError: the image has zero bytes.
        :raises ImageTooLargeError: the image is larger than ``max_bytes``.
        :raises StorageError: the server or the network failed.
        """
        async with self._slots:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    return await self._follow(url)
            except TimeoutError:
                raise StorageError(f"{redact(url)} cannot be downloaded: TimeoutError.") from None

    async def _follow(self, url: str) -> bytes:
        import aiohttp

        # A redirect may set a cookie for its target; other images never see it.
        cookies = aiohttp.CookieJar()
        for _ in range(MAX_REDIRECTS + 1):
            found = await self._request(url, cookies)
            if isinstance(found, bytes):
                return found
            url = found
        raise ImageUnreadableError(f"{redact(url)} redirects more than {MAX_REDIRECTS} times.")

    async def _request(self, url: str, cookies: aiohttp.CookieJar) -> bytes | str:
        """Return the bytes behind a URL, or the URL that it redirects to."""
        import aiohttp

        target = _checked(url, self._allowed_hosts)
        try:
            async with self._opened_session().get(
                target.wire,
                allow_redirects=False,
                cookies=cookies.filter_cookies(target.page) or None,
            ) as response:
                location = response.headers.get("Location")
                if not (300 <= response.status < 400 and location):
                    return await _content(response, url, self._max_bytes)
                cookies.update_cookies(response.cookies, target.page)
                return joined(url, location)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # aiohttp's stream refers to the error, and the traceback to the stream and the bytes
            # read so far: the cycle would last until the next garbage collection.
            error.__traceback__ = None
            raise _failure(url, error) from None

    def _opened_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._resolver = _public_resolver_class()(self._allowed_hosts)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=self._resolver,
                    limit=MAX_DOWNLOADS,
                    keepalive_timeout=KEEPALIVE_SECONDS,
                ),
                headers=self._headers,
                # aiohttp unpacks without a limit that covers all of an image.
                auto_decompress=False,
                # ``download`` limits the time of all requests together.
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _checked(url: str, allowed_hosts: frozenset[str]) -> RequestUrl:
    """Return the parts of the URL, after a check of the host as the client will read it.

    The resolver checks names; an address in the URL never gets there.
    """
    try:
        target = parsed(url)
    except ValueError:
        raise InvalidImageError(f"{redact(url)} is not a URL.") from None
    if not is_http(url) or not target.host:
        raise ImageNotAllowedError(f"A redirect leads to {redact(url)}, which is no http(s) URL.")
    if _plain(target.host) not in allowed_hosts and may_be_private_address(target.host):
        raise _not_allowed(url)
    return target


def _plain(host: str) -> str:
    return host.rstrip(".").lower()


async def _content(response: aiohttp.ClientResponse, url: str, max_bytes: int) -> bytes:
    if response.status >= 500 or response.status == 429:
        raise StorageError(f"{redact(url)} cannot be downloaded: HTTP {response.status}.")
    if response.status != 200:
        raise ImageUnreadableError(
            f"{redact(url)} cannot be downloaded: HTTP {response.status}.",
            status=response.status,
        )
    encoding = response.headers.get("Content-Encoding", "")
    content = _unpacked(await _body(response, url, max_bytes), encoding, url, max_bytes)
    if not content:
        raise ImageEmptyError(f"{redact(url)} is empty: it has zero bytes.")
    return content


async def _body(response: aiohttp.ClientResponse, url: str, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(url, max_bytes)
    return bytes(body)


def _unpacked(body: bytes, encoding: str, url: str, max_bytes: int) -> bytes:
    """Return the image in a body, whose server may have packed it although it was not asked to."""
    try:
        return decoded(body, encoding, max_bytes)
    except BodyTooLargeError:
        raise _too_large(url, max_bytes) from None
    except DamagedBodyError:
        raise StorageError(f"{redact(url)} cannot be downloaded: it is not {encoding}.") from None
    except UnknownEncodingError:
        # Some objects carry a wrong one, such as 'utf-8'.
        return body


@cache
def _public_resolver_class() -> Any:
    class PublicResolver(daemon_resolver_class()):  # type: ignore[misc]
        """Look names up, and refuse a private address unless its host is allowed."""

        def __init__(self, allowed_hosts: frozenset[str]) -> None:
            super().__init__()
            self._allowed_hosts = allowed_hosts

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found: list[ResolveResult] = await super().resolve(host, port, family)
            is_any_private = any(is_private(item["host"]) for item in found)
            if is_any_private and _plain(host) not in self._allowed_hosts:
                raise _PrivateAddressError(host)
            return found

    return PublicResolver


class _PrivateAddressError(OSError):
    """A name stands for a private address."""


def _failure(url: str, error: Exception) -> ImageTagError:
    """Return our error for an error of aiohttp or of the system."""
    if isinstance(error, ValueError):
        return InvalidImageError(f"{redact(url)} has a host or a target that cannot be asked.")
    if isinstance(error.__cause__ or error.__context__, _PrivateAddressError):
        return _not_allowed(url)
    return StorageError(f"{redact(url)} cannot be downloaded: {type(error).__name__}.")


def _too_large(url: str, max_bytes: int) -> ImageTooLargeError:
    return ImageTooLargeError(f"{redact(url)} is larger than {max_bytes} bytes.")


def _not_allowed(url: str) -> ImageNotAllowedError:
    return ImageNotAllowedError(
        f"{redact(url)} is an address of a private network, which images from data may not name. "
        "To allow it, add its host to the option [imagetag] allowed_private_hosts."
    )
