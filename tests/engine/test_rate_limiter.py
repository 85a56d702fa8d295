"""The rate limiter: evenly spaced slots in order, its own or leased from a shared schedule."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest
from inline_executor import InlineExecutor
from virtual_time import Never, run

from airflow_imagetag.engine.flow.rate_limiter import RateLimiter, RateLimiterConfig
from airflow_imagetag.engine.flow.schedule import CATCH_UP_SECONDS
from airflow_imagetag.errors import QuotaUnavailableError

MARGIN = RateLimiterConfig().margin
SHARED_MARGIN = RateLimiterConfig().shared_margin
MARGIN_STEP = RateLimiterConfig().margin_step


def now() -> float:
    return asyncio.get_running_loop().time()


class Shared:
    """A schedule that several limiters of the process share."""

    def __init__(self) -> None:
        self.next = 0.0
        self.asked: list[int] = []
        self.error: Exception | None = None

    def reserve(self, count: int, interval_seconds: float) -> float:
        self.asked.append(count)
        if self.error is not None:
            raise self.error
        start = max(self.next, now())
        self.next = start + count * interval_seconds
        return start - now()


async def grants(limiter: RateLimiter, count: int, *, workers: int = 5) -> list[float]:
    """Return the times at which requests were granted to workers that always want one."""
    left, times = iter(range(count)), []

    async def work() -> None:
        for _ in left:
            await limiter.acquire()
            times.append(now())

    await asyncio.gather(*(work() for _ in range(workers)))
    return times


def most_in_a_second(times: list[float]) -> int:
    """Return the number of grants in the fullest second, with any beginning."""
    times = sorted(times)
    return max(sum(start <= time < start + 1 for time in times) for start in times)


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(sorted(times))]


def assert_even(times: list[float], rate: float) -> None:
    """Assert that requests are evenly spaced; the first may be as late as a timer is."""
    for place, time in enumerate(times):
        even = place * (1 + MARGIN) / rate
        assert even - CATCH_UP_SECONDS - 1e-6 <= time - times[0] <= even + 1e-6


@pytest.mark.parametrize("rate", [0.5, 20, 200])
def test_requests_are_even(rate):
    """From the first one on, at the quota less the margin, with no burst and no second over it."""

    async def main() -> None:
        times = await grants(RateLimiter(rate), 100)
        assert_even(times, rate)
        assert most_in_a_second(times) <= max(rate, 1)

    run(main())


def test_requests_are_granted_in_order():
    """First come, first served."""

    async def main() -> None:
        limiter, order = RateLimiter(10), []

        async def wait(number: int) -> None:
            await limiter.acquire()
            order.append(number)

        await asyncio.gather(*(wait(number) for number in range(50)))
        assert order == list(range(50))

    run(main())


def test_time_without_requests_is_not_saved_up():
    """After a pause there is no burst."""

    async def main() -> None:
        limiter = RateLimiter(10)
        await grants(limiter, 5)
        await asyncio.sleep(100)
        assert_even(await grants(limiter, 20), 10)

    run(main())


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_waiter_that_is_cancelled_leaves_its_slot_to_the_next(is_shared):
    """No slot is lost, and the others keep their order."""

    async def main() -> None:
        limiter = (
            RateLimiter(10, Shared(), threads=InlineExecutor()) if is_shared else RateLimiter(10)
        )
        await limiter.acquire()
        times: dict[int, float] = {}

        async def wait(number: int) -> None:
            await limiter.acquire()
            times[number] = now()

        waiting = [asyncio.create_task(wait(number)) for number in range(10)]
        start = now()
        # The first waits for its slot by now, the others for their turn.
        await asyncio.sleep(0.05)
        for number in (0, 1, 5):
            waiting[number].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert list(times) == [2, 3, 4, 6, 7, 8, 9]
        interval = (1 + (SHARED_MARGIN if is_shared else MARGIN)) / 10
        expected = [start + (place + 1) * interval for place in range(7)]
        assert list(times.values()) == pytest.approx(expected, abs=CATCH_UP_SECONDS + 1e-6)

    run(main())


def test_no_quota_is_no_wait():
    """Any number of requests at once, and no schedule is asked."""

    async def main() -> None:
        schedule = Shared()
        times = await grants(RateLimiter(None, schedule, threads=InlineExecutor()), 5000)
        assert times[-1] == times[0]
        assert schedule.asked == []

    run(main())


def test_throttled_slows_down_and_recovers():
    """Spaces grow at once, shrink step by step, and end a little wider than they were."""

    async def main() -> None:
        limiter = RateLimiter(20)
        interval = (1 + MARGIN) / 20
        await grants(limiter, 10)
        limiter.record_throttled()
        slow = gaps(await grants(limiter, 100))
        assert slow[1] == pytest.approx(interval / 0.9, rel=0.05)
        assert slow[2:] == sorted(slow[2:], reverse=True)
        assert slow[-1] == pytest.approx(interval + MARGIN_STEP / 20)

    run(main())


def test_without_a_quota_throttled_makes_one_for_a_while():
    """The run goes on evenly, slower than before, and has no limit again in the end."""

    async def main() -> None:
        limiter = RateLimiter(None)
        for _ in range(200):
            await limiter.acquire()
            await asyncio.sleep(0.01)
        limiter.record_throttled()
        times = await grants(limiter, 40)
        assert gaps(times)[1:10] == pytest.approx([(1 + MARGIN) / 75] * 9, rel=0.1)
        await asyncio.sleep(60)
        times = await grants(limiter, 1000)
        assert times[-1] == times[0]

    run(main())


def test_processes_that_share_a_schedule_share_evenly():
    """Together they use the quota, never a request more in any second, in equal parts."""

    async def main() -> None:
        schedule, counts = Shared(), Counter[int]()
        times: list[float] = []

        async def process(name: int) -> None:
            limiter = RateLimiter(20, schedule, threads=InlineExecutor())
            while now() < 1020:
                await limiter.acquire()
                counts[name] += 1
                times.append(now())

        await asyncio.gather(*(process(name) for name in range(4)))
        assert 0.97 * 20 * 20 <= len(times) <= 20 * 20
        assert most_in_a_second(times) <= 20
        assert max(counts.values()) - min(counts.values()) <= 2

    run(main())


def test_a_slower_process_leaves_the_rest_to_the_others():
    """Slots that one process does not take are free for the others."""

    async def main() -> None:
        schedule, counts = Shared(), Counter[str]()

        async def process(name: str, rate: float) -> None:
            limiter = RateLimiter(
                rate, schedule, shared_requests_per_second=20, threads=InlineExecutor()
            )
            start = now()
            while now() < start + 20:
                await limiter.acquire()
                counts[name] += 1

        await asyncio.gather(process("slow", 2), process("free", 20), process("greedy", 500))
        assert counts["slow"] == pytest.approx(2 * 20, rel=0.05)
        assert counts["free"] == pytest.approx(counts["greedy"], rel=0.05)
        assert 0.97 * 20 * 20 <= counts.total() <= 20 * 20 + 2

    run(main())


def test_a_shared_quota_that_is_throttled():
    """The throttled process slows down by itself, and recovers."""

    async def main() -> None:
        schedule = Shared()
        limiter = RateLimiter(20, schedule, threads=InlineExecutor())
        await grants(limiter, 10)
        limiter.record_throttled()
        slow = gaps(await grants(limiter, 200))
        interval = (1 + SHARED_MARGIN) / 20
        assert slow[2] == pytest.approx(interval / 0.9, rel=0.05)
        assert slow[-1] == pytest.approx(interval)

    run(main())


@pytest.mark.parametrize(("rate", "lease"), [(1, 1), (20, 1), (200, 10), (5000, 50)])
def test_a_lease_is_a_twentieth_of_a_second(rate, lease):
    """With a large quota it serves several requests, with a small one a single request."""

    async def main() -> None:
        schedule = Shared()
        times = await grants(RateLimiter(rate, schedule, threads=InlineExecutor()), 200)
        assert set(schedule.asked) == {lease}
        assert len(schedule.asked) == 200 / lease
        assert gaps(times) == pytest.approx([(1 + SHARED_MARGIN) / rate] * 199)

    run(main())


def test_slots_that_were_leased_and_not_used_are_given_up():
    """After a pause a process takes new ones, since others have used the quota meanwhile."""

    async def main() -> None:
        schedule = Shared()
        limiter = RateLimiter(200, schedule, threads=InlineExecutor())
        await grants(limiter, 13)
        await asyncio.sleep(5)
        times = await grants(limiter, 40)
        assert gaps(times) == pytest.approx([(1 + SHARED_MARGIN) / 200] * 39)

    run(main())


class Late(Shared):
    """A schedule whose answers reach the limiter late, each by its own number of seconds."""

    def __init__(self, *lags: float) -> None:
        super().__init__()
        self.lags = itertools.chain(lags, itertools.repeat(lags[-1]))

    def reserve(self, count: int, interval_seconds: float) -> float:
        return super().reserve(count, interval_seconds) * 0 - next(self.lags)


def test_a_slot_that_is_unusually_late_is_given_up():
    """Used beside the requests of others, it would be one too many in a second."""

    async def main() -> None:
        schedule = Late(0.0, 0.0, 0.03, 0.0)
        limiter = RateLimiter(20, schedule, threads=InlineExecutor())
        for asked in (1, 2, 4):
            await limiter.acquire()
            assert len(schedule.asked) == asked

    run(main())


def test_slots_that_are_always_late_are_used():
    """A usual lag moves all requests alike, and no limiter may starve."""

    async def main() -> None:
        schedule = Late(0.1)
        limiter = RateLimiter(20, schedule, threads=InlineExecutor())
        await limiter.acquire()
        first = len(schedule.asked)
        assert first < 20
        for _ in range(10):
            await limiter.acquire()
        assert len(schedule.asked) == first + 10

    run(main())


def test_a_shared_schedule_that_hangs_is_given_up():
    """A lease without an answer ends in an error of the run after its time limit."""
    config = RateLimiterConfig(lease_timeout_seconds=7)

    async def main() -> None:
        limiter = RateLimiter(20, Shared(), threads=Never(), config=config)
        start = now()
        with pytest.raises(QuotaUnavailableError, match="not answered for 7 seconds"):
            await limiter.acquire()
        assert now() - start == pytest.approx(7)

    run(main())


def test_an_error_of_the_shared_schedule_reaches_the_caller():
    """The next call asks the schedule again."""

    async def main() -> None:
        schedule = Shared()
        limiter = RateLimiter(20, schedule, threads=InlineExecutor())
        schedule.error = QuotaUnavailableError("gone")
        with pytest.raises(QuotaUnavailableError, match="gone"):
            await limiter.acquire()
        schedule.error = None
        await limiter.acquire()

    run(main())


@pytest.mark.parametrize("kind", ["local", "shared", "hung"])
def test_no_call_waits_once_the_run_ends(kind):
    """All that wait for a slot, for their turn or for the schedule return together."""

    async def main() -> None:
        stopping = asyncio.Event()
        schedule = None if kind == "local" else Shared()
        threads = Never() if kind == "hung" else InlineExecutor()
        limiter = RateLimiter(0.01, schedule, threads=threads, stopping=stopping)
        waiting = [asyncio.create_task(limiter.acquire()) for _ in range(50)]
        await asyncio.sleep(3)
        assert sum(task.done() for task in waiting) == (kind != "hung")
        start = now()
        stopping.set()
        await asyncio.gather(*waiting)
        assert now() - start <= RateLimiterConfig().stop_check_seconds

    run(main())


def test_a_request_is_granted_at_once_where_there_is_no_rate():
    """A quota is a rate, and an answer that was throttled leaves one for a while."""

    async def main() -> None:
        assert not RateLimiter(20).grant_at_once()
        limiter = RateLimiter(None)
        assert limiter.grant_at_once()
        limiter.record_throttled()
        assert not limiter.grant_at_once()
        await asyncio.sleep(600)
        await limiter.acquire()
        assert limiter.grant_at_once()

    run(main())
