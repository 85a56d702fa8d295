"""Admission control while the service is paused or down, and when the run ends."""

from __future__ import annotations

import asyncio
import logging

import pytest
from virtual_time import run

from airflow_imagetag import errors
from airflow_imagetag.engine.flow import admission as admission_module
from airflow_imagetag.engine.flow.admission import PAUSE_CHECK_SECONDS, AdmissionControl
from airflow_imagetag.engine.flow.aimd import UNAVAILABLE_WEIGHT
from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreakerConfig
from airflow_imagetag.errors import Billing

CONFIG = CircuitBreakerConfig(
    max_failures=3, first_pause_seconds=2.0, max_pause_seconds=8.0, max_outage_seconds=30.0
)
DOWN = errors.ServiceUnavailableError("overloaded", billing=Billing.REFUSED)


class Limiter:
    """Grants at once, and counts."""

    def __init__(self) -> None:
        self.granted = 0
        self.throttled = 0.0

    async def acquire(self) -> None:
        self.granted += 1

    def grant_at_once(self) -> bool:
        self.granted += 1
        return True

    def depart(self) -> None:
        pass

    def tolerates_refusal(self) -> bool:
        return self.throttled <= 1

    def record_throttled(self, weight: float = 1.0) -> None:
        self.throttled += weight


def now() -> float:
    return asyncio.get_running_loop().time()


async def opened(stopping: asyncio.Event | None = None) -> tuple[AdmissionControl, Limiter]:
    """Return an admission control whose circuit is open."""
    limiter = Limiter()
    admission = AdmissionControl(limiter, stopping or asyncio.Event(), CONFIG)
    for _ in range(CONFIG.max_failures):
        await admission.acquire()
        admission.record_failure(DOWN)
    return admission, limiter


def test_a_service_that_is_down_gets_one_call_after_each_pause():
    """Of any number of workers; those that wait use no slot of the quota."""

    async def main() -> None:
        admission, limiter = await opened()
        start, calls = now(), []

        async def work() -> None:
            while admission.outage_message() is None:
                await admission.acquire(is_retry=True)
                calls.append(now() - start)
                await asyncio.sleep(0.01)
                admission.record_failure(DOWN)

        workers = [asyncio.create_task(work()) for _ in range(20)]
        await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
        for worker in workers:
            worker.cancel()
        # Pauses of 2, 4 and 8 seconds, checked every half second.
        assert calls == pytest.approx([2, 6, 14, 22, 30], abs=3)
        assert limiter.granted == CONFIG.max_failures + len(calls)

    run(main())


def test_retries_go_first():
    """No new image is the probe while a retry waits."""

    async def main() -> None:
        admission, _ = await opened()
        order = []

        async def call(name: str, *, is_retry: bool) -> None:
            await admission.acquire(is_retry=is_retry)
            order.append(name)
            admission.record_success()

        new = [asyncio.create_task(call("new", is_retry=False)) for _ in range(5)]
        await asyncio.sleep(0.1)
        await asyncio.gather(call("retry", is_retry=True), *new)
        assert order == ["retry", *["new"] * 5]

    run(main())


def test_an_answer_admits_all_waiting_calls():
    """After an answered probe no call waits for the end of a pause."""

    async def main() -> None:
        admission, _ = await opened()
        await admission.acquire(is_retry=True)
        waiting = [asyncio.create_task(admission.acquire()) for _ in range(20)]
        await asyncio.sleep(20)
        assert not any(task.done() for task in waiting)
        start = now()
        admission.record_success()
        await asyncio.gather(*waiting)
        assert now() - start <= PAUSE_CHECK_SECONDS

    run(main())


@pytest.mark.parametrize(
    ("error", "is_up"),
    [
        (errors.ImageDecodeError("x", status=400, billing=Billing.REFUSED), True),
        (errors.ThrottledError("x", status=429, billing=Billing.REFUSED), True),
        (errors.ImageTooLargeError("refused on this side"), False),
        (errors.ConnectionFailedError("x"), False),
        (errors.AnswerLostError("x", billing=Billing.UNKNOWN), False),
        (errors.MalformedAnswerError("x", status=200, billing=Billing.UNKNOWN), False),
    ],
    ids=lambda value: getattr(type(value), "__name__", value),
)
def test_errors_that_show_that_the_service_is_up(error, is_up):
    """Its answer about an image or the quota does; a limit of this package does not."""

    async def main() -> None:
        admission, _ = await opened()
        await admission.acquire(is_retry=True)
        admission.record_failure(error)
        start = now()
        await admission.acquire(is_retry=True)
        waits = now() - start > CONFIG.first_pause_seconds
        assert waits is (not is_up and isinstance(error, errors.TransientError))
        admission.record_no_result()
        await asyncio.sleep(100)
        admission.record_failure(DOWN)
        assert (admission.outage_message() is None) is is_up

    run(main())


