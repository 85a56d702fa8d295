"""Reads a source one chunk ahead of the workers that label its entries."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.flow.bytes_in_flight import BytesInFlight
from airflow_imagetag.engine.protocols import as_exception
from airflow_imagetag.labellers.base import Prepared
from airflow_imagetag.models import Entry, Image

PrepareAhead = Callable[[Image], Prepared | None]
"""Prepares an image in the thread that reads the source; None leaves it to the worker."""

ExpectedBytes = Callable[[Image], int]
"""Returns the expected size of the bytes that a worker will load for an image without bytes."""

ENTRIES_PER_WORKER = 2
"""Maximum number of entries in a chunk for each worker."""

CHUNKS_IN_A_ROW = 32
"""Number of chunks that are read inline between two turns of the event loop."""


@dataclass(frozen=True, slots=True)
class PrefetchConfig:
    """How far the source is read ahead.

    :param max_entries: maximum number of entries in a chunk; at most two chunks are held.
    :param max_bytes: size of image bytes from which a chunk ends.
    :param max_seconds: reading time after which a chunk ends, so that a slow source delays no
        entry that it has already given.
    """

    max_entries: int = 128
    max_bytes: int = 4 * 1024 * 1024
    max_seconds: float = 0.02


@dataclass(slots=True)
class PreparedEntry:
    """An entry of the source, and the prepared image if it was read ahead.

    :param entry: the entry.
    :param prepared: the image with its payload; None leaves that to the worker.
    :param size_bytes: size of the image's bytes: in memory, or expected until they are loaded.
    """

    entry: Entry
    prepared: Prepared | None
    size_bytes: int


class _Chunk(NamedTuple):
    entries: list[PreparedEntry]
    size_bytes: int
    is_last: bool


class Prefetcher:
    """The entries of a source for any number of workers; made inside the loop that runs them.

    Whenever the entries at hand fall to half a chunk, the next chunk is read. So reading overlaps
    with labelling, and memory is bounded by two chunks. A source in memory is read in the loop,
    when its entries are wanted.

    :param entries: the source; read by one thread at a time.
    :param executor: runs the reading; None for a source in memory.
    :param counts: the run's counts.
    :param stopping: set when no more entries are to be taken.
    :param on_error: is called with the error of a source that fails.
    :param prepare_ahead: prepares images while they are read.
    :param expected_bytes: sizes images whose bytes a worker loads.
    :param in_flight: the bytes of the images that are taken; the worker that took one releases it.
    :param config: bounds of a chunk.
    """

    def __init__(
        self,
        entries: Iterator[Entry],
        executor: Executor | None,
        counts: Counts,
        stopping: asyncio.Event,
        on_error: Callable[[Exception], None],
        *,
        prepare_ahead: PrepareAhead,
        expected_bytes: ExpectedBytes,
        in_flight: BytesInFlight,
        config: PrefetchConfig,
    ) -> None:
        self._entries = entries
        self._executor = executor
        self._counts = counts
        self._stopping = stopping
        self._on_error = on_error
        self._prepare_ahead = prepare_ahead
        self._expected_bytes = expected_bytes
        self._in_flight = in_flight
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._at_hand: deque[PreparedEntry] = deque()
        self._refill_at = config.max_entries // 2
        self._reading: asyncio.Future[_Chunk] | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._has_ended = False
        self._chunks_read = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether no further entry will come."""
        return self._has_ended and not self._at_hand

    async def take(self) -> PreparedEntry | None:
        """Return the next entry; None after the last one, or when the run is to end.

        An entry waits while the workers hold as many bytes as they may.
        """
        while not self._at_hand or self._in_flight.is_full:
            if self._stopping.is_set() or (self._has_ended and not self._at_hand):
                self._wake(len(self._waiting))
                return None
            if self._at_hand:
                await self._in_flight.wait()
            else:
                await self._wait_for_entries()
        if self._stopping.is_set():
            self._wake(len(self._waiting))
            return None
        taken = self._at_hand.popleft()
        if not taken.size_bytes and isinstance(taken.entry, Image):
            taken.size_bytes = self._expected_bytes(taken.entry)
        self._in_flight.hold(taken.size_bytes)
        if self._executor is not None and len(self._at_hand) <= self._refill_at:
            self._start_reading(self._executor)
        return taken

    def drop(self) -> int:
        """Forget the entries at hand and return their number."""
        count = len(self._at_hand)
        self._at_hand.clear()
        self._has_ended = True
        return count

    async def _wait_for_entries(self) -> None:
        """Wait until entries are at hand, for this worker or for one that was faster."""
        if self._executor is None:
            # They are taken at once, while their bytes are in the CPU's cache. Entries without work
            # must let the loop run from time to time.
            self._chunks_read += 1
            if self._chunks_read % CHUNKS_IN_A_ROW == 0:
                await asyncio.sleep(0)
            self._read_inline()
            return
        self._start_reading(self._executor)
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._waiting.remove(waiter)
            else:
                self._wake(1)
            raise

    def _wake(self, count: int) -> None:
        """Wake some of the workers that wait for entries: only those that will find one."""
        for _ in range(min(count, len(self._waiting))):
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def _read_inline(self) -> None:
        # Another worker may have read meanwhile.
        if self._at_hand or self._has_ended:
            return
        try:
            chunk = self._read_chunk()
        except Exception as error:
            self._has_ended = True
            self._on_error(error)
        else:
            self._add(chunk)

    def _start_reading(self, executor: Executor) -> None:
        if self._reading is None and not self._has_ended:
            self._reading = asyncio.wrap_future(executor.submit(self._read_chunk))
            self._reading.add_done_callback(self._end_reading)

    def _end_reading(self, reading: asyncio.Future[_Chunk]) -> None:
        self._reading = None
        if reading.cancelled():
            self._has_ended = True
        elif error := reading.exception():
            self._has_ended = True
            self._on_error(error if isinstance(error, Exception) else as_exception("source", error))
        elif not self._has_ended:
            self._add(reading.result())
        self._wake(len(self._waiting) if self._has_ended else len(self._at_hand))

    def _add(self, chunk: _Chunk) -> None:
        self._counts.seen += len(chunk.entries)
        self._at_hand += chunk.entries
        self._has_ended = chunk.is_last
        # Of large images a chunk holds few: the next one is read when it is used up.
        is_cut = chunk.size_bytes >= self._config.max_bytes
        self._refill_at = len(chunk.entries) // 2 if is_cut else self._config.max_entries // 2

    def _read_chunk(self) -> _Chunk:
        """Read some entries; runs in the executor, if there is one."""
        config = self._config
        chunk: list[PreparedEntry] = []
        size_bytes = 0
        deadline = time.monotonic() + config.max_seconds
        try:
            for entry in islice(self._entries, config.max_entries):
                chunk.append(self._prepared(entry))
                size_bytes += chunk[-1].size_bytes
                if size_bytes >= config.max_bytes or time.monotonic() >= deadline:
                    return _Chunk(chunk, size_bytes, is_last=False)
        except Exception:
            raise
        except BaseException as error:
            raise as_exception("source", error) from error
        return _Chunk(chunk, size_bytes, is_last=len(chunk) < config.max_entries)

    def _prepared(self, entry: Entry) -> PreparedEntry:
        if isinstance(entry, Image) and entry.content is not None:
            return PreparedEntry(entry, self._prepare_ahead(entry), len(entry.content))
        return PreparedEntry(entry, None, 0)
