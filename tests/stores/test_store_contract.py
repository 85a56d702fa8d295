"""Promises that every store keeps: ours, and the one of another package on the page."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from databases import API, NOON, failed, gathered, labels_named, tagged
from foreign import code_of, install

from airflow_imagetag.adapters.descriptions import unpack
from airflow_imagetag.engine.protocols import Outcome
from airflow_imagetag.frames import LABEL_COLUMNS, label_columns
from airflow_imagetag.models import Failure, Label, TagResult
from airflow_imagetag.stores import (
    DeltaLabelStore,
    LabelStore,
    ParquetLabelStore,
    Retag,
    Rule,
    SqlLabelStore,
    Status,
    StoredState,
    StoreMode,
    UnlabelledCounts,
)

KINDS = (
    "postgres",
    "sqlite",
    "latin1",
    "duckdb_file",
    "snowflake",
    "parquet",
    "delta",
    "foreign",
)


@pytest.fixture(params=KINDS)
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> LabelStore:
    """Describe a store of each kind that does not exist yet."""
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    if request.param == "delta":
        pytest.importorskip("deltalake", reason="the extra delta is not installed")
        return DeltaLabelStore(f"{tmp_path}/lake")
    if request.param == "foreign":
        module = install(tmp_path, monkeypatch, "sqlite_labels", code_of("adding-a-store.md")[0])
        made: LabelStore = module.SqliteFileStore(f"{tmp_path}/labels.db")
        return made
    request.getfixturevalue(request.param)
    return SqlLabelStore("warehouse", "product_labels")


def write(store: LabelStore, *outcomes: TagResult | Failure, api: str = API) -> None:
    """Write a batch."""
    with store.open(api) as opened:
        opened.write(outcomes)


def known(store: LabelStore, *keys: str) -> dict[str, StoredState]:
    """Return the states of images."""
    with store.open(API) as opened:
        return dict(opened.known(keys))


def rows(store: LabelStore) -> list[tuple[str, str]]:
    """Return key and label of all labels, sorted."""
    return gathered(store.labels())


def test_a_batch_is_read_back(store: LabelStore):
    """States of images, and labels in frames with the columns and types of a labels frame."""
    write(
        store,
        tagged("a", "x", "y", version="1"),
        tagged("b", uri=None),
        failed("c"),
        failed("d", final=False),
    )
    assert known(store, "a", "b", "c", "d", "e") == {
        "a": StoredState("1", Status.TAGGED),
        "b": StoredState("", Status.TAGGED, has_uri=False),
        "c": StoredState("", Status.FAILED),
        "d": StoredState("", Status.WAITING, tries=1),
    }
    [frame] = store.labels()
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(LABEL_COLUMNS)
    columns = ["image_key", "image_uri", "label", "probability", "rank", "api"]
    assert frame[columns].values.tolist() == [
        ["a", "https://shop/a.jpg", "x", 0.9, 1, API],
        ["a", "https://shop/a.jpg", "y", 0.8, 2, API],
    ]
    assert frame["tagged_at"].tolist() == [NOON] * 2
    assert frame["category"].isna().all()


def test_frames_are_bounded(store: LabelStore):
    """No frame has many more rows than asked for, and no row is lost."""
    for start in range(0, 30, 10):
        write(store, *(tagged(f"k{start + n:02}", "x", "y", "z") for n in range(10)))
    frames = list(store.labels(frame_rows=10))
    assert len(frames) > 2
    assert pd.concat(frames)["image_key"].nunique() == 30
    assert sum(map(len, frames)) == 90


@pytest.mark.parametrize("mode", list(StoreMode))
def test_a_new_store_is_empty(store: LabelStore, mode: StoreMode, tmp_path: Path):
    """In either mode; read mode creates nothing."""
    before = set(tmp_path.rglob("*"))
    with store.open(API, mode) as opened:
        assert opened.known(["a"]) == {}
        assert opened.answers(["0" * 64]) == {}
        opened.refresh()
        opened.release_connections()
        assert opened.known(["a"]) == {}
    if mode is StoreMode.READ:
        created = set(tmp_path.rglob("*")) - before
        # Opening a database of DuckDB makes its file.
        files = [path for path in created if path.suffix not in (".duckdb", ".wal")]
        assert not [path for path in files if path.stat().st_size]
    assert list(store.labels()) == []


def test_an_open_reader_sees_later_writers(store: LabelStore):
    """A sensor keeps a store open from before it exists."""
    with store.open(API, StoreMode.READ) as opened:
        assert opened.known(["a"]) == {}
        for version in ("1", "2"):
            opened.release_connections()
            write(store, tagged("a", "x", version=version))
            opened.refresh()
            assert opened.known(["a"]) == {"a": StoredState(version, Status.TAGGED)}


def test_a_batch_that_is_written_again_changes_nothing(store: LabelStore):
    """The answer of a write may get lost."""
    batch: list[Outcome] = [tagged("a", "x", "y"), tagged("b")]
    batch += [failed("c"), failed("d", final=False)]
    write(store, *batch)
    before = known(store, *"abcd")
    write(store, *batch)
    assert known(store, *"abcd") == before
    assert rows(store) == [("a", "x"), ("a", "y")]


def test_the_last_outcome_of_a_key_counts(store: LabelStore):
    """In one batch, and of one batch after another."""
    write(store, tagged("a", "x", version="1"), tagged("a", "y", version="2"))
    assert rows(store) == [("a", "y")]
    write(store, tagged("a", "z", "zz", version="3"))
    assert rows(store) == [("a", "z"), ("a", "zz")]
    assert known(store, "a") == {"a": StoredState("3", Status.TAGGED)}


def test_a_final_failure_replaces_labels_and_another_one_does_not(store: LabelStore):
    """A failure that may pass is the state of the new version; the earlier labels stay."""
    write(store, tagged("a", "x", version="1"), tagged("b", "y", version="1"))
    write(store, failed("a", version="2"), failed("b", version="2", final=False))
    assert rows(store) == [("b", "y")]
    assert known(store, "a", "b") == {
        "a": StoredState("2", Status.FAILED),
        "b": StoredState("2", Status.WAITING, tries=1),
    }
    write(store, failed("b", version="2", final=False))
    assert rows(store) == [("b", "y")]
    write(store, tagged("b", "z", version="2"))
    assert rows(store) == [("b", "z")]


def test_an_answer_stays_when_its_version_fails_for_now(store: LabelStore):
    """Another run may have labelled the image meanwhile."""
    write(store, tagged("a", "x", version="1"), failed("b", version="1"))
    write(store, failed("a", version="1", final=False), failed("b", version="1", final=False))
    assert rows(store) == [("a", "x")]
    assert known(store, "a", "b") == {
        "a": StoredState("1", Status.TAGGED),
        "b": StoredState("1", Status.FAILED),
    }


def test_the_next_try_of_an_image_is_kept(store: LabelStore):
    """The number of tries, their times, and that the image was given up."""
    later, latest = NOON + timedelta(hours=1), NOON + timedelta(days=1)
    life: dict[str, Any] = {"tries": 3, "first_failed_at": NOON}
    write(
        store,
        failed("a", final=False, next_try_at=later, **life),
        failed("b", final=False, next_try_at=latest, **life),
        failed("c", final=False, has_given_up=True, **life),
        failed("d"),
        tagged("e", "x"),
    )
    assert known(store, *"abc") == {
        "a": StoredState("", Status.WAITING, True, later, 3, NOON),
        "b": StoredState("", Status.WAITING, True, latest, 3, NOON),
        "c": StoredState("", Status.GAVE_UP, True, None, 3, NOON),
    }
    with store.open(API) as opened:
        assert opened.may_be_due(Rule(now=later))
        assert not opened.may_be_due(Rule(Retag.ALWAYS))
        if opened.unlabelled(NOON) is None:
            # A store need not count.
            return
        assert opened.unlabelled(NOON) == UnlabelledCounts(2, 0, 1, later)
        assert opened.unlabelled(later) == UnlabelledCounts(2, 1, 1, latest)
        assert opened.unlabelled(latest) == UnlabelledCounts(2, 2, 1, None)
    with store.open("picture_classify") as other:
        assert other.unlabelled(latest) == UnlabelledCounts()


def test_a_paid_answer_is_found_although_a_newer_version_fails(store: LabelStore):
    """The labels of the earlier bytes are still there, so equal bytes are not paid again."""
    digest = "a" * 64
    write(store, tagged("a", "x", version="1", content_sha256=digest))
    for _ in range(2):
        write(store, failed("a", version="2", final=False, content_sha256="b" * 64))
        with store.open(API) as opened:
            [answer] = opened.answers([digest, "b" * 64]).values()
        assert isinstance(answer, TagResult)
        assert answer.labels == labels_named("x")
        assert answer.tagged_at == NOON


def test_the_failure_of_another_entry_of_the_same_key_is_not_written(store: LabelStore):
    """It is not the failure of the image."""
    write(store, tagged("a", "x"), failed("a", is_of_image=False))
    write(store, failed("b", is_of_image=False))
    assert known(store, "a", "b") == {"a": StoredState("", Status.TAGGED)}


def test_interfaces_are_kept_apart(store: LabelStore):
    """Each has its own state and answers of an image; the labels are those of all."""
    digest = "0" * 64
    write(store, tagged("a", "x", content_sha256=digest))
    with store.open("picture_classify") as opened:
        assert opened.known(["a"]) == {}
        assert opened.answers([digest]) == {}
        opened.write([failed("a", content_sha256=digest)])
    assert known(store, "a") == {"a": StoredState("", Status.TAGGED)}
    assert rows(store) == [("a", "x")]


def test_answers_are_found_by_the_digest_of_the_bytes(store: LabelStore):
    """Results and final failures, with labels before a failure of equal bytes."""
    digests = [str(digit) * 64 for digit in range(6)]
    write(
        store,
        tagged("a", "x", "y", content_sha256=digests[0]),
        tagged("b", content_sha256=digests[1]),
        failed("c", content_sha256=digests[2]),
        failed("d", final=False, content_sha256=digests[3]),
        tagged("e", "x", content_sha256=digests[4]),
    )
    write(store, failed("f", content_sha256=digests[4]))
    with store.open(API) as opened:
        found = dict(opened.answers(digests))
    assert set(found) == {digests[number] for number in (0, 1, 2, 4)}
    labelled, empty, failure, copy = (found[digests[number]] for number in (0, 1, 2, 4))
    assert isinstance(labelled, TagResult)
    assert (labelled.labels, labelled.api, labelled.tagged_at) == (
        labels_named("x", "y"),
        API,
        NOON,
    )
    assert isinstance(empty, TagResult)
    assert empty.labels == ()
    assert isinstance(failure, Failure)
    assert (failure.error, failure.code) == ("ImageDecodeError", "-1301")
    assert isinstance(copy, TagResult)


def test_renamed_labels_keep_their_original_names(store: LabelStore):
    """Answers carry the service's own names, and frames both where asked."""
    digest = "0" * 64
    labels = (Label("beach", 0.9, "place", "shore", "web", original="沙滩"), Label("sea", 0.8))
    write(store, TagResult("a", None, labels, API, NOON, content_sha256=digest))
    with store.open(API) as opened:
        opened.check_writable(originals=True)
        [answer] = opened.answers([digest]).values()
    assert isinstance(answer, TagResult)
    assert answer.labels == (
        Label("沙滩", 0.9, "place", "shore", "web"),
        Label("sea", 0.8),
    )
    [frame] = store.labels(originals=True)
    assert list(frame.columns) == list(label_columns(originals=True))
    assert frame["label"].tolist() == ["beach", "sea"]
    assert frame["original_label"].tolist()[0] == "沙滩"
    assert frame["original_label"].isna().tolist() == [False, True]
    [plain] = store.labels()
    assert list(plain.columns) == list(LABEL_COLUMNS)


