"""A limit of memory that threads share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryBudget:
    """A weighted semaphore: each thread reserves a number of bytes, first come, first served.

    :param total_bytes: maximum number of bytes that are reserved at the same time.
    """

    def __init__(self, total_bytes: int) -> None:
        self._free_bytes = total_bytes
        self._turn = threading.Lock()
        self._released = threading.Condition()

    @contextmanager
    def reserve(self, size_bytes: int) -> Iterator[None]:
        """Hold some bytes during a ``with`` block; blocks until they are free.

        :param size_bytes: number of bytes, at most the total.
        """
        # One thread at a time waits for memory, so that small requests cannot starve a large one.
        with self._turn, self._released:
            self._released.wait_for(lambda: self._free_bytes >= size_bytes)
            self._free_bytes -= size_bytes
        try:
            yield
        finally:
            with self._released:
                self._free_bytes += size_bytes
                self._released.notify_all()
