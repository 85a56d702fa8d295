"""The store in Delta tables, on a local disk and on S3."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from buckets import Bucket
from databases import API, NOON, failed, gathered, tagged

from airflow_imagetag.backends import delta_places
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.stores import DeltaLabelStore, StoreMode

deltalake = pytest.importorskip("deltalake", reason="the extra delta is not installed")

TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> DeltaLabelStore:
    """Describe a store on either storage."""
    if request.param == "local":
        return DeltaLabelStore(f"{tmp_path}/lake")
    bucket: Bucket = request.getfixturevalue("bucket")
    return DeltaLabelStore(f"s3://aws_default@{bucket.name}/lake")


@pytest.fixture
def local(tmp_path: Path) -> DeltaLabelStore:
    """Describe a store on the local disk."""
    return DeltaLabelStore(f"{tmp_path}/lake")


def write(store: DeltaLabelStore, *outcomes: TagResult | Failure) -> None:
    """Write a batch."""
    with store.open(API) as opened:
        opened.write(outcomes)


def table(store: DeltaLabelStore, name: str, version: int | None = None) -> Any:
    """Open a table as any other program would."""
    place = delta_places.DeltaPlace(store.path, store.conn_id)
    return deltalake.DeltaTable(
        place.table_uri(name), version=version, storage_options=place.options()
    )


def plain(store: DeltaLabelStore, name: str = "labels") -> list[tuple[Any, ...]]:
    """Return key and label of all rows that a reader of the plain table sees, sorted."""
    found = table(store, name).to_pandas()
    columns = ["image_key", "label"] if name == "labels" else ["image_key", "status"]
    return sorted(found[columns].itertuples(index=False, name=None))


def test_readers_of_the_tables_see_what_the_store_gives(local: DeltaLabelStore):
    """After labels were replaced, too: no row is there twice, and none that does not count."""
    store = local
    write(store, tagged("a", "x", "y", version="1"), tagged("b", "z", version="1"), failed("c"))
    write(store, tagged("a", "w", version="2"), failed("b", version="2", final=False))
    write(store, failed("d", final=False))
    write(store, tagged("d", "v"), failed("a", version="3"))
    assert gathered(store.labels()) == plain(store) == [("b", "z"), ("d", "v")]
    assert plain(store, "images") == [
        ("a", "failed"),
        ("b", "waiting"),
        ("c", "failed"),
        ("d", "tagged"),
    ]


def test_other_engines_read_the_tables(local: DeltaLabelStore):
    """DuckDB joins labels and images."""
    duckdb = pytest.importorskip("duckdb")
    write(local, tagged("a", "x", "y"), tagged("b"))
    labels, images = (table(local, name).to_pyarrow_table() for name in ("labels", "images"))
    assert len(labels) == 2
    found = duckdb.sql(
        "SELECT i.image_key, count(l.label) FROM images i LEFT JOIN labels l USING (key_sha256)"
        " GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert found == [("a", 2), ("b", 0)]
    assert len(images) == 2


def test_compacting_keeps_what_counts_in_one_file(store: DeltaLabelStore):
    """And old versions can still be read: the files of a week stay."""
    for number in range(2):
        write(store, tagged(f"k{number}", "x", version="1"), tagged("same", str(number)))
    before, old = gathered(store.labels()), table(store, "labels").version()
    assert len(table(store, "labels").file_uris()) > 1
    store.compact()
    assert len(table(store, "labels").file_uris()) == 1
    assert len(table(store, "images").file_uris()) == 1
    assert gathered(store.labels()) == plain(store) == before
    assert len(table(store, "labels", old).to_pyarrow_table()) == len(before)


def test_an_open_store_answers_after_a_compaction(local: DeltaLabelStore):
    """Its snapshot's files are still there, and those of the new version are read later."""
    write(local, tagged("a", "x", content_sha256="0" * 64), tagged("b", "y"))
    write(local, tagged("c", "z", content_sha256="1" * 64))
    with local.open(API) as opened:
        local.compact()
        assert set(opened.answers(["0" * 64, "1" * 64])) == {"0" * 64, "1" * 64}
        write(local, tagged("d", "w"))
        opened.refresh()
        assert set(opened.known(list("abcde"))) == set("abcd")


# Runs in a process of its own: kills itself in the middle of a batch.
KILLED = """
import os, signal, sys
from databases import API, tagged
from airflow_imagetag.stores import DeltaLabelStore
from airflow_imagetag.stores.delta_dataset import DeltaDataset

path, method, table = sys.argv[1:]
original = getattr(DeltaDataset, method)

def dying(self, found, *rest):
    if found.name == table:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, found, *rest)

setattr(DeltaDataset, method, dying)
with DeltaLabelStore(path).open(API) as opened:
    opened.write([tagged("a", "new", version="2"), tagged("n", "new")])
"""


