"""A pool of daemon threads: order, bounds, cancellation, memory, and the end of the process."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial

import pytest

from airflow_imagetag.runtime.threads import DaemonExecutor, submit_daemon

HANGING = """
import threading
from airflow_imagetag.runtime.threads import DaemonExecutor

begun = threading.Event()
pool = DaemonExecutor(1, "hanging")
pool.submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
pool.shutdown()
"""


def threads_named(name: str) -> list[threading.Thread]:
    """List the running threads with a name."""
    return [thread for thread in threading.enumerate() if thread.name == name]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_results_and_errors_are_returned():
    """Each future has the result or the error of its own work."""
    pool = DaemonExecutor(3, "t")
    futures = [pool.submit(lambda number: 12 // number, number) for number in range(50)]
    assert [future.result(10) for future in futures[1:]] == [12 // n for n in range(1, 50)]
    with pytest.raises(ZeroDivisionError):
        futures[0].result(10)
    pool.shutdown()


def test_arguments_are_passed():
    """Positional and named arguments reach the function."""
    pool = DaemonExecutor(1, "t")
    assert pool.submit(int, "11", base=2).result(10) == 3
    pool.shutdown()


def test_one_thread_works_in_order():
    """Work is done in the order in which it was submitted."""
    pool = DaemonExecutor(1, "t")
    done: list[int] = []
    for future in [pool.submit(done.append, number) for number in range(100)]:
        future.result(10)
    assert done == list(range(100))
    pool.shutdown()


def test_the_number_of_threads_is_bounded():
    """Work beyond the bound waits for a thread."""
    running, most, lock = 0, 0, threading.Lock()
    full = threading.Barrier(3)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait(10)
        with lock:
            running -= 1

    pool = DaemonExecutor(3, "bounded")
    for future in [pool.submit(work) for _ in range(12)]:
        future.result(10)
    assert most == 3
    assert len(threads_named("bounded")) <= 3
    pool.shutdown()


def test_an_idle_thread_takes_the_next_work():
    """Work that comes one piece after the other needs one thread."""
    pool = DaemonExecutor(8, "t")
    names = set()
    for _ in range(50):
        names.add(pool.submit(threading.get_ident).result(10))
        wait_until(lambda: pool._idle == 1)
    assert len(names) == 1
    pool.shutdown()


def test_work_that_waits_can_be_cancelled():
    """A cancelled future is skipped; the work behind it is done."""
    pool, release = DaemonExecutor(1, "t"), threading.Event()
    first = pool.submit(release.wait, 10)
    cancelled, last = pool.submit(pytest.fail), pool.submit(int, 3)
    assert cancelled.cancel()
    release.set()
    assert (first.result(10), last.result(10)) == (True, 3)
    pool.shutdown()


def test_shutdown_cancels_the_work_that_waits_and_leaves_the_rest():
    """Running work ends by itself, and its result is still there."""
    pool, release = DaemonExecutor(1, "t"), threading.Event()
    running = pool.submit(release.wait, 10)
    wait_until(running.running)
    waiting = [pool.submit(int) for _ in range(3)]
    pool.shutdown()
    assert all(future.cancelled() for future in waiting)
    release.set()
    assert running.result(10) is True


def test_shutdown_may_leave_the_work_that_waits():
    """It is still done if the caller asks for it."""
    pool, release = DaemonExecutor(1, "t"), threading.Event()
    pool.submit(release.wait, 10)
    waiting = [pool.submit(int, number) for number in range(3)]
    pool.shutdown(cancel_futures=False)
    release.set()
    assert [future.result(10) for future in waiting] == [0, 1, 2]


def test_a_pool_that_is_shut_down_takes_no_work():
    """The caller is told at once, as by the pools of the standard library."""
    pool = DaemonExecutor(1, "t")
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)


def test_threads_end_with_the_pool():
    """No thread is left when the work is done and the pool is shut down."""
    pool = DaemonExecutor(4, "ending")
    for future in [pool.submit(time.sleep, 0.01) for _ in range(8)]:
        future.result(10)
    assert threads_named("ending")
    pool.shutdown()
    wait_until(lambda: not threads_named("ending"))


def test_a_process_ends_while_work_hangs():
    """A task that was told to stop does not wait for a read or a picture that takes hours."""
    subprocess.run([sys.executable, "-c", HANGING], check=True, timeout=30)


class Content:
    """Stands for the bytes of an image; a weak reference tells whether it is alive."""


def fail(content: Content) -> None:
    """Fail with an error whose traceback refers to the content."""
    raise ValueError(f"broken: {type(content).__name__}")


@pytest.mark.parametrize("way", ["pool", "thread"])
def test_the_arguments_of_failed_work_are_freed_with_its_future(way):
    """The error, its traceback and the future are no cycle that waits for the garbage collector."""
    pool = DaemonExecutor(1, "t")
    content = Content()
    alive = weakref.ref(content)
    gc.disable()
    try:
        if way == "thread":
            future = submit_daemon(partial(fail, content), name="t")
        else:
            future = pool.submit(fail, content)
        del content
        assert isinstance(future.exception(10), ValueError)
        assert alive() is not None
        del future
        wait_until(lambda: alive() is None)
    finally:
        gc.enable()
        pool.shutdown()


def test_a_result_is_freed_while_the_thread_waits_for_work():
    """An idle thread keeps nothing of its last work."""
    pool = DaemonExecutor(1, "t")
    gc.disable()
    try:
        future = pool.submit(Content)
        alive = weakref.ref(future.result(10))
        del future
        wait_until(lambda: alive() is None)
        assert pool.submit(int).result(10) == 0
    finally:
        gc.enable()
        pool.shutdown()
