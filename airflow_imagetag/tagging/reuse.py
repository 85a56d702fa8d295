"""Equal bytes are paid once: remembers what the service said of them during a run."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from airflow_imagetag.errors import ImageError
from airflow_imagetag.models import TagResult

MAX_REMEMBERED = 10_000
"""Digests kept, the latest used: some ten megabytes, whatever the number of images."""

Known = TagResult | ImageError


class Reuse:
    """Answers by digest of the image's bytes, and one call at a time for each digest."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def alone(self, digest: str) -> AsyncIterator[Known | None]:
        """Hold the digest and give what is known of it, so that equal images wait for the first."""
        lock, holders = self._locks.get(digest, (asyncio.Lock(), 0))
        self._locks[digest] = (lock, holders + 1)
        try:
            async with lock:
                yield self._recall(digest)
        finally:
            lock, holders = self._locks[digest]
            if holders == 1:
                del self._locks[digest]
            else:
                self._locks[digest] = (lock, holders - 1)

    def remember(self, digest: str, known: Known) -> None:
        """Keep an answer that will not change: labels, or that the image is at fault."""
        self._known[digest] = known
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)

    def _recall(self, digest: str) -> Known | None:
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
        return known
