"""The store in Parquet files, on a local disk and on S3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import Bucket
from databases import API, NOON, failed, gathered, labels_named, tagged

from airflow_imagetag.engine.protocols import Outcome
from airflow_imagetag.errors import ConfigurationError, StoreError
from airflow_imagetag.frames import LABEL_COLUMNS
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.selection.rules import Status, StoredState
from airflow_imagetag.stores import ParquetLabelStore
from airflow_imagetag.stores.files import Files
from airflow_imagetag.stores.parquet_dataset import ParquetDataset, open_dataset
from airflow_imagetag.stores.parquet_open import OpenParquetStore, open_parquet_store
from airflow_imagetag.stores.part_index import PartIndex
from airflow_imagetag.stores.rows import key_digest

TESTS = Path(__file__).resolve().parent.parent


@dataclass
class Folder:
    """A folder for a dataset, on either storage.

    :param path: as the store takes it.
    :param local: the folder on this machine.
    :param bucket: or the bucket.
    :param copies: where copies of a bucket's objects may lie.
    """

    path: str
    local: Path | None
    bucket: Bucket | None
    copies: Path

    @property
    def store(self) -> ParquetLabelStore:
        """The store in it."""
        return ParquetLabelStore(self.path)

    def files(self) -> dict[str, bytes]:
        """Return every file by its path below the folder."""
        if self.local is not None:
            found = (path for path in self.local.rglob("*") if path.is_file())
            return {str(path.relative_to(self.local)): path.read_bytes() for path in found}
        assert self.bucket is not None
        client, name = self.bucket.client, self.bucket.name
        return {
            key.removeprefix("lake/"): client.get_object(Bucket=name, Key=key)["Body"].read()
            for key in self.bucket.all_keys()
        }

    def put(self, name: str, content: bytes) -> None:
        """Write a file."""
        if self.bucket is not None:
            self.bucket.put(f"lake/{name}", content)
            return
        assert self.local is not None
        (self.local / name).parent.mkdir(parents=True, exist_ok=True)
        (self.local / name).write_bytes(content)

    def remove(self, name: str) -> None:
        """Remove a file."""
        if self.bucket is not None:
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key=f"lake/{name}")
        elif self.local is not None:
            (self.local / name).unlink()

    def on_disk(self) -> Path:
        """Return a local folder with the same files, for readers that know no S3 here."""
        if self.local is not None:
            return self.local
        for name, content in self.files().items():
            (self.copies / name).parent.mkdir(parents=True, exist_ok=True)
            (self.copies / name).write_bytes(content)
        return self.copies


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Give an empty folder on each storage."""
    copies = tmp_path / "copies"
    if request.param == "local":
        return Folder(f"file://{tmp_path}/lake", tmp_path / "lake", None, copies)
    bucket: Bucket = request.getfixturevalue("bucket")
    return Folder(f"s3://aws_default@{bucket.name}/lake/", None, bucket, copies)


@pytest.fixture
def local(tmp_path: Path) -> Folder:
    """Give an empty local folder."""
    return Folder(str(tmp_path / "lake"), tmp_path / "lake", None, tmp_path)


def write(folder: Folder, *outcomes: TagResult | Failure) -> None:
    """Write a batch."""
    with folder.store.open(API) as opened:
        opened.write(outcomes)


def known(folder: Folder, *keys: str) -> dict[str, StoredState]:
    """Ask a store."""
    with folder.store.open(API) as opened:
        return dict(opened.known(keys))


def rows(folder: Folder) -> list[tuple[Any, ...]]:
    """Return key and label of all labels, sorted."""
    return gathered(folder.store.labels())


def parts(folder: Folder, kind: str) -> set[str]:
    """Return the names of the files of a kind."""
    return {name for name in folder.files() if name.startswith(kind)}


# -- writing ----------------------------------------------------------------------------------


