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

    def claim(self, digest: Digest) -> bool:
        """Claim a digest until ``release``; False while another image has the claim."""
        if digest in self._in_flight:
            return False
        self._in_flight[digest] = None
        return True

    async def wait(self, digest: Digest) -> None:
        """Wait until the image that has the claim has released it."""
        waiting = self._in_flight[digest]
        if waiting is None:
            waiting = self._in_flight[digest] = asyncio.get_running_loop().create_future()
        # Shielded: a waiter that is cancelled must not cancel the others.
        await asyncio.shield(waiting)

    def release(self, digest: Digest, answer: CachedAnswer | None = None) -> None:
        """Let the next image with this digest go on.

        :param answer: an answer to remember, which will not change: labels, or an error of the
            image itself; None for none.
        """
        if answer is not None:
            self._answers[digest] = answer
            if len(self._answers) > self._max_remembered:
                self._answers.popitem(last=False)
        waiting = self._in_flight.pop(digest)
        if waiting is not None:
            waiting.set_result(None)

    def recall(self, digest: Digest) -> CachedAnswer | None:
        """Return the remembered answer; None if there is none."""
        answer = self._answers.get(digest)
        if answer is not None:
            self._answers.move_to_end(digest)
        return answer
