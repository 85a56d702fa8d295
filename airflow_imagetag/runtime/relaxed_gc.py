"""Keeps Python's garbage collector from looking through all of Airflow during a run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 10_000
"""So many make a collection worth its while; 64 requests in flight are some 3,000 by themselves."""


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Have the garbage collector look seldom, and only at what is made from here on.

    A run makes no cycles to speak of. But the answers that it remembers make Python look through
    all that there is again and again, and of Airflow and pandas that is some 200,000 objects:
    without a quota, it took a sixth of the run's CPU time.
    """
    threshold = gc.get_threshold()
    # Else somebody collects seldom already, such as a run beside this one, or not at all.
    is_often = 0 < threshold[0] < NEW_OBJECTS
    is_frozen = gc.get_freeze_count() > 0
    if is_often:
        gc.freeze()
        gc.set_threshold(NEW_OBJECTS, *threshold[1:])
    try:
        yield
    finally:
        if is_often:
            gc.set_threshold(*threshold)
            if not is_frozen:
                gc.unfreeze()
