"""Look-ups of single digests, asked as batches."""

from __future__ import annotations

import asyncio

from airflow_imagetag.engine.protocols import AnswerLookup, CachedAnswer


class BatchedLookup:
    """Looks digests up in a store, a batch at a time.

    A look-up of each digest by itself would cost more than a call to the service. While one batch
    is looked up, further digests are gathered for the next.

    :param lookup: looks a batch up.
    """

    def __init__(self, lookup: AnswerLookup) -> None:
        self._lookup = lookup
        self._waiting: dict[str, asyncio.Future[CachedAnswer | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def get(self, digest: str) -> CachedAnswer | None:
        """Return the answer that was paid for the bytes; None if there is none.

        :param digest: SHA-256 of the bytes, in hex.
        :raises Exception: the error of the look-up.
        """
        loop = asyncio.get_running_loop()
        future = self._waiting.setdefault(digest, loop.create_future())
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(future)

    async def _ask(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                answers = await self._lookup(list(asked))
            except Exception as error:
                for future in asked.values():
                    future.set_exception(error)
            else:
                for digest, future in asked.items():
                    future.set_result(answers.get(digest))