def test_a_new_store_is_empty_and_makes_nothing(folder: Folder):
    """A folder that is not there is an empty dataset."""
    assert list(folder.store.labels()) == []
    assert known(folder, "a") == {}
    assert folder.files() == {}


def test_a_batch_is_a_file_of_each_kind(folder: Folder):
    """Images and labels get one whole Parquet file each, of the same name."""
    write(folder, tagged("a", "x", "y", version="1"), tagged("b"), failed("c"))
    [images], [labels] = parts(folder, "images/"), parts(folder, "labels/")
    assert images.split("/")[1] == labels.split("/")[1]
    assert len(folder.files()) == 2
    assert rows(folder) == [("a", "x"), ("a", "y")]
    assert known(folder, "a", "b", "c", "d") == {
        "a": StoredState("1", Status.TAGGED),
        "b": StoredState("", Status.TAGGED),
        "c": StoredState("", Status.FAILED),
    }


def test_files_are_never_changed(folder: Folder):
    """A file that another reader has opened or copied stays valid."""
    before: dict[str, bytes] = {}
    for number in range(4):
        write(folder, tagged("a", f"x{number}", minute=number), tagged(f"b{number}", "y"))
        after = folder.files()
        assert len(after) == len(before) + 2
        assert {name: after[name] for name in before} == before
        before = after


def test_writing_twice_shows_once(folder: Folder):
    """A batch that is written again is there once for a reader of the store."""
    batch: list[Outcome] = [tagged("a", "x", "y"), tagged("b")]
    batch += [failed("c"), failed("d", final=False)]
    write(folder, *batch)
    write(folder, *batch)
    assert rows(folder) == [("a", "x"), ("a", "y")]


def test_the_latest_wins(folder: Folder):
    """Of an image labelled again only the new labels are read."""
    write(folder, tagged("a", "x", "y", version="1"), tagged("b", "keeps"))
    write(folder, tagged("a", "new", version="2"))
    assert rows(folder) == [("a", "new"), ("b", "keeps")]
    assert known(folder, "a") == {"a": StoredState("2", Status.TAGGED)}
    write(folder, failed("a", version="3"))
    assert rows(folder) == [("b", "keeps")]
    assert known(folder, "a") == {"a": StoredState("3", Status.FAILED)}


def test_a_failure_for_now_leaves_the_earlier_answer(folder: Folder):
    """Also when the writer does not know the answer, because another one has written it since."""
    with folder.store.open(API) as unaware:
        write(folder, tagged("a", "x", version="1"))
        unaware.write([failed("a", final=False, version="2")])
    assert known(folder, "a") == {"a": StoredState("2", Status.WAITING, tries=1)}
    write(folder, failed("a", final=False, version="3"), failed("b", final=False))
    for _ in range(2):
        assert known(folder, "a", "b") == {
            "a": StoredState("3", Status.WAITING, tries=1),
            "b": StoredState("", Status.WAITING, tries=1),
        }
        assert rows(folder) == [("a", "x")]
        folder.store.compact()
    with folder.store.open(API) as unaware:
        write(folder, tagged("a", "y", version="3"))
        unaware.write([failed("a", final=False, version="3")])
    assert known(folder, "a") == {"a": StoredState("3", Status.TAGGED)}
    assert rows(folder) == [("a", "y")]


def test_the_failure_of_a_second_row_is_not_the_images(folder: Folder):
    """A duplicate of a key leaves the answer that the key has, and alone writes nothing."""
    write(folder, tagged("a", "x"), failed("a", is_of_image=False))
    write(folder, failed("a", is_of_image=False))
    assert known(folder, "a") == {"a": StoredState("", Status.TAGGED)}
    assert len(folder.files()) == 2


@pytest.mark.parametrize(
    "key", ["😀" * 2000, "it's", 'a "b"', "two\nlines", "'; DROP TABLE x; --", "zero\x00byte", "%"]
)
def test_any_text_is_a_key(local: Folder, key: str):
    """It is written, found and read back as it is."""
    write(local, tagged(key, f"label {key}", version=key))
    assert known(local, key) == {key: StoredState(key, Status.TAGGED)}
    assert rows(local) == [(key, f"label {key}")]


