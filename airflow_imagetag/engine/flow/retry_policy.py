"""Decides whether and when a failed call is repeated; tenacity carries it out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, wait_random_exponential

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
"""Maximum number of requests for an image whose answer is a success that cannot be read."""

DOWNLOAD_ATTEMPTS = 2
"""Maximum number of requests for a URL that the service cannot download: most of them are dead."""

UNAVAILABLE = 503
"""HTTP status of a service that is overloaded, or down."""

MAX_RETRY_AFTER_SECONDS = 300.0
"""Maximum Retry-After that is honoured; a longer one is left to the task's next try."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Jittered exponential back-off.

    It begins with a short wait, for a momentary failure: while the whole service is down, the
    circuit breaker holds the calls back, and no image uses up its attempts.

    :param max_attempts: maximum number of requests for one image, the first included.
    :param throttled_seconds: time in which a throttled image is repeated without limit: nothing is
        wrong with it, and by then the rate has come down.
    :param first_wait_seconds: maximum of the first wait; each further maximum is twice the last.
    :param max_wait_seconds: maximum of every wait, except one that the service asks for.
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
    """Make attempts until one succeeds, and raise the error of the last as it is.

    :param attempt: one attempt.
    :param sleep: waits for some seconds, or raises to give up.
    """
    try:
        return await attempt()
    except ImageTagError as error:
        return await retry_failed(attempt, error, policy, sleep)


async def retry_failed(
    attempt: Callable[[], Awaitable[T]],
    error: ImageTagError,
    policy: RetryPolicy,
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """Make further attempts after a first one that failed, and raise the error of the last.

    Most images succeed at once, and for those tenacity would cost more than the call.

    :param attempt: a further attempt.
    :param error: the error of the first.
    :param sleep: waits for some seconds, or raises to give up.
    """
    failed = [error]
    del error

    async def replayed() -> T:
        if failed:
            raise failed.pop()
        return await attempt()

    retrying = AsyncRetrying(
        sleep=sleep,
        stop=_stop_of(policy),
        wait=_wait_of(policy),
        retry=_is_repeated,
        after=_drop_traceback,
        reraise=True,
    )
    try:
        return await retrying(replayed)
    except ImageTagError as last:
        raise last.with_traceback(None)  # noqa: B904 (the same error, see _drop_traceback)


def is_retryable(error: BaseException) -> bool:
    """Tell whether the same call may succeed later."""
    return isinstance(error, ImageTagError) and error.decision is Decision.RETRY


def is_unreadable_success(error: BaseException | None) -> bool:
    """Tell whether the service reports a labelled image in an undocumented form.

    It has probably billed the call, and its answer for this image will hardly change.
    """
    return isinstance(error, MalformedAnswerError) and error.code == SUCCESS


def is_throttling(error: ImageTagError) -> bool:
    """Tell whether the service asks for fewer requests: 429, a code of its own, or 503."""
    return isinstance(error, ThrottledError) or error.status == UNAVAILABLE


def retry_after_seconds(error: BaseException | None) -> float:
    """Return the pause that the service asks for, within bounds; 0 if it does not ask."""
    asked = error.retry_after_seconds if isinstance(error, ImageTagError) else None
    return min(asked or 0.0, MAX_RETRY_AFTER_SECONDS)


def _is_repeated(state: RetryCallState) -> bool:
    error = _error_of(state)
    if is_unreadable_success(error):
        return state.attempt_number < UNREADABLE_ATTEMPTS
    if isinstance(error, ImageDownloadError):
        return state.attempt_number < DOWNLOAD_ATTEMPTS
    return error is not None and is_retryable(error)


def _drop_traceback(state: RetryCallState) -> None:
    """Break a cycle: a traceback holds tenacity's frames, which hold the error.

    It would keep the bytes of a failed image in memory until the next garbage collection.
    """
    if isinstance(error := _error_of(state), ImageTagError):
        error.with_traceback(None)


def _wait_of(policy: RetryPolicy) -> Callable[[RetryCallState], float]:
    jittered = wait_random_exponential(
        multiplier=policy.first_wait_seconds, max=policy.max_wait_seconds
    )
    return lambda state: max(jittered(state), retry_after_seconds(_error_of(state)))


def _stop_of(policy: RetryPolicy) -> Callable[[RetryCallState], bool]:
    started = _now()

    def is_enough(state: RetryCallState) -> bool:
        is_throttled = isinstance(_error_of(state), ThrottledError)
        if is_throttled and _now() - started < policy.throttled_seconds:
            return False
        return state.attempt_number >= policy.max_attempts

    return is_enough


def _error_of(state: RetryCallState) -> BaseException | None:
    return None if state.outcome is None else state.outcome.exception()


def _now() -> float:
    return asyncio.get_running_loop().time()
