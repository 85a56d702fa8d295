"""Private: the end of a task as lineage tells it; it imports nothing of OpenLineage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TaskReport:
    """The end of a task.

    :param api: the interface that was asked; None for several, or none.
    :param summary: the summary of the task.
    :param written_rows: numbers of rows that were written, by ``labels`` and ``images``.
    :param price_per_thousand: price of 1,000 calls; None if it is unknown.
    """

    api: str | None
    summary: Mapping[str, Any]
    written_rows: Mapping[str, int] = field(default_factory=dict)
    price_per_thousand: float | None = None
