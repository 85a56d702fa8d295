"""When the next request may be sent: the quota, evenly spread, for one process or for many."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from airflow_imagetag.errors import QuotaUnavailableError
from airflow_imagetag.tagging.slowdown import SlowDown

MARGIN = 0.02
"""Requests are spaced by so much more than the quota asks for: what a network and a busy machine
take from one space and add to the next must not put a request too many into anybody's second."""

CATCH_UP_SECONDS = 0.01
"""How late a slot may be used without moving all later ones: the precision of timers."""

LEASE_SECONDS = 0.05
"""Slots are taken from a shared ledger for so long a time at once: a process that dies takes no
more with it, and one question to the ledger serves several requests where the quota is large."""

MAX_LEASE = 50

STALE_SECONDS = 0.25
"""A slot of a shared ledger that is so late is given up: others have used the quota meanwhile."""

SLICE_SECONDS = 0.25
"""Whoever waits for a slot looks so often whether the run has been asked to end."""

LEASE_TIMEOUT_SECONDS = 60.0


class Ledger(Protocol):
    """Gives out slots, points in time at which one request may be sent, each of them once."""

    @property
    def is_shared(self) -> bool:
        """Whether processes share it, so that asking it blocks."""
        ...

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return in how many seconds the first of some slots begins; below 0 it is late.

        :param count: slots to take, one after the other.
        :param interval_seconds: from the beginning of one to that of the next.
        """
        ...


class OwnLedger:
    """The slots of one process.

    :param clock: a clock that does not run backwards.
    """

    is_shared = False

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = float("-inf")

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return in how many seconds the first of some slots begins; below 0 it is late."""
        now = self._clock()
        start = max(self._next, now - CATCH_UP_SECONDS)
        self._next = start + count * interval_seconds
        return start - now


class Pacer:
    """Grants requests evenly at the quota's rate, with no burst, in the order they ask.

    :param requests_per_second: the quota; None for none.
    :param ledger: gives out the slots.
    :param threads: where a shared ledger blocks.
    :param stopping: set when nobody needs a slot any more; None for never.
    """

    def __init__(
        self,
        requests_per_second: float | None,
        ledger: Ledger | None = None,
        *,
        threads: Executor | None = None,
        stopping: asyncio.Event | None = None,
    ) -> None:
        self._stopping = asyncio.Event() if stopping is None else stopping
        self._slow_down = SlowDown(requests_per_second)
        self._ledger: Ledger = OwnLedger() if ledger is None else ledger
        self._threads = threads
        # Fair: whoever waits first goes first.
        self._turn = asyncio.Lock()
        self._slots: deque[float] = deque()

    async def acquire(self) -> None:
        """Return when one request may be sent, or when nobody needs to any more.

        :raises QuotaUnavailableError: the shared ledger cannot be asked.
        """
        loop = asyncio.get_running_loop()
        if self._slow_down.rate(loop.time()) is None:
            self._slow_down.granted(loop.time())
            return
        async with self._turn:
            await self._take()
        self._slow_down.granted(loop.time())

    def throttled(self) -> None:
        """Take note of an answer that the quota was exceeded: go slower, and recover by and by."""
        self._slow_down.cut(asyncio.get_running_loop().time())

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        if self._ledger.is_shared:
            while self._slots and self._slots[0] < loop.time() - STALE_SECONDS:
                self._slots.popleft()
        if not self._slots and not self._stopping.is_set():
            await self._lease()
        # Taken only when its time has come: one who is cancelled leaves it to the next.
        while self._slots and not self._stopping.is_set():
            if (wait := self._slots[0] - loop.time()) <= 0:
                self._slots.popleft()
                return
            await asyncio.sleep(min(wait, SLICE_SECONDS))

    async def _lease(self) -> None:
        loop = asyncio.get_running_loop()
        rate = self._slow_down.rate(loop.time())
        if rate is None:
            return
        interval = (1 + MARGIN) / rate
        count = 1
        if self._ledger.is_shared:
            count = max(1, min(int(rate * LEASE_SECONDS), MAX_LEASE))
            delay = await self._ask(count, interval)
        else:
            delay = self._ledger.reserve(count, interval)
        if delay is not None:
            first = loop.time() + delay
            self._slots.extend(first + number * interval for number in range(count))

    async def _ask(self, count: int, interval: float) -> float | None:
        """Return what a shared ledger answers; None if nobody needs it any more."""
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._threads, self._ledger.reserve, count, interval)
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait(
                (asked, stopped),
                timeout=LEASE_TIMEOUT_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if asked.done():
                return asked.result()
        finally:
            stopped.cancel()
            asked.cancel()
        if self._stopping.is_set():
            return None
        raise QuotaUnavailableError(
            f"The shared quota has not answered for {LEASE_TIMEOUT_SECONDS:g} seconds."
        )