def test_labels_come_in_frames(folder: Folder):
    """Frames have a labels frame's columns and types, and the values that were written."""
    for start in range(0, 40, 10):
        write(folder, *(tagged(f"key {start + n}", "x", "y", "z") for n in range(10)))
    frames = list(folder.store.labels(frame_rows=25))
    assert [len(frame) for frame in frames] == [30, 30, 30, 30]
    for frame in frames:
        assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == dict(LABEL_COLUMNS)
    first = frames[0].iloc[0]
    assert (first["rank"], first["label"], first["probability"]) == (1, "x", 0.9)
    assert first["tagged_at"] == NOON


def test_readers_of_the_files_see_what_the_store_gives(folder: Folder):
    """Pandas and DuckDB read the labels as they are, with the same rows and values."""
    import duckdb

    for number in range(5):
        write(folder, *(tagged(f"key {number}-{n}", "x", "y's", "é") for n in range(7)))
    columns = list(LABEL_COLUMNS)
    order = ["image_key", "rank"]
    ours = pd.concat(folder.store.labels()).sort_values(order, ignore_index=True)
    disk = folder.on_disk()
    by_pandas = pd.read_parquet(disk / "labels", columns=columns)
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT {', '.join(columns)} FROM read_parquet('{disk}/labels/*.parquet')"
        )
        by_duckdb = pd.DataFrame(found.fetchall(), columns=columns)
    for frame in (by_pandas, by_duckdb):
        theirs = frame.sort_values(order, ignore_index=True)
        for column, dtype in LABEL_COLUMNS.items():
            assert theirs.astype({column: dtype})[column].equals(ours[column]), column


def test_compacted_files_are_what_the_store_gives(folder: Folder):
    """After a compaction readers of the files see no labels that were replaced."""
    for number in range(3):
        write(folder, tagged("a", f"x{number}", minute=number), tagged(f"b{number}", "y"))
    folder.store.compact()
    frame = pd.read_parquet(folder.on_disk() / "labels")
    assert (
        gathered(iter([frame]))
        == rows(folder)
        == [
            ("a", "x2"),
            ("b0", "y"),
            ("b1", "y"),
            ("b2", "y"),
        ]
    )


# -- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_compacted", [False, True])
def test_answers_by_content(folder: Folder, is_compacted: bool):
    """Equal bytes find the labels that were paid for, in parts of both kinds."""
    digests = [str(digit) * 64 for digit in range(5)]
    write(folder, tagged("a", "old", content_sha256="e" * 64))
    write(
        folder,
        tagged("a", "x", "y", content_sha256=digests[0]),
        tagged("empty", content_sha256=digests[1]),
        failed("b", content_sha256=digests[2]),
        failed("c", final=False, content_sha256=digests[3]),
    )
    write(folder, tagged("copy", "x", "y", content_sha256=digests[0]))
    if is_compacted:
        folder.store.compact()
    with folder.store.open(API) as opened:
        found = dict(opened.answers([*digests, "e" * 64]))
    with folder.store.open("imagetag_detect") as other:
        assert other.answers(digests) == {}
    assert set(found) == set(digests[:3])
    first, empty, failure = (found[digest] for digest in digests[:3])
    assert isinstance(first, TagResult)
    assert isinstance(empty, TagResult)
    assert isinstance(failure, Failure)
    assert first.labels == labels_named("x", "y")
    assert first.tagged_at == NOON
    assert empty.labels == ()
    assert (failure.error, failure.code) == ("ImageDecodeError", "-1301")


