"""Runs the event loop in a thread of its own, so that a signal ends the run in order.

Airflow 2 raises an exception in its SIGTERM handler, Airflow 3 calls ``on_kill`` there and raises
KeyboardInterrupt on SIGINT, and ``execution_timeout`` raises in a SIGALRM handler: all of them in
the main thread, at any line. No such exception can strike in another thread, so the main thread
only waits, and the run can still write its finished images.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

SIGNAL_CHECK_SECONDS = 0.5
"""Maximum delay of a signal handler. A signal that arrives just before the main thread waits for a
lock does not interrupt the wait: Python runs its handler only when the wait returns."""


class StopSignal:
    """Asks a run to end early, from a signal handler or any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._requested = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None

    @property
    def requested(self) -> bool:
        """Whether the run was asked to end."""
        return self._requested

    def request(self) -> None:
        """Ask the run to end: it sends no more requests and writes its finished images."""
        # The lock is re-entrant: a signal may arrive while the main thread holds it.
        with self._lock:
            self._requested = True
            if self._loop is not None and self._event is not None:
                self._loop.call_soon_threadsafe(self._event.set)

    def attach(self) -> asyncio.Event:
        """Return an event of the running loop that is set with this signal."""
        with self._lock:
            self._loop, self._event = asyncio.get_running_loop(), asyncio.Event()
            if self._requested:
                self._event.set()
            return self._event

    def detach(self) -> None:
        """Forget the loop, which is about to close."""
        with self._lock:
            self._loop = self._event = None


def run_in_thread(
    main: Callable[[], Coroutine[Any, Any, None]],
    stop: StopSignal,
    *,
    grace_seconds: float,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run a coroutine in an event loop in a thread of its own, and wait for it.

    An exception that a signal raises here makes the run end, and is raised after that, or after
    ``grace_seconds``.

    :param main: returns the coroutine.
    :param stop: the signal that the coroutine obeys.
    :param grace_seconds: maximum wait for a run that was asked to end.
    :param loop_factory: returns the event loop; None for asyncio's own.
    """
    errors: list[BaseException] = []
    end = _Completion()

    def target() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main())
        except BaseException as error:
            errors.append(error)
        finally:
            end.set()

    context = contextvars.copy_context()
    # A daemon: after the grace, a stuck request must not keep the process alive.
    thread = threading.Thread(
        target=context.run, args=(target,), name="imagetag-engine", daemon=True
    )

    def start() -> None:
        try:
            thread.start()
        except BaseException as error:
            errors.append(error)
            end.set()

    try:
        # Not thread.start() itself, which waits for the new thread: an exception during that wait
        # can leave the thread stuck for ever. No handler runs within this call.
        _thread.start_new_thread(start, ())
        while not end.wait(SIGNAL_CHECK_SECONDS):
            pass
    except BaseException:
        stop.request()
        _wait_despite_signals(end, grace_seconds)
        raise
    if errors:
        raise errors[0]


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the factory of uvloop, which handles more requests per second; None without uvloop.

    Airflow 3 depends on it. Its clock has a resolution of a millisecond, which is too coarse to
    space requests by.
    """
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Completion:
    """Tells that a thread has ended, to a thread in which a signal may raise at any line.

    An exception inside ``threading.Event.wait`` can leave the lock of its condition taken, which
    blocks both sides for ever. Here such an exception can at worst leave a lock taken that is no
    longer needed, since the flag is set before.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the waiting thread; to be called once."""
        self._is_set = True
        self._lock.release()

    def wait(self, timeout_seconds: float) -> bool:
        """Wait for the end, and return whether it has come."""
        return self._is_set or self._lock.acquire(timeout=timeout_seconds)


def _wait_despite_signals(end: _Completion, seconds: float) -> None:
    """Wait although further signals raise: the first one has decided already that the task ends."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        # The first exception is raised in any case, so a further one adds nothing.
        with contextlib.suppress(BaseException):
            if end.wait(left):
                return
