"""Whether and when a failed call is repeated."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest
from virtual_time import run

from airflow_imagetag import errors
from airflow_imagetag.engine.flow.retry_policy import (
    MAX_RETRY_AFTER_SECONDS,
    RetryPolicy,
    is_retryable,
    retry,
    retry_after_seconds,
)
from airflow_imagetag.errors import ImageTagError

TRANSIENT = [
    errors.TransientError,
    errors.ThrottledError,
    errors.ServiceUnavailableError,
    errors.MalformedAnswerError,
    errors.ConnectionFailedError,
    errors.AnswerLostError,
    errors.StorageError,
]
FINAL = [
    errors.ImageTagError,
    errors.ConfigurationError,
    errors.ImageDecodeError,
    errors.UnknownCodeError,
    errors.AuthenticationError,
    errors.EndpointError,
    errors.TooManyFailuresError,
    ValueError,
    OSError,
    asyncio.CancelledError,
    KeyboardInterrupt,
]


class Attempts:
    """An attempt that fails with each error in turn and then succeeds; it records the waits."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.made = 0
        self.waits: list[float] = []

    async def __call__(self) -> str:
        self.made += 1
        if self.failures:
            raise self.failures.pop(0)
        return "labels"

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def run(self, policy: RetryPolicy | None = None) -> str:
        return asyncio.run(retry(self, policy or RetryPolicy(), self.sleep))


@pytest.mark.parametrize("kind", TRANSIENT, ids=lambda kind: kind.__name__)
def test_a_transient_error_is_tried_again(kind):
    """Failures of the service and the network get another attempt."""
    attempts = Attempts(kind("x"), kind("y"))
    assert attempts.run() == "labels"
    assert attempts.made == 3
    assert len(attempts.waits) == 2


@pytest.mark.parametrize("kind", FINAL, ids=lambda kind: kind.__name__)
def test_any_other_error_is_raised_at_once(kind):
    """An error that another attempt cannot mend, or of another library, is raised as it is."""
    error = kind("x")
    attempts = Attempts(error)
    with pytest.raises(kind) as caught:
        attempts.run()
    assert caught.value is error
    assert attempts.made == 1
    assert not is_retryable(error)


def test_the_last_error_is_raised():
    """After the maximum number of attempts, as it is and without a further wait."""
    failures = [errors.ServiceUnavailableError(str(number)) for number in range(9)]
    attempts = Attempts(*failures)
    with pytest.raises(errors.ServiceUnavailableError) as caught:
        attempts.run(RetryPolicy(max_attempts=4))
    assert caught.value is failures[3]
    assert attempts.made == 4
    assert len(attempts.waits) == 3


def test_an_image_that_is_throttled_is_not_given_up_soon():
    """For a minute it is repeated without limit: nothing is wrong with it. Then it fails."""
    times = []

    async def attempt() -> str:
        times.append(asyncio.get_running_loop().time())
        raise errors.ThrottledError("x")

    async def main() -> None:
        with pytest.raises(errors.ThrottledError):
            await retry(attempt, RetryPolicy(max_attempts=6, max_wait_seconds=2.0), asyncio.sleep)

    run(main())
    assert len(times) > 20
    assert 60 <= times[-1] - times[0] <= 62


def test_waits_grow_and_are_spread():
    """Each wait is random up to a bound that doubles, up to a maximum."""
    policy = RetryPolicy(max_attempts=8, first_wait_seconds=1.0, max_wait_seconds=10.0)
    rows = []
    for _ in range(200):
        attempts = Attempts(*(errors.TransientError("x") for _ in range(7)))
        attempts.run(policy)
        rows.append(attempts.waits)
    for waits, bound in zip(zip(*rows, strict=True), [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert 0 <= min(waits) < bound * 0.2
        assert bound * 0.8 < max(waits) <= bound


@pytest.mark.parametrize(
    ("asked", "least"), [(7.0, 7.0), (0.0, 0.0), (None, 0.0), (1e9, MAX_RETRY_AFTER_SECONDS)]
)
def test_retry_after_is_honoured(asked, least):
    """A wait is never shorter than the service asks for, up to a maximum."""
    attempts = Attempts(errors.ThrottledError("x", retry_after_seconds=asked))
    attempts.run(RetryPolicy(first_wait_seconds=0.001, max_wait_seconds=0.001))
    assert least <= attempts.waits[0] <= least + 0.001


@pytest.mark.parametrize("error", [None, ValueError("x"), ImageTagError("x")])
def test_an_error_without_a_retry_after(error):
    """It asks for no wait."""
    assert retry_after_seconds(error) == 0


def test_a_sleep_may_give_up():
    """An error of the sleep ends the attempts."""
    attempts = Attempts(errors.TransientError("x"))

    async def sleep(seconds: float) -> None:
        raise KeyError("stopping")

    with pytest.raises(KeyError):
        asyncio.run(retry(attempts, RetryPolicy(), sleep))
    assert attempts.made == 1


class Bytes:
    """The bytes of an image, to which a weak reference is possible."""


@pytest.mark.parametrize("attempts", [1, 3])
@pytest.mark.parametrize("kind", [errors.ServiceUnavailableError, errors.ImageDecodeError])
def test_a_failed_image_is_freed_at_once(kind, attempts):
    """Its errors are in no reference cycle, which only the garbage collector would break."""

    async def label(content: Bytes) -> None:
        async def attempt() -> None:
            await asyncio.sleep(0)
            raise kind(f"{content} failed")

        await retry(attempt, RetryPolicy(max_attempts=attempts), asyncio.sleep)

    async def main() -> weakref.ref[Bytes]:
        content = Bytes()
        reference = weakref.ref(content)
        with contextlib.suppress(ImageTagError):
            await label(content)
        return reference

    gc.disable()
    try:
        assert run(main())() is None
    finally:
        gc.enable()
