"""The store of another package, as the page on adding one shows it, with operator and sensor."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from databases import API, NOON, Database, TaskInstance, add, failed, tagged
from foreign import code_of, install
from modes import MODES, Clock, Task

from airflow_imagetag.errors import ConfigurationError, StoreError
from airflow_imagetag.models import Failure, Image, TagResult
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.selection.rules import Need, Retag, Rule
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import LabelStore, StoreMode
from airflow_imagetag.testing import Emulator
from airflow_imagetag.triggers.imagetag import NewImagesTrigger

WHOLE, BESIDE_IMAGES, TEST = code_of("adding-a-store.md")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the module of the page, with the store in the database of a source."""
    return install(tmp_path, monkeypatch, "sqlite_labels", WHOLE, BESIDE_IMAGES)


@pytest.fixture
def store(package: ModuleType, tmp_path: Path) -> LabelStore:
    """Describe the store."""
    made: LabelStore = package.SqliteFileStore(str(tmp_path / "labels.db"))
    return made


def labelled(store: LabelStore) -> set[str]:
    """Return the keys of the images with labels."""
    return {key for frame in store.labels() for key in frame["image_key"]}


# -- the operator -----------------------------------------------------------------------------


def test_the_operator_labels_each_image_once(
    store: LabelStore, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """A second run pays nothing, a changed image is paid again, and equal bytes are reused."""
    content = small_jpegs(6)
    images = [Image(f"k{n}", content=data, version="1") for n, data in enumerate(content[:5])]
    images[4] = Image("k4", content=b"no picture", version="1")

    def run(*given: Image) -> dict[str, Any]:
        task = ImageTagOperator(
            task_id="label", images=list(given), store=store, max_failure_ratio=1, batch_size=2
        )
        summary = task.execute({"ti": TaskInstance()})
        assert isinstance(summary, dict)
        return summary

    first = run(*images)
    assert (first["tagged"], first["failed"]) == (4, 1)
    assert first["store"] == store.serialize()
    again = run(*images)
    assert (again["tagged"], again["failed"], again["calls"]) == (0, 0, 0)
    images[1] = Image("k1", content=content[5], version="2")
    last = run(*images, Image("copy", content=content[0]))
    assert (last["tagged"], last["reused"], last["calls"]) == (2, 1, 1)
    assert labelled(store) == {"k0", "k1", "k2", "k3", "copy"}


def test_a_map_of_labels_is_applied(
    store: LabelStore, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """Names of the map, beside the service's own."""
    images = [Image("a", content=small_jpegs(1)[0])]
    ImageTagOperator(task_id="plain", images=images, store=store).execute({})
    [before] = store.labels()
    own = before["label"][0]
    ImageTagOperator(
        task_id="mapped", images=images, store=store, retag="always", label_map={own: "renamed"}
    ).execute({})
    [after] = store.labels(originals=True)
    assert (after["label"][0], after["original_label"][0]) == ("renamed", own)


def test_max_images_takes_turns(
    store: LabelStore, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """Each run labels that number of new images, until all are labelled."""
    images = [Image(f"k{n}", content=data) for n, data in enumerate(small_jpegs(12))]
    for expected in (5, 5, 2, 0):
        task = ImageTagOperator(task_id="label", images=images, store=store, max_images=5)
        assert task.execute({})["tagged"] == expected
    assert service.stats.billed == 12
    assert labelled(store) == {image.key for image in images}


def test_labels_that_it_does_not_take_are_in_an_xcom(
    store: LabelStore,
    package: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    service: Emulator,
    small_jpegs: Callable[[int], list[bytes]],
):
    """A store that fails ends the run, and the labels that were paid for are kept."""
    images = [Image(f"k{n}", content=data) for n, data in enumerate(small_jpegs(3))]

    def refuse(self: Any, outcomes: Any) -> None:
        raise StoreError("The disk is full.")

    monkeypatch.setattr(package.OpenFile, "write", refuse)
    task_instance = TaskInstance()
    with pytest.raises(StoreError, match="The disk is full"):
        ImageTagOperator(task_id="label", images=images, store=store).execute({"ti": task_instance})
    assert set(task_instance.xcoms["unsaved"]["image_key"]) <= {image.key for image in images}
    assert len(task_instance.xcoms["unsaved"]) > 0


def test_a_place_that_cannot_be_used_costs_nothing(
    package: ModuleType, tmp_path: Path, service: Emulator
):
    """The task fails before it sends anything."""
    store = package.SqliteFileStore(str(tmp_path / "no folder" / "labels.db"))
    with pytest.raises(ConfigurationError, match="no folder"):
        ImageTagOperator(task_id="label", images=["https://x"], store=store).execute({})
    assert service.stats.requests == 0


def test_its_fields_are_templates_and_its_asset_an_outlet(package: ModuleType, tmp_path: Path):
    """As those of the stores of this package."""
    store = package.SqliteFileStore("{{ folder }}/labels.db")
    task = ImageTagOperator(task_id="label", images=["https://x"], store=store)
    assert task.outlets == []
    rendered = task.render_template(task.store, {"folder": str(tmp_path)})
    assert rendered.path == f"{tmp_path}/labels.db"
    assert store.path == "{{ folder }}/labels.db"
    known = package.SqliteFileStore(f"{tmp_path}/labels.db")
    task = ImageTagOperator(task_id="label", images=["https://x"], store=known)
    assert [outlet.uri for outlet in task.outlets] == [f"file://{tmp_path}/labels.db"]


# -- the sensor -------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_the_sensor_waits_for_new_images(
    mode: str, store: LabelStore, products: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """In each mode it finds the images that the store does not hold in their version."""
    add(products, "a", "b")
    with store.open(API) as opened:
        opened.write([tagged(key, "x", version="v1") for key in "ab"])
    clock.at(100, lambda: add(products, "c"))
    clock.at(200, lambda: add(products, "a", version="v2"))

    def make(**fields: Any) -> NewImagesSensor:
        source = SqlImages("warehouse", table="products", version="version")
        return NewImagesSensor(
            task_id="wait",
            images=source,
            store=store,
            min_images=2,
            poke_interval=60,
            timeout=1000,
            **fields,
        )

    outcome = Task(mode, clock, monkeypatch).run(make)
    assert outcome.kind == "returned", outcome.error
    assert [image["image_key"] for image in outcome.xcom] == ["a", "c"]
    assert 200 <= clock.passed <= 300


def test_a_trigger_makes_the_store_anew(store: LabelStore):
    """The triggerer has only plain values of it."""
    trigger = NewImagesTrigger(images=["https://x"], store=store)
    path, values = trigger.serialize()
    assert values["store"] == {"type": "sqlite_labels.SqliteFileStore", "path": store.path}  # type: ignore[attr-defined]
    assert NewImagesTrigger(**values).serialize() == (path, values)


# -- one database with a source ---------------------------------------------------------------

STATES = [
    None,
    *itertools.product(("tagged", "failed", "waiting"), ("", "v1"), (None, "https://x")),
]
PRESENT = list(itertools.product((None, "v1", "v2"), (None, " ", "https://x")))


def test_its_condition_is_the_rule(package: ModuleType, sqlite: Database):
    """The database selects the images for which ``is_pending`` is true."""
    sqlite.run("CREATE TABLE products (id text PRIMARY KEY, image_url text, changed text)")
    path = str(sqlite.engine.url.database)
    cases = [(f"{n}", *pair) for n, pair in enumerate(itertools.product(STATES, PRESENT))]
    outcomes: list[TagResult | Failure] = []
    for key, stored, (version, uri) in cases:
        sqlite.run(
            "INSERT INTO products VALUES (:key, :uri, :version)",
            {"key": key, "uri": uri, "version": version},
        )
        if stored is not None:
            status, held_version, held_uri = stored
            next_try_at = NOON + timedelta(hours=1) if status == "waiting" else None
            fields: dict[str, Any] = {"version": held_version, "uri": held_uri}
            outcomes.append(
                tagged(key, "x", **fields)
                if status == "tagged"
                else failed(key, final=status == "failed", next_try_at=next_try_at, **fields)
            )
    push_down = SqlImages("warehouse", table="products", version="changed").push_down
    with package.SqliteFileStore(path).open(API) as opened:
        opened.write(outcomes)
    beside = package.OpenBesideImages(path, API)
    states = beside.known([key for key, *_ in cases])
    assert beside.database == push_down.database
    assert beside.condition(Rule(Retag.NEVER)) is None
    for now, need in itertools.product((None, NOON, NOON + timedelta(hours=2)), (None, *Need)):
        rule = Rule(now=now, need=need)
        entries = push_down.entries(beside.condition(rule), shard=None, limit=None)
        assert {entry.key for entry in entries} == {
            key
            for key, _, (version, uri) in cases
            if rule.is_pending(states.get(key), version=version, has_uri=bool((uri or "").strip()))
        }


def test_the_operator_lets_the_database_compare(
    package: ModuleType, sqlite: Database, service: Emulator, small_jpegs: Any
):
    """A source in the same database reads only the rows that are new."""
    sqlite.run("CREATE TABLE photos (id text PRIMARY KEY, jpeg blob)")
    sqlite.run(
        "INSERT INTO photos VALUES (:id, :jpeg)",
        *({"id": f"{n}", "jpeg": data} for n, data in enumerate(small_jpegs(4))),
    )
    asked: list[set[str]] = []

    class Beside(package.SqliteFileStore):  # type: ignore[name-defined, misc]
        @contextmanager
        def open(self, api: str, mode: StoreMode = StoreMode.WRITE) -> Any:
            with super().open(api, mode):
                yield OpenBeside(self.path, api)

    class OpenBeside(package.OpenBesideImages):  # type: ignore[name-defined, misc]
        def known(self, keys: Any) -> Any:
            asked.append(set(keys))
            return super().known(keys)

    def run() -> int:
        asked.clear()
        summary = ImageTagOperator(
            task_id="label",
            images=SqlImages("warehouse", table="photos", content="jpeg"),
            store=Beside(str(sqlite.engine.url.database)),
        ).execute({})
        assert isinstance(summary, dict)
        return int(summary["tagged"])

    assert run() == 4
    assert asked == [{"0", "1", "2", "3"}]
    assert run() == 0
    assert asked == []


# -- the page's own test ----------------------------------------------------------------------


def test_the_test_of_the_page_passes(tmp_path: Path):
    """It passes where the store and this package are installed, without any configuration."""
    (tmp_path / "sqlite_labels.py").write_text(WHOLE)
    (tmp_path / "test_sqlite_labels.py").write_text(TEST)
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_sqlite_labels.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"1 passed", done.stdout)
