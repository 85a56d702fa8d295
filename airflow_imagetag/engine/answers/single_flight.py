"""Equal bytes are paid once: remembers what the service said of them during a run."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from airflow_imagetag.errors import ImageError
from airflow_imagetag.models import TagResult
from airflow_imagetag.runtime.digests import Digest

MAX_REMEMBERED = 10_000
"""Digests kept, the latest used: some ten megabytes, whatever the number of images."""

MIN_REMEMBERED = 2_000
"""So many where a store knows the others: most copies lie near each other, and need no look-up."""

CachedAnswer = TagResult | ImageError


class SingleFlightCache:
    """Answers by digest of the image's bytes, and one call at a time for each digest.

    :param max_remembered: digests kept.
    """

    def __init__(self, max_remembered: int = MAX_REMEMBERED) -> None:
        self._max_remembered = max_remembered
        self._known: OrderedDict[Digest, CachedAnswer] = OrderedDict()
        # Of the digests that are held: what those wait for who came later, if there are any.
        self._held: dict[Digest, asyncio.Future[None] | None] = {}

    async def alone(self, digest: Digest) -> _Turn:
        """Wait for a turn, a context manager that holds the digest and gives what is known of it.

        So equal images wait for the first.
        """
        while digest in self._held:
            waiting = self._held[digest]
            if waiting is None:
                waiting = self._held[digest] = asyncio.get_running_loop().create_future()
            # Shielded: one who is cancelled must not take the others along.
            await asyncio.shield(waiting)
        self._held[digest] = None
        return _Turn(self, digest)

    def remember(self, digest: Digest, known: CachedAnswer) -> None:
        """Keep an answer that will not change: labels, or that the image is at fault."""
        self._known[digest] = known
        if len(self._known) > self._max_remembered:
            self._known.popitem(last=False)

    def _recall(self, digest: Digest) -> CachedAnswer | None:
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
        return known

    def _leave(self, digest: Digest) -> None:
        waiting = self._held.pop(digest)
        if waiting is not None:
            waiting.set_result(None)


class _Turn:
    """The time that one image has a digest for itself.

    A class, as the one that ``contextmanager`` makes costs several times as much.
    """

    __slots__ = ("_digest", "_reuse")

    def __init__(self, reuse: SingleFlightCache, digest: Digest) -> None:
        self._reuse = reuse
        self._digest = digest

    def __enter__(self) -> CachedAnswer | None:
        return self._reuse._recall(self._digest)

    def __exit__(self, *exc_info: object) -> None:
        self._reuse._leave(self._digest)
