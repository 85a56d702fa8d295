"""Gathers finished images into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.protocols import Outcome, OutcomeWriter
from airflow_imagetag.errors import ResultTooLargeError
from airflow_imagetag.models import Failure


class BatchWriter:
    """Writes a batch when it is full, or when its first image has waited for long enough.

    It wakes once for a batch, not for each image: there may be thousands a second.

    :param writer: takes the batches, one at a time.
    :param counts: the run's counts.
    :param on_error: is called with an error of the writer.
    :param batch_size: number of images in a batch.
    :param flush_seconds: maximum wait of the first image in a batch.
    """

    def __init__(
        self,
        writer: OutcomeWriter,
        counts: Counts,
        on_error: Callable[[Exception], None],
        *,
        batch_size: int,
        flush_seconds: float,
    ) -> None:
        self._writer = writer
        self._counts = counts
        self._on_error = on_error
        self._batch_size = batch_size
        self._flush_seconds = flush_seconds
        self._batch: list[Outcome] = []
        self._late: list[Outcome] = []
        self._unwritten = 0
        self._is_closing = False
        self._due = asyncio.Event()
        self._written = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def unwritten(self) -> int:
        """Number of finished images that are not written yet."""
        return self._unwritten

    async def add(self, outcome: Outcome) -> None:
        """Add a finished image; waits while a whole batch is unwritten.

        So a process that is killed loses at most one batch of finished images.
        """
        try:
            while self._unwritten >= self._batch_size:
                self._written.clear()
                await self._written.wait()
        except asyncio.CancelledError:
            # The run ends while a slow writer holds a full batch: this image is paid for, too.
            self._late.append(outcome)
            raise
        self._unwritten += 1
        self._batch.append(outcome)
        if len(self._batch) >= self._batch_size:
            self._due.set()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._flush_seconds, self._due.set)

    def close(self) -> None:
        """Let ``write`` end when everything is written."""
        self._is_closing = True
        self._due.set()

    async def write(self) -> None:
        """Write batches until ``close`` is called and nothing is left."""
        while not self._is_closing or self._batch:
            await self._due.wait()
            self._due.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            batch, self._batch = self._batch, []
            await self._flush(batch)
        await self._flush(self._late)

    async def _flush(self, batch: list[Outcome]) -> None:
        if not batch:
            return
        try:
            await self._writer.write(batch)
        except ResultTooLargeError as error:
            # The writer has kept the batch, and takes no further one.
            self._on_error(error)
        except Exception as error:
            self._on_error(error)
            return
        finally:
            self._unwritten -= len(batch)
            self._written.set()
        self._count(batch)

    def _count(self, batch: list[Outcome]) -> None:
        for outcome in batch:
            if isinstance(outcome, Failure):
                self._counts.failed += 1
                self._counts.tolerated += outcome.is_tolerated
            else:
                self._counts.tagged += 1
                self._counts.reused += outcome.reused
