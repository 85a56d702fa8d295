"""Imports a slow module in a thread, while a run does something else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import ModuleType

from airflow_imagetag.runtime.threads import submit_daemon


class BackgroundImport:
    """One import, which begins when it is first asked for.

    :param name: the module.
    :param on_error: is called once if the import fails.
    """

    def __init__(self, name: str, on_error: Callable[[], None]) -> None:
        self._name = name
        self._on_error = on_error
        self._importing: list[Future[ModuleType]] = []

    def start(self) -> None:
        """Begin the import, unless it has begun."""
        if not self._importing:
            importing = submit_daemon(partial(import_module, self._name), name="imagetag-import")
            self._importing.append(importing)
            importing.add_done_callback(self._report)

    def wait(self) -> None:
        """Wait until the module is imported; begin the import if it has not begun.

        :raises Exception: the error of the import.
        """
        self.start()
        self._importing[0].result()

    @contextmanager
    def starting_after(self, seconds: float) -> Iterator[None]:
        """Begin the import after a time, unless the block ends before; used inside a loop."""
        timer = asyncio.get_running_loop().call_later(seconds, self.start)
        try:
            yield
        finally:
            timer.cancel()

    def _report(self, importing: Future[ModuleType]) -> None:
        if importing.exception() is not None:
            self._on_error()
