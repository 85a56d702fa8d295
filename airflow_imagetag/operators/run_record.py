"""Private: keeps the record of a run in its store: at its start, meanwhile, and at its end."""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_imagetag.errors import ImageTagError, RunInterruptedError
from airflow_imagetag.frames import RUN_COUNTS
from airflow_imagetag.operators.budget import Budget, OwnBudget, own_budget
from airflow_imagetag.stores.runs import RunOutcome, RunRecord, SpendingScope

if TYPE_CHECKING:
    from airflow_imagetag.stores.open_store import OpenStore

log = logging.getLogger(__name__)

UPDATE_SECONDS = 5.0
"""Time between two updates of the record of a run in progress."""

JOIN_SECONDS = 15.0
"""Maximum wait for an update on its way before the end is written."""

RESERVE_ATTEMPTS = 10
"""Maximum number of attempts to set calls aside while other runs do so, too."""

EMPTY_ATTEMPTS = 3
"""Number of attempts after which a budget without calls is used up."""

SHARES = 8
"""A run sets at most this part of the calls that are left aside at once."""

_IDENTITY = ("dag_id", "task_id", "run_id", "map_index", "try_number")


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class RecordTiming:
    """The times of a record; tests shorten them.

    :param update_seconds: time between two updates.
    :param collision_seconds: first wait of runs that set calls aside at once.
    :param clock: wall clock with a zone.
    """

    update_seconds: float = UPDATE_SECONDS
    collision_seconds: float = 0.02
    clock: Callable[[], datetime] = _utc_now


DEFAULT_RECORD_TIMING = RecordTiming()


def identity_of(task_instance: Any) -> dict[str, Any]:
    """Return the names of a try of a task, as fields of its record; all None outside a task."""
    return {name: getattr(task_instance, name, None) for name in _IDENTITY}


def new_record(
    api: str, started_at: datetime, *, price_per_thousand: float | None, **names: Any
) -> RunRecord:
    """Return the record of a run that starts now.

    :param api: the interface that labels the images.
    :param started_at: the time, with a zone.
    :param price_per_thousand: price of 1,000 calls; None if it is unknown.
    :param names: fields of ``identity_of``, and the shard.
    """
    return RunRecord(
        uuid.uuid4().hex,
        api,
        started_at,
        started_at,
        price_per_thousand=price_per_thousand,
        **names,
    )


@contextmanager
def recording(
    opened: OpenStore,
    first: RunRecord,
    counts: Callable[[], Mapping[str, Any]],
    budget: Budget,
    timing: RecordTiming,
) -> Iterator[RunRecorder]:
    """Record a run while the context lasts; an error that leaves the context is its end.

    A store that does not take the record does not end the run, unless it must keep a budget: a
    warning says so.

    :param opened: the store.
    :param first: the record at the start.
    :param counts: returns the counts so far, by name.
    :param budget: the calls that the run may make.
    :param timing: times of the record.
    :raises ConfigurationError: the store keeps no runs, and the budget is one of several runs.
    :raises StoreError: the store failed, and the budget is one of several runs.
    """
    recorder = RunRecorder(opened, first, counts, budget, timing)
    recorder.start()
    try:
        yield recorder
    except BaseException as error:
        recorder.end(*_end_of(error))
        raise
    is_stopped = counts()["out_of_budget"]
    recorder.end(RunOutcome.OUT_OF_BUDGET if is_stopped else RunOutcome.SUCCESS, None)


