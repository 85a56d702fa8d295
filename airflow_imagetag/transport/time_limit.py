"""Limit the time of many requests with one timer for all of them."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any


class TimeLimit:
    """Bounds how long a task is inside, for any number of tasks at a time.

    It does the same as ``asyncio.timeout``, for tasks that all have the same limit: the first to
    begin is the first to be overdue, so one timer is enough. A timer for each, aiohttp's or
    asyncio's, costs a tenth of a small request.

    :param seconds: the limit.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        # A dict keeps the order in which they began.
        self._due: dict[asyncio.Task[Any] | None, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        due = self._loop.time() + self._seconds
        self._due[asyncio.current_task(self._loop)] = due
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._cancel_overdue)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task = asyncio.current_task(self._loop)
        is_overdue = self._due.pop(task, None) is None
        if not is_overdue or task is None:
            return
        # A cancellation from elsewhere has precedence.
        if task.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _cancel_overdue(self) -> None:
        self._timer = None
        now = self._loop.time()
        for task, due in list(self._due.items()):
            if due > now:
                self._timer = self._loop.call_at(due, self._cancel_overdue)
                break
            del self._due[task]
            if task is not None:
                task.cancel()
