"""Tells a run when the request of a task leaves, across the layers between the two."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar

report: ContextVar[Callable[[], None] | None] = ContextVar("report", default=None)
"""Called when the request of this task is written to its connection; None if nothing asks."""


def leave() -> None:
    """Report that the request of this task leaves now."""
    if (reporter := report.get()) is not None:
        reporter()
