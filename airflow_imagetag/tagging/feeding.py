"""Reads a source ahead of those who label, in a thread, and gives them its entries.

Where an entry holds the bytes of its image, the thread makes their digest as well. Handing each of
them to a thread by itself would cost as much CPU time as the digest of 100 KB, and the loop has
better to do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import islice

from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.models import Entry, Image
from airflow_imagetag.service.base import Payload
from airflow_imagetag.tagging.outcomes import Counts

READ_CHUNK = 100
"""Entries taken from the source at a time: a thread switch for each would cost more than it."""

MAX_WAITING = 64
"""With so many at hand, nothing more is read yet: they may hold the bytes of images."""

Fed = tuple[Entry, Payload | None]


class Feed:
    """The entries of a source, for any number of takers.

    Not a queue: it would wake its reader for every entry, and that reader its taker.

    :param entries: read in a thread, a chunk at a time.
    :param load: makes a payload of an image.
    :param threads: where reading blocks.
    :param counts: the run's counts.
    :param max_waiting: entries at hand at which the next chunk is read.
    """

    def __init__(
        self,
        entries: Iterator[Entry],
        load: Callable[[Image], Payload],
        threads: Executor,
        counts: Counts,
        *,
        max_waiting: int,
    ) -> None:
        self._entries = entries
        self._load = load
        self._threads = threads
        self._counts = counts
        self._max_waiting = max_waiting
        self._at_hand: deque[Fed] = deque()
        self._has_ended = False
        self._arrived = asyncio.Event()
        self._wanted = asyncio.Event()

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing more is to be taken."""
        return self._has_ended and not self._at_hand

    async def take(self) -> Fed | None:
        """Return the next entry, with its payload if it held the bytes; None after the last."""
        while not self._at_hand:
            if self._has_ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        fed = self._at_hand.popleft()
        if len(self._at_hand) <= self._max_waiting:
            self._wanted.set()
        return fed

    async def read(self, stopping: asyncio.Event) -> None:
        """Read until the source ends or ``stopping`` is set.

        :raises Exception: what the source raised.
        """
        try:
            while not stopping.is_set() and (chunk := await self._chunk()):
                self._counts.seen += len(chunk)
                self._at_hand += chunk
                self._arrived.set()
                self._wanted.clear()
                if len(self._at_hand) > self._max_waiting:
                    await self._wanted.wait()
        finally:
            self._has_ended = True
            self._arrived.set()

    async def _chunk(self) -> list[Fed]:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._next_entries)

    def _next_entries(self) -> list[Fed]:
        return [(entry, self._payload(entry)) for entry in islice(self._entries, READ_CHUNK)]

    def _payload(self, entry: Entry) -> Payload | None:
        if not isinstance(entry, Image) or entry.content is None:
            return None
        try:
            return self._load(entry)
        except ImageTagError:
            # Whoever takes the image meets it again, where errors are dealt with.
            return None
