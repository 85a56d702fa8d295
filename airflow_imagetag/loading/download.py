"""Downloads images on the worker, and never from inside the worker's own network.

The URLs come from user data, so what they name must not be a way into the worker's own network: the
address is checked where the connection is made, after every redirect and every look-up of a name.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from airflow_imagetag.errors import (
    ImageNotAllowedError,
    ImageTooLargeError,
    ImageUnreadableError,
    InvalidImageError,
    StorageError,
)
from airflow_imagetag.safety.addresses import is_address, is_private
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_http

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult
    from yarl import URL

MAX_REDIRECTS = 5
CHUNK_BYTES = 64 * 1024


def download(
    url: str, *, max_bytes: int, timeout_seconds: float, allowed_hosts: Collection[str] = ()
) -> bytes:
    """Return the bytes behind an http(s) URL; blocks, so call it in a thread.

    :param max_bytes: more is not read.
    :param timeout_seconds: for all of it, redirects included.
    :param allowed_hosts: host names and addresses that may be private.
    :raises InvalidImageError: it is no URL.
    :raises ImageNotAllowedError: the URL, or one it redirects to, is in a private network.
    :raises ImageUnreadableError: the server does not hand the image out.
    :raises ImageTooLargeError: it is larger than ``max_bytes``.
    :raises StorageError: the server or the network failed.
    """
    return asyncio.run(_download(url, max_bytes, timeout_seconds, frozenset(allowed_hosts)))


async def _download(
    url: str, max_bytes: int, timeout_seconds: float, allowed_hosts: frozenset[str]
) -> bytes:
    import aiohttp

    connector = aiohttp.TCPConnector(resolver=_public_resolver(allowed_hosts), force_close=True)
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            for _ in range(MAX_REDIRECTS + 1):
                target = _checked(url, allowed_hosts)
                async with session.get(target, allow_redirects=False) as response:
                    location = response.headers.get("Location")
                    if not (300 <= response.status < 400 and location):
                        return await _content(response, url, max_bytes)
                    url = _joined(url, location)
    except UnicodeError:
        raise InvalidImageError(f"{redact(url)} has a host that no name can have.") from None
    except (aiohttp.ClientError, OSError) as error:
        refused = error.__cause__ or error.__context__
        if isinstance(refused, _PrivateAddressError):
            raise _not_allowed(url) from None
        raise StorageError(f"{redact(url)} cannot be downloaded: {type(error).__name__}.") from None
    raise ImageUnreadableError(f"{redact(url)} redirects more than {MAX_REDIRECTS} times.")


def _checked(url: str, allowed_hosts: frozenset[str]) -> URL:
    """Return the URL as the client takes it, who reads more spellings of a host than one may list.

    A name is checked by the resolver; an address in the URL never gets there.
    """
    from yarl import URL

    try:
        parsed = URL(url)
        host = _plain(parsed.raw_host or "")
    except ValueError:
        raise InvalidImageError(f"{redact(url)} is no URL.") from None
    if not is_http(url) or not host:
        raise ImageNotAllowedError(f"A redirect leads to {redact(url)}, which is no http(s) URL.")
    if host not in allowed_hosts and is_address(host) and is_private(host):
        raise _not_allowed(url)
    return parsed


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise InvalidImageError(f"{redact(url)} redirects to what is no URL.") from None


def _plain(host: str) -> str:
    return host.rstrip(".").lower()


async def _content(response: Any, url: str, max_bytes: int) -> bytes:
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
    return bytes(content)


def _public_resolver(allowed_hosts: frozenset[str]) -> Any:
    from aiohttp.resolver import ThreadedResolver

    class PublicResolver(ThreadedResolver):
        """Looks names up, and knows no private address but those of allowed hosts."""

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await super().resolve(host, port, family)
            private = any(is_private(item["host"]) for item in found)
            if private and _plain(host) not in allowed_hosts:
                raise _PrivateAddressError(host)
            return found

    return PublicResolver()


class _PrivateAddressError(OSError):
    """A name that stands for a private address."""


def _not_allowed(url: str) -> ImageNotAllowedError:
    return ImageNotAllowedError(
        f"{redact(url)} is an address of a private network, which images from data may not name. "
        "If that is meant, add its host to the option [imagetag] allowed_private_hosts."
    )
