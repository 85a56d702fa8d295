"""When the next request may be sent: the quota, and the service's wish to be left alone."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Limiter(Protocol):
    """Grants requests at some rate; one process or many may share it."""

    async def acquire(self) -> None:
        """Return when one request may be sent."""
        ...


class Unlimited:
    """Grants every request at once."""

    async def acquire(self) -> None:
        """Return at once."""


def evenly(requests_per_second: float | None) -> Limiter:
    """Return a limiter that spaces requests evenly, with no burst at the start of a second.

    :param requests_per_second: None for no limit.
    """
    if requests_per_second is None:
        return Unlimited()
    from aiolimiter import AsyncLimiter

    return AsyncLimiter(1, 1 / requests_per_second)


class Gate:
    """Holds every worker of a run back, where a limiter alone would let the next one through.

    :param limiter: the quota.
    """

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._opens_at = 0.0

    async def acquire(self) -> None:
        """Return when one request may be sent."""
        loop = asyncio.get_running_loop()
        while True:
            # The time may be moved on while it is slept through.
            while (wait := self._opens_at - loop.time()) > 0:  # noqa: ASYNC110
                await asyncio.sleep(wait)
            await self._limiter.acquire()
            # The service may have asked for a rest while the limiter made us wait.
            if self._opens_at <= loop.time():
                return

    def hold(self, seconds: float) -> None:
        """Let no request through for so many seconds."""
        opens_at = asyncio.get_running_loop().time() + seconds
        self._opens_at = max(self._opens_at, opens_at)
