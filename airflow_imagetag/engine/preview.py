"""A run without its calls: which images it would send, and which not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice

from airflow_imagetag.engine.protocols import AnswerLookup, CachedAnswer
from airflow_imagetag.engine.shared_causes import SharedCauses
from airflow_imagetag.errors import Decision, ImageError, ImageTagError, ImageTooLargeError
from airflow_imagetag.labellers.base import Labeller, Prepared
from airflow_imagetag.models import Entry, Image, RejectedImage
from airflow_imagetag.runtime.digests import Digest
from airflow_imagetag.safety.redaction import redact

CHUNK_ENTRIES = 256
"""Number of entries that are looked at together."""

READ_AT_ONCE = 32
"""Maximum number of images whose bytes are read at the same time."""

MAX_DIGESTS = 1_000_000
"""Maximum number of digests that are kept to find equal bytes: some 100 MB."""

SAMPLED_KEYS = 20
"""Number of keys in the sample."""


@dataclass(slots=True)
class PreviewCounts:
    """The counts of a run that makes no call.

    :param images: images that would be labelled, or fail.
    :param calls: calls that would be made, retries aside.
    :param reused: images that would take the answer for equal bytes.
    :param failed: images that would fail without a call.
    :param too_large: those of them with more bytes than the service takes.
    :param skipped: entries that need no work.
    :param sample: keys of the first images that would be sent.
    """

    images: int = 0
    calls: int = 0
    reused: int = 0
    failed: int = 0
    too_large: int = 0
    skipped: int = 0
    sample: list[str] = field(default_factory=list)


class Preview:
    """Looks at images as a run does, up to the call.

    :param labeller: prepares and fits images; it is never asked to call.
    :param lookup: finds answers that were paid for in earlier runs; None for no such answers.
    :param stopping: set when it is to end early.
    """

    def __init__(
        self, labeller: Labeller, lookup: AnswerLookup | None, stopping: asyncio.Event
    ) -> None:
        self.counts = PreviewCounts()
        self._labeller = labeller
        self._lookup = lookup
        self._stopping = stopping
        self._causes = SharedCauses()
        self._digests: set[Digest] = set()
        self._reading = asyncio.Semaphore(READ_AT_ONCE)

    async def look(self, entries: Iterable[Entry]) -> None:
        """Look at the entries and count.

        :raises ImageTagError: an error that would end a run, too.
        """
        iterator = iter(entries)
        while (chunk := list(islice(iterator, CHUNK_ENTRIES))) and not self._stopping.is_set():
            images = [entry for entry in chunk if isinstance(entry, Image)]
            rejected = sum(isinstance(entry, RejectedImage) for entry in chunk)
            self.counts.images += len(images) + rejected
            self.counts.failed += rejected
            self.counts.skipped += len(chunk) - len(images) - rejected
            await self._look_at(images)

    async def _look_at(self, images: list[Image]) -> None:
        prepared = await self._prepared(images)
        digests = {one.payload.sha256 for one in prepared} - {None}
        answers: Mapping[str, CachedAnswer] = {}
        if self._lookup is not None and digests:
            answers = await self._lookup([digest for digest in digests if digest is not None])
        for one in prepared:
            digest = one.payload.digest
            if digest is not None and digest in self._digests:
                self.counts.reused += 1
            elif (answer := answers.get(one.payload.sha256 or "")) is not None:
                is_failure = isinstance(answer, ImageError)
                self.counts.failed += is_failure
                self.counts.reused += not is_failure
            else:
                await self._fit(one)

    async def _prepared(self, images: list[Image]) -> list[Prepared]:
        """Return the images that can be read, and count the others."""
        # A task for each image takes longer than all else that is done for a URL.
        slow = [image for image in images if self._labeller.needs_io(image)]
        found = dict(zip(map(id, slow), await asyncio.gather(*map(self._read, slow)), strict=True))
        prepared: list[Prepared] = []
        for image in images:
            one = found.get(id(image)) or await self._prepare(image)
            if isinstance(one, Prepared):
                self._causes.record_readable()
                prepared.append(one)
            else:
                self._count_failure(one)
        return prepared

    async def _read(self, image: Image) -> Prepared | ImageTagError:
        async with self._reading:
            return await self._prepare(image)

    async def _prepare(self, image: Image) -> Prepared | ImageTagError:
        try:
            return await self._labeller.prepare(image)
        except ImageTagError as error:
            return error.with_traceback(None)

    async def _fit(self, prepared: Prepared) -> None:
        try:
            await self._labeller.fit(prepared)
        except ImageTagError as error:
            self._count_failure(error)
            return
        self.counts.calls += self._labeller.calls_per_image
        if len(self.counts.sample) < SAMPLED_KEYS:
            self.counts.sample.append(redact(prepared.image.key))
        digest = prepared.payload.digest
        if digest is not None and len(self._digests) < MAX_DIGESTS:
            self._digests.add(digest)

    def _count_failure(self, error: ImageTagError) -> None:
        """Count an image that would fail without a call.

        :raises ImageTagError: the error ends a run, or is one of many of the worker.
        """
        if error.decision is Decision.STOP:
            raise error
        if (ending := self._causes.record(error)) is not None:
            raise ending
        self.counts.failed += 1
        self.counts.too_large += isinstance(error, ImageTooLargeError)