def test_an_open_store_answers_after_a_compaction(folder: Folder):
    """A run under way does not pay again because the files it knew are gone."""
    digests = ["1" * 64, "2" * 64]
    for number, digest in enumerate(digests):
        write(folder, tagged(f"key {number}", "x", content_sha256=digest))
    with folder.store.open(API) as opened:
        folder.store.compact()
        assert set(opened.answers(digests)) == set(digests)


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_an_answer_survives_a_compaction_while_it_is_read(folder: Folder, kind: str):
    """The part may be removed before its images or before its labels are read."""
    for number in range(3):
        write(folder, tagged(f"key {number}", "x", content_sha256=f"{number}" * 64))
    compacted: list[str] = []
    compacted_at = kind

    class Compacting(Files):
        is_armed = False

        def read(self, kind: str, name: str, *rest: Any, **options: Any) -> Iterator[pa.Table]:
            if kind == compacted_at and self.is_armed and not compacted:
                compacted.append(name)
                folder.store.compact()
            return super().read(kind, name, *rest, **options)

    files = Compacting(folder.path, None)
    index = PartIndex()
    dataset = ParquetDataset(files, index, abandoned_seconds=60)
    dataset.load()
    files.is_armed = True
    opened = OpenParquetStore(dataset, API, retry_seconds=0, clock=lambda: NOON)
    [answer] = opened.answers(["1" * 64]).values()
    assert compacted
    assert isinstance(answer, TagResult)
    assert answer.labels == labels_named("x")
    index.close()


def test_opening_survives_a_compaction(folder: Folder):
    """Images whose file is removed between listing and reading are not new."""
    for number in range(3):
        write(folder, tagged(f"key {number}", "x"))
    compacted: list[str] = []

    class Compacting(Files):
        def read(self, kind: str, name: str, *rest: Any, **options: Any) -> Iterator[pa.Table]:
            if not compacted:
                compacted.append(name)
                folder.store.compact()
            return super().read(kind, name, *rest, **options)

    index = PartIndex()
    dataset = ParquetDataset(Compacting(folder.path, None), index, abandoned_seconds=60)
    dataset.load()
    assert compacted
    assert all(index.stored(API, key_digest(f"key {number}")) for number in range(3))
    index.close()


def test_reading_while_files_go_is_an_error_and_not_a_loss(folder: Folder):
    """A reader of labels gets all of them or an error during a compaction."""
    for number in range(3):
        write(folder, tagged(f"key {number}", "x"))
    reading = folder.store.labels(frame_rows=1)
    next(reading)
    folder.store.compact()
    with pytest.raises(StoreError, match="compacted while it was read"):
        list(reading)


# -- compaction -------------------------------------------------------------------------------


def test_compacting_keeps_what_counts_in_one_part(folder: Folder):
    """Every image keeps its latest state, and twice is as good as once."""
    for number in range(4):
        write(folder, tagged("a", f"x{number}", version=str(number)), tagged(f"b{number}", "y"))
    write(folder, failed("c"), failed("d", final=False), tagged("e"))
    before, asked = rows(folder), ("a", "b0", "b3", "c", "d", "e")
    held = known(folder, *asked)
    for _ in range(2):
        folder.store.compact()
        assert len(folder.files()) == 2
        assert rows(folder) == before
        assert known(folder, *asked) == held
    write(folder, tagged("b0", "z", version="2"), tagged("d", "done"))
    folder.store.compact()
    assert len(folder.files()) == 2
    kept = [row for row in before if row[0] != "b0"]
    assert rows(folder) == sorted([*kept, ("b0", "z"), ("d", "done")])


def test_an_empty_dataset_is_compacted(folder: Folder):
    """Nothing and a single part stay as they are."""
    folder.store.compact()
    assert folder.files() == {}
    write(folder, tagged("a", "x"))
    before = folder.files()
    folder.store.compact()
    assert folder.files() == before


def test_parts_without_labels_are_compacted(folder: Folder):
    """Also when no image has any."""
    write(folder, tagged("a"))
    write(folder, failed("b"))
    folder.store.compact()
    assert set(known(folder, "a", "b")) == {"a", "b"}
    assert rows(folder) == []


