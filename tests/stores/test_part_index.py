"""The temporary index of a dataset: which part has the latest word on an image."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from airflow_imagetag.selection.rules import Status, StoredState
from airflow_imagetag.stores.part_index import IndexRow, PartIndex

EARLY, LATE = "2026-07-01T12:00:00.000001+00:00", "2026-07-01T12:00:00.000002+00:00"


@pytest.fixture
def index() -> Iterator[PartIndex]:
    """Make an empty index."""
    made = PartIndex()
    yield made
    made.close()


def row(
    key: str = "a",
    status: str = "tagged",
    at: str = EARLY,
    batch: str = "b1",
    part: str = "p1",
    version: str = "",
    api: str = "api",
    content: str | None = None,
    **life: Any,
) -> IndexRow:
    """Return a row of an images file."""
    return IndexRow(api, key, version, status, True, content, at, batch, part, batch, **life)


def batch_of(index: PartIndex, key: str) -> str | None:
    """Return the batch with the latest row of an image."""
    batches = index.batches("api", key)
    return None if batches is None else batches[0]


def test_a_row_is_found(index: PartIndex):
    """An image is found by its key and its interface."""
    index.put([row("a", version="1"), row("b", status="failed")])
    assert index.stored("api", "a") == StoredState("1", Status.TAGGED, True)
    assert index.stored("api", "b") == StoredState("", Status.FAILED, True)
    assert index.stored("api", "c") is None
    assert index.stored("other", "a") is None
    assert batch_of(index, "a") == "b1"
    assert batch_of(index, "c") is None


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_latest_wins_in_any_order(index: PartIndex, order: tuple[int, int]):
    """Parts may be read in any order."""
    rows = [row(at=EARLY, batch="z"), row(at=LATE, batch="a", version="2")]
    for place in order:
        index.put([rows[place]])
    assert batch_of(index, "a") == "a"
    assert index.stored("api", "a") == StoredState("2", Status.TAGGED, True)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_at_the_same_moment_the_batch_decides(index: PartIndex, order: tuple[int, int]):
    """Every reader chooses the same of two writers."""
    rows = [row(batch="a"), row(batch="b")]
    for place in order:
        index.put([rows[place]])
    assert batch_of(index, "a") == "b"


@pytest.mark.parametrize("open_status", ["waiting", "gave_up", "unfinished"])
@pytest.mark.parametrize("settled", ["tagged", "failed"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("times", [(EARLY, LATE), (LATE, EARLY)])
def test_an_answer_outweighs_a_failure_for_now(
    index: PartIndex,
    settled: str,
    open_status: str,
    order: tuple[int, int],
    times: tuple[str, str],
):
    """In any order of time, and in any order of reading."""
    rows = [row(status=settled, at=times[0]), row(status=open_status, at=times[1], batch="b2")]
    for place in order:
        index.put([rows[place]])
    assert batch_of(index, "a") == "b1"


def test_the_same_row_in_another_part_moves_there(index: PartIndex):
    """After a compaction the new part has the row."""
    index.put([row(content="c", part="old")])
    index.put([row(content="c", part="compacted")])
    assert index.settled_by_content("api", "c") == ("a", "compacted")


def test_content_finds_answers_only(index: PartIndex):
    """An image that was not finished has nothing to give to its copies."""
    index.put([row(content="c", status="unfinished"), row("b", content="d", status="failed")])
    assert index.settled_by_content("api", "c") is None
    assert index.settled_by_content("api", "d") == ("b", "p1")
    assert index.settled_by_content("other", "d") is None
    assert index.settled_by_content("api", "e") is None


def test_several_threads_may_use_it(index: PartIndex):
    """The engine reads in one thread, writes in another and looks up in a third."""

    def work(number: int) -> None:
        for turn in range(50):
            index.put([row(f"{number}-{turn}")])
            assert index.stored("api", f"{number}-{turn}") is not None

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))


def test_a_failed_put_leaves_it_usable(index: PartIndex):
    """A part that breaks off while it is read takes its rows back."""

    def rows() -> Iterator[IndexRow]:
        yield row("a")
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        index.put(rows())
    index.put([row("b")])
    assert index.stored("api", "b") is not None


def test_closing_removes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The index goes with the run."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = PartIndex()
    assert list(tmp_path.iterdir())
    made.close()
    assert not list(tmp_path.iterdir())
