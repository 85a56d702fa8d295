"""Work in threads that a process which is to end does not wait for, as for those of an executor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def submit_daemon(
    work: Callable[[], T], *, name: str, future: Future[T] | None = None
) -> Future[T]:
    """Return the future result of work that may hang for ever.

    :param name: of the thread.
    :param future: where the result goes; None makes one.
    """
    future = Future() if future is None else future
    threading.Thread(target=fulfil, args=(future, work), name=name, daemon=True).start()
    return future


def fulfil(future: Future[T], work: Callable[[], T]) -> None:
    """Do the work, unless the future is cancelled, and keep its result or error there."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
        future.set_exception(error)
    else:
        future.set_result(result)
