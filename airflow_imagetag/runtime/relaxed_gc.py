"""Keeps Python's garbage collector from scanning all of Airflow again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

NEW_OBJECTS = 10_000
"""Number of new objects that start a collection; 64 requests in flight have some 3,000 of them."""


@contextmanager
def relaxed_gc(*, freezes: bool = True) -> Iterator[None]:
    """Make the garbage collector run seldom, and restore the state that was found.

    A run makes hardly any reference cycles. But its answers stay in memory, and their number makes
    Python scan all objects again and again, some 200,000 of Airflow and pandas: without a quota,
    that took a sixth of the run's CPU time.

    :param freezes: exclude all present objects from the scans as well. Only for a process of one
        task: present garbage then survives until a later scan of all objects.
    """
    threshold = gc.get_threshold()
    # Otherwise the process has its own settings, or those of a run beside this one.
    is_default = 0 < threshold[0] < NEW_OBJECTS
    # Objects that were frozen before cannot be told from these, so nothing is added to them.
    has_frozen = is_default and freezes and gc.get_freeze_count() == 0
    if has_frozen:
        gc.freeze()
    if is_default:
        gc.set_threshold(NEW_OBJECTS, *threshold[1:])
    try:
        yield
    finally:
        if is_default:
            gc.set_threshold(*threshold)
        if has_frozen:
            gc.unfreeze()
