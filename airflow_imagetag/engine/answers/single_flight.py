"""Equal bytes are paid for once in a run: remembered answers, one call at a time for a digest."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from airflow_imagetag.engine.protocols import CachedAnswer
from airflow_imagetag.runtime.digests import Digest

MAX_REMEMBERED = 10_000
"""Maximum number of remembered answers, the latest used: about ten megabytes."""

MIN_REMEMBERED = 2_000
"""Number of remembered answers beside a store that holds the others: most copies lie close to each
other, so few look-ups are needed."""


class SingleFlightCache:
    """Remembers answers by the digest of the bytes, and lets one image of each digest be called.

    :param max_remembered: maximum number of remembered answers.
    """

    def __init__(self, max_remembered: int = MAX_REMEMBERED) -> None:
        self._max_remembered = max_remembered
        self._answers: OrderedDict[Digest, CachedAnswer] = OrderedDict()
        # The digests in flight, each with the future of the images that wait for it, if any do.
        self._in_flight: dict[Digest, asyncio.Future[None] | None] = {}

    async def enter(self, digest: Digest) -> _Flight:
        """Wait until no other image has this digest in flight.

        :return: a context manager that holds the digest and gives its remembered answer.
        """
        while digest in self._in_flight:
            waiting = self._in_flight[digest]
            if waiting is None:
                waiting = self._in_flight[digest] = asyncio.get_running_loop().create_future()
            # Shielded: a waiter that is cancelled must not cancel the others.
            await asyncio.shield(waiting)
        self._in_flight[digest] = None
        return _Flight(self, digest)

    def remember(self, digest: Digest, answer: CachedAnswer) -> None:
        """Keep an answer that will not change: labels, or an error of the image itself."""
        self._answers[digest] = answer
        if len(self._answers) > self._max_remembered:
            self._answers.popitem(last=False)

    def recall(self, digest: Digest) -> CachedAnswer | None:
        """Return the remembered answer; None if there is none."""
        answer = self._answers.get(digest)
        if answer is not None:
            self._answers.move_to_end(digest)
        return answer

    def leave(self, digest: Digest) -> None:
        """Let the next image with this digest go on."""
        waiting = self._in_flight.pop(digest)
        if waiting is not None:
            waiting.set_result(None)


class _Flight:
    """The time during which one image holds a digest.

    A class, because ``contextmanager`` costs several times as much.
    """

    __slots__ = ("_cache", "_digest")

    def __init__(self, cache: SingleFlightCache, digest: Digest) -> None:
        self._cache = cache
        self._digest = digest

    def __enter__(self) -> CachedAnswer | None:
        return self._cache.recall(self._digest)

    def __exit__(self, *exc_info: object) -> None:
        self._cache.leave(self._digest)