class RunRecorder:
    """The record of one run, and the calls that it may make.

    :param opened: the store.
    :param first: the record at the start.
    :param counts: returns the counts so far, by name.
    :param budget: the calls that the run may make.
    :param timing: times of the record.
    """

    def __init__(
        self,
        opened: OpenStore,
        first: RunRecord,
        counts: Callable[[], Mapping[str, Any]],
        budget: Budget,
        timing: RecordTiming,
    ) -> None:
        self._opened = opened
        self._counts = counts
        self._budget = budget
        self._timing = timing
        self._record = first
        self._scope = budget.scope(first) if budget.is_limited else None
        self._own: OwnBudget | None = None
        self._granted = 0
        self._lock = threading.Lock()
        self._has_ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Write the start, and find the runs that were killed.

        :raises ConfigurationError: the store keeps no runs, and the budget is one of several runs.
        :raises StoreError: the store failed, and the budget is one of several runs.
        """
        if not self._opened.keeps_runs:
            self._scope = None
            self._own = own_budget(self._budget, self._record.price_per_thousand)
            return
        if self._scope is None:
            self._own = own_budget(self._budget, self._record.price_per_thousand)
        try:
            self._opened.record_run(self._record)
            self._end_killed_runs()
        except ImageTagError as error:
            if self._scope is not None:
                raise
            log.warning("This run is not recorded in the store: %s", error.message)
            return
        self._thread = threading.Thread(target=self._update, name="imagetag-run", daemon=True)
        self._thread.start()

    @property
    def is_needed(self) -> bool:
        """Whether calls must be set aside before they are made."""
        return self._thread is not None or self._own is not None

    def reserve(self, wanted: int) -> int:
        """Set calls aside for this run, and return how many; 0 if none are left.

        The record in the store has them before they are made. So runs that share a budget never
        exceed it together, and the calls of a killed run are known.

        :param wanted: number of calls that the run would like.
        :raises StoreError: the store failed.
        """
        with self._lock:
            if self._has_ended.is_set():
                # A worker that the run did not wait for: its call would not be in the record.
                return 0
            if self._scope is not None:
                return self._reserve_shared(wanted, self._scope)
            granted = wanted if self._own is None else self._own.reserve(wanted)
            self._granted += granted
            if self._thread is not None and granted:
                self._try_to_write()
            return granted

    def _reserve_shared(self, wanted: int, scope: SpendingScope) -> int:
        """Set calls aside and look whether other runs did the same at once; if so, begin again.

        Of runs that do so at once, the last to write sees what all have set aside.
        """
        price = self._record.price_per_thousand
        for attempt in range(RESERVE_ATTEMPTS):
            left = self._budget.left(self._opened.spending(scope), price)
            if left <= 0:
                # Another run may have set aside what it is about to give back.
                if attempt >= EMPTY_ATTEMPTS:
                    return 0
            else:
                # Small portions towards the end leave something to the other runs.
                granted = min(wanted, max(1, left // SHARES))
                self._granted += granted
                self._write()
                if self._budget.left(self._opened.spending(scope), price) >= 0:
                    return granted
                self._granted -= granted
                self._write()
            time.sleep(random.uniform(0.2, 1.0) * self._timing.collision_seconds * 2**attempt)  # noqa: S311 (a wait)
        return 0

    def _try_to_write(self) -> None:
        try:
            self._write()
        except ImageTagError as failure:
            log.warning("The record of this run is not up to date: %s", failure.message)

    def end(self, outcome: RunOutcome, error: str | None) -> None:
        """Write the end.

        :param outcome: how the run ended.
        :param error: class name of the error that ended it; None for none.
        """
        self._has_ended.set()
        if self._thread is None:
            return
        self._thread.join(JOIN_SECONDS)
        try:
            with self._lock:
                self._write(outcome=outcome, error=error)
        except ImageTagError as failure:
            log.warning("The end of this run is not recorded in the store: %s", failure.message)

    def _update(self) -> None:
        while not self._has_ended.wait(self._timing.update_seconds):
            with self._lock:
                self._try_to_write()

    def _write(self, **end: Any) -> None:
        now = self._timing.clock()
        found = self._counts()
        calls, refused = found["calls"], found["refused_calls"]
        counts = {name: found[name] for name in RUN_COUNTS}
        held = max(self._granted, calls - refused)
        if end:
            # The calls that were on their way have no answer, and may be billed.
            counts["unknown_calls"] = calls - refused - found["billed_calls"]
            held = calls - refused
            end["ended_at"] = now
        self._record = replace(self._record, **counts, held_calls=held, updated_at=now, **end)
        self._opened.record_run(self._record)

    def _end_killed_runs(self) -> None:
        now = self._timing.clock()
        for run in self._opened.unended_runs():
            if run.is_killed(now, self._record):
                log.warning(
                    "An earlier run was killed: %s, try %s, started %s. Up to %d of its calls may "
                    "have been billed without an answer",
                    " / ".join(filter(None, (run.dag_id, run.task_id, run.run_id))) or run.id,
                    run.try_number,
                    f"{run.started_at:%Y-%m-%d %H:%M}Z",
                    run.as_killed().unknown_calls,
                )
                self._opened.record_run(run.as_killed())


def _end_of(error: BaseException) -> tuple[RunOutcome, str]:
    """Return how a run ended with an error, and the name of the error's class."""
    from airflow_imagetag.adapters.airflow_sdk import AirflowTaskTimeout

    outcome = RunOutcome.FAILED
    if isinstance(error, AirflowTaskTimeout):
        outcome = RunOutcome.TIMED_OUT
    elif isinstance(error, RunInterruptedError) or not isinstance(error, Exception):
        outcome = RunOutcome.INTERRUPTED
    return outcome, type(error).__name__
