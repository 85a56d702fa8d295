"""The gate while the service is down, and when the run ends."""

from __future__ import annotations

import asyncio
import logging

import pytest
from virtual_time import run

from airflow_imagetag import errors
from airflow_imagetag.engine.flow import admission as gate_module
from airflow_imagetag.engine.flow.admission import SLICE_SECONDS, AdmissionControl
from airflow_imagetag.engine.flow.aimd import UNAVAILABLE_WEIGHT
from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreakerConfig
from airflow_imagetag.errors import Billing

PATIENCE = CircuitBreakerConfig(
    faults=3, first_rest_seconds=2.0, longest_rest_seconds=8.0, outage_seconds=30.0
)
DOWN = errors.ServiceUnavailableError("overloaded", billing=Billing.REFUSED)


class Limiter:
    """Grants at once, and counts."""

    def __init__(self) -> None:
        self.granted = 0
        self.complaints = 0.0

    async def acquire(self) -> None:
        self.granted += 1

    def throttled(self, weight: float = 1.0) -> None:
        self.complaints += weight


def now() -> float:
    return asyncio.get_running_loop().time()


async def opened(stopping: asyncio.Event | None = None) -> tuple[AdmissionControl, Limiter]:
    """Return a gate after as many faults as open its circuit."""
    limiter = Limiter()
    gate = AdmissionControl(limiter, stopping or asyncio.Event(), PATIENCE)
    for _ in range(PATIENCE.faults):
        await gate.acquire()
        gate.failed(DOWN)
    return gate, limiter


def test_a_service_that_is_down_gets_one_call_after_each_rest():
    """However many workers there are, and none of their turns is taken from the quota for it."""

    async def main() -> None:
        gate, limiter = await opened()
        start, calls = now(), []

        async def work() -> None:
            while gate.outage() is None:
                await gate.acquire(is_retry=True)
                calls.append(now() - start)
                await asyncio.sleep(0.01)
                gate.failed(DOWN)

        workers = [asyncio.create_task(work()) for _ in range(20)]
        await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
        for worker in workers:
            worker.cancel()
        # Rests of 2, 4 and 8 seconds; who waits looks every half second.
        assert calls == pytest.approx([2, 6, 14, 22, 30], abs=3)
        assert limiter.granted == PATIENCE.faults + len(calls)

    run(main())


def test_images_that_were_sent_before_go_first():
    """A new image is no probe while one waits that has failed already."""

    async def main() -> None:
        gate, _ = await opened()
        order = []

        async def call(name: str, *, is_retry: bool) -> None:
            await gate.acquire(is_retry=is_retry)
            order.append(name)
            gate.succeeded()

        new = [asyncio.create_task(call("new", is_retry=False)) for _ in range(5)]
        await asyncio.sleep(0.1)
        await asyncio.gather(call("retry", is_retry=True), *new)
        assert order == ["retry", *["new"] * 5]

    run(main())


def test_an_answer_lets_everyone_through():
    """After the probe that is answered nobody waits for a rest."""

    async def main() -> None:
        gate, _ = await opened()
        await gate.acquire(is_retry=True)
        waiting = [asyncio.create_task(gate.acquire()) for _ in range(20)]
        await asyncio.sleep(20)
        assert not any(task.done() for task in waiting)
        start = now()
        gate.succeeded()
        await asyncio.gather(*waiting)
        assert now() - start <= SLICE_SECONDS

    run(main())


@pytest.mark.parametrize(
    ("error", "is_there"),
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
def test_what_shows_that_the_service_is_there(error, is_there):
    """Its word on an image or on the quota does; a limit of ours does not, as nothing was sent."""

    async def main() -> None:
        gate, _ = await opened()
        await gate.acquire(is_retry=True)
        gate.failed(error)
        start = now()
        await gate.acquire(is_retry=True)
        waits = now() - start > PATIENCE.first_rest_seconds
        assert waits is (not is_there and isinstance(error, errors.TransientError))
        gate.withdrawn()
        await asyncio.sleep(100)
        gate.failed(DOWN)
        assert (gate.outage() is None) is is_there

    run(main())


def test_a_throttled_answer_slows_the_limiter():
    """It is told of each one, and of no other error."""

    async def main() -> None:
        limiter = Limiter()
        gate = AdmissionControl(limiter, asyncio.Event(), PATIENCE)
        for error in (DOWN, errors.ThrottledError("x"), errors.ImageDecodeError("x")):
            gate.failed(error)
        gate.succeeded()
        assert limiter.complaints == 1

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
def test_which_answers_slow_the_limiter_and_how_much(error, weight):
    """A refusal for the quota fully, 503 less unless it says for how long, other faults not."""

    async def main() -> None:
        limiter = Limiter()
        AdmissionControl(limiter, asyncio.Event(), PATIENCE).failed(error)
        assert limiter.complaints == weight

    run(main())


def test_a_rest_is_kept_with_an_open_circuit_too():
    """The later of both ends counts."""

    async def main() -> None:
        gate, _ = await opened()
        start = now()
        gate.hold(7)
        await gate.acquire(is_retry=True)
        assert now() - start == pytest.approx(7)

    run(main())


@pytest.mark.parametrize("kind", ["held", "open"])
def test_who_waits_is_let_through_when_the_run_ends(kind):
    """Soon, all together, and without a turn of the quota."""

    async def main() -> None:
        stopping = asyncio.Event()
        gate, limiter = await opened(stopping)
        if kind == "held":
            gate.succeeded()
            gate.hold(1000)
        else:
            await gate.acquire(is_retry=True)
        granted = limiter.granted
        waiting = [asyncio.create_task(gate.acquire()) for _ in range(50)]
        await asyncio.sleep(5)
        assert not any(task.done() for task in waiting)
        start = now()
        stopping.set()
        await asyncio.gather(*waiting)
        assert now() - start <= SLICE_SECONDS
        assert limiter.granted == granted

    run(main())


def test_the_log_says_once_that_the_service_is_down(caplog):
    """With the number of faults and the last of them, and not again for each further one."""

    async def main() -> None:
        gate, _ = await opened()
        for _ in range(20):
            gate.failed(DOWN)

    with caplog.at_level(logging.WARNING, gate_module.log.name):
        run(main())
    [record] = caplog.records
    assert "failed 3 times in a row" in record.getMessage()
    assert "overloaded" in record.getMessage()


def test_an_outage_is_told_with_its_length():
    """Nothing is said of a short one."""

    async def main() -> None:
        gate, _ = await opened()
        await asyncio.sleep(29)
        assert gate.outage() is None
        await asyncio.sleep(2)
        said = gate.outage()
        assert said is not None
        assert "31 seconds" in said
        assert "3 calls" in said

    run(main())
