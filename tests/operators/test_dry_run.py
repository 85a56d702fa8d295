"""A dry run sends and writes nothing, and its counts are those of the run; a sample is even."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from databases import Database, TaskInstance, failed, tagged, unlimited

from airflow_imagetag.errors import ConfigurationError, RunInterruptedError, StorageAccessError
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import LabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator

SmallJpegs = Callable[[int], list[bytes]]
API = "picture_classify"


@pytest.fixture(params=["sqlite", "parquet"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LabelStore:
    """Describe a store."""
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    request.getfixturevalue("sqlite")
    return SqlLabelStore("warehouse")


def look(images: Any, store: LabelStore | None = None, **fields: Any) -> dict[str, Any]:
    """Return the result of a dry run."""
    found = ImageTagOperator(
        task_id="label", images=images, store=store, dry_run=True, **fields
    ).execute({"ti": TaskInstance()})
    assert isinstance(found, dict)
    return found


def label(images: Any, store: LabelStore | None = None, **fields: Any) -> dict[str, Any]:
    """Run a task and return its summary."""
    instance = TaskInstance()
    ImageTagOperator(task_id="label", images=images, store=store, **fields).execute(
        {"ti": instance}
    )
    summary: dict[str, Any] = instance.xcoms["summary"]
    return summary


def image(key: str, content: bytes, version: str = "1") -> dict[str, Any]:
    """Return a dict that names an image."""
    return {"image_key": key, "content": content, "version": version}


def test_each_kind_of_image_is_counted(
    store: LabelStore,
    service: Emulator,
    small_jpegs: SmallJpegs,
    monkeypatch: pytest.MonkeyPatch,
):
    """And the run then makes as many calls, for the images of the sample."""
    connection = unlimited(service, price_per_thousand=2.5, requests_per_second=4)
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection)
    content = small_jpegs(8)
    label([image("old", content[0]), image("same", content[1])], store)
    with store.open(API) as opened:
        opened.write(
            [failed("due", final=False, version="1"), tagged("elsewhere", "x", version="1")]
        )
    service.reset_stats()
    images = [
        image("same", content[1]),
        image("old", content[2], version="2"),
        image("due", content[3]),
        *(image(f"new{number}", content[4 + number]) for number in range(3)),
        image("copy", content[4]),
        image("paid", content[0]),
        image("large", content[7] + bytes(11_000_000)),
        {"image_key": "nothing", "image_uri": None},
        {"image_key": "odd", "image_uri": "gopher://x"},
    ]
    found = look(images, store)
    assert service.stats.requests == 0
    wanted: dict[str, Any] = {
        "dry_run": True,
        "new": 7,
        "changed": 1,
        "due": 1,
        "duplicates": 2,
        "too_large": 1,
    }
    wanted |= {"calls": 5, "estimated_cost": 0.0125, "seconds_at_quota": 1.25, "failed": 3}
    wanted |= {"waiting": 0, "gave_up": 0, "store": store.serialize()}
    assert {name: found[name] for name in wanted} == wanted
    assert sorted(found["sample"]) == ["due", "new0", "new1", "new2", "old"]
    assert look(images, store) == found
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", unlimited(service))
    summary = label(images, store, max_failure_ratio=1)
    assert (summary["calls"], summary["reused"], summary["failed"]) == (5, 2, 3)
    assert look(images, store)["calls"] == 0


def test_it_writes_and_announces_nothing(
    store: LabelStore, service: Emulator, small_jpegs: SmallJpegs, tmp_path: Path
):
    """No table and no file, no row of a run; the store's asset is no outlet of the task."""
    task = ImageTagOperator(
        task_id="label", images=[image("a", small_jpegs(1)[0])], store=store, dry_run="True"
    )
    assert [outlet.uri for outlet in task.outlets] == [store.asset.uri]
    before = {path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size}
    task.execute({})
    after = {path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size}
    assert after == before
    assert list(store.runs()) == []
    assert list(task.outlets) == []


def test_images_that_wait_or_were_given_up(store: LabelStore, service: Emulator):
    """They are left alone, and counted; those of another version, and all by wish, are taken."""
    from dataclasses import replace
    from datetime import UTC, datetime, timedelta

    later = datetime.now(UTC) + timedelta(hours=1)
    with store.open(API) as opened:
        opened.write(
            [
                replace(failed("w", final=False, version=""), next_try_at=later),
                replace(failed("g", final=False, version=""), has_given_up=True),
            ]
        )
    images = [{"image_key": key, "image_uri": f"https://shop/{key}.jpg"} for key in "wgn"]
    found = look(images, store)
    assert (found["waiting"], found["gave_up"], found["new"], found["calls"]) == (1, 1, 1, 1)
    changed = look([image | {"version": "v2"} for image in images], store)
    assert (changed["waiting"], changed["gave_up"]) == (0, 0)
    assert (changed["changed"], changed["new"], changed["calls"]) == (2, 1, 3)
    again = look(images, store, only_failed=True)
    assert (again["waiting"], again["gave_up"], again["due"], again["calls"]) == (0, 0, 2, 2)


