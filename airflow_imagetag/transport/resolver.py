"""Look names up for aiohttp, in threads that nothing waits for."""

from __future__ import annotations

import asyncio
import socket
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from airflow_imagetag.runtime.threads import DaemonExecutor

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult

MAX_LOOKUPS = 32
"""Maximum number of names that one session looks up at a time."""


@cache
def daemon_resolver_class() -> Any:
    """Return the class of resolvers; importing aiohttp waits for the first session."""
    from aiohttp.abc import AbstractResolver

    class DaemonResolver(AbstractResolver):
        """Look names up in daemon threads.

        The threads of the event loop's own executor are joined when the loop ends, so that a slow
        name server would outlast every time limit.
        """

        def __init__(self) -> None:
            self._executor = DaemonExecutor(MAX_LOOKUPS, "imagetag-dns")

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            """Return the addresses of a host."""
            look_up = partial(
                socket.getaddrinfo,
                host,
                port,
                type=socket.SOCK_STREAM,
                family=family,
                flags=socket.AI_ADDRCONFIG,
            )
            loop = asyncio.get_running_loop()
            infos = await loop.run_in_executor(self._executor, look_up)
            return [_result(host, info) for info in infos]

        async def close(self) -> None:
            """Take no more names."""
            self._executor.shutdown()

    return DaemonResolver


def _result(host: str, info: Any) -> ResolveResult:
    family, _, proto, _, address = info
    # The fourth item is the zone of a link-local IPv6 address.
    zone = f"%{address[3]}" if len(address) > 3 and address[3] else ""
    return {
        "hostname": host,
        "host": f"{address[0]}{zone}",
        "port": address[1],
        "family": family,
        "proto": proto,
        "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    }
