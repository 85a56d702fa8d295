"""An executor without a thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import ParamSpec, TypeVar

from airflow_imagetag.runtime.threads import fulfil

P = ParamSpec("P")
T = TypeVar("T")


class InlineExecutor(Executor):
    """Runs work at once, in the thread that submits it."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call the function and return its result as a future that is done."""
        future: Future[T] = Future()
        fulfil(future, partial(fn, *args, **kwargs))
        return future
