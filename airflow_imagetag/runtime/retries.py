"""Repeats a blocking call that fails for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

T = TypeVar("T")


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class BlockingRetrier:
    """Calls a function until it succeeds, with jittered, exponentially growing waits in between.

    Retries of calls to the service are the engine's: they never block, and count their attempts.

    :param max_seconds: time after which a failure is final; 0 makes the first failure final.
    :param first_wait_seconds: maximum of the first wait; each further maximum is twice the last.
    :param max_wait_seconds: maximum of every wait.
    :param is_stopped: tells, after a failed attempt, whether to give up early.
    :param clock: a clock that does not run backwards.
    :param sleep: waits for some seconds; may return early.
    """

    max_seconds: float
    first_wait_seconds: float = 0.2
    max_wait_seconds: float = 20.0
    is_stopped: Callable[[], bool] = _never
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def call(
        self,
        work: Callable[[], T],
        *,
        is_transient: Callable[[Exception, int], bool],
        on_retry: Callable[[Exception, int], None] | None = None,
    ) -> T:
        """Return the result of ``work``, or raise the error of its last attempt as it is.

        :param work: one attempt; blocks.
        :param is_transient: tells from an error, and the number of the attempt that raised it,
            counted from 1, whether another attempt may succeed.
        :param on_retry: called with the same before each wait, to log it.
        """
        deadline = self.clock() + self.max_seconds

        def is_repeated(state: tenacity.RetryCallState) -> bool:
            error = _error_of(state)
            return error is not None and is_transient(error, state.attempt_number)

        def report(state: tenacity.RetryCallState) -> None:
            if on_retry is not None and (error := _error_of(state)) is not None:
                on_retry(error, state.attempt_number)

        retrying = tenacity.Retrying(
            retry=is_repeated,
            wait=tenacity.wait_random_exponential(
                multiplier=self.first_wait_seconds, max=self.max_wait_seconds
            ),
            stop=lambda _: self.clock() >= deadline or self.is_stopped(),
            before_sleep=report,
            sleep=self.sleep,
            reraise=True,
        )
        return retrying(work)


def _error_of(state: tenacity.RetryCallState) -> Exception | None:
    """Return the error of an attempt; None for a KeyboardInterrupt and its like."""
    error = state.outcome.exception() if state.outcome else None
    return error if isinstance(error, Exception) else None