@pytest.mark.parametrize("survivors", ["all", "labels", "images", "first"])
def test_a_compaction_killed_while_it_removes(folder: Folder, survivors: str):
    """Old files that are still there count no more, and the next compaction removes them."""
    for number in range(3):
        write(folder, tagged("a", f"x{number}"), tagged(f"b{number}", "y"))
    before, old = rows(folder), folder.files()
    folder.store.compact()
    back = {
        "all": list(old),
        "labels": [name for name in old if name.startswith("labels")],
        "images": [name for name in old if name.startswith("images")],
        "first": sorted(old)[:1],
    }[survivors]
    for name in back:
        folder.put(name, old[name])
    assert rows(folder) == before
    write(folder, tagged("new", "z"))
    folder.store.compact()
    assert rows(folder) == sorted([*before, ("new", "z")])
    assert len(parts(folder, "images/")) == 1


def test_a_compaction_killed_before_its_images(folder: Folder):
    """Labels without the images that make them count change nothing."""
    for number in range(3):
        write(folder, tagged("a", f"x{number}"), tagged(f"b{number}", "y"))
    before, old = rows(folder), folder.files()
    folder.store.compact()
    [compacted] = parts(folder, "images/")
    folder.remove(compacted)
    for name, content in old.items():
        folder.put(name, content)
    assert rows(folder) == before
    folder.store.compact()
    assert rows(folder) == before


def test_a_writer_between_opening_and_compacting_loses_nothing(folder: Folder):
    """A compaction removes only parts that it has read."""
    write(folder, tagged("a", "x"))
    write(folder, tagged("b", "x"))
    with open_dataset(folder.path, None) as dataset:
        write(folder, tagged("c", "late"), tagged("a", "newer"))
        dataset.compact()
    assert rows(folder) == [("a", "newer"), ("b", "x"), ("c", "late")]
    assert set(known(folder, "a", "b", "c")) == {"a", "b", "c"}


def test_compacting_while_others_write(folder: Folder):
    """Writers go on while the dataset is compacted again and again; every image is there once."""
    done = threading.Event()

    def work(writer: int) -> int:
        number = 0
        with folder.store.open(API) as opened:
            while not done.is_set() and number < 40:
                opened.write([tagged(f"{writer}-{number}", "x"), tagged("all", f"{writer}")])
                number += 1
        return number

    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(work, writer) for writer in range(2)]
        for _ in range(3):
            time.sleep(0.1)
            folder.store.compact()
        done.set()
        counts = [future.result() for future in running]
    assert min(counts) > 0
    found = rows(folder)
    expected = sorted((f"{w}-{n}", "x") for w, count in enumerate(counts) for n in range(count))
    assert [row for row in found if row[0] != "all"] == expected
    assert [row[1] for row in found if row[0] == "all"] in (["0"], ["1"])


# -- killed and failing writers ---------------------------------------------------------------

KILLED_WRITER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from databases import API, tagged
from airflow_imagetag.stores import ParquetLabelStore
from airflow_imagetag.stores.files import Files

def write(self, kind, name, table, original=Files.write):
    if kind == "images":
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, kind, name, table)

Files.write = write
with ParquetLabelStore(sys.argv[2]).open(API) as opened:
    opened.write([tagged("old", "newer", version="2"), tagged("new", "x")])
