"""Blocking calls that are repeated while they fail."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from airflow_imagetag.runtime.retries import BlockingRetrier


class Time:
    """A clock that only the sleep moves."""

    def __init__(self) -> None:
        self.now = 500.0
        self.waits: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Work:
    """A call that fails with each error in turn and then succeeds; each call takes a time."""

    def __init__(self, *failures: BaseException, time: Time | None = None, seconds: float = 0.0):
        self.failures = list(failures)
        self.calls = 0
        self._time = time or Time()
        self._seconds = seconds

    def __call__(self) -> str:
        self.calls += 1
        self._time.now += self._seconds
        if self.failures:
            raise self.failures.pop(0)
        return "written"


def always(error: Exception, attempt: int) -> bool:
    return True


def retrier(time: Time, max_seconds: float = 300.0, **fields: Any) -> BlockingRetrier:
    return BlockingRetrier(max_seconds, clock=time.clock, sleep=time.sleep, **fields)


def test_a_call_that_succeeds_is_made_once():
    """Its result is returned without a wait."""
    time, work = Time(), Work()
    assert retrier(time).call(work, is_transient=always) == "written"
    assert (work.calls, time.waits) == (1, [])


def test_a_transient_error_is_repeated():
    """Each retry is reported with the error and the number of the attempt, before the wait."""
    time, reports = Time(), []
    failures = [OSError("a"), OSError("b")]
    work = Work(*failures)
    result = retrier(time).call(
        work,
        is_transient=always,
        on_retry=lambda error, attempt: reports.append((error, attempt, len(time.waits))),
    )
    assert result == "written"
    assert reports == [(failures[0], 1, 0), (failures[1], 2, 1)]


def test_any_other_error_is_raised_at_once():
    """As it is, and without a report."""
    work, error = Work(OSError("busy"), ValueError("wrong")), ValueError("wrong")
    work.failures[1] = error
    with pytest.raises(ValueError, match="wrong") as caught:
        retrier(Time()).call(work, is_transient=lambda error, _: isinstance(error, OSError))
    assert caught.value is error
    assert work.calls == 2


def test_the_number_of_the_attempt_may_decide():
    """Of two writers at once one is refused; a row that breaks a rule is refused each time."""
    work = Work(*(OSError(str(number)) for number in range(9)))
    with pytest.raises(OSError, match="3"):
        retrier(Time()).call(work, is_transient=lambda _, attempt: attempt < 4)
    assert work.calls == 4


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_never_repeated(kind):
    """The process is to end."""
    work = Work(kind())
    with pytest.raises(kind):
        retrier(Time()).call(work, is_transient=always)
    assert work.calls == 1


def test_the_last_error_is_raised_after_the_time_limit():
    """The attempts themselves count, and the last one may end after the limit."""
    time = Time()
    failures = [OSError(str(number)) for number in range(200)]
    work = Work(*failures, time=time, seconds=3.0)
    with pytest.raises(OSError) as caught:  # noqa: PT011 (compared below)
        retrier(time, 60.0).call(work, is_transient=always)
    assert caught.value is failures[work.calls - 1]
    assert 60 <= time.now - 500 <= 60 + 20 + 3
    assert work.calls > 3


def test_no_time_is_one_attempt():
    """A call that need not succeed is not repeated."""
    work = Work(OSError("away"))
    with pytest.raises(OSError, match="away"):
        retrier(Time(), 0.0).call(work, is_transient=always)
    assert work.calls == 1


def test_the_limit_begins_anew_with_each_call():
    """An outage that has passed does not shorten the next."""
    time = Time()
    repeated = retrier(time, 1.0, first_wait_seconds=0.1, max_wait_seconds=0.1)
    for _ in range(100):
        work = Work(OSError("away"), OSError("away"))
        assert repeated.call(work, is_transient=always) == "written"


def test_waits_grow_and_are_random():
    """Each wait is below a bound that doubles, up to a maximum."""
    rows = []
    for _ in range(200):
        time = Time()
        work = Work(*(OSError() for _ in range(6)))
        retrier(time, first_wait_seconds=1.0, max_wait_seconds=10.0).call(work, is_transient=always)
        rows.append(time.waits)
    for waits, bound in zip(zip(*rows, strict=True), [1, 2, 4, 8, 10, 10], strict=True):
        assert 0 <= min(waits) < bound * 0.2
        assert bound * 0.8 < max(waits) <= bound


def test_a_stop_ends_the_attempts():
    """A wait that the stop cuts short is the last."""
    stopped = threading.Event()
    work = Work(*(OSError("away") for _ in range(9)))

    def sleep(seconds: float) -> None:
        if work.calls == 3:
            stopped.set()

    stoppable = BlockingRetrier(300.0, is_stopped=stopped.is_set, clock=lambda: 0.0, sleep=sleep)
    with pytest.raises(OSError, match="away"):
        stoppable.call(work, is_transient=always)
    # One attempt more: the work may have succeeded meanwhile.
    assert work.calls == 4
