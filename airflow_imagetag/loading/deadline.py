"""Run a decoder with a limit of time: C code cannot be stopped, only left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack
from typing import Final, TypeVar

from airflow_imagetag.loading.prepared import damaged
from airflow_imagetag.runtime.threads import submit_daemon

T = TypeVar("T")

MAX_THREADS: Final = 16
"""Maximum number of decoders at the same time, with those that were left behind."""

_SLOTS: Final = threading.BoundedSemaphore(MAX_THREADS)


def within(
    seconds: float,
    work: Callable[[], T],
    *,
    holding: AbstractContextManager[None],
    slots: threading.Semaphore = _SLOTS,
) -> T:
    """Return the result of the work, which runs in a thread of its own.

    :param seconds: maximum time for the work, and for other work to leave a thread free.
    :param holding: entered first, which may take any time, and left when the work ends.
    :param slots: bounds the number of threads.
    :raises ImageDecodeError: the time is over. The thread goes on until the work ends.
    """
    with ExitStack() as stack:
        stack.enter_context(holding)
        if not slots.acquire(timeout=seconds):
            raise damaged("the decoders of other images have not ended")
        stack.callback(slots.release)
        held = stack.pop_all()
    future = submit_daemon(lambda: _release_after(work, held), name="imagetag-decoder")
    return _result(future, seconds)


def _release_after(work: Callable[[], T], held: ExitStack) -> T:
    with held:
        return work()


def _result(future: Future[T], seconds: float) -> T:
    try:
        return future.result(seconds)
    except TimeoutError:
        raise damaged(f"its decoder takes more than {seconds:g} seconds") from None
    finally:
        # The error's traceback holds this frame: the reference would close a cycle.
        del future
