"""Private: the runs of a Parquet dataset, a small file for each; loaded by a running task.

A run in progress has the file ``running-<id>.parquet``, which only it overwrites. At its end it
becomes ``run-<time>-<id>.parquet``, and a compaction gathers those in one file. If two files hold
the same run, which happens between two steps, the one with an end counts.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from airflow_imagetag.errors import StoreError
from airflow_imagetag.frames import RUN_COLUMNS, RUN_COUNTS, frame
from airflow_imagetag.stores.files import Files
from airflow_imagetag.stores.runs import RunRecord, Spending, SpendingScope, spending_of

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

LISTINGS = 10
"""Maximum number of listings of a folder whose files are removed while they are read."""

READ_ROWS = 20_000
"""Maximum number of rows in a piece of a file."""

_RUNNING = "running-"

_ID_LENGTH = len("0" * 32 + ".parquet")

_TIME = pa.timestamp("us", tz="UTC")

RUNS = pa.schema(
    {
        "id": pa.string(),
        "dag_id": pa.string(),
        "task_id": pa.string(),
        "run_id": pa.string(),
        "map_index": pa.int64(),
        "try_number": pa.int64(),
        "api": pa.string(),
        "shard": pa.string(),
        "started_at": _TIME,
        "updated_at": _TIME,
        "ended_at": _TIME,
        **{count: pa.int64() for count in RUN_COUNTS},
        "price_per_thousand": pa.float64(),
        "cost": pa.float64(),
        "held_calls": pa.int64(),
        "outcome": pa.string(),
        "error": pa.string(),
    }
)


class ParquetRuns:
    """The runs of a dataset, all interfaces.

    :param files: the dataset's folder.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._ended: dict[str, list[RunRecord]] = {}
        """The runs in files that never change, by the name of the file."""

    def put(self, run: RunRecord) -> None:
        """Write the file of a run, or overwrite it."""
        table = pa.Table.from_pylist([run.as_row()], RUNS)
        running = f"{_RUNNING}{run.id}.parquet"
        if run.ended_at is None:
            self._files.write("runs", running, table)
            return
        started = run.started_at.astimezone(UTC)
        self._files.write("runs", f"run-{started:%Y%m%dT%H%M%S.%fZ}-{run.id}.parquet", table)
        if running in self._files.names("runs"):
            self._files.remove("runs", running)

    def unended(self, api: str) -> list[RunRecord]:
        """Return the runs of an interface that have no end."""
        found = self._read(_is_running)
        # A process that was killed at the end of its run may have left both files.
        ended = {name[-_ID_LENGTH:] for name in self._files.names("runs") if not _is_running(name)}
        return [run for run in found if run.api == api and f"{run.id}.parquet" not in ended]

    def spending(self, api: str, scope: SpendingScope) -> Spending:
        """Return the calls and the cost of the runs of an interface."""
        since = None if scope.since is None else f"run-{scope.since.astimezone(UTC):%Y%m%dT%H%M%S}"

        def may_count(name: str) -> bool:
            return since is None or not name.startswith("run-") or name >= since

        runs = self._read(may_count)
        return spending_of(run for run in runs if run.api == api and scope.holds(run))

    def frames(self, *, frame_rows: int) -> Iterator[pd.DataFrame]:
        """Yield the runs of all interfaces as frames, in the order of their starts.

        :param frame_rows: number of rows in a frame.
        """
        runs = sorted(self._read(lambda _: True), key=lambda run: (run.started_at, run.id))
        for start in range(0, len(runs), frame_rows):
            rows = [run.as_row() for run in runs[start : start + frame_rows]]
            columns = {name: [row[name] for row in rows] for name in RUN_COLUMNS}
            yield frame(columns, RUN_COLUMNS)

    def compact(self) -> None:
        """Gather the runs that have ended in one file."""
        names = [name for name in self._files.names("runs") if not _is_running(name)]
        if len(names) < 2:
            return
        runs = sorted(
            self._read(lambda name: name in set(names)), key=lambda run: (run.started_at, run.id)
        )
        now = datetime.now(UTC)
        part = f"compacted-{now:%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}.parquet"
        self._files.write("runs", part, pa.Table.from_pylist([r.as_row() for r in runs], RUNS))
        # With the files that a process left that was killed before it removed its own.
        left = {f"{_RUNNING}{run.id}.parquet" for run in runs}
        for name in [*left.intersection(self._files.names("runs")), *names]:
            self._files.remove("runs", name)
        log.info("Compacted %d files of runs into %s", len(names), part)

    def remove(self) -> None:
        """Remove all files of runs."""
        for name in self._files.names("runs"):
            self._files.remove("runs", name)

    def _read(self, is_wanted: Callable[[str], bool]) -> list[RunRecord]:
        """Return the runs in some files, each once.

        :param is_wanted: tells from the name of a file whether it is read.
        :raises StoreError: files are listed and cannot be opened.
        """
        for _ in range(LISTINGS):
            found: dict[str, RunRecord] = {}
            try:
                for name in filter(is_wanted, self._files.names("runs")):
                    for run in self._runs_of(name):
                        held = found.get(run.id)
                        if held is None or held.ended_at is None:
                            found[run.id] = run
            except FileNotFoundError:
                # The run has ended meanwhile, or a compaction has gathered it.
                continue
            return list(found.values())
        raise StoreError(f"{self._files.place} lists runs that do not exist. Try again.")

    def _runs_of(self, name: str) -> list[RunRecord]:
        if name in self._ended:
            return self._ended[name]
        runs: list[RunRecord] = []
        for table in self._files.read("runs", name, RUNS, READ_ROWS):
            rows: list[dict[str, Any]] = table.to_pylist()
            runs += map(RunRecord.from_row, rows)
        if not _is_running(name):
            self._ended[name] = runs
        return runs


def _is_running(name: str) -> bool:
    return name.startswith(_RUNNING)
