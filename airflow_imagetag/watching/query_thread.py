"""Runs queries in threads, so that they never block the event loop.

A query that hangs delays only queries of the same database or bucket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from airflow_imagetag.errors import StorageError
from airflow_imagetag.runtime.relaxed_gc import relaxed_gc
from airflow_imagetag.runtime.threads import submit_daemon
from airflow_imagetag.watching.condition import WaitCondition
from airflow_imagetag.watching.query import NewImagesQuery

T = TypeVar("T")

THREADS = 8
"""Maximum number of queries of a triggerer that run at a time for one source's and store's servers:
they wait for a database or storage, but each also competes with the event loop."""

MAX_HANGING = 2
"""Maximum number of hanging queries of a trigger. A second one is allowed, since a new connection
may be answered where an old one is not; a thread cannot be ended from outside."""

_slots: WeakValueDictionary[tuple[Any, ...], asyncio.Semaphore] = WeakValueDictionary()


class QueryThread:
    """Runs the queries of one trigger in daemon threads.

    :param condition: the images that are waited for.
    """

    def __init__(self, condition: WaitCondition) -> None:
        self._query = NewImagesQuery(condition)
        self._hanging: list[Future[Any]] = []
        store = None if condition.store is None else condition.store.server_name
        key = (asyncio.get_running_loop(), condition.source.server_name, store)
        # The semaphore lives as long as a trigger waits for these servers.
        self._slots = _slots.setdefault(key, asyncio.Semaphore(THREADS))

    async def ask(self, work: Callable[[NewImagesQuery], T], *, seconds: float) -> T:
        """Return the result of a function over the query.

        :param work: runs the query; blocks.
        :param seconds: maximum time, including the wait for a free thread.
        :raises StorageError: it has not ended by then, or too many earlier queries still hang.
        """
        self._hanging = [query for query in self._hanging if not query.done()]
        if len(self._hanging) >= MAX_HANGING:
            raise StorageError(
                f"{len(self._hanging)} queries were given up and still hang, so no other is "
                "started. Restart the triggerer if source and store answer again."
            )
        result: Future[T] = Future()
        limit = asyncio.timeout(seconds)
        try:
            async with limit, self._slots:
                return await _in_thread(partial(work, self._query), result)
        except TimeoutError:
            if not limit.expired():
                raise
        if result.running():
            self._hanging.append(result)
            # The thread keeps the query, and with it the connection.
            self.close()
            self._query = NewImagesQuery(self._query.condition)
        raise StorageError(f"A query has not ended within {seconds:.0f} s")

    def close(self) -> None:
        """Close the store that is kept open between two queries."""
        # Not on the event loop: closing a store may remove files.
        asyncio.get_running_loop().run_in_executor(None, self._query.close)


async def _in_thread(work: Callable[[], T], result: Future[T]) -> T:
    submit_daemon(partial(_with_relaxed_gc, work), name="new-images", future=result)
    return await asyncio.wrap_future(result)


def _with_relaxed_gc(work: Callable[[], T]) -> T:
    # The event loop stands still during each full collection, which scans all of Airflow.
    with relaxed_gc(freezes=False):
        return work()
