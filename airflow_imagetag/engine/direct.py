"""Gives those who label the entries of a source that is in memory, without a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from airflow_imagetag.engine.protocols import Counts, PreparedEntry, as_exception
from airflow_imagetag.models import Entry

ENTRIES_IN_A_ROW = 256
"""Then the loop gets its turn: entries that need no call would else hold everything up."""


class DirectFeed:
    """The entries of a source, for any number of takers, each read when it is taken.

    Made inside the loop that takes them.

    :param entries: come at once.
    :param counts: the run's counts.
    :param stopping: set when nothing more is to be taken.
    """

    def __init__(self, entries: Iterator[Entry], counts: Counts, stopping: asyncio.Event) -> None:
        self._entries = entries
        self._counts = counts
        self._stopping = stopping
        self._end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing more is to be taken."""
        return self._end.done()

    async def take(self) -> PreparedEntry | None:
        """Return the next entry, without a payload; None after the last."""
        if self._counts.seen % ENTRIES_IN_A_ROW == 0:
            await asyncio.sleep(0)
        if self._stopping.is_set():
            self._close()
        try:
            entry = None if self.is_exhausted else next(self._entries, None)
        except Exception as error:
            self._end.set_exception(error)
            return None
        except BaseException as error:
            self._end.set_exception(as_exception("source", error))
            return None
        if entry is None:
            self._close()
            return None
        self._counts.seen += 1
        return entry, None

    def drop(self) -> int:
        """Return 0, the number of entries that were read and not taken."""
        return 0

    async def read(self) -> None:
        """Return when the source ends or the run is to end.

        :raises Exception: what the source raised.
        """
        stopped = asyncio.create_task(self._stopping.wait())
        stopped.add_done_callback(lambda _: self._close())
        try:
            await self._end
        finally:
            stopped.cancel()

    def _close(self) -> None:
        if not self._end.done():
            self._end.set_result(None)
