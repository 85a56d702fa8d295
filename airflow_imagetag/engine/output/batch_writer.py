"""Gathers finished images into batches and has a sink write them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from airflow_imagetag.engine.protocols import Counts, Outcome, Sink, as_exception
from airflow_imagetag.errors import ResultTooLargeError
from airflow_imagetag.models import Failure


class BatchWriter:
    """Writes a batch when it is full, or when its first image has waited for long enough.

    It is woken for batches and not for images, of which there may be thousands a second.

    :param sink: where batches go, one at a time.
    :param threads: where writing blocks.
    :param counts: the run's counts.
    :param failed: is told what the sink raises.
    :param batch_size: images that are written together.
    :param flush_seconds: how long the first of a batch waits at most.
    """

    def __init__(
        self,
        sink: Sink,
        threads: Executor,
        counts: Counts,
        failed: Callable[[Exception], None],
        *,
        batch_size: int,
        flush_seconds: float,
    ) -> None:
        self._sink = sink
        self._threads = threads
        self._counts = counts
        self._failed = failed
        self._batch_size = batch_size
        self._flush_seconds = flush_seconds
        self._batch: list[Outcome] = []
        self._late: list[Outcome] = []
        self._unwritten = 0
        self._is_closing = False
        self._due = asyncio.Event()
        self._written = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def add(self, outcome: Outcome) -> None:
        """Take a finished image; waits for what is unwritten to be less than a batch.

        So a process that is killed loses no more than one batch of finished images.
        """
        try:
            while self._unwritten >= self._batch_size:
                self._written.clear()
                await self._written.wait()
        except asyncio.CancelledError:
            # A slow sink left no room before the run ended; it is paid for all the same.
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

    def _write(self, batch: list[Outcome]) -> None:
        try:
            self._sink.write(batch)
        except Exception:
            raise
        except BaseException as error:
            raise as_exception("sink", error) from error

    async def _flush(self, batch: list[Outcome]) -> None:
        if not batch:
            return
        loop = asyncio.get_running_loop()
        try:
            if self._sink.is_quick:
                self._sink.write(batch)
            else:
                await loop.run_in_executor(self._threads, self._write, batch)
        except ResultTooLargeError as error:
            # The sink has kept the batch, and takes no more.
            self._failed(error)
        except Exception as error:
            self._failed(error)
            return
        finally:
            self._unwritten -= len(batch)
            self._written.set()
        for outcome in batch:
            if isinstance(outcome, Failure):
                self._counts.failed += 1
                self._counts.tolerated += outcome.is_tolerated
            else:
                self._counts.tagged += 1
                self._counts.reused += outcome.reused
