"""Private: the record of a run in a store, and the rule that finds killed runs. No I/O."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

__all__ = ["RunOutcome", "RunRecord", "Spending", "SpendingScope"]

KILLED_AFTER = timedelta(minutes=15)
"""Time without an update from which a run counts as killed. It is far longer than the time between
two updates, since the clocks of two workers may differ."""


class RunOutcome(enum.StrEnum):
    """How a run ended."""

    RUNNING = "running"
    """It has not ended, or it was killed and no later run has found it yet."""
    SUCCESS = "success"
    """It labelled all images that it was to label; some may have failed."""
    FAILED = "failed"
    """It ended with an error."""
    INTERRUPTED = "interrupted"
    """Airflow or a person asked it to end."""
    TIMED_OUT = "timed_out"
    """The task's ``execution_timeout`` passed."""
    OUT_OF_BUDGET = "out_of_budget"
    """It might make no more calls; the images that are left stay new."""
    KILLED = "killed"
    """Its process ended without a word; a later run found that out."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One try of a task, as a store keeps it.

    :param id: names the record; unique.
    :param api: the interface that labelled the images.
    :param started_at: when the run started, in UTC.
    :param updated_at: when the record was written last, in UTC.
    :param ended_at: when the run ended, in UTC; None while it runs. Of a killed run it is the time
        of its last update.
    :param dag_id: id of the DAG; None outside Airflow.
    :param task_id: id of the task.
    :param run_id: id of the DAG run.
    :param map_index: index of a mapped task; -1 for a task that is not mapped.
    :param try_number: number of the try, from 1.
    :param shard: the part of the source, such as ``0/4``; None for all of it.
    :param seen: entries that the source gave.
    :param new: images that were never tried in their version.
    :param tagged: images that got an answer.
    :param reused: tagged images that took the answer of another image with equal bytes.
    :param failed: images that ended in the failures.
    :param failed_again: those of them that had failed in an earlier run.
    :param waiting: images of the store that a later run tries again.
    :param gave_up: images of the store that are not tried again.
    :param skipped: entries that needed no work, or that a stopped run left.
    :param calls: calls that were sent.
    :param billed_calls: those of them that were answered with labels.
    :param refused_calls: those of them that the service answered with an error: it bills none.
    :param unknown_calls: those of them whose answer never came: they may be billed.
    :param retries: requests sent for an image after its first.
    :param throttled: responses that asked for fewer requests.
    :param price_per_thousand: price of 1,000 calls at the time; None if it was unknown.
    :param held_calls: calls that count against a budget: made and not refused, or set aside by a
        run in progress.
    :param outcome: how it ended.
    :param error: class name of the error; None for none.
    """

    id: str
    api: str
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    map_index: int | None = None
    try_number: int | None = None
    shard: str | None = None
    seen: int = 0
    new: int = 0
    tagged: int = 0
    reused: int = 0
    failed: int = 0
    failed_again: int = 0
    waiting: int = 0
    gave_up: int = 0
    skipped: int = 0
    calls: int = 0
    billed_calls: int = 0
    refused_calls: int = 0
    unknown_calls: int = 0
    retries: int = 0
    throttled: int = 0
    price_per_thousand: float | None = None
    held_calls: int = 0
    outcome: RunOutcome = RunOutcome.RUNNING
    error: str | None = None

    @property
    def cost(self) -> float | None:
        """Price of the calls that may be billed; None if the price is unknown."""
        if self.price_per_thousand is None:
            return None
        return (self.calls - self.refused_calls) * self.price_per_thousand / 1000

    def as_row(self) -> dict[str, Any]:
        """Return the record as a row of a table: all fields, and the cost."""
        return {**asdict(self), "outcome": self.outcome.value, "cost": self.cost}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> RunRecord:
        """Return the record of a row.

        :param row: a row of ``as_row``, with or without further columns.
        """
        values = {field.name: row[field.name] for field in fields(cls)}
        return cls(**{**values, "outcome": RunOutcome(row["outcome"])})

    def is_killed(self, now: datetime, current: RunRecord) -> bool:
        """Tell whether the run, which has no end, was killed.

        It was, if a later try of its task runs now, or if it has written nothing for long.

        :param now: the time, with a zone.
        :param current: the run that asks.
        """
        if self.id == current.id or self.ended_at is not None:
            return False
        return self._is_earlier_try_of(current) or now - self.updated_at >= KILLED_AFTER

    def _is_earlier_try_of(self, other: RunRecord) -> bool:
        if self.dag_id is None or self.try_number is None or other.try_number is None:
            return False
        same = all(
            getattr(self, name) == getattr(other, name)
            for name in ("dag_id", "task_id", "run_id", "map_index", "shard")
        )
        return same and self.try_number < other.try_number

    def as_killed(self) -> RunRecord:
        """Return the record of the run as a killed one.

        The calls that were on their way, or that it had set aside, may have been billed.
        """
        calls = max(self.calls, self.held_calls + self.refused_calls)
        return replace(
            self,
            ended_at=self.updated_at,
            calls=calls,
            unknown_calls=calls - self.billed_calls - self.refused_calls,
            held_calls=calls - self.refused_calls,
            outcome=RunOutcome.KILLED,
        )


@dataclass(frozen=True, slots=True)
class SpendingScope:
    """The runs whose calls count against one budget.

    :param since: only runs that started then or later, with a zone; None for no bound.
    :param task: only runs of the task and the DAG run of this record; None for all runs.
    """

    since: datetime | None = None
    task: RunRecord | None = None

    def holds(self, run: RunRecord) -> bool:
        """Tell whether a run counts."""
        if self.since is not None and run.started_at < self.since:
            return False
        if self.task is None:
            return True
        return all(
            getattr(run, name) == getattr(self.task, name)
            for name in ("dag_id", "task_id", "run_id")
        )


@dataclass(frozen=True, slots=True)
class Spending:
    """The calls that runs have made or set aside.

    :param calls: number of calls that may be billed.
    :param cost: their price; a run without a known price counts nothing.
    """

    calls: int = 0
    cost: float = 0.0


def spending_of(runs: Iterable[RunRecord]) -> Spending:
    """Return the sum of the calls and the cost of runs."""
    calls, cost = 0, 0.0
    for run in runs:
        calls += run.held_calls
        cost += run.held_calls * (run.price_per_thousand or 0.0) / 1000
    return Spending(calls, cost)
