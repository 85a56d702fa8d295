"""When the next request may be sent: the quota, evenly spread, for one process or for many."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Protocol

from airflow_imagetag.engine.flow.aimd import AimdRate
from airflow_imagetag.errors import QuotaUnavailableError

MARGIN = 0.02
"""Requests are spaced by so much more than the quota asks for: what a network and a busy machine
take from one space and add to the next must not put a request too many into anybody's second."""

CATCH_UP_SECONDS = 0.01
"""How late a slot is used in the ordinary course: the precision of timers."""

QUEUE_SECONDS = 1.0
"""Who goes slower than the quota that it shares makes up for so long a wait for the others."""

LEASE_SECONDS = 0.05
"""Slots are taken from a shared ledger for so long a time at once: a process that dies takes no
more with it, and one question to the ledger serves several requests where the quota is large."""

MAX_LEASE = 50

STALE_SECONDS = 0.25
"""A slot of a shared ledger that is so late is given up: others have used the quota meanwhile."""

SLICE_SECONDS = 0.25
"""Whoever waits for a slot looks so often whether the run has been asked to end."""

LEASE_TIMEOUT_SECONDS = 60.0


class Schedule(Protocol):
    """Gives out slots, points in time at which one request may be sent, each of them once."""

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return in how many seconds the first of some slots begins; below 0 it is late.

        :param count: slots to take, one after the other.
        :param interval_seconds: from the beginning of one to that of the next.
        """
        ...


class LocalSchedule:
    """The slots of one process.

    :param clock: a clock that does not run backwards.
    :param late_seconds: how late a slot may be used without moving all later ones.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        late_seconds: float = CATCH_UP_SECONDS,
    ) -> None:
        self._clock = clock
        self._late_seconds = late_seconds
        self._next = float("-inf")

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return in how many seconds the first of some slots begins; below 0 it is late."""
        now = self._clock()
        is_too_late = self._next < now - self._late_seconds
        start = now - CATCH_UP_SECONDS if is_too_late else self._next
        self._next = start + count * interval_seconds
        return start - now


class RateLimiter:
    """Grants requests evenly at the quota's rate, with no burst, in the order they ask.

    :param requests_per_second: how fast this process may go; None for no limit.
    :param ledger: gives out the slots of a quota that processes share; None for none.
    :param shared_requests_per_second: that quota, which makes the slots' width, however slow one of
        the processes means to go; None for the rate of this one.
    :param threads: where a shared ledger blocks.
    :param stopping: set when nobody needs a slot any more; None for never.
    """

    def __init__(
        self,
        requests_per_second: float | None,
        ledger: Schedule | None = None,
        *,
        shared_requests_per_second: float | None = None,
        threads: Executor | None = None,
        stopping: asyncio.Event | None = None,
    ) -> None:
        self._stopping = asyncio.Event() if stopping is None else stopping
        self._slow_down = AimdRate(requests_per_second)
        # The shared quota, as a multiple of what this process may use.
        self._wider = 1.0
        self._ledger: Schedule | None = None
        if requests_per_second is not None:
            self._ledger = ledger
            self._wider = (shared_requests_per_second or requests_per_second) / requests_per_second
        late_seconds = CATCH_UP_SECONDS if self._ledger is None else QUEUE_SECONDS
        self._own = LocalSchedule(_loop_time, late_seconds=late_seconds)
        self._own_slot: float | None = None
        self._threads = threads
        # Fair: whoever waits first goes first.
        self._turn = asyncio.Lock()
        self._leased: deque[float] = deque()

    async def acquire(self) -> None:
        """Return when one request may be sent, or when nobody needs to any more.

        :raises QuotaUnavailableError: the shared ledger cannot be asked.
        """
        now = _loop_time()
        if self._slow_down.rate(now) is not None:
            async with self._turn:
                await self._take()
            now = _loop_time()
        self._slow_down.granted(now)

    def throttled(self, weight: float = 1.0) -> None:
        """Take note of an answer that asks for fewer requests: go slower, and recover by and by.

        :param weight: how much it says, up to 1.
        """
        self._slow_down.cut(_loop_time(), weight)

    async def _take(self) -> None:
        """Wait for a slot; one who is cancelled leaves it to the next."""
        rate = self._slow_down.rate(_loop_time())
        if rate is None:
            return
        if self._ledger is None or self._wider > 1:
            await self._take_own(rate)
        if self._ledger is not None:
            # One that is slowed down takes wider slots, and so slows the others down with it.
            await self._take_leased(self._ledger, rate * self._wider, rate)
        self._own_slot = None

    async def _take_own(self, rate: float) -> None:
        if self._own_slot is None:
            self._own_slot = _loop_time() + self._own.reserve(1, (1 + MARGIN) / rate)
        await self._sleep_until(self._own_slot)

    async def _take_leased(self, ledger: Schedule, shared_rate: float, rate: float) -> None:
        leased = self._leased
        while leased and leased[0] < _loop_time() - STALE_SECONDS:
            leased.popleft()
        if not leased and not self._stopping.is_set():
            count = max(1, min(int(min(rate, shared_rate) * LEASE_SECONDS), MAX_LEASE))
            interval = (1 + MARGIN) / shared_rate
            delay = await self._ask(ledger, count, interval)
            first = _loop_time() + delay
            leased.extend(first + number * interval for number in range(count))
        if leased:
            await self._sleep_until(leased[0])
            leased.popleft()

    async def _sleep_until(self, moment: float) -> None:
        while (wait := moment - _loop_time()) > 0 and not self._stopping.is_set():  # noqa: ASYNC110
            await asyncio.sleep(min(wait, SLICE_SECONDS))

    async def _ask(self, ledger: Schedule, count: int, interval: float) -> float:
        """Return what the ledger answers; 0 if nobody needs it any more."""
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._threads, ledger.reserve, count, interval)
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
            return 0.0
        raise QuotaUnavailableError(
            f"The shared quota has not answered for {LEASE_TIMEOUT_SECONDS:g} seconds."
        )


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
