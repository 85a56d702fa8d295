"""Runs the event loop so that a signal ends the run, and not what the run has finished.

Airflow 2 raises an exception out of its SIGTERM handler, Airflow 3 calls ``on_kill`` from it and
raises KeyboardInterrupt on SIGINT, and ``execution_timeout`` raises from SIGALRM: all of it in the
main thread, at whatever line that is. So the loop lives in a thread of its own, where no such
exception can strike, and the main thread does nothing but wait for it.
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


class StopSignal:
    """Asks a run to end early; may be given from a signal handler or any thread."""

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
        """Ask the run to end: nothing more is sent, what is finished is written."""
        # Re-entrant, because a signal may arrive while the main thread is in here already.
        with self._lock:
            self._requested = True
            if self._loop is not None and self._event is not None:
                self._loop.call_soon_threadsafe(self._event.set)

    def attach(self) -> asyncio.Event:
        """Return the running loop's event for this signal."""
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
    """Run a coroutine in an event loop of its own thread and wait for it.

    An exception that a signal raises here is passed on after the run was asked to end and has
    ended, or after ``grace_seconds``.

    :param main: makes the coroutine.
    :param stop: the signal that the coroutine obeys.
    :param grace_seconds: how long to wait for a run that was asked to end.
    :param loop_factory: makes the event loop; None for asyncio's own.
    """
    errors: list[BaseException] = []
    end = _End()

    def target() -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                runner.run(main())
        except BaseException as error:
            errors.append(error)
        finally:
            end.set()

    context = contextvars.copy_context()
    # A daemon: past the grace, a stuck request must not keep the process alive.
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
        # Not thread.start() itself: an exception that strikes while it waits for the new thread can
        # leave that thread stuck for ever. This call is one step for a signal handler.
        _thread.start_new_thread(start, ())
        end.wait()
    except BaseException:
        stop.request()
        _wait_stubbornly(end, grace_seconds)
        raise
    if errors:
        raise errors[0]


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes loops that handle more requests a second; None where it is not installed.

    Airflow 3 brings uvloop along. Its clock goes by milliseconds, which is too coarse to pace
    requests by.
    """
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _End:
    """Tells that something has ended, to a thread in which a signal may raise at any line.

    An exception inside ``threading.Event.wait`` can leave the lock of its condition taken, and then
    neither side ever goes on. Here the waiter's exception can at worst keep a lock that nobody
    needs any more, because the flag is set before.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let the waiter go on; to be called once."""
        self._is_set = True
        self._lock.release()

    def wait(self, timeout_seconds: float = -1) -> bool:
        """Wait for the end, for ever if the time is negative, and return whether it came."""
        return self._is_set or self._lock.acquire(timeout=timeout_seconds)


def _wait_stubbornly(end: _End, seconds: float) -> None:
    """Wait although further signals raise: the first one already decided that the task ends."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        # The first exception is on its way already, so a further one adds nothing.
        with contextlib.suppress(BaseException):
            if end.wait(left):
                return
