"""When a failed call is made again: pure decisions, for tenacity to carry out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    wait_random_exponential,
)

from airflow_imagetag.errors import (
    Decision,
    ImageDownloadError,
    ImageTagError,
    MalformedAnswerError,
    ThrottledError,
)
from airflow_imagetag.services.response_parsing import SUCCESS

T = TypeVar("T")

UNREADABLE_ATTEMPTS = 2
"""Requests for an image whose answer is a success that cannot be read."""

UNAVAILABLE = 503
"""HTTP status of a service that is overloaded, or down."""

DOWNLOAD_ATTEMPTS = 2
"""Requests for an image whose URL the service cannot download: mostly the URL is dead."""

MAX_RETRY_AFTER_SECONDS = 300.0
"""A longer Retry-After is a matter for the next task try, not for a waiting one."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Jittered exponential back-off.

    It begins small, for the fault of a moment: while a whole service is down, the circuit breaker
    holds the calls back, and no image uses up its attempts.

    :param max_attempts: requests for one image, the first included.
    :param throttled_seconds: for so long an image that is throttled is tried again, however often:
        nothing is wrong with it, and by then the rate has come down.
    :param first_wait_seconds: bound of the first wait; each further bound is twice the last.
    :param max_wait_seconds: bound of every wait, except one that the service asks for.
    """

    max_attempts: int = 6
    throttled_seconds: float = 60.0
    first_wait_seconds: float = 0.2
    max_wait_seconds: float = 30.0


async def retry(
    attempt: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """Make attempts until one succeeds, and raise the last one's error as it is.

    :param attempt: one attempt.
    :param sleep: waits so many seconds, or raises to give up.
    """
    try:
        return await attempt()
    except ImageTagError as error:
        return await go_on(attempt, error, policy, sleep)


async def go_on(
    attempt: Callable[[], Awaitable[T]],
    first: ImageTagError,
    policy: RetryPolicy,
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """Go on after a first attempt that failed, and raise the last one's error as it is.

    Most images succeed at once, and for them tenacity would cost more than the call.

    :param attempt: a further attempt.
    :param first: the error of the first.
    :param sleep: waits so many seconds, or raises to give up.
    """
    failed = [first]

    async def replayed() -> T:
        if failed:
            raise failed.pop()
        return await attempt()

    started = _now()
    spread = wait_random_exponential(
        multiplier=policy.first_wait_seconds, max=policy.max_wait_seconds
    )

    def wait(state: RetryCallState) -> float:
        return max(spread(state), asked_wait_seconds(_error_of(state)))

    def try_again(state: RetryCallState) -> bool:
        error = _error_of(state)
        if is_unreadable_success(error):
            return state.attempt_number < UNREADABLE_ATTEMPTS
        if isinstance(error, ImageDownloadError):
            return state.attempt_number < DOWNLOAD_ATTEMPTS
        return error is not None and is_worth_another_try(error)

    def is_enough(state: RetryCallState) -> bool:
        is_throttled = isinstance(_error_of(state), ThrottledError)
        if is_throttled and _now() - started < policy.throttled_seconds:
            return False
        return state.attempt_number >= policy.max_attempts

    retrying = AsyncRetrying(
        sleep=sleep,
        stop=is_enough,
        wait=wait,
        retry=try_again,
        reraise=True,
    )
    result: T = await retrying(replayed)
    return result


def is_worth_another_try(error: BaseException) -> bool:
    """Tell whether the same call may succeed later."""
    return isinstance(error, ImageTagError) and error.decision is Decision.RETRY


def is_unreadable_success(error: BaseException | None) -> bool:
    """Tell whether the service says that it labelled the image, in a form that no document has.

    It will have billed the call, and what it says of this image will hardly change.
    """
    return isinstance(error, MalformedAnswerError) and error.code == SUCCESS


def asks_for_less(error: ImageTagError) -> bool:
    """Tell whether the service says that it gets too many requests: 429, its own code, or 503."""
    return isinstance(error, ThrottledError) or error.status == UNAVAILABLE


def asked_wait_seconds(error: BaseException | None) -> float:
    """Return how long the service asks to be left alone, 0 where it does not ask."""
    asked = error.retry_after_seconds if isinstance(error, ImageTagError) else None
    return min(asked or 0.0, MAX_RETRY_AFTER_SECONDS)


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _now() -> float:
    return asyncio.get_running_loop().time()