def test_a_throttled_answer_slows_the_limiter():
    """No other error does."""

    async def main() -> None:
        limiter = Limiter()
        admission = AdmissionControl(limiter, asyncio.Event(), CONFIG)
        for error in (DOWN, errors.ThrottledError("x"), errors.ImageDecodeError("x")):
            admission.record_failure(error)
        admission.record_success()
        assert limiter.throttled == 1

    run(main())


@pytest.mark.parametrize(
    ("error", "weight"),
    [
        (errors.ThrottledError("slower", status=429, billing=Billing.REFUSED), 1),
        (errors.ServiceUnavailableError("busy", status=503, retry_after_seconds=2), 1),
        (errors.ServiceUnavailableError("busy", status=503), UNAVAILABLE_WEIGHT),
        (errors.ServiceUnavailableError("broken", status=500), 0),
        (errors.ServiceUnavailableError("broken", status=502, retry_after_seconds=2), 0),
    ],
)
def test_the_weight_of_an_answer(error, weight):
    """A refusal for the quota has all, 503 less unless it has a Retry-After, other errors none."""

    async def main() -> None:
        limiter = Limiter()
        AdmissionControl(limiter, asyncio.Event(), CONFIG).record_failure(error)
        assert limiter.throttled == weight

    run(main())


def test_a_pause_while_the_circuit_is_open():
    """The later of both ends counts."""

    async def main() -> None:
        admission, _ = await opened()
        start = now()
        admission.pause(7)
        await admission.acquire(is_retry=True)
        assert now() - start == pytest.approx(7)

    run(main())


@pytest.mark.parametrize("kind", ["paused", "open"])
def test_waiting_calls_return_when_the_run_ends(kind):
    """Soon, all together, and without a slot of the quota."""

    async def main() -> None:
        stopping = asyncio.Event()
        admission, limiter = await opened(stopping)
        if kind == "paused":
            admission.record_success()
            admission.pause(1000)
        else:
            await admission.acquire(is_retry=True)
        granted = limiter.granted
        waiting = [asyncio.create_task(admission.acquire()) for _ in range(50)]
        await asyncio.sleep(5)
        assert not any(task.done() for task in waiting)
        start = now()
        stopping.set()
        await asyncio.gather(*waiting)
        assert now() - start <= PAUSE_CHECK_SECONDS
        assert limiter.granted == granted

    run(main())


def test_the_log_says_once_that_the_service_is_down(caplog):
    """With the number of failures and the last of them, once for the whole outage."""

    async def main() -> None:
        admission, _ = await opened()
        for _ in range(20):
            admission.record_failure(DOWN)

    with caplog.at_level(logging.WARNING, admission_module.log.name):
        run(main())
    [record] = caplog.records
    assert "failed 3 times in a row" in record.getMessage()
    assert "overloaded" in record.getMessage()


def test_a_long_outage_has_a_message():
    """It has the length and the number of failures; a short outage has none."""

    async def main() -> None:
        admission, _ = await opened()
        await asyncio.sleep(29)
        assert admission.outage_message() is None
        await asyncio.sleep(2)
        message = admission.outage_message()
        assert message is not None
        assert "31 seconds" in message
        assert "3 calls" in message

    run(main())


def test_a_lone_refusal_pauses_nothing():
    """The first one of a second came a moment early; a second one holds everything."""

    async def main() -> None:
        limiter = Limiter()
        admission = AdmissionControl(limiter, asyncio.Event(), CONFIG)
        start, error = now(), errors.ThrottledError("x", retry_after_seconds=7)
        for waited in (0, 7):
            admission.record_failure(error)
            admission.record_pause(error, 7)
            await admission.acquire()
            assert now() - start == pytest.approx(waited)

    run(main())


def test_what_is_admitted_at_once():
    """Nothing is, while the service is paused or down: such a call has to wait."""

    async def main() -> None:
        limiter = Limiter()
        admission = AdmissionControl(limiter, asyncio.Event(), CONFIG)
        assert admission.admit_at_once()
        assert limiter.granted == 1
        admission.pause(1)
        assert not admission.admit_at_once()
        admission, limiter = await opened()
        granted = limiter.granted
        assert not admission.admit_at_once()
        assert limiter.granted == granted

    run(main())
