"""No request arrives over the limit of the server, whatever holds it up on its way."""

from __future__ import annotations

import asyncio
import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import run

from airflow_imagetag.engine.flow.arrivals import ArrivalWindow, Departure
from airflow_imagetag.engine.flow.rate_limiter import RateLimiter, RateLimiterConfig

CONFIG = RateLimiterConfig()
GUARD = CONFIG.margin * CONFIG.guard_share


def now() -> float:
    return asyncio.get_running_loop().time()


def refused(arrivals: list[float], rate: float) -> int:
    """Return how many arrivals a server refuses that counts accepted ones in a sliding window."""
    limit = max(1, int(rate))
    window, accepted, over = limit / rate, deque[float](), 0
    for arrival in sorted(arrivals):
        while accepted and accepted[0] <= arrival - window:
            accepted.popleft()
        if len(accepted) >= limit:
            over += 1
        else:
            accepted.append(arrival)
    return over


async def arrivals_of(
    rate: float,
    count: int,
    hold_up: list[float],
    way: random.Random,
    *,
    jitter_seconds: float,
) -> list[float]:
    """Return the arrival times of requests that are held up between grant and departure.

    :param hold_up: seconds from the grant to the departure, for each request in turn.
    :param way: gives the time on the way, up to ``jitter_seconds``.
    """
    limiter, arrivals = RateLimiter(rate), []

    async def send(departure: Departure, held: float) -> None:
        if held:
            await asyncio.sleep(held)
        departure.leave(now())
        arrivals.append(now() + way.uniform(0, jitter_seconds))

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            await limiter.acquire()
            departure = limiter.depart()
            assert departure is not None
            tasks.create_task(send(departure, hold_up[number % len(hold_up)]))
    return arrivals


@settings(max_examples=40, deadline=None)
@given(
    rate=st.sampled_from([1.0, 2.5, 20.0, 50.0]),
    hold_up=st.lists(st.floats(0, 0.4), min_size=1, max_size=150),
    seed=st.integers(0, 2**16),
)
def test_requests_that_are_held_up(rate, hold_up, seed):
    """New connections, threads and a busy loop hold requests up; the server refuses none."""

    async def main() -> None:
        way = random.Random(seed)
        jitter = 0.9 * GUARD * max(1, int(rate)) / rate
        arrivals = await arrivals_of(rate, 150, hold_up, way, jitter_seconds=jitter)
        assert refused(arrivals, rate) == 0

    run(main())


@pytest.mark.parametrize("rate", [20.0, 200.0])
@pytest.mark.parametrize("held_first", [0.0, 0.06])
def test_the_quota_is_used(rate, held_first):
    """The time is at most 1.03 times the ideal, also where the first connections take long."""

    async def main() -> None:
        start, count = now(), int(20 * rate)
        hold_up = [held_first] * int(rate / 2) + [0.0] * count
        await arrivals_of(rate, count, hold_up, random.Random(0), jitter_seconds=0.005)
        assert now() - start <= 1.03 * count / rate + held_first

    run(main())


def test_a_loop_that_is_busy_at_the_start():
    """What passes meanwhile is not made up for in one burst: nothing arrives over the limit."""

    async def main() -> None:
        start = now()
        # The loop is busy for 42 ms: requests that were granted then leave together.
        hold_up = [0.0, *(max(0.0, 0.042 - n * 0.005) for n in range(1, 20)), *[0.0] * 2000]
        arrivals = await arrivals_of(200.0, 2000, hold_up, random.Random(1), jitter_seconds=0.002)
        assert refused(arrivals, 200.0) == 0
        assert max(arrivals) - start <= 1.03 * 10

    run(main())


def test_one_that_has_not_left_counts():
    """It may arrive at any moment; one that is given up counts no more."""
    window = ArrivalWindow(2, 0.0)
    first, second = Departure(window), Departure(window)
    assert window.wait_seconds(0.0) > 0
    second.close()
    assert window.wait_seconds(0.0) == 0
    first.leave(5.0)
    first.leave(6.0)
    first.close()
    third = Departure(window)
    assert window.wait_seconds(5.5) == 0.5
    third.close()
    assert window.wait_seconds(5.5) == 0


def test_a_late_answer_tells_of_a_late_arrival():
    """A server that was busy has counted the request later than it left."""
    window = ArrivalWindow(2, 0.0)
    first, second = Departure(window), Departure(window)
    for departure in (first, second):
        departure.leave(0.0)
    assert window.wait_seconds(0.5) == 0.5
    second.answer(0.3)
    first.answer(0.32)
    assert window.wait_seconds(0.5) == pytest.approx(0.52)


def test_a_latency_that_varies_tells_nothing():
    """The service took its time for the work; the quota is used all the same."""

    async def main() -> None:
        chance, limiter, start = random.Random(2), RateLimiter(50), now()

        async def send(departure: Departure) -> None:
            departure.leave(now())
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            departure.answer(now())

        async with asyncio.TaskGroup() as tasks:
            for _ in range(1000):
                await limiter.acquire()
                departure = limiter.depart()
                assert departure is not None
                tasks.create_task(send(departure))
            assert now() - start <= 1.01 * 20

    run(main())
