"""The quota, and the service's wish to be left alone."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from airflow_imagetag.engine.flow.admission import AdmissionControl
from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreakerConfig
from airflow_imagetag.engine.flow.rate_limiter import RateLimiter


def new_gate(requests_per_second: float | None = None) -> AdmissionControl:
    """Return a gate with a quota of its own, and nothing that stops it."""
    return AdmissionControl(
        RateLimiter(requests_per_second), asyncio.Event(), CircuitBreakerConfig()
    )


def grants(gate: AdmissionControl, count: int, *, workers: int = 10) -> list[float]:
    """Return when each of so many requests was granted, from the start, to concurrent workers."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        left = iter(range(count))
        times: list[float] = []

        async def work() -> None:
            for _ in left:
                await gate.acquire()
                times.append(loop.time() - start)

        await asyncio.gather(*(work() for _ in range(workers)))
        return times

    return asyncio.run(main())


def test_requests_are_spaced_evenly():
    """There is no burst at the start, and the quota is used up."""
    times = grants(new_gate(50), 40)
    assert 39 / 50 * 0.98 <= times[-1] < 39 / 50 + 0.5
    for first, last in itertools.combinations(range(40), 2):
        # Between any two grants there is room for those between them; timers are a little early.
        assert times[last] - times[first] >= (last - first - 1) / 50 - 0.02


def test_a_slow_quota_is_kept_too():
    """Less than one request a second is a quota as well."""
    started = time.monotonic()
    times = grants(new_gate(2.5), 3)
    assert times[-1] >= 0.78
    assert time.monotonic() - started < 2


def test_no_quota():
    """Without a limit every request is granted at once."""
    assert grants(new_gate(), 5000)[-1] < 1


def test_a_hold_stops_everyone():
    """While the gate is held nobody passes, and afterwards everybody does."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = new_gate()
        await gate.acquire()
        start = loop.time()
        gate.hold(0.2)
        gate.hold(0.05)
        await asyncio.gather(*(gate.acquire() for _ in range(20)))
        assert 0.19 <= loop.time() - start < 1

    asyncio.run(main())


def test_a_hold_may_be_prolonged_while_it_is_waited_for():
    """Who waits already waits for the later end."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        gate = new_gate()
        gate.hold(0.1)
        start = loop.time()
        waiting = asyncio.create_task(gate.acquire())
        await asyncio.sleep(0.05)
        gate.hold(0.25)
        await waiting
        assert 0.29 <= loop.time() - start < 1

    asyncio.run(main())


def test_a_hold_holds_those_who_wait_for_the_quota():
    """A rest that begins while a worker waits for its turn is kept by that worker."""

    class Turn:
        def __init__(self) -> None:
            self.free = asyncio.Event()

        async def acquire(self) -> None:
            await self.free.wait()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        turn = Turn()
        gate = AdmissionControl(turn, asyncio.Event(), CircuitBreakerConfig())
        waiting = asyncio.create_task(gate.acquire())
        await asyncio.sleep(0)
        start = loop.time()
        gate.hold(0.2)
        turn.free.set()
        await waiting
        assert loop.time() - start >= 0.19

    asyncio.run(main())


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_hold_of_no_time(seconds):
    """A rest of no length changes nothing."""

    async def main() -> None:
        gate = new_gate()
        gate.hold(seconds)
        async with asyncio.timeout(0.5):
            await gate.acquire()

    asyncio.run(main())