@pytest.mark.parametrize(
    ("method", "name", "is_written"),
    [("replace", "images", False), ("remove_rows", "labels", True)],
)
def test_a_writer_killed_between_two_commits(
    local: DeltaLabelStore, method: str, name: str, is_written: bool
):
    """A batch counts with its rows of images, and the next run leaves each image once."""
    write(local, tagged("a", "old", version="1"), tagged("b", "old"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, local.path, method, name],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = [("a", "new"), ("n", "new")] if is_written else [("a", "old")]
    assert gathered(local.labels()) == sorted([*kept, ("b", "old")])
    write(local, tagged("a", "newer", version="3"), tagged("n", "newer", version="3"))
    expected = [("a", "newer"), ("b", "old"), ("n", "newer")]
    assert gathered(local.labels()) == expected
    if is_written:
        # The rows that the killed writer had not removed yet go with a compaction.
        local.compact()
    assert plain(local) == expected
    assert plain(local, "images") == [(key, "tagged") for key in "abn"]


def test_leftovers_of_a_day_are_removed(local: DeltaLabelStore):
    """Labels without the rows of their images belong to a writer that was killed."""
    write(local, tagged("a", "x"))
    old = datetime.now(UTC) - timedelta(days=2)
    rows = table(local, "labels").to_pyarrow_table().to_pylist()
    for age, key in ((old, "gone"), (datetime.now(UTC), "writing")):
        row = {**rows[0], "key_sha256": key, "batch": f"{age:%Y%m%dT%H%M%S.%fZ}-0"}
        schema = table(local, "labels").to_pyarrow_table().schema
        import pyarrow as pa

        deltalake.write_deltalake(
            f"{local.path}/labels", pa.Table.from_pylist([row], schema), mode="append"
        )
    assert gathered(local.labels()) == [("a", "x")]
    local.compact()
    keys = set(table(local, "labels").to_pandas()["key_sha256"])
    assert "gone" not in keys
    assert "writing" in keys


def test_writers_of_many_batches_at_once(local: DeltaLabelStore):
    """Each replaces images that all know: a conflict is tried again, and no row is doubled."""
    write(local, *(tagged(f"k{n}", "first", version="0") for n in range(6)))
    barrier = threading.Barrier(3)

    def work(writer: int) -> None:
        with local.open(API) as opened:
            barrier.wait()
            for number in range(2):
                keys = [f"k{2 * writer}", f"k{2 * writer + 1}", f"new-{writer}-{number}"]
                opened.write([tagged(key, f"{writer}", version=f"{number + 1}") for key in keys])

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(work, range(3)))
    expected = [(f"k{n}", str(n // 2)) for n in range(6)]
    expected += [
        (f"new-{writer}-{number}", str(writer)) for writer in range(3) for number in (0, 1)
    ]
    assert gathered(local.labels()) == plain(local) == sorted(expected)
    assert len(plain(local, "images")) == len(expected)


def test_columns_of_the_tables(local: DeltaLabelStore):
    """Times have a zone, and what an image has not is null."""
    write(local, tagged("a", "x"))
    found = table(local, "labels").to_pandas()
    assert found["tagged_at"].tolist() == [pd.Timestamp(NOON)]
    assert found["category"].isna().all()


def test_a_foreign_table_is_named(tmp_path: Path):
    """Nothing is written to a table of something else."""
    import pyarrow as pa

    deltalake.write_deltalake(f"{tmp_path}/images", pa.table({"id": [1]}))
    with pytest.raises(ConfigurationError, match=r"not a table of labels.*folder of its own"):
        write(DeltaLabelStore(str(tmp_path)), tagged("a"))


def test_a_table_with_deletion_vectors_is_refused(local: DeltaLabelStore):
    """Rows that they delete would be read."""
    write(local, tagged("a", "x"))
    table(local, "images").alter.set_table_properties({"delta.enableDeletionVectors": "true"})
    with (
        pytest.raises(ConfigurationError, match="deletionVectors"),
        local.open(API, StoreMode.READ),
    ):
        pass


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("hdfs://host/lake", "does not know hdfs"),
        ("s3://aws_default@no-such-bucket/lake", "bucket"),
    ],
)
def test_a_place_that_cannot_be_used_is_named(path: str, named: str, bucket: Bucket):
    """Before anything is paid for."""
    store = DeltaLabelStore(path)
    with pytest.raises(ConfigurationError, match=named), store.open(API):
        pass


def test_the_missing_extra_is_named(local: DeltaLabelStore, monkeypatch: pytest.MonkeyPatch):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "deltalake", None)
    monkeypatch.setattr(delta_places, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"\[delta\]"), local.open(API):
        pass
