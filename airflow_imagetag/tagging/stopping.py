"""Runs the event loop so that a signal ends the run, and not what the run has finished.

Airflow 2 raises an exception out of its SIGTERM handler, Airflow 3 calls ``on_kill`` from it and
raises KeyboardInterrupt on SIGINT, and ``execution_timeout`` raises from SIGALRM: all of it in the
main thread, at whatever line that is. So the loop lives in a thread of its own, where no such
exception can strike, and the main thread does nothing but wait for it.
"""

from __future__ import annotations

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
    main: Callable[[], Coroutine[Any, Any, None]], stop: StopSignal, *, grace_seconds: float
) -> None:
    """Run a coroutine in an event loop of its own thread and wait for it.

    An exception that a signal raises here is passed on after the run was asked to end and has
    ended, or after ``grace_seconds``.

    :param main: makes the coroutine.
    :param stop: the signal that the coroutine obeys.
    :param grace_seconds: how long to wait for a run that was asked to end.
    """
    errors: list[BaseException] = []
    done = threading.Event()

    def target() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 (the waiting thread raises it)
            errors.append(error)
        finally:
            done.set()

    context = contextvars.copy_context()
    # A daemon: past the grace, a stuck request must not keep the process alive.
    thread = threading.Thread(
        target=context.run, args=(target,), name="imagetag-engine", daemon=True
    )
    try:
        # Inside, because a signal may strike while the thread starts.
        thread.start()
        done.wait()
    except BaseException:
        stop.request()
        _wait_stubbornly(done, grace_seconds)
        raise
    thread.join()
    if errors:
        raise errors[0]


def _wait_stubbornly(done: threading.Event, seconds: float) -> None:
    """Wait although further signals raise: the first one already decided that the task ends."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        # The first exception is on its way already, so a further one adds nothing.
        with contextlib.suppress(BaseException):
            if done.wait(left):
                return
