"""Download images in the worker, and never from the worker's own network.

The URLs come from user data, so they must not be a way into the worker's own network: the address
is checked where the connection is made, after every redirect and every look-up of a name.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin

from airflow_imagetag.errors import (
    ImageEmptyError,
    ImageNotAllowedError,
    ImageTagError,
    ImageTooLargeError,
    ImageUnreadableError,
    InvalidImageError,
    StorageError,
)
from airflow_imagetag.safety.addresses import is_address, is_private
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_http

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import ResolveResult
    from yarl import URL

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
    """

    def __init__(
        self, *, max_bytes: int, timeout_seconds: float, allowed_hosts: Collection[str] = ()
    ) -> None:
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds
        self._allowed_hosts = frozenset(allowed_hosts)
        self._slots = asyncio.Semaphore(MAX_DOWNLOADS)
        self._session: aiohttp.ClientSession | None = None

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
                target, allow_redirects=False, cookies=cookies.filter_cookies(target) or None
            ) as response:
                location = response.headers.get("Location")
                if not (300 <= response.status < 400 and location):
                    return await _content(response, url, self._max_bytes)
                cookies.update_cookies(response.cookies, response.url)
                return _joined(url, location)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            # aiohttp's stream refers to the error, and the traceback to the stream and the bytes
            # read so far: the cycle would last until the next garbage collection.
            error.__traceback__ = None
            raise _failure(url, error) from None

    def _opened_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_public_resolver(self._allowed_hosts),
                    limit=MAX_DOWNLOADS,
                    keepalive_timeout=KEEPALIVE_SECONDS,
                ),
                # ``download`` limits the time of all requests together.
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


def _checked(url: str, allowed_hosts: frozenset[str]) -> URL:
    """Return the parsed URL, after a check of the host as the client will read it.

    The client accepts more spellings of an address than a list could hold. The resolver checks
    names; an address in the URL never gets there.
    """
    from yarl import URL

    try:
        parsed = URL(url)
        host = _plain(parsed.raw_host or "")
    except ValueError:
        raise InvalidImageError(f"{redact(url)} is not a URL.") from None
    if not is_http(url) or not host:
        raise ImageNotAllowedError(f"A redirect leads to {redact(url)}, which is no http(s) URL.")
    if host not in allowed_hosts and is_address(host) and is_private(host):
        raise _not_allowed(url)
    return parsed


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise InvalidImageError(
            f"{redact(url)} redirects to a location that is not a URL."
        ) from None


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
    content = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        content += chunk
        if len(content) > max_bytes:
            raise ImageTooLargeError(f"{redact(url)} is larger than {max_bytes} bytes.")
    if not content:
        raise ImageEmptyError(f"{redact(url)} is empty: it has zero bytes.")
    return bytes(content)


def _public_resolver(allowed_hosts: frozenset[str]) -> Any:
    from aiohttp.resolver import ThreadedResolver

    class PublicResolver(ThreadedResolver):
        """Look names up, and refuse a private address unless its host is allowed."""

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await super().resolve(host, port, family)
            is_any_private = any(is_private(item["host"]) for item in found)
            if is_any_private and _plain(host) not in allowed_hosts:
                raise _PrivateAddressError(host)
            return found

    return PublicResolver()


class _PrivateAddressError(OSError):
    """A name stands for a private address."""


def _failure(url: str, error: Exception) -> ImageTagError:
    """Return our error for an error of aiohttp or of the system."""
    if isinstance(error, UnicodeError):
        return InvalidImageError(f"{redact(url)} has a host that is not a valid name.")
    if isinstance(error.__cause__ or error.__context__, _PrivateAddressError):
        return _not_allowed(url)
    return StorageError(f"{redact(url)} cannot be downloaded: {type(error).__name__}.")


def _not_allowed(url: str) -> ImageNotAllowedError:
    return ImageNotAllowedError(
        f"{redact(url)} is an address of a private network, which images from data may not name. "
        "To allow it, add its host to the option [imagetag] allowed_private_hosts."
    )
