"""Reads a source ahead of those who label, in a thread, and gives them its entries.

Where an entry holds many bytes, the thread makes their digest as well: the loop has better to do.
A few bytes it leaves alone, as two threads that take turns cost more than the digest.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from itertools import islice

from airflow_imagetag.engine.protocols import Counts, Labeller, PreparedEntry, as_exception
from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.models import Entry, Image
from airflow_imagetag.services.messages import Payload

READ_CHUNK = 32
"""Entries that the thread hands over together: to wake the loop costs more than an entry."""

CHUNK_BYTES = 4 * 1024 * 1024
"""Or fewer, if they hold so many bytes."""

MAX_WAITING = 256
"""With so many at hand, nothing more is read yet: each pause of the thread costs as much as some
images."""

WAITING_PER_WORKER = 4
"""Nor with so many for each of those who take them."""

MAX_WAITING_BYTES = 4 * CHUNK_BYTES
"""Nor with so many bytes."""


class Prefetcher:
    """The entries of a source, for any number of takers; made inside the loop that takes them.

    Not a queue, which wakes somebody for every entry. Here the loop is woken where somebody waits,
    and the thread where half of what it may read ahead was taken.

    :param entries: read in a thread.
    :param tagger: makes payloads of images.
    :param threads: where reading blocks; it takes one of them until the source ends.
    :param counts: the run's counts.
    :param stopping: set when nothing more is to be read.
    :param max_waiting: entries at hand at which the thread pauses.
    """

    def __init__(
        self,
        entries: Iterator[Entry],
        tagger: Labeller,
        threads: Executor,
        counts: Counts,
        stopping: asyncio.Event,
        *,
        max_waiting: int,
    ) -> None:
        self._stopping = stopping
        self._entries = entries
        self._tagger = tagger
        self._threads = threads
        self._counts = counts
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._at_hand: deque[PreparedEntry] = deque()
        # Each is written by one thread only.
        self._bytes_read = 0
        self._bytes_taken = 0
        self._takers: deque[asyncio.Future[None]] = deque()
        self._is_awaited = False
        self._has_room = threading.Event()
        self._has_ended = False

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing more is to be taken."""
        return self._has_ended and not self._at_hand

    async def take(self) -> PreparedEntry | None:
        """Return the next entry, with its payload where the thread made it; None after the last."""
        while not self._at_hand:
            if self._has_ended:
                return None
            await self._more()
        fed = self._at_hand.popleft()
        self._bytes_taken += _size_bytes(fed[0])
        if not self._has_room.is_set() and self._is_half_empty():
            self._has_room.set()
        return fed

    def drop(self) -> int:
        """Forget what is at hand and return how many entries it was."""
        count = len(self._at_hand)
        self._at_hand.clear()
        return count

    async def read(self) -> None:
        """Read until the source ends or the run is to end.

        :raises Exception: what the source raised.
        """
        try:
            await self._loop.run_in_executor(self._threads, self._read_all)
        finally:
            self._has_ended = True
            self._has_room.set()
            self._wake(len(self._takers))

    # -- in the loop --------------------------------------------------------------------------

    async def _more(self) -> None:
        """Return when there may be something at hand."""
        taker = self._loop.create_future()
        self._takers.append(taker)
        # Before the last look: the thread adds an entry and then looks whether it is awaited.
        self._is_awaited = True
        if self._at_hand:
            self._wake_for_all()
        try:
            await taker
        except asyncio.CancelledError:
            # It may have been woken already, for an entry that another one can have.
            self._wake_for_all()
            raise

    def _wake_for_all(self) -> None:
        """Wake as many as there are entries."""
        # Before the look, as in `_more`: what the thread adds from now on wakes somebody.
        self._is_awaited = True
        self._wake(len(self._at_hand))
        if not self._takers:
            self._is_awaited = False

    def _wake(self, count: int) -> None:
        while count and self._takers:
            taker = self._takers.popleft()
            # One that was cancelled is done.
            if not taker.done():
                taker.set_result(None)
                count -= 1

    # -- in the thread ------------------------------------------------------------------------

    def _read_all(self) -> None:
        # Looked at before and after: a read may take long, and is for nothing once the run stops.
        while not self._stopping.is_set() and (chunk := self._chunk()):
            if self._stopping.is_set() or self._has_ended:
                return
            self._counts.seen += len(chunk)
            self._at_hand += chunk
            if self._is_awaited:
                self._is_awaited = False
                self._loop.call_soon_threadsafe(self._wake_for_all)
            self._pause()

    def _chunk(self) -> list[PreparedEntry]:
        chunk: list[PreparedEntry] = []
        end = self._bytes_read + CHUNK_BYTES
        try:
            for entry in islice(self._entries, READ_CHUNK):
                chunk.append((entry, self._payload(entry)))
                self._bytes_read += _size_bytes(entry)
                if self._bytes_read >= end:
                    break
        except Exception:
            raise
        except BaseException as error:
            raise as_exception("source", error) from error
        return chunk

    def _payload(self, entry: Entry) -> Payload | None:
        if not isinstance(entry, Image) or entry.content is None or self._tagger.is_quick(entry):
            return None
        try:
            return self._tagger.load(entry)
        except ImageTagError:
            # Whoever takes the image meets it again, where errors are dealt with.
            return None

    def _pause(self) -> None:
        """Return when there is room for more."""
        if not self._is_full():
            return
        self._has_room.clear()
        # Else it was made meanwhile.
        if self._is_full() and not self._has_ended:
            self._has_room.wait()

    # -- in both ------------------------------------------------------------------------------

    def _is_full(self) -> bool:
        """Tell whether as much is at hand as may be, by number or by bytes."""
        return len(self._at_hand) >= self._max_waiting or self._bytes_at_hand >= MAX_WAITING_BYTES

    def _is_half_empty(self) -> bool:
        """Tell whether half of it was taken, by number and by bytes."""
        return (
            len(self._at_hand) <= self._max_waiting // 2
            and self._bytes_at_hand <= MAX_WAITING_BYTES // 2
        )

    @property
    def _bytes_at_hand(self) -> int:
        return self._bytes_read - self._bytes_taken


def _size_bytes(entry: Entry) -> int:
    return len(entry.content) if isinstance(entry, Image) and entry.content is not None else 0
