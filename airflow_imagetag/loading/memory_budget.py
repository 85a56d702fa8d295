"""Room that threads share: each takes as much as it needs, and waits until there is so much."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class MemoryBudget:
    """A semaphore whose holders take different amounts, first come, first served.

    :param total: how much there is.
    """

    def __init__(self, total: int) -> None:
        self._left = total
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Hold an amount, the total at most; blocks until it is there."""
        # Who waits for much is not overtaken for ever by those who want little.
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._left >= amount)
            self._left -= amount
        try:
            yield
        finally:
            with self._freed:
                self._left += amount
                self._freed.notify_all()
