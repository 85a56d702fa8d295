"""Admission control with a real rate limiter: the quota, and pauses that the service asks for."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from virtual_time import run

from airflow_imagetag.engine.flow.admission import PAUSE_CHECK_SECONDS, AdmissionControl
from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreakerConfig
from airflow_imagetag.engine.flow.rate_limiter import RateLimiter


def new_admission(requests_per_second: float | None = None) -> AdmissionControl:
    """Return an admission control with a quota of its own, which nothing stops."""
    return AdmissionControl(
        RateLimiter(requests_per_second), asyncio.Event(), CircuitBreakerConfig()
    )


def now() -> float:
    return asyncio.get_running_loop().time()


def grants(requests_per_second: float | None, count: int, *, workers: int = 10) -> list[float]:
    """Return the times, from the start, at which concurrent workers were admitted."""

    async def main() -> list[float]:
        admission, start = new_admission(requests_per_second), now()
        left = iter(range(count))
        times: list[float] = []

        async def work() -> None:
            for _ in left:
                await admission.acquire()
                times.append(now() - start)

        await asyncio.gather(*(work() for _ in range(workers)))
        return times

    return run(main())


@pytest.mark.parametrize("rate", [50, 2.5, 0.1])
def test_requests_are_spaced_evenly(rate):
    """There is no burst at the start, and the quota is used up."""
    times = grants(rate, 40)
    assert 39 / rate - 0.02 <= times[-1] <= 39 / rate * 1.02
    for first, last in itertools.combinations(range(40), 2):
        # Between any two grants there is room for those between them; timers are a little early.
        assert times[last] - times[first] >= (last - first) / rate - 0.01


def test_no_quota():
    """Without a limit every request is admitted at once."""
    assert grants(None, 5000)[-1] == 0


def test_a_pause_stops_every_worker():
    """The longest of several pauses counts; afterwards all workers are admitted."""

    async def main() -> None:
        admission = new_admission()
        await admission.acquire()
        start = now()
        admission.pause(200)
        admission.pause(50)
        await asyncio.gather(*(admission.acquire() for _ in range(20)))
        assert now() - start == pytest.approx(200)

    run(main())


def test_a_pause_may_be_prolonged():
    """A worker that waits already waits for the later end."""

    async def main() -> None:
        admission, start = new_admission(), now()
        admission.pause(10)
        waiting = asyncio.create_task(admission.acquire())
        await asyncio.sleep(5)
        admission.pause(25)
        await waiting
        assert 30 <= now() - start <= 30 + PAUSE_CHECK_SECONDS

    run(main())


def test_a_pause_holds_workers_that_wait_for_the_quota():
    """A pause that begins while a worker waits for its slot holds this worker as well."""

    class Turn:
        def __init__(self) -> None:
            self.free = asyncio.Event()

        async def acquire(self) -> None:
            await self.free.wait()

        def grant_at_once(self) -> bool:
            return False

        def depart(self) -> None:
            raise AssertionError

        def tolerates_refusal(self) -> bool:
            raise AssertionError

        def record_throttled(self, weight: float = 1.0) -> None:
            raise AssertionError(weight)

    async def main() -> None:
        turn, start = Turn(), now()
        admission = AdmissionControl(turn, asyncio.Event(), CircuitBreakerConfig())
        waiting = asyncio.create_task(admission.acquire())
        await asyncio.sleep(0)
        admission.pause(20)
        turn.free.set()
        await waiting
        assert now() - start >= 20

    run(main())


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_pause_of_no_time(seconds):
    """It changes nothing."""

    async def main() -> None:
        admission, start = new_admission(), now()
        admission.pause(seconds)
        await admission.acquire()
        assert now() == start

    run(main())
