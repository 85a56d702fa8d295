"""The runs that a store keeps: written, read back, summed and found when they were killed."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from databases import API, Database

from airflow_imagetag.errors import ConfigurationError, StoreError
from airflow_imagetag.frames import RUN_COLUMNS
from airflow_imagetag.stores import (
    DeltaLabelStore,
    LabelStore,
    ParquetLabelStore,
    RunOutcome,
    RunRecord,
    Spending,
    SpendingScope,
    SqlLabelStore,
    StoreMode,
)

START = datetime(2026, 7, 1, 23, 30, tzinfo=UTC)
NAMES = {"dag_id": "catalogue", "task_id": "label", "run_id": "hourly", "map_index": -1}


@pytest.fixture(params=["postgres", "sqlite", "parquet", "delta"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LabelStore:
    """Describe a store of each kind that keeps runs."""
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    if request.param == "delta":
        pytest.importorskip("deltalake", reason="the extra delta is not installed")
        return DeltaLabelStore(f"{tmp_path}/lake")
    request.getfixturevalue(request.param)
    return SqlLabelStore("warehouse", "product_labels")


def run(number: int, **fields: Any) -> RunRecord:
    """Return the record of a run at its start, each an hour after the last."""
    at = START + timedelta(hours=number)
    return RunRecord(f"{number:032x}", API, at, at, **{**NAMES, "try_number": 1, **fields})


def ended(number: int, **fields: Any) -> RunRecord:
    """Return the record of a run that has ended."""
    record = run(number, **{"outcome": RunOutcome.SUCCESS, **fields})
    end = record.started_at + timedelta(minutes=5)
    return replace(record, updated_at=end, ended_at=end)


def record(store: LabelStore, *runs: RunRecord, api: str = API) -> None:
    """Write records."""
    with store.open(api) as opened:
        for one in runs:
            opened.record_run(one)


def frame_of(store: LabelStore) -> pd.DataFrame:
    """Return all runs."""
    return pd.concat(store.runs())


def test_a_run_is_one_row_from_its_start_to_its_end(store: LabelStore):
    """The row of the start is overwritten, and the columns are those of a frame of runs."""
    first = run(0, price_per_thousand=2.5, shard="0/4")
    record(store, first)
    [frame] = store.runs()
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(RUN_COLUMNS)
    assert frame["outcome"].tolist() == ["running"]
    assert frame["ended_at"].isna().all()
    counts: dict[str, Any] = {
        "seen": 9,
        "calls": 6,
        "billed_calls": 3,
        "refused_calls": 2,
        "unknown_calls": 1,
    }
    end = START + timedelta(minutes=3)
    record(
        store,
        replace(
            first,
            **counts,
            updated_at=end,
            ended_at=end,
            outcome=RunOutcome.FAILED,
            error="OutageError",
        ),
    )
    [row] = frame_of(store).to_dict("records")
    wanted = {**NAMES, **counts, "try_number": 1, "api": API, "shard": "0/4", "started_at": START}
    wanted |= {"ended_at": end, "price_per_thousand": 2.5, "cost": 0.01, "outcome": "failed"}
    wanted |= {"error": "OutageError", "tagged": 0}
    assert {name: row[name] for name in wanted} == wanted


def test_a_run_outside_airflow_has_no_names(store: LabelStore):
    """They are missing, and so are price and cost where no price is known."""
    at = START
    record(store, RunRecord("0" * 32, API, at, at))
    [row] = frame_of(store).to_dict("records")
    missing = ("dag_id", "task_id", "run_id", "map_index", "try_number", "shard", "error")
    assert all(pd.isna(row[name]) for name in (*missing, "price_per_thousand", "cost"))


def test_runs_come_in_the_order_of_their_starts(store: LabelStore):
    """In frames of a bounded size, of all interfaces, in whatever order they were written."""
    record(store, *(ended(number) for number in (3, 1, 4, 0)))
    record(store, replace(ended(2), api="DetectLabel"), api="DetectLabel")
    frames = list(store.runs(frame_rows=2))
    assert [len(frame) for frame in frames] == [2, 2, 1]
    starts = [start for frame in frames for start in frame["started_at"]]
    assert starts == [START + timedelta(hours=number) for number in range(5)]


def test_a_store_without_runs_yields_none(store: LabelStore, tmp_path: Path):
    """Reading the runs of a store that does not exist, or is older, creates nothing."""
    before = set(tmp_path.rglob("*"))
    assert list(store.runs()) == []
    created = set(tmp_path.rglob("*")) - before
    assert not [path for path in created if path.stat().st_size]
    with store.open(API) as opened:
        assert opened.unended_runs() == []
    assert list(store.runs()) == []


def test_runs_without_an_end_are_found(store: LabelStore):
    """Of the same interface only."""
    record(store, run(0), ended(1), run(2))
    record(store, replace(run(3), api="DetectLabel"), api="DetectLabel")
    with store.open(API) as opened:
        assert sorted(one.id for one in opened.unended_runs()) == [run(0).id, run(2).id]
        assert next(one for one in opened.unended_runs() if one.id == run(0).id) == run(0)
    with store.open("DetectLabel") as opened:
        assert [one.started_at for one in opened.unended_runs()] == [run(3).started_at]


def test_spending_sums_what_runs_hold(store: LabelStore):
    """Each at its own price, since a time, and of one task of one DAG run."""
    record(
        store,
        ended(0, held_calls=100, price_per_thousand=2.0),
        ended(1, held_calls=10, price_per_thousand=3.0, map_index=1),
        run(2, held_calls=7, price_per_thousand=3.0, run_id="other"),
        ended(3, held_calls=5),
    )
    record(store, replace(ended(4, held_calls=1000), api="DetectLabel"), api="DetectLabel")
    midnight = datetime(2026, 7, 2, tzinfo=UTC)
    with store.open(API) as opened:
        every = opened.spending(SpendingScope())
        assert every.calls == 122
        assert every.cost == pytest.approx(0.2 + 0.03 + 0.021)
        assert opened.spending(SpendingScope(since=midnight)).calls == 22
        assert opened.spending(SpendingScope(task=run(9))).calls == 115
        assert opened.spending(SpendingScope(since=midnight, task=run(9))).calls == 15
        assert opened.spending(SpendingScope(task=run(9, run_id="no"))) == Spending()
    with store.open(API) as opened:
        opened.record_run(ended(2, held_calls=1))
        assert opened.spending(SpendingScope()).calls == 116


def test_two_open_stores_see_each_others_runs(store: LabelStore):
    """While both are open, and in the sums, too."""
    with store.open(API) as one, store.open(API) as other:
        one.record_run(run(0, held_calls=3))
        assert other.spending(SpendingScope()).calls == 3
        other.record_run(run(1, held_calls=4))
        assert one.spending(SpendingScope()).calls == 7
        one.record_run(ended(0, held_calls=1))
        assert other.spending(SpendingScope()).calls == 5
        assert [found.id for found in other.unended_runs()] == [run(1).id]
        assert list(store.labels()) == []


# -- killed runs ------------------------------------------------------------------------------


def test_an_earlier_try_of_the_same_task_was_killed():
    """At once; another shard, task or run of it may still be at work."""
    current = run(0, try_number=2)
    now = current.started_at
    earlier = replace(run(0), id="1" * 32)
    assert earlier.is_killed(now, current)
    for change in ({"map_index": 3}, {"task_id": "x"}, {"run_id": "x"}, {"shard": "1/2"}):
        assert not replace(earlier, **change).is_killed(now, current)
    assert not replace(earlier, try_number=3).is_killed(now, current)
    assert not replace(earlier, ended_at=now).is_killed(now, current)
    assert not current.is_killed(now + timedelta(days=1), current)
    outside: dict[str, Any] = {"dag_id": None, "task_id": None, "run_id": None, "try_number": None}
    assert not replace(earlier, **outside).is_killed(now, replace(current, **outside))


def test_a_run_that_has_written_nothing_for_long_was_killed():
    """Clocks that differ by minutes, in either direction, kill no run."""
    current = run(0, run_id="later")
    other = replace(run(0), id="1" * 32)
    for minutes, is_killed in ((-60, False), (0, False), (14, False), (15, True), (600, True)):
        now = other.updated_at + timedelta(minutes=minutes)
        assert other.is_killed(now, current) is is_killed


def test_the_calls_of_a_killed_run_may_have_been_billed():
    """Those without an answer, and those that it had set aside."""
    last = START + timedelta(minutes=2)
    killed = replace(
        run(0, price_per_thousand=10.0),
        updated_at=last,
        calls=50,
        billed_calls=30,
        refused_calls=10,
        held_calls=70,
    ).as_killed()
    assert (killed.calls, killed.unknown_calls, killed.held_calls) == (80, 40, 70)
    assert (killed.outcome, killed.ended_at) == (RunOutcome.KILLED, last)
    assert killed.cost == pytest.approx(0.7)


# -- particular stores ------------------------------------------------------------------------


def test_a_dataset_keeps_each_run_once_through_a_compaction(tmp_path: Path):
    """Whatever a process that was killed between two steps left, and runs in progress stay."""
    store = ParquetLabelStore(f"{tmp_path}/lake")
    folder = tmp_path / "lake" / "runs"
    record(store, run(1), *(ended(number, held_calls=2) for number in (0, 2, 3)))
    leftover = next(folder.glob("running-*"))
    kept = leftover.read_bytes()
    record(store, ended(1, held_calls=2), run(4))
    leftover.write_bytes(kept)
    [ended_file, *_] = sorted(folder.glob("run-*"))
    first = ended_file.read_bytes()

    def check() -> None:
        frame = frame_of(store)
        assert frame["outcome"].tolist() == ["success"] * 4 + ["running"]
        with store.open(API) as opened:
            assert opened.spending(SpendingScope()).calls == 8
            assert opened.spending(SpendingScope(since=ended(2).started_at)).calls == 4
            assert [one.id for one in opened.unended_runs()] == [run(4).id]

    check()
    store.compact()
    check()
    ended_file.write_bytes(first)
    check()
    store.compact()
    store.compact()
    check()
    names = sorted(re.sub(r"-.*", "", path.name) for path in folder.iterdir())
    assert names == ["compacted", "running"]
    store.remove()
    assert list(folder.iterdir()) == []


def test_a_run_that_ends_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its first file is gone when it is opened."""
    from airflow_imagetag.stores.files import Files

    store = ParquetLabelStore(f"{tmp_path}/lake")
    record(store, run(0))
    read = Files.read
    changes = [ended(0, held_calls=5)]

    def read_late(self: Files, kind: str, *args: Any) -> Any:
        if changes and kind == "runs":
            record(store, changes.pop())
        return read(self, kind, *args)

    monkeypatch.setattr(Files, "read", read_late)
    assert frame_of(store)["outcome"].tolist() == ["success"]


