"""A signal ends a run, which still writes its finished images."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import contextvars
import gc
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from airflow_imagetag.runtime.loop_thread import StopSignal, fast_loop, run_in_thread

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="none")


class TimedOutError(BaseException):
    """Raised by the signal handler of a test, as Airflow's own handler raises one."""


@contextlib.contextmanager
def raising(number: int) -> Iterator[None]:
    """Let a signal raise in the main thread."""

    def handler(*_: object) -> None:
        raise TimedOutError

    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(number, previous)


@contextlib.contextmanager
def no_finalizers() -> Iterator[None]:
    """Stop the garbage collector: Python ignores an exception of a handler in a finalizer."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class OpenRun:
    """A run that lasts until it is asked to end, and then writes for a while."""

    def __init__(self, *, writes_for_seconds: float = 0.05, obeys: bool = True) -> None:
        self.stop = StopSignal()
        self.started = threading.Event()
        self.written = False
        self._writes_for_seconds = writes_for_seconds
        self._obeys = obeys

    async def main(self) -> None:
        stopping = self.stop.attach()
        self.started.set()
        try:
            if self._obeys:
                await stopping.wait()
            await asyncio.sleep(self._writes_for_seconds)
            self.written = True
        finally:
            self.stop.detach()

    def run(self, *, grace_seconds: float = 5) -> None:
        run_in_thread(self.main, self.stop, grace_seconds=grace_seconds)


def run_with_timer(
    work: OpenRun, seconds: float, interval_seconds: float = 0.0, *, grace_seconds: float = 5
) -> None:
    """Run while a timer sends SIGALRM, once or repeatedly; wait for a late signal."""
    signal.setitimer(signal.ITIMER_REAL, seconds, interval_seconds)
    work.run(grace_seconds=grace_seconds)
    time.sleep(1)


def engines() -> list[threading.Thread]:
    """Return the engine threads that are alive."""
    return [thread for thread in threading.enumerate() if thread.name == "imagetag-engine"]


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    yield
    deadline = time.monotonic() + 20
    while engines() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not engines()


def test_a_run_that_ends_by_itself():
    """The call returns when the coroutine has ended, which has the caller's context variables."""
    seen = []

    async def main() -> None:
        seen.append((VARIABLE.get(), threading.current_thread().name))

    token = VARIABLE.set("here")
    try:
        run_in_thread(main, StopSignal(), grace_seconds=1)
    finally:
        VARIABLE.reset(token)
    assert seen == [("here", "imagetag-engine")]


@pytest.mark.parametrize("kind", [ValueError, TimedOutError, SystemExit])
def test_an_error_of_the_run_is_raised_here(kind):
    """The waiting thread raises the coroutine's error, of any kind."""
    error = kind("x")

    async def main() -> None:
        raise error

    with pytest.raises(kind) as caught:
        run_in_thread(main, StopSignal(), grace_seconds=1)
    assert caught.value is error


def test_an_exception_of_a_timer_ends_the_run_and_not_its_writing():
    """An execution timeout raises in the main thread: the run ends in order before that."""
    work = OpenRun()
    with raising(signal.SIGALRM), pytest.raises(TimedOutError):
        run_with_timer(work, 0.1)
    assert work.written
    assert work.stop.requested


def test_a_keyboard_interrupt_ends_the_run_and_not_its_writing():
    """So does an interrupt from the keyboard."""
    work = OpenRun()
    # pytest may have left another handler in place.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt() -> None:
        work.started.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            work.run()
    finally:
        thread.join()
        signal.signal(signal.SIGINT, previous)
    assert work.written


def test_further_signals_do_not_cut_the_writing_short():
    """While the run writes, more signals are ignored; the first error is raised."""
    work = OpenRun(writes_for_seconds=0.4)
    with raising(signal.SIGALRM), pytest.raises(TimedOutError) as caught:
        run_with_timer(work, 0.05, 0.05)
    assert work.written
    assert caught.value.__context__ is None


