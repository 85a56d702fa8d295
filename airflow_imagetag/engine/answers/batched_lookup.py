"""Asks a blocking question for many images at once, one question after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor

from airflow_imagetag.engine.answers.single_flight import CachedAnswer

AnswerLookup = Callable[[Collection[str]], Mapping[str, CachedAnswer]]
"""Returns what was paid for bytes with these digests; blocks."""


class BatchedLookup:
    """Looks digests up in a store, a batch at a time.

    A look-up for each image would cost more than its call. So while one is under way, the digests
    that come are gathered for the next.

    :param paid: the question.
    :param threads: where it blocks.
    """

    def __init__(self, paid: AnswerLookup, threads: Executor) -> None:
        self._paid = paid
        self._threads = threads
        self._waiting: dict[str, asyncio.Future[CachedAnswer | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def get(self, digest: str) -> CachedAnswer | None:
        """Return what was paid for the bytes, None for nothing.

        :raises Exception: what the question raised.
        """
        loop = asyncio.get_running_loop()
        future = self._waiting.setdefault(digest, loop.create_future())
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(future)

    async def _ask(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                answers = await loop.run_in_executor(self._threads, self._paid, list(asked))
            except Exception as error:
                for future in asked.values():
                    future.set_exception(error)
            else:
                for digest, future in asked.items():
                    future.set_result(answers.get(digest))
