"""Run blocking work in daemon threads: a process that is about to end does not wait for them.

``concurrent.futures`` joins its threads when the interpreter exits, so one storage read that hangs
would keep a stopped task alive.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

IDLE_SECONDS = 5.0
"""How long a thread of a ``DaemonExecutor`` waits for further work before it ends."""


def submit_daemon(
    work: Callable[[], T], *, name: str, future: Future[T] | None = None
) -> Future[T]:
    """Start a daemon thread and return the future result of its work.

    :param work: the blocking call; may hang for ever.
    :param name: name of the thread.
    :param future: receives the result; None makes one.
    """
    future = Future() if future is None else future
    threading.Thread(target=fulfil, args=(future, work), name=name, daemon=True).start()
    return future


def fulfil(future: Future[T], work: Callable[[], T]) -> None:
    """Call ``work`` and store its result or error in the future, unless it is cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
        # The error's traceback holds this frame: the reference would close a cycle, which keeps
        # the bytes of a failed image in memory until the next garbage collection.
        del future
    else:
        future.set_result(result)


def wait_for(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return the result of a coroutine that runs in a thread and a loop of its own.

    The calling thread may have a loop, in which no other one can run.

    :param make: returns the coroutine.
    """
    return submit_daemon(lambda: asyncio.run(make()), name="imagetag-wait").result()


class DaemonExecutor(Executor):
    """A thread pool whose threads are daemons; they start when there is work for them.

    :param max_threads: maximum number of threads.
    :param name: name of the threads.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._threads = 0
        self._idle = 0
        self._is_shut_down = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Return the future result; until a thread takes it, it can be cancelled.

        :raises RuntimeError: the executor is shut down.
        """
        future: Future[T] = Future()
        with self._changed:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append((future, partial(fn, *args, **kwargs)))
            if len(self._waiting) <= self._idle:
                self._changed.notify()
                return future
            if self._threads == self._max_threads:
                return future
            self._threads += 1
        threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:
        """Take no more work and cancel the waiting work; running work is left to itself.

        :param wait: has no effect: a thread that hangs must not keep the process alive.
        :param cancel_futures: cancel the work that no thread has taken yet.
        """
        del wait
        with self._changed:
            self._is_shut_down = True
            waiting = list(self._waiting) if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
            self._changed.notify_all()
        for future, _ in waiting:
            future.cancel()

    def _run(self) -> None:
        while (task := self._next()) is not None:
            fulfil(*task)
            # Else the last result stays alive as long as the thread waits.
            del task

    def _next(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._changed:
            while not self._waiting:
                self._idle += 1
                is_woken = not self._is_shut_down and self._changed.wait(IDLE_SECONDS)
                self._idle -= 1
                if not self._waiting and (self._is_shut_down or not is_woken):
                    self._threads -= 1
                    return None
            return self._waiting.popleft()
