"""The threads that a test starts, told from those that its process had before."""

from __future__ import annotations

import threading


class StartedThreads:
    """Threads of this name that began after the making of this object.

    :param name: how their names begin.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._before = set(threading.enumerate())

    def names(self) -> list[str]:
        """Return the names of those that live."""
        started = set(threading.enumerate()) - self._before
        return [thread.name for thread in started if thread.name.startswith(self._name)]