def test_checking_leaves_nothing(store: LabelStore):
    """A store that is checked is still empty."""
    with store.open(API) as opened:
        opened.check_writable()
        assert opened.known(["probe"]) == {}
    assert list(store.labels()) == []


def test_a_thousand_keys_are_looked_up_at_once(store: LabelStore):
    """A look-up names any number of keys, some of them odd."""
    odd = ["it's", 'a "b"', "two\nlines", "50%", "\U0001f600" * 500, " blanks ", "a\\b"]
    write(store, *(tagged(key, "x") for key in [*odd, *(f"k{n}" for n in range(300))]))
    asked = [*odd, *(f"k{n}" for n in range(1000))]
    assert set(known(store, *asked)) == {*odd, *(f"k{n}" for n in range(300))}


def test_three_threads_use_it_at_once(store: LabelStore):
    """One looks keys up, one looks answers up and one writes, as in a run."""
    digests = [f"{number:064}" for number in range(15)]
    done = threading.Event()
    with store.open(API) as opened, ThreadPoolExecutor(2) as threads:

        def look_up(ask: Callable[[], Sized]) -> None:
            while not done.is_set():
                assert len(ask()) <= 15

        keys = [f"k{number}" for number in range(15)]
        questions = (lambda: opened.known(keys), lambda: opened.answers(digests))
        looking = [threads.submit(look_up, ask) for ask in questions]
        try:
            for number, digest in enumerate(digests):
                opened.write([tagged(f"k{number}", "x", content_sha256=digest)])
        finally:
            done.set()
        for future in looking:
            future.result()
        assert [len(ask()) for ask in questions] == [15, 15]


def test_two_writers_of_the_same_images(request: pytest.FixtureRequest, store: LabelStore):
    """Each image has all labels of one of them."""
    if request.node.callspec.params["store"] == "snowflake":
        pytest.skip("fakesnow refuses the second writer, which Snowflake lets wait")
    barrier = threading.Barrier(2, timeout=60)

    def work(writer: int) -> None:
        with store.open(API) as opened:
            for number in range(5):
                barrier.wait()
                names = [f"{writer}-{number}-{rank}" for rank in range(1 + writer)]
                opened.write([tagged(f"k{n}", *names) for n in range(10)])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, range(2)))
    found = rows(store)
    for n in range(10):
        labels = {label for key, label in found if key == f"k{n}"}
        [origin] = {label.rpartition("-")[0] for label in labels}
        assert len(labels) == 1 + int(origin[0])
    assert len(found) == len(set(found))


def test_it_is_described_by_plain_values(store: LabelStore):
    """The description is the same each time, and a trigger makes an equal store of it."""
    shown = store.serialize()
    assert shown == store.serialize() == json.loads(json.dumps(shown))
    packed = json.loads(json.dumps(store.pack()))
    again = unpack(packed, LabelStore)
    assert again == store
    assert again.asset == store.asset
