"""One image through the service: load it, fit it, wait for the quota, call, perhaps again."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor
from dataclasses import replace

from airflow_imagetag.engine.answers.batched_lookup import BatchedLookup
from airflow_imagetag.engine.answers.single_flight import (
    MAX_REMEMBERED,
    CachedAnswer,
    SingleFlightCache,
)
from airflow_imagetag.engine.flow import retry_policy
from airflow_imagetag.engine.flow.admission import AdmissionControl
from airflow_imagetag.engine.flow.worker_pool import AdaptiveWorkerPool
from airflow_imagetag.engine.protocols import Counts, Labeller
from airflow_imagetag.errors import ConnectionFailedError, ImageError, ImageTagError, OutageError
from airflow_imagetag.models import Image, TagResult
from airflow_imagetag.services.messages import Payload


class StoppingError(Exception):
    """The run was asked to end before the image was sent: nothing was paid or lost."""


class GaveUpError(Exception):
    """The image gets no labels in this run.

    :param error: the last error.
    :param attempts: requests sent.
    :param sha256: that of the bytes, where they were read and it is known.
    """

    def __init__(self, error: ImageTagError, attempts: int, sha256: str | None = None) -> None:
        super().__init__(error)
        self.error = error
        self.attempts = attempts
        self.sha256 = sha256


class ImagePipeline:
    """What the images of a run share: quota, threads, known answers and counts.

    :param tagger: loads and calls.
    :param gate: the quota.
    :param policy: when and how often a call is made again.
    :param stopping: set when nothing more may be sent.
    :param threads: where reading blocks.
    :param counts: the run's counts.
    :param crew: is told how long each successful call took, and who rests.
    :param lookups: finds what was paid for equal bytes in an earlier run.
    :param calls_per_image: calls that the vendor bills for one request.
    :param max_remembered: digests whose answers are kept.
    """

    def __init__(
        self,
        tagger: Labeller,
        gate: AdmissionControl,
        policy: retry_policy.RetryPolicy,
        stopping: asyncio.Event,
        threads: Executor,
        counts: Counts,
        crew: AdaptiveWorkerPool,
        lookups: BatchedLookup | None = None,
        calls_per_image: int = 1,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        self._calls_per_image = calls_per_image
        self._crew = crew
        self._tagger = tagger
        self._gate = gate
        self._policy = policy
        self._stopping = stopping
        self._threads = threads
        self._counts = counts
        self._lookups = lookups
        self._reuse = SingleFlightCache(max_remembered)

    async def label(self, image: Image, payload: Payload | None = None) -> TagResult:
        """Return the labels of the image, from the service or from an image with equal bytes.

        :param payload: what to send of it, where it is loaded already.
        :raises GaveUpError: it gets none.
        :raises StoppingError: the run ends first.
        """
        if payload is None:
            payload = await self._load(image)
        digest = payload.digest
        if digest is None:
            return await self._call(image, payload)
        with await self._reuse.alone(digest) as heard:
            known = heard
            if known is None and self._lookups is not None:
                known = await self._recall(payload, self._lookups)
            if isinstance(known, ImageError):
                raise GaveUpError(known, 0, payload.sha256)
            if known is not None:
                return _for(image, known)
            try:
                # Not before: what is known already needs no work. What was read is let go of.
                payload = await self._tagger.fit(image, payload)
            except ImageTagError as error:
                raise GaveUpError(error, 0, payload.sha256) from None
            try:
                result = await self._call(image, payload)
            except GaveUpError as given_up:
                # Only the service's own word on the bytes; a limit of ours depends on settings.
                if isinstance(given_up.error, ImageError) and given_up.attempts:
                    self._reuse.remember(digest, given_up.error)
                raise
            self._reuse.remember(digest, result)
            return result

    async def _recall(self, payload: Payload, lookups: BatchedLookup) -> CachedAnswer | None:
        digest = payload.sha256
        if digest is None:
            return None
        known = await lookups.get(digest)
        if known is not None:
            self._reuse.remember(digest, known)
        return known

    async def _load(self, image: Image) -> Payload:
        try:
            if self._tagger.is_quick(image):
                return self._tagger.load(image)
            return await self._load_in_thread(image)
        except ImageTagError as error:
            raise GaveUpError(error, 0) from None

    async def _load_in_thread(self, image: Image) -> Payload:
        async def attempt() -> Payload:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._tagger.load, image)

        return await retry_policy.retry(attempt, self._policy, self._sleep)

    async def _call(self, image: Image, payload: Payload) -> TagResult:
        sent = 0
        try:
            await self._gate.acquire()
            sent = 1
            return await self._send(image, payload)
        except ImageTagError as error:
            return await self._call_again(image, payload, error, sent)

    async def _call_again(
        self, image: Image, payload: Payload, error: ImageTagError, sent: int
    ) -> TagResult:
        """Go on after a first attempt that failed.

        :param error: its error.
        :param sent: requests sent so far.
        """

        async def attempt() -> TagResult:
            nonlocal sent
            is_retry = sent > 0
            await self._gate.acquire(is_retry=is_retry)
            sent += 1
            return await self._send(image, payload, is_retry=is_retry)

        try:
            result = await retry_policy.retry_failed(attempt, error, self._policy, self._sleep)
        except ImageTagError as last:
            raise GaveUpError(last, sent, payload.sha256) from None
        return replace(result, attempts=sent)

    async def _send(self, image: Image, payload: Payload, *, is_retry: bool = False) -> TagResult:
        """Make a call for which there is a slot of the quota."""
        if self._stopping.is_set():
            raise StoppingError
        self._counts.calls += self._calls_per_image
        self._counts.retries += is_retry
        started = time.monotonic()
        try:
            result = await self._tagger.call(image, payload)
        except ImageTagError as error:
            if isinstance(error, ConnectionFailedError):
                self._counts.calls -= self._calls_per_image
                self._counts.retries -= is_retry
            self._take_note(error)
            raise
        except BaseException:
            self._gate.record_no_result()
            raise
        self._gate.record_success()
        self._crew.record_latency(time.monotonic() - started)
        return result

    async def _sleep(self, seconds: float) -> None:
        try:
            with self._crew.backing_off():
                async with asyncio.timeout(seconds):
                    await self._stopping.wait()
        except TimeoutError:
            return
        raise StoppingError

    def _take_note(self, error: ImageTagError) -> None:
        """Go slower, or raise the error of an outage that has lasted too long."""
        self._gate.record_failure(error)
        self._counts.throttled += retry_policy.is_throttling(error)
        if seconds := retry_policy.retry_after_seconds(error):
            self._gate.pause(seconds)
        if outage := self._gate.outage_message():
            raise OutageError(f"{outage} The last said: {error.message}") from None


def _for(image: Image, known: TagResult) -> TagResult:
    """Return the answer for other bytes that are equal as the answer for this image."""
    return replace(
        known,
        image_key=image.key,
        image_uri=image.display_uri,
        version=image.version,
        attempts=0,
        reused=True,
    )