def test_a_table_of_runs_that_is_dropped_or_of_another_form(sqlite: Database):
    """An error of the store, which names the table."""
    store = SqlLabelStore("warehouse", "labels")
    with store.open(API) as opened:
        opened.record_run(run(0))
        sqlite.run("DROP TABLE labels_runs")
        assert opened.unended_runs() == []
        with pytest.raises(StoreError, match="labels_runs could not be written"):
            opened.record_run(ended(0))
    sqlite.run("CREATE TABLE labels_runs (id integer)")
    with pytest.raises(StoreError, match="labels_runs could not be read"):
        list(store.runs())


def test_upgrade_says_what_it_changed(database: Database):
    """A new store is created, and a second upgrade changes nothing."""
    store = SqlLabelStore("warehouse", "labels")
    changes = store.upgrade()
    assert [text.partition(" table ")[2] for text in changes] == [
        "labels_images.",
        "labels.",
        "labels_runs.",
    ]
    assert store.upgrade() == []
    database.run("ALTER TABLE labels DROP COLUMN original_label")
    database.run("DROP TABLE labels_runs")
    assert store.upgrade() == [
        "Added the column original_label to labels.",
        "Created the table labels_runs.",
    ]
    assert store.upgrade() == []
    with store.open(API, StoreMode.READ) as opened:
        assert opened.unended_runs() == []


def test_a_dataset_needs_no_upgrade(tmp_path: Path):
    """Files of an earlier version are read as they are."""
    assert ParquetLabelStore(f"{tmp_path}/lake").upgrade() == []


def test_a_store_that_keeps_no_runs_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One of another package, written before there were runs."""
    from foreign import code_of, install

    module = install(tmp_path, monkeypatch, "sqlite_labels", code_of("adding-a-store.md")[0])
    store = module.SqliteFileStore(f"{tmp_path}/labels.db")
    with pytest.raises(ConfigurationError, match="SqliteFileStore cannot tell its runs"):
        next(iter(store.runs()))
    assert store.upgrade() == []
    with store.open(API) as opened:
        assert not opened.keeps_runs
        opened.record_run(run(0))
        assert (opened.unended_runs(), opened.spending(SpendingScope())) == ((), Spending())