def test_it_is_bounded_as_the_run_is(store: LabelStore, service: Emulator):
    """By ``max_images``, by a shard, by a sample, and without a store."""
    images = [f"https://shop/{number}.jpg" for number in range(40)]
    assert look(images, store, max_images=7)["calls"] == 7
    assert look(images, store, sample="5")["calls"] == 5
    shards = [look(images, store, shard=f"{index}/2")["calls"] for index in range(2)]
    assert sum(shards) == 40 > max(shards)
    found = look(images)
    assert (found["calls"], found["new"], found["store"]) == (40, 40, None)
    assert service.stats.requests == 0


def test_a_hundred_thousand_rows_take_seconds(
    products: Database,
    monkeypatch: pytest.MonkeyPatch,
    service: Emulator,
    capsys: pytest.CaptureFixture[str],
):
    """No request, and the calls of the run that follows."""
    products.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
        " INSERT INTO products SELECT 'k' || i, 'https://shop.example/' || i || '.jpg', '1' FROM n"
    )
    source = SqlImages("warehouse", table="products", version="version")
    store = SqlLabelStore("warehouse")
    started = time.monotonic()
    found = look(source, store)
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(f"\na dry run over 100,000 rows: {seconds:.1f} s")
    assert (found["calls"], found["new"], service.stats.requests) == (100_000, 100_000, 0)
    assert len(found["sample"]) == 20
    # Three seconds on a machine that does nothing else.
    assert seconds < 20


def test_faults_of_the_worker_end_it(service: Emulator, small_jpegs: SmallJpegs, tmp_path: Path):
    """As they end the run: it would send nothing either."""
    with pytest.raises(ConfigurationError, match="dry_run must be True or False"):
        ImageTagOperator(task_id="label", images=["x"], dry_run="perhaps").execute({})
    with pytest.raises(ConfigurationError, match="max_cost=1 needs the price"):
        look(["https://shop/a.jpg"], max_cost=1)
    images = [{"image_key": str(n), "image_uri": f"s3://nowhere@b/{n}.jpg"} for n in range(30)]
    with pytest.raises(StorageAccessError, match="nowhere"):
        look(images)


def test_it_is_asked_for_by_a_template(service: Emulator):
    """Such as a parameter of the DAG; Airflow's own dry run, which renders, is as it was."""
    task = ImageTagOperator(
        task_id="label", images=["https://shop/a.jpg"], dry_run="{{ params.dry_run }}"
    )
    task.render_template_fields({"params": {"dry_run": True}})
    assert task.execute({})["calls"] == 1
    assert callable(task.dry_run)


def test_it_can_be_ended(service: Emulator):
    """By a kill before it begins, as by one while it looks."""
    task = ImageTagOperator(task_id="label", images=["https://shop/a.jpg"], dry_run=True)
    task.on_kill()
    with pytest.raises(RunInterruptedError, match="Nothing was sent or written"):
        task.execute({})


# -- a sample -----------------------------------------------------------------------------------


def test_a_sample_is_labelled_and_the_rest_stays_new(
    store: LabelStore, service: Emulator, small_jpegs: SmallJpegs
):
    """The images that the dry run has named, and others in the next run."""
    images = [image(f"k{number:03}", content) for number, content in enumerate(small_jpegs(60))]
    named = look(images, store, sample=15)["sample"]
    summary = label(images, store, sample=15)
    assert (summary["tagged"], summary["calls"]) == (15, 15)
    keys = {key for frame in store.labels() for key in frame["image_key"]}
    assert sorted(keys) == sorted(named)
    # Not the first ones.
    assert len([key for key in keys if key >= "k030"]) in range(3, 13)
    assert label(images, store, sample=15)["tagged"] == 15
    assert label(images, store)["tagged"] == 30


def test_a_sample_without_a_store(service: Emulator, small_jpegs: SmallJpegs):
    """Of a list, and no larger than ``max_images`` allows."""
    images = [image(f"k{number}", content) for number, content in enumerate(small_jpegs(20))]
    assert label(images, sample=6)["tagged"] == 6
    assert label(images, sample=6, max_images=4)["tagged"] == 4
    assert service.stats.billed == 10
