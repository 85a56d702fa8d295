"""Threads that decode images, and that a process which is to end does not wait for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from airflow_imagetag.runtime.threads import fulfil

T = TypeVar("T")


class Decoders:
    """Runs work in a few threads, which end with the work or with the process.

    Those of an executor would keep a process that was told to end until they are done.

    :param max_threads: bound of the threads that run at the same time.
    """

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads = 0

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Return the future result; until its turn comes, it can be cancelled."""
        future: Future[T] = Future()
        with self._lock:
            self._waiting.append((future, work))
            if self._threads == self._max_threads:
                return future
            self._threads += 1
        threading.Thread(target=self._work, name="imagetag-fit", daemon=True).start()
        return future

    def close(self) -> None:
        """Cancel what waits, and leave what runs to itself."""
        with self._lock:
            waiting = list(self._waiting)
            self._waiting.clear()
        for future, _ in waiting:
            future.cancel()

    def _work(self) -> None:
        while (task := self._next()) is not None:
            fulfil(*task)

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._threads -= 1
            return None
