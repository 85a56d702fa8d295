"""Imports slow modules in a thread, while a run or an event loop does something else."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from types import ModuleType
from weakref import WeakKeyDictionary

from airflow_imagetag.runtime.relaxed_gc import relaxed_gc
from airflow_imagetag.runtime.threads import submit_daemon

_imports: dict[tuple[str, ...], Future[None]] = {}
"""The imports of this process, by the names of their modules."""

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, defaultdict[tuple[str, ...], asyncio.Lock]] = (
    WeakKeyDictionary()
)
"""Locks of the coroutines that wait for an import, by their event loop."""


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


async def import_in_thread(*names: str) -> None:
    """Import modules in a thread, once in a process: the event loop must not wait for them.

    The error of a module that cannot be imported is left to the import that uses it.
    """
    if names not in _imports:
        _imports[names] = submit_daemon(partial(_import_all, names), name="imagetag-import")
    turns = _turns.setdefault(asyncio.get_running_loop(), defaultdict(asyncio.Lock))
    # The waiting ones go on one by one, each in a later iteration of the loop: what a hundred do
    # next must not block it as one.
    async with turns[names]:
        if not _imports[names].done():
            # The import goes on if a coroutine that waits for it is cancelled.
            await asyncio.shield(asyncio.wrap_future(_imports[names]))


def _import_all(names: tuple[str, ...]) -> None:
    # Without the relaxed collector, the new objects would have all of Airflow's scanned.
    with relaxed_gc(freezes=False):
        for name in names:
            with suppress(Exception):
                import_module(name)
