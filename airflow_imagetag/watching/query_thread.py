"""Looks in threads: never on the event loop, and one that hangs keeps no other place waiting."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache, partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from airflow_imagetag.errors import StorageError
from airflow_imagetag.runtime.threads import submit_daemon
from airflow_imagetag.watching.query import NewImagesQuery, WaitCondition

T = TypeVar("T")

THREADS = 8
"""Looks at a time at one place, of all triggers of a triggerer: they wait for its database or
storage, but each also takes turns with the event loop."""

LOOK_SECONDS = 1_800.0
"""How long a look may take; the listing of ten million objects takes less."""

MAX_HANGING = 2
"""Looks that a trigger leaves behind: one more, since a new connection may be answered where an old
one is not, and no further ones, since nobody can end a thread."""

_slots: WeakValueDictionary[tuple[Any, ...], asyncio.Semaphore] = WeakValueDictionary()


class QueryThread:
    """Has a lookout look in threads, which end with the process.

    :param question: which images are asked for.
    """

    def __init__(self, question: WaitCondition) -> None:
        self._lookout = NewImagesQuery(question)
        self._hanging: list[Future[Any]] = []
        key = (asyncio.get_running_loop(), *_place(question.source), *_place(question.store))
        # Kept by those who wait at the place.
        self._slots = _slots.setdefault(key, asyncio.Semaphore(THREADS))

    async def ask(self, work: Callable[[NewImagesQuery], T], *, seconds: float) -> T:
        """Return what a function makes of the lookout.

        :param work: asks it; blocks.
        :param seconds: how long it may take, including the wait for its turn.
        :raises StorageError: it has not ended by then, or too many earlier ones still hang.
        """
        self._hanging = [look for look in self._hanging if not look.done()]
        if len(self._hanging) >= MAX_HANGING:
            raise StorageError(
                f"{len(self._hanging)} looks were given up and still hang, so no other is begun. "
                "Restart the triggerer if source and store answer again."
            )
        look: Future[T] = Future()
        limit = asyncio.timeout(seconds)
        try:
            async with limit, self._slots:
                return await _in_thread(partial(work, self._lookout), look)
        except TimeoutError:
            if not limit.expired():
                raise
        if look.running():
            self._hanging.append(look)
            # A look has the lookout for itself, and its connection with it.
            self.close()
            self._lookout = NewImagesQuery(self._lookout.question)
        raise StorageError(f"A look has not ended within {seconds:.0f} s")

    def close(self) -> None:
        """Let go of what is kept between two looks."""
        # Not on the event loop, which it would block while it removes files.
        asyncio.get_running_loop().run_in_executor(None, self._lookout.close)


def _place(item: Any) -> tuple[str, str]:
    """Return what names the server of a source or store, as far as it is known."""
    bucket = str(getattr(item, "path", "")).partition("://")[2].partition("/")[0]
    return str(getattr(item, "conn_id", None)), bucket


async def _in_thread(work: Callable[[], T], look: Future[T]) -> T:
    submit_daemon(work, name="new-images", future=look)
    try:
        return await asyncio.wrap_future(look)
    finally:
        # By the first look all is loaded that the others use.
        _leave_to_collector_what_is_new()


@cache
def _leave_to_collector_what_is_new() -> None:
    """Have Python's garbage collector pass over what is there now, all loaded modules above all.

    Looks make garbage, and at each full collection the event loop stands still; over all of Airflow
    that takes a quarter of a second.
    """
    gc.freeze()