def test_a_run_that_does_not_end_is_abandoned_after_the_grace():
    """A stuck run does not keep the process alive: its thread is a daemon."""
    work = OpenRun(obeys=False, writes_for_seconds=2.5)
    with raising(signal.SIGALRM), pytest.raises(TimedOutError):
        run_with_timer(work, 0.05, grace_seconds=0.2)
    assert not work.written
    assert all(thread.daemon for thread in engines())


@pytest.mark.parametrize("delay", [0.0001 * step for step in range(1, 40)])
def test_a_signal_at_any_line(delay):
    """From the first line on, a signal asks the run to end, if there is one."""
    work = OpenRun(writes_for_seconds=0.0)
    with no_finalizers(), raising(signal.SIGALRM), pytest.raises(TimedOutError):
        run_with_timer(work, delay)
    assert work.stop.requested or not work.started.is_set()


def test_a_signal_that_does_not_interrupt_the_wait():
    """It arrives just before the main thread waits; its handler runs while the run is open."""
    work = OpenRun()

    def interrupt() -> None:
        work.started.wait()
        _thread.interrupt_main(signal.SIGUSR1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with raising(signal.SIGUSR1), pytest.raises(TimedOutError):
        work.run()
    thread.join()
    assert work.written


def test_a_signal_while_the_thread_starts(monkeypatch):
    """An exception within the start of the thread asks the run to end as well."""
    work = OpenRun()
    start = _thread.start_new_thread

    def interrupted(function: Callable[[], None], arguments: tuple[()]) -> None:
        start(function, arguments)
        raise TimedOutError

    monkeypatch.setattr(_thread, "start_new_thread", interrupted)
    with pytest.raises(TimedOutError):
        work.run()
    assert work.written


def test_a_thread_that_cannot_start(monkeypatch):
    """On a machine without free threads the error is raised at once."""

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    with pytest.raises(RuntimeError, match="new thread"):
        OpenRun().run()


def test_a_handler_may_ask_the_run_to_end():
    """Airflow 3 calls on_kill in its handler: a request may interrupt a request."""
    work = OpenRun()
    previous = signal.signal(signal.SIGUSR1, lambda *_: work.stop.request())

    def ask() -> None:
        work.started.wait()
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        with work.stop._lock:
            # The signal may strike while the main thread holds the lock.
            thread_of_run = threading.Thread(target=work.started.set)
            thread_of_run.start()
            thread_of_run.join()
            thread.join()
            time.sleep(0.01)
        assert work.stop.requested
        work.run()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert work.written


def test_a_request_before_the_run_ends_it_at_once():
    """A run that was asked to end before it began ends at its beginning."""
    work = OpenRun()
    work.stop.request()
    work.run()
    assert work.written


def test_a_request_after_the_run_does_no_harm():
    """The loop is closed by then, and no longer referenced."""
    work = OpenRun()
    work.stop.request()
    work.run()
    work.stop.request()
    assert work.stop.requested


def test_requests_from_many_threads():
    """The signal may be given by any thread, any number of times."""
    work = OpenRun()

    def ask() -> None:
        work.started.wait()
        for _ in range(100):
            work.stop.request()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    work.run()
    for thread in threads:
        thread.join()
    assert work.written


def test_a_run_in_a_loop_of_another_kind():
    """The loop is of the given kind, and a request to end reaches it."""

    class Loop(asyncio.SelectorEventLoop):
        pass

    stop = StopSignal()
    threading.Timer(0.05, stop.request).start()

    async def main() -> None:
        assert isinstance(asyncio.get_running_loop(), Loop)
        async with asyncio.timeout(10):
            await stop.attach().wait()
        stop.detach()

    run_in_thread(main, stop, grace_seconds=1, loop_factory=Loop)
    assert stop.requested


def test_the_fast_loop_is_uvloop_where_it_is_installed(monkeypatch):
    """Without it, it is asyncio's own."""
    if importlib.util.find_spec("uvloop") is not None:
        made = fast_loop()
        assert made is not None
        loop = made()
        loop.close()
        assert type(loop).__module__ == "uvloop"
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert fast_loop() is None