"""


def test_a_writer_killed_between_the_two_files_leaves_nothing(folder: Folder):
    """Labels without their images are not read, and the batch can be written again."""
    write(folder, tagged("old", "labels", version="1"))
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WRITER, str(TESTS), folder.path],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TMPDIR": str(folder.copies.parent)},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(parts(folder, "labels/")) == 2
    assert rows(folder) == [("old", "labels")]
    assert known(folder, "old", "new") == {"old": StoredState("1", Status.TAGGED)}
    write(folder, tagged("new", "x"))
    assert rows(folder) == [("new", "x"), ("old", "labels")]
    # Readers of the files as they are see the abandoned labels until a compaction, a day later.
    folder.store.compact()
    assert len(parts(folder, "labels/")) == 2
    with open_dataset(folder.path, None, abandoned_seconds=-10) as dataset:
        dataset.compact()
    assert rows(folder) == [("new", "x"), ("old", "labels")]
    assert gathered(iter([pd.read_parquet(folder.on_disk() / "labels")])) == rows(folder)


def test_no_half_file_is_ever_seen(local: Folder):
    """A file under a finished name is a whole Parquet file."""
    labels = [f"label {number} " + "x" * 300 for number in range(200)]
    done = threading.Event()
    seen = set()

    def work() -> None:
        with local.store.open(API) as opened:
            for number in range(12):
                opened.write([tagged(f"{number}-{n}", *labels) for n in range(10)])
        done.set()

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(work)
        while not done.is_set() and not running.done():
            for path in (Path(local.path)).rglob("*.parquet"):
                if path not in seen:
                    pq.read_metadata(path)
                    seen.add(path)
        running.result()
    assert len(list(Path(local.path).rglob("*"))) == 26


def test_an_unfinished_file_is_not_read(local: Folder):
    """The remains of a killed writer's file do not disturb readers."""
    write(local, tagged("a", "x"))
    [name] = parts(local, "images/")
    local.put(f"images/{Path(name).name}.unfinished", b"PAR1 half")
    local.put("labels/_SUCCESS", b"")
    assert rows(local) == [("a", "x")]
    files = sorted((Path(local.path) / "labels").glob("*.parquet"))
    assert gathered(map(pd.read_parquet, files)) == [("a", "x")]


def no_parquet() -> bytes:
    """Return a file of another kind."""
    return b"this is no Parquet"


def another_table() -> bytes:
    """Return a Parquet file with columns of its own."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": [1, 2]}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("make", [no_parquet, another_table])
@pytest.mark.parametrize("name", ["foreign.parquet", "compacted-foreign.parquet"])
def test_a_foreign_file_is_named(folder: Folder, make: Callable[[], bytes], name: str):
    """A folder that holds something else is refused with the name of the file."""
    write(folder, tagged("a", "x"))
    folder.put(f"images/{name}", make())
    with pytest.raises(ConfigurationError, match=rf"images/{name} does not belong to"):
        known(folder, "a")
    folder.remove(f"images/{name}")
    assert set(known(folder, "a")) == {"a"}


def test_a_foreign_file_among_the_labels_is_not_read(folder: Folder):
    """Labels are read where an images file says that they count."""
    write(folder, tagged("a", "x"))
    folder.put("labels/foreign.parquet", no_parquet())
    assert rows(folder) == [("a", "x")]


def test_a_storage_that_fails_is_a_store_error(folder: Folder):
    """A batch is retried for a while; the message names the place and holds no labels."""
    with open_parquet_store(folder.path, None, API, retry_seconds=0.5) as opened:
        if folder.bucket is not None:
            folder.bucket.client.delete_bucket(Bucket=folder.bucket.name)
        else:
            assert folder.local is not None
            folder.local.write_text("a file where the folder should be")
        with pytest.raises(StoreError, match=r"1 images could not be written to .*lake") as caught:
            opened.write([tagged("the key", "the label")])
    assert "the key" not in caught.value.message


def test_a_storage_that_comes_back_gets_the_batch(local: Folder, caplog: pytest.LogCaptureFixture):
    """A batch that was paid for is retried until it is written."""
    assert local.local is not None
    with local.store.open(API) as opened, ThreadPoolExecutor(1) as threads:
        local.local.write_text("a file where the folder should be")
        writing = threads.submit(opened.write, [tagged("a", "x")])
        while "to write a batch failed" not in caplog.text:
            assert not writing.done()
            time.sleep(0.05)
        local.local.unlink()
        writing.result(60)
    assert rows(local) == [("a", "x")]


def test_two_writers_at_once(folder: Folder):
    """They never touch each other's files, and one of them has the last word on an image."""
    barrier = threading.Barrier(2)

    def work(writer: int) -> None:
        with folder.store.open(API) as opened:
            for number in range(8):
                barrier.wait()
                names = [f"{writer}-{number}-{rank}" for rank in range(1 + writer)]
                opened.write([tagged(f"key {n}", *names) for n in range(10)])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(work, range(2)))
    assert len(folder.files()) == 2 * 2 * 8
    found = rows(folder)
    for n in range(10):
        labels = {label for key, label in found if key == f"key {n}"}
        [origin] = {label.rpartition("-")[0] for label in labels}
        assert origin in ("0-7", "1-7")
        assert len(labels) == 1 + int(origin[0])
    assert len(found) == len(set(found))


