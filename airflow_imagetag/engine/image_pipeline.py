"""One image through the service: prepare, look up, fit, wait for the quota, call, retry."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial

from airflow_imagetag.engine.answers.batched_lookup import BatchedLookup
from airflow_imagetag.engine.answers.single_flight import SingleFlightCache
from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.flow import retry_policy
from airflow_imagetag.engine.flow.admission import AdmissionControl, Departure
from airflow_imagetag.engine.flow.call_allowance import CallAllowance
from airflow_imagetag.engine.flow.worker_pool import AdaptiveWorkerPool
from airflow_imagetag.engine.protocols import CachedAnswer
from airflow_imagetag.errors import (
    Billing,
    ConnectionFailedError,
    ImageError,
    ImageTagError,
    OutageError,
    TransientError,
)
from airflow_imagetag.labellers.base import Labeller, Prepared
from airflow_imagetag.models import Image, TagResult
from airflow_imagetag.runtime import departure

_NO_ANSWERS = -1
"""Fewer answers than at the beginning of a run: the image failed before it."""


class StoppingError(Exception):
    """The run was asked to end before the image was sent: nothing was paid or lost."""


class GaveUpError(Exception):
    """The image gets no labels in this run.

    :param error: the last error.
    :param attempts: number of requests sent.
    :param sha256: SHA-256 of the bytes, if they were read and it is known.
    """

    def __init__(self, error: ImageTagError, attempts: int, sha256: str | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.attempts = attempts
        self.sha256 = sha256


class ImagePipeline:
    """Labels single images; shares the quota, the cache of answers and the counts of a run.

    :param labeller: prepares, fits and calls.
    :param admission: lets requests through within the quota.
    :param policy: when and how often a call is made again.
    :param stopping: set when nothing more may be sent.
    :param counts: the run's counts.
    :param pool: records the latency of each successful call, and each pause between attempts.
    :param cache: answers for equal bytes of this run.
    :param lookup: finds answers that were paid for in earlier runs; None for no such answers.
    :param allowance: the calls that the run may make; None for no limit.
    """

    def __init__(
        self,
        labeller: Labeller,
        admission: AdmissionControl,
        policy: retry_policy.RetryPolicy,
        stopping: asyncio.Event,
        counts: Counts,
        pool: AdaptiveWorkerPool,
        *,
        cache: SingleFlightCache,
        lookup: BatchedLookup | None,
        allowance: CallAllowance | None = None,
    ) -> None:
        self._labeller = labeller
        self._admission = admission
        self._policy = policy
        self._stopping = stopping
        self._counts = counts
        self._pool = pool
        self._cache = cache
        self._lookup = lookup
        self._allowance = allowance

    async def prepare(self, image: Image) -> Prepared:
        """Load the image, or take its URL.

        :raises GaveUpError: it gets no labels.
        :raises StoppingError: the run ends first.
        """
        attempt = partial(self._labeller.prepare, image)
        try:
            return await retry_policy.retry(attempt, self._policy, self._sleep)
        except ImageTagError as error:
            raise GaveUpError(error, 0) from None

    async def label(self, prepared: Prepared, *, has_failed: bool = False) -> TagResult:
        """Return the labels of an image, from the service or from an image with equal bytes.

        :param has_failed: an earlier run failed for the image: a failure of the service for it
            says nothing about others.
        :raises GaveUpError: it gets no labels.
        :raises StoppingError: the run ends first.
        """
        digest = prepared.payload.digest
        if digest is None:
            return await self._call(prepared, has_failed=has_failed)
        while not self._cache.claim(digest):
            await self._cache.wait(digest)
        answer = self._cache.recall(digest)
        try:
            if answer is None and self._lookup is not None:
                answer = await self._look_up(self._lookup, prepared)
            if answer is None:
                answer = result = await self._call(prepared, has_failed=has_failed)
                return result
            if isinstance(answer, ImageError):
                raise GaveUpError(answer, 0, prepared.payload.sha256)
            return _answer_for(prepared.image, answer)
        except GaveUpError as given_up:
            # Remember only the service's own word on the bytes: a limit of ours depends on
            # settings.
            if isinstance(given_up.error, ImageError) and given_up.attempts:
                answer = given_up.error
            raise
        finally:
            self._cache.release(digest, answer)

    async def _look_up(self, lookup: BatchedLookup, prepared: Prepared) -> CachedAnswer | None:
        sha256 = prepared.payload.sha256
        if sha256 is None:
            return None
        return await lookup.get(sha256)

    async def _call(self, prepared: Prepared, *, has_failed: bool) -> TagResult:
        """Fit the image and call the service; only after a look-up, which costs less."""
        try:
            prepared = await self._labeller.fit(prepared)
        except ImageTagError as error:
            raise GaveUpError(error, 0, prepared.payload.sha256) from None
        sent = 0
        answers_before = _NO_ANSWERS if has_failed else None
        try:
            is_paced = self._allowance is not None or not self._admission.admit_at_once()
            if is_paced:
                await self._admit()
            sent = 1
            return await self._send(prepared, answers_before=answers_before, is_paced=is_paced)
        except ImageTagError as error:
            if answers_before is None:
                answers_before = self._admission.answers
            return await self._call_again(prepared, error, sent, answers_before)

    async def _call_again(
        self, prepared: Prepared, error: ImageTagError, sent: int, answers_before: int
    ) -> TagResult:
        """Go on after a first attempt that failed.

        :param error: its error.
        :param sent: number of requests sent so far.
        :param answers_before: number of answers when the image failed first.
        """

        async def attempt() -> TagResult:
            nonlocal sent
            is_retry = sent > 0
            await self._admit(is_retry=is_retry)
            sent += 1
            return await self._send(prepared, is_retry=is_retry, answers_before=answers_before)

        try:
            result = await retry_policy.retry_failed(attempt, error, self._policy, self._sleep)
        except ImageTagError as last:
            raise GaveUpError(last, sent, prepared.payload.sha256) from None
        finally:
            # Its traceback refers to this frame: a cycle that would keep the image's bytes.
            del error
        return replace(result, attempts=sent)

    async def _admit(self, *, is_retry: bool = False) -> None:
        """Wait until a request may be sent, within the allowance and the quota.

        :raises StoppingError: the run may make no more calls, and ends.
        """
        calls = self._labeller.calls_per_image
        if self._allowance is not None and not await self._allowance.take(calls):
            self._counts.out_of_budget = True
            self._stopping.set()
            raise StoppingError
        await self._admission.acquire(is_retry=is_retry)

    def _settle(self, *, is_billed: bool) -> None:
        if self._allowance is not None:
            self._allowance.settle(self._labeller.calls_per_image, is_billed=is_billed)

    async def _send(
        self,
        prepared: Prepared,
        *,
        is_retry: bool = False,
        answers_before: int | None = None,
        is_paced: bool = True,
    ) -> TagResult:
        """Make a call that the quota has admitted.

        :param is_paced: a quota may ask when the request leaves; False for one that none held back.
        :param answers_before: number of answers when the image failed first; None if it has not.
        """
        if self._stopping.is_set():
            self._settle(is_billed=False)
            raise StoppingError
        calls = self._labeller.calls_per_image
        self._counts.calls += calls
        self._counts.retries += is_retry
        started = time.monotonic()
        try:
            pending = self._admission.depart() if is_paced else None
            if pending is None:
                result = await self._labeller.call(prepared)
            else:
                result = await self._depart(prepared, pending)
        except ImageTagError as error:
            is_refused = error.billing is Billing.REFUSED
            self._settle(is_billed=not (is_refused or _was_not_sent(error)))
            if _was_not_sent(error):
                self._counts.calls -= calls
                self._counts.retries -= is_retry
            elif is_refused:
                self._counts.refused_calls += calls
            else:
                self._counts.unknown_calls += calls
            self._note_failure(error, answers_before)
            raise
        except BaseException:
            self._counts.unknown_calls += calls
            self._settle(is_billed=True)
            self._admission.record_no_result()
            raise
        self._counts.billed_calls += calls
        if self._allowance is not None:
            self._settle(is_billed=True)
        self._admission.record_success()
        self._pool.record_latency(time.monotonic() - started)
        return result

    async def _depart(self, prepared: Prepared, pending: Departure) -> TagResult:
        """Make a call, and record when its request leaves."""
        now = asyncio.get_running_loop().time
        if not self._labeller.reports_departure:
            pending.leave(now())
        token = departure.report.set(lambda: pending.leave(now()))
        try:
            result = await self._labeller.call(prepared)
            pending.answer(now())
            return result
        finally:
            departure.report.reset(token)
            pending.close()

    async def _sleep(self, seconds: float) -> None:
        try:
            with self._pool.backing_off():
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
        except TimeoutError:
            return
        raise StoppingError

    def _note_failure(self, error: ImageTagError, answers_before: int | None) -> None:
        """Slow the run down, or raise the error of an outage that has lasted too long.

        A service that answers for other images fails for this one only, and is not down.
        """
        is_of_image = answers_before is not None and self._admission.answers > answers_before
        self._admission.record_failure(error, is_of_image=is_of_image)
        self._counts.throttled += retry_policy.is_throttling(error)
        if seconds := retry_policy.retry_after_seconds(error):
            self._admission.record_pause(error, seconds, is_of_image=is_of_image)
        if outage := self._admission.outage_message():
            raise OutageError(f"{outage} The last error: {error.message}") from None


def _was_not_sent(error: ImageTagError) -> bool:
    """Tell whether an error was raised before the request left.

    Errors without a known cost that may be repeated count as calls: a service of another package
    need not say what they cost.
    """
    if isinstance(error, TransientError):
        return isinstance(error, ConnectionFailedError)
    return error.billing is Billing.NOT_SENT and error.code is None and error.status is None


def _answer_for(image: Image, answer: TagResult) -> TagResult:
    """Return the answer for other, equal bytes as the answer for this image."""
    return replace(
        answer,
        image_key=image.key,
        image_uri=image.display_uri,
        version=image.version,
        attempts=0,
        reused=True,
    )
