"""Equal bytes are paid once: remembers what the service said of them during a run."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import AbstractAsyncContextManager

from airflow_imagetag.errors import ImageError
from airflow_imagetag.models import TagResult

MAX_REMEMBERED = 10_000
"""Digests kept, the latest used: some ten megabytes, whatever the number of images."""

Known = TagResult | ImageError


class Reuse:
    """Answers by digest of the image's bytes, and one call at a time for each digest."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Known] = OrderedDict()
        # Of the digests that are held or waited for: lock, and how many do.
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def alone(self, digest: str) -> AbstractAsyncContextManager[Known | None]:
        """Hold the digest and give what is known of it, so that equal images wait for the first."""
        return _Turn(self, digest)

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


class _Turn(AbstractAsyncContextManager[Known | None]):
    """The time that one image has a digest for itself.

    A class, as the one that ``asynccontextmanager`` makes costs several times as much.
    """

    __slots__ = ("_digest", "_reuse")

    def __init__(self, reuse: Reuse, digest: str) -> None:
        self._reuse = reuse
        self._digest = digest

    async def __aenter__(self) -> Known | None:
        locks = self._reuse._locks
        lock, holders = locks.get(self._digest) or (asyncio.Lock(), 0)
        locks[self._digest] = (lock, holders + 1)
        try:
            await lock.acquire()
        except BaseException:
            self._leave()
            raise
        return self._reuse._recall(self._digest)

    async def __aexit__(self, *exc_info: object) -> None:
        self._leave().release()

    def _leave(self) -> asyncio.Lock:
        lock, holders = self._reuse._locks[self._digest]
        if holders == 1:
            del self._reuse._locks[self._digest]
        else:
            self._reuse._locks[self._digest] = (lock, holders - 1)
        return lock
