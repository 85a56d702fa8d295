"""Spaces requests evenly within the quota of one process, or of many that share a schedule."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from airflow_imagetag.engine.flow.aimd import AimdRate
from airflow_imagetag.engine.flow.arrivals import ArrivalWindow, Departure
from airflow_imagetag.engine.flow.schedule import LocalSchedule, Schedule
from airflow_imagetag.errors import QuotaUnavailableError


@dataclass(frozen=True, slots=True)
class RateLimiterConfig:
    """Spacing and leasing of slots.

    :param margin: additional space between requests, as a share: delays in the network and on a
        busy machine must not move a request too many into any second. Each refusal widens it.
    :param margin_step: by how much a refusal widens it.
    :param max_margin: how far refusals widen it.
    :param shared_margin: the same space for the slots of a shared schedule.
    :param guard_share: share of the margin by which the server's window counts as longer. It is
        below 1, so that requests that were held up for a moment are made up for.
    :param max_local_lag_seconds: lag of a busy machine that is made up for at once. The window of
        arrivals allows it: these slots have passed unused.
    :param max_lag_seconds: lag behind a shared quota that a task with a lower rate makes up for.
    :param lease_seconds: time for which slots are leased from a shared schedule at once. A process
        that dies loses no more than that, and at a high rate one lease serves several requests.
    :param max_lease_slots: maximum number of slots in one lease.
    :param stale_seconds: maximum lag of a leased slot. A later one is given up, since other
        processes have used the quota meanwhile; and so is one whose lag exceeds the usual lag by
        more than the shared margin.
    :param lag_weight: weight of the newest slot in the usual lag.
    :param lease_timeout_seconds: maximum time that the shared schedule may take to answer.
    :param stop_check_seconds: maximum sleep between checks of the stop event.
    """

    margin: float = 0.003
    margin_step: float = 0.005
    max_margin: float = 0.03
    shared_margin: float = 0.02
    guard_share: float = 0.7
    max_local_lag_seconds: float = 0.1
    max_lag_seconds: float = 1.0
    lease_seconds: float = 0.05
    max_lease_slots: int = 50
    stale_seconds: float = 0.25
    lag_weight: float = 0.1
    lease_timeout_seconds: float = 60.0
    stop_check_seconds: float = 0.25


class RateLimiter:
    """Grants requests evenly, without bursts, in the order in which they ask.

    :param requests_per_second: rate of this process; None for no limit.
    :param schedule: gives out the slots of a quota that processes share; None for none.
    :param shared_requests_per_second: the shared quota, which sets the width of its slots, also
        where this process has a lower rate; None for the rate of this process.
    :param threads: run the blocking calls of the shared schedule.
    :param stopping: set when no slot is needed any more; None for never.
    :param config: spacing and leasing of slots.
    :param clock: clock of the event loop, in seconds; None asks the running loop each time.
    """

    def __init__(
        self,
        requests_per_second: float | None,
        schedule: Schedule | None = None,
        *,
        shared_requests_per_second: float | None = None,
        threads: Executor | None = None,
        stopping: asyncio.Event | None = None,
        config: RateLimiterConfig = RateLimiterConfig(),
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._config = config
        self._clock = clock or _loop_time
        self._stopping = asyncio.Event() if stopping is None else stopping
        self._aimd = AimdRate(requests_per_second)
        # The shared quota as a multiple of this process's rate.
        self._shared_ratio = 1.0
        self._schedule: Schedule | None = None
        if requests_per_second is not None:
            self._schedule = schedule
            shared = shared_requests_per_second or requests_per_second
            self._shared_ratio = shared / requests_per_second
        max_lag = config.max_local_lag_seconds
        if self._schedule is not None:
            max_lag = config.max_lag_seconds
        self._local = LocalSchedule(self._clock, max_lag_seconds=max_lag)
        self._local_slot: float | None = None
        self._margin = config.margin
        self._window: ArrivalWindow | None = None
        if requests_per_second is not None:
            self._window = ArrivalWindow(requests_per_second, self._margin * config.guard_share)
        self._threads = threads
        # asyncio's lock is fair: first come, first served.
        self._turn = asyncio.Lock()
        self._leased: deque[float] = deque()
        self._usual_lag = 0.0

    async def acquire(self) -> None:
        """Wait until one request may be sent, or until the stop event is set.

        :raises QuotaUnavailableError: the shared schedule cannot be reached.
        """
        now = self._clock()
        if self._aimd.rate(now) is not None:
            async with self._turn:
                await self._take_slot()
            now = self._clock()
        self._aimd.record_request(now)

    def grant_at_once(self) -> bool:
        """Grant a request where there is no rate to keep; False asks for ``acquire``."""
        if self._aimd.is_limited:
            return False
        self._aimd.record_request(self._clock())
        return True

    def depart(self) -> Departure | None:
        """Return the departure of the request that was just granted; None without a quota.

        The caller records when the request leaves, or closes the departure.
        """
        return None if self._window is None else Departure(self._window)

    def tolerates_refusal(self) -> bool:
        """Tell whether the latest refusals are so few that they slow down the rate and no more."""
        return self._aimd.tolerates_refusal()

    def record_throttled(self, weight: float = 1.0) -> None:
        """Lower the rate after an answer that asks for fewer requests; it recovers with time.

        :param weight: weight of the answer, up to 1.
        """
        self._aimd.record_throttled(self._clock(), weight)
        if self._window is not None and weight == 1:
            # The way to this server varies by more than the margin.
            config = self._config
            self._margin = min(self._margin + config.margin_step, config.max_margin)
            self._window.guard = self._margin * config.guard_share

    async def _take_slot(self) -> None:
        """Wait for a slot; a caller that is cancelled leaves it to the next."""
        rate = self._aimd.rate(self._clock())
        if rate is None:
            return
        if self._schedule is None or self._shared_ratio > 1:
            await self._take_local_slot(rate)
        if self._schedule is not None:
            # A throttled process takes wider slots, which slows down the other processes as well.
            await self._take_leased_slot(self._schedule, rate * self._shared_ratio, rate)
        self._local_slot = None
        await self._wait_for_room()

    async def _take_local_slot(self, rate: float) -> None:
        if self._local_slot is None:
            interval = (1 + self._margin) / rate
            self._local_slot = self._clock() + self._local.reserve(1, interval)
        await self._sleep_until(self._local_slot)

    async def _wait_for_room(self) -> None:
        """Wait until the server has seen few enough requests within its window."""
        window = self._window
        while window is not None and (wait := window.wait_seconds(self._clock())) > 0:
            if self._stopping.is_set():
                return
            await asyncio.sleep(min(wait, self._config.stop_check_seconds))

    async def _take_leased_slot(self, schedule: Schedule, shared_rate: float, rate: float) -> None:
        leased = self._leased
        # A server that counts seconds sees the time that the margin leaves free.
        tolerance = self._config.shared_margin * max(1.0, 1 / shared_rate)
        while not self._stopping.is_set():
            if not leased:
                await self._lease(schedule, shared_rate, rate)
            slot = leased[0]
            await self._sleep_until(slot)
            leased.popleft()
            lag, stale = self._clock() - slot, self._config.stale_seconds
            usual = self._usual_lag
            self._usual_lag += (min(lag, stale) - usual) * self._config.lag_weight
            # Beside the requests of others, a later one would be one too many. The usual lag does
            # no harm, since it moves all requests alike.
            if lag <= min(usual + tolerance, stale):
                return

    async def _lease(self, schedule: Schedule, shared_rate: float, rate: float) -> None:
        wanted = int(min(rate, shared_rate) * self._config.lease_seconds)
        count = max(1, min(wanted, self._config.max_lease_slots))
        interval = (1 + self._config.shared_margin) / shared_rate
        first = await self._reserve(schedule, count, interval) + self._clock()
        self._leased.extend(first + number * interval for number in range(count))

    async def _sleep_until(self, moment: float) -> None:
        while (wait := moment - self._clock()) > 0 and not self._stopping.is_set():  # noqa: ASYNC110 (looks for a stop)
            await asyncio.sleep(min(wait, self._config.stop_check_seconds))

    async def _reserve(self, schedule: Schedule, count: int, interval: float) -> float:
        """Return the answer of the schedule; 0 if the stop event comes first."""
        loop = asyncio.get_running_loop()
        answer = loop.run_in_executor(self._threads, _timed, loop.time, schedule, count, interval)
        stopped = asyncio.create_task(self._stopping.wait())
        timeout_seconds = self._config.lease_timeout_seconds
        try:
            await asyncio.wait(
                (answer, stopped), timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if answer.done():
                seconds, answered_at = answer.result()
                # The loop may have noticed the answer late.
                return seconds - (loop.time() - answered_at)
        finally:
            stopped.cancel()
            answer.cancel()
        if self._stopping.is_set():
            return 0.0
        raise QuotaUnavailableError(
            f"The shared quota has not answered for {timeout_seconds:g} seconds. Check the server "
            "of quota_conn_id."
        )


def _timed(
    clock: Callable[[], float], schedule: Schedule, count: int, interval: float
) -> tuple[float, float]:
    """Return the answer of the schedule, and when it came."""
    return schedule.reserve(count, interval), clock()


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
