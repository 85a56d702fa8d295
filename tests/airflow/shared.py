"""What all tests of this folder share: begun when first asked for, ended after the last of them.

A fixture of the session would let it run, and take processor time, beside the tests of all other
folders.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

Running = TypeVar("Running")


class Shared:
    """Running things by name, for one process of the tests."""

    def __init__(self) -> None:
        self._running: dict[str, Any] = {}
        self._stack = contextlib.ExitStack()

    def get(
        self, name: str, begin: Callable[[], contextlib.AbstractContextManager[Running]]
    ) -> Running:
        """Return the fixture of this name, begun now if it does not run."""
        if name not in self._running:
            self._running[name] = self._stack.enter_context(begin())
        running: Running = self._running[name]
        return running

    def end(self) -> None:
        """End all of them; the next asking begins anew."""
        self._running.clear()
        self._stack.close()
