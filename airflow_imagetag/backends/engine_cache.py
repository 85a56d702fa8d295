"""SQLAlchemy engines that share the dialect and the compiled statements of their connection.

A new engine has a new dialect, which asks the database for its version again and compiles each
statement again, and SQLAlchemy keeps the last 128 dialects of PostgreSQL with 2,000 objects each. A
triggerer makes engines all the time: with a hundred deferred sensors these objects alone made
Python's garbage collector scan all of Airflow every few seconds, while the event loop stood still.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

MAX_AGE_SECONDS = 900.0
"""Maximum age of a shared dialect: a hook may give its engine a token that expires."""


class EngineCache:
    """Makes the engines of a connection from the first one that has connected.

    :param max_age_seconds: maximum age of that engine.
    :param clock: monotonic clock, in seconds.
    """

    def __init__(
        self,
        max_age_seconds: float = MAX_AGE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_age_seconds = max_age_seconds
        self._clock = clock
        self._templates: dict[Hashable, tuple[float, Engine]] = {}
        self._lock = threading.Lock()

    def engine(self, key: Hashable, make: Callable[[], Engine]) -> Engine:
        """Return an engine with a pool of its own.

        :param key: equal for equal connections.
        :param make: makes the first engine.
        """
        from sqlalchemy import event

        with self._lock:
            self._remove_old()
            _, template = self._templates.get(key, (0.0, None))
        if template is not None:
            return _with_own_pool(template)
        engine = make()
        made_at = self._clock()

        def keep(*_: Any) -> None:
            with self._lock:
                self._templates.setdefault(key, (made_at, _with_own_pool(engine)))

        # Only now is the dialect complete, and a database that hangs delays no other engine.
        event.listen(engine, "connect", keep, once=True)
        return engine

    def _remove_old(self) -> None:
        oldest = self._clock() - self._max_age_seconds
        self._templates = {
            key: template for key, template in self._templates.items() if template[0] > oldest
        }


def _with_own_pool(engine: Engine) -> Engine:
    """Return an engine with the same dialect and statements, and without a connection."""
    copied = copy.copy(engine)
    # Makes a new pool; the connections of the old one belong to the other engine.
    copied.dispose(close=False)
    return copied