def test_remove_leaves_what_is_not_its_own(folder: Folder):
    """The dataset goes, and other files of the folder stay."""
    for number in range(3):
        write(folder, tagged(f"key {number}", "x"))
    folder.store.compact()
    write(folder, tagged("more", "x"))
    folder.put("README.txt", b"mine")
    folder.store.remove()
    assert folder.files() == {"README.txt": b"mine"}
    assert rows(folder) == []


@pytest.mark.parametrize(
    ("path", "named"),
    [("s3://nobody@bucket/labels", "nobody"), ("nowhere://bucket/labels", "nowhere")],
)
def test_a_place_that_cannot_be_used_is_named(path: str, named: str):
    """A connection or a storage that is unknown is the configuration's fault."""
    with pytest.raises(ConfigurationError, match=named), ParquetLabelStore(path).open(API):
        pass


def test_a_missing_bucket_is_named(bucket: Bucket):
    """A run does not pay for labels that nothing can take."""
    path = "s3://aws_default@no-such-bucket-anywhere/labels"
    with (
        pytest.raises(ConfigurationError, match="no-such-bucket"),
        ParquetLabelStore(path).open(API),
    ):
        pass


def test_a_part_names_its_time(local: Folder):
    """The names of parts sort by the time of writing, also if the clock goes backwards."""

    def write_at(now: datetime, key: str) -> None:
        with open_parquet_store(local.path, None, API, clock=lambda: now) as opened:
            opened.write([tagged(key, "x")])

    write_at(NOON, "key 0")
    write_at(NOON + timedelta(minutes=1), "key 1")
    write_at(NOON, "key 2")
    times = [Path(name).name.rpartition("-")[0] for name in sorted(parts(local, "images/"))]
    assert times == [
        "part-20260701T120000.123456Z",
        "part-20260701T120100.123456Z",
        "part-20260701T120100.123457Z",
    ]


def test_a_folder_of_any_name(tmp_path: Path, bucket: Bucket):
    """A file URI is decoded, as those of images are, and no two folders are one."""
    names = ("my labels#1", "my labels#2", "my labels", "a%20b", "a b", "a?b")
    for number, name in enumerate(names):
        path = tmp_path / name
        for place in (path.as_uri(), f"s3://aws_default@{bucket.name}/{name}"):
            with ParquetLabelStore(place).open(API) as opened:
                opened.write([tagged(f"key {number}", "x")])
        assert (path / "images").is_dir()
        assert gathered(ParquetLabelStore(str(path)).labels()) == [(f"key {number}", "x")]
    for number, name in enumerate(names):
        store = ParquetLabelStore(f"s3://aws_default@{bucket.name}/{name}")
        assert gathered(store.labels()) == [(f"key {number}", "x")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_folder_whose_name_is_read_as_a_version(bucket: Bucket):
    """The library of S3 would write to another folder."""
    with (
        pytest.raises(ConfigurationError, match="the version of an object"),
        ParquetLabelStore(f"s3://aws_default@{bucket.name}/lake?versionId=1/").open(API),
    ):
        pass
