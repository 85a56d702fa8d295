"""The sources of another package, as the page on adding one shows them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from buckets import Bucket
from databases import API, Database, TaskInstance, tagged
from foreign import code_of, install
from modes import MODES, Clock, Task

from airflow_imagetag.adapters.descriptions import unpack
from airflow_imagetag.errors import ConfigurationError, StorageError
from airflow_imagetag.models import Entry, Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.selection.shards import parse_shard
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ImageSource, Shard, Trust, Window
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator
from airflow_imagetag.triggers.imagetag import NewImagesTrigger

MANIFEST, ALBUM = code_of("adding-a-source.md")
NAMES = [f"{number}.jpg" for number in range(6)]
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
STORE = SqlLabelStore("warehouse", "photo_labels")


def put(database: Database, *names: str, changed_at: datetime = NOON, album: str = "trip") -> None:
    """Write rows of photographs, or replace them."""
    for name in names:
        database.run("DELETE FROM photo WHERE name = :name", {"name": name})
        database.run(
            "INSERT INTO photo VALUES (:album, :name, :changed_at)",
            {"album": album, "name": name, "changed_at": changed_at.isoformat(timespec="seconds")},
        )


@pytest.fixture
def photos(
    database: Database, tmp_path: Path, small_jpegs: Callable[[int], list[bytes]]
) -> Database:
    """Fill an album: a table with names, and a folder with files."""
    database.run("CREATE TABLE photo (album text, name text, changed_at text)")
    (tmp_path / "photos").mkdir()
    for name, content in zip(NAMES, small_jpegs(len(NAMES)), strict=True):
        (tmp_path / "photos" / name).write_bytes(content)
    put(database, *NAMES)
    put(database, "other.jpg", album="other")
    return database


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the module of the page."""
    return install(tmp_path, monkeypatch, "album_images", ALBUM)


@pytest.fixture
def album(package: ModuleType, tmp_path: Path) -> Any:
    """Describe the album."""
    return package.AlbumImages("warehouse", "trip", str(tmp_path / "photos"))


def run(source: ImageSource, **fields: Any) -> Any:
    """Run the operator over a source and return its result."""
    task = ImageTagOperator(task_id="label", images=source, max_failure_ratio=1, **fields)
    return task.execute({"ti": TaskInstance()})


# -- total ------------------------------------------------------------------------------------


def test_its_total_is_known(
    photos: Database, album: Any, service: Emulator, caplog: pytest.LogCaptureFixture
):
    """The log of a run without a store tells the number of images."""
    with caplog.at_level(logging.INFO, "airflow_imagetag"):
        frame = run(album)
    assert frame["image_key"].nunique() == len(NAMES)
    assert f"Labelling {len(NAMES)} images" in caplog.text


def test_a_total_that_is_too_large_for_an_xcom_costs_nothing(
    photos: Database, album: Any, service: Emulator, monkeypatch: pytest.MonkeyPatch
):
    """The task fails before it sends anything."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__MAX_RESULT_ROWS", "5")
    with pytest.raises(ConfigurationError, match="6 images make more than the 5 labels"):
        run(album)
    assert service.stats.requests == 0


# -- trust ------------------------------------------------------------------------------------


def test_files_in_a_folder_that_it_trusts_are_read(
    photos: Database, album: Any, package: ModuleType, service: Emulator
):
    """Without its word they are data, and data names no file of the worker."""
    assert run(album, store=STORE)["tagged"] == len(NAMES)

    class Distrustful(package.AlbumImages):  # type: ignore[name-defined, misc]
        def trust(self) -> Trust:
            return Trust()

    distrustful = Distrustful(album.conn_id, album.album, album.folder)
    requests = service.stats.requests
    summary = run(distrustful, store=SqlLabelStore("warehouse", "others"))
    assert (summary["tagged"], summary["failed"]) == (0, len(NAMES))
    errors = photos.rows("SELECT DISTINCT error FROM others_images")
    assert errors == [("ImageNotAllowedError",)]
    assert service.stats.requests == requests


def test_a_single_file_that_it_trusts_is_read(
    photos: Database, package: ModuleType, album: Any, service: Emulator
):
    """Its path alone, and no other file of the folder."""

    class OfOneFile(package.AlbumImages):  # type: ignore[name-defined, misc]
        def trust(self) -> Trust:
            return Trust(paths=frozenset({f"{self.folder}/3.jpg"}))

    source = OfOneFile(album.conn_id, album.album, album.folder)
    frame = run(source)
    assert set(frame["image_key"]) == {"3.jpg"}


def test_a_place_that_data_has_named_is_refused_at_once(
    photos: Database,
    package: ModuleType,
    album: Any,
    service: Emulator,
    monkeypatch: pytest.MonkeyPatch,
):
    """The source is told the folders that are allowed, its own among them."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", "/data/photos")
    told: list[str] = []

    class Careful(package.AlbumImages):  # type: ignore[name-defined, misc]
        def check_trusted(self, allowed_folders: Any) -> None:
            told.extend(allowed_folders)
            raise ConfigurationError("The album is not in an allowed folder.")

    with pytest.raises(ConfigurationError, match="not in an allowed folder"):
        run(Careful(album.conn_id, album.album, album.folder))
    assert told == ["/data/photos", album.folder]
    assert service.stats.requests == 0


# -- URLs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("send", ["bytes", "url"])
def test_objects_are_sent_as_it_says(
    send: str,
    photos: Database,
    bucket: Bucket,
    package: ModuleType,
    service: Emulator,
    small_jpegs: Callable[[int], list[bytes]],
):
    """Bytes have a digest in the store, presigned URLs have none."""
    for name, content in zip(NAMES, small_jpegs(len(NAMES)), strict=True):
        bucket.put(f"photos/{name}", content)
    folder = f"s3://aws_default@{bucket.name}/photos"
    assert run(package.AlbumImages("warehouse", "trip", folder, send), store=STORE)["tagged"] == 6
    digests = photos.value("SELECT count(content_sha256) FROM photo_labels_images")
    assert digests == (6 if send == "bytes" else 0)


# -- window -----------------------------------------------------------------------------------


def test_a_window_holds_both_of_its_ends(photos: Database, album: Any):
    """Images that changed in it, and no others."""
    for number, name in enumerate(NAMES):
        put(photos, name, changed_at=NOON + timedelta(hours=number))
    window = Window(NOON + timedelta(hours=1), NOON + timedelta(hours=3))
    assert [image.key for image in album.images(window=window)] == NAMES[1:4]
    assert [image.key for image in album.images()] == NAMES


def test_a_source_without_times_refuses_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The error names the parameters, and the sensor does not wait for ever."""
    (tmp_path / "m.csv").write_text("id,url,changed_at\na,https://x/a.jpg,1\nb,https://x/b.jpg,1\n")
    source = install(tmp_path, monkeypatch, "manifest", MANIFEST).ManifestImages(
        str(tmp_path / "m.csv")
    )
    assert [image.key for image in source.images()] == ["a", "b"]
    sensor = NewImagesSensor(task_id="wait", images=source, modified_after="2026-07-01")
    with pytest.raises(ConfigurationError, match="modified_after and settle_seconds"):
        sensor.execute({})


@pytest.mark.parametrize("mode", MODES)
def test_the_sensor_waits_for_images_that_changed(
    mode: str, photos: Database, album: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """In each mode, with the store in the same database."""
    after = clock.now().replace(microsecond=0) - timedelta(hours=1)
    with STORE.open(API) as opened:
        opened.write([tagged(name, "x", version=NOON.isoformat()) for name in NAMES])
    put(photos, *NAMES, changed_at=after - timedelta(days=1))
    clock.at(100, lambda: put(photos, "3.jpg", changed_at=clock.now()))
    clock.at(200, lambda: put(photos, "new.jpg", changed_at=clock.now()))

    def make(**fields: Any) -> NewImagesSensor:
        return NewImagesSensor(
            task_id="wait",
            images=album,
            store=STORE,
            modified_after=after.isoformat(),
            min_images=2,
            poke_interval=60,
            timeout=1000,
            **fields,
        )

    outcome = Task(mode, clock, monkeypatch).run(make)
    assert outcome.kind == "returned", outcome.error
    assert [image["image_key"] for image in outcome.xcom] == ["3.jpg", "new.jpg"]
    assert 200 <= clock.passed <= 300


# -- push-down --------------------------------------------------------------------------------


@pytest.fixture
def watched(package: ModuleType, album: Any) -> Any:
    """Describe the album by a class that notes the images that it reads."""

    @dataclass(repr=False)
    class Watched(package.AlbumImages):  # type: ignore[name-defined, misc]
        taken: ClassVar[list[str]] = []

        def read(self, *arguments: Any, **options: Any) -> Iterator[Image]:
            for image in super().read(*arguments, **options):
                self.taken.append(image.key)
                yield image

    return Watched(album.conn_id, album.album, album.folder)


def test_only_new_rows_are_read_from_the_database_of_the_store(
    photos: Database, watched: Any, service: Emulator
):
    """A second run reads nothing, and a third one the row that changed."""
    assert run(watched, store=STORE)["tagged"] == len(NAMES)
    for expected in ([], ["2.jpg"]):
        watched.taken.clear()
        if expected:
            put(photos, *expected, changed_at=NOON + timedelta(hours=1))
        assert run(watched, store=STORE)["tagged"] == len(expected)
        assert watched.taken == expected
    assert service.stats.billed == len(NAMES)


def test_another_store_is_asked_for_keys(
    photos: Database, watched: Any, service: Emulator, tmp_path: Path
):
    """The same images are new, but all rows are read."""
    store = ParquetLabelStore(f"{tmp_path}/lake")
    assert run(watched, store=store)["tagged"] == len(NAMES)
    watched.taken.clear()
    assert run(watched, store=store)["tagged"] == 0
    assert watched.taken == NAMES


def test_pages_and_shards(photos: Database, album: Any):
    """Each image is read once, in any number of pages, and belongs to one shard."""
    more = [f"more {number:04}.jpg" for number in range(2500)]
    photos.run(
        "INSERT INTO photo VALUES ('trip', :name, '2026')", *({"name": name} for name in more)
    )
    assert [image.key for image in album.entries()] == [*NAMES, *more]
    parts = [list(album.entries(shard=parse_shard(name))) for name in album.shards(3)]
    assert sorted(image.key for part in parts for image in part) == [*NAMES, *more]


def test_mapped_tasks_share_its_work(photos: Database, album: Any, service: Emulator):
    """Each task labels the images of its shard, which the database compares with the store."""
    counts = [run(album, store=STORE, shard=shard)["tagged"] for shard in album.shards(2)]
    assert sum(counts) == len(NAMES)
    assert service.stats.billed == len(NAMES)


# -- in a DAG ---------------------------------------------------------------------------------


def test_its_fields_are_templates(album: Any):
    """Those that it names, and no others."""
    album.album = "{{ ds }}"
    task = ImageTagOperator(task_id="label", images=album)
    rendered = task.render_template(task.images, {"ds": "2026-07-01"})
    assert rendered.album == "2026-07-01"
    assert album.album == "{{ ds }}"


def test_a_trigger_makes_it_anew(album: Any):
    """The triggerer has only plain values of it."""
    path, values = NewImagesTrigger(images=album, store=STORE).serialize()
    assert json.loads(json.dumps(values)) == values
    assert NewImagesTrigger(**values).serialize() == (path, values)
    assert unpack(values["images"], ImageSource) == album


def test_a_database_that_is_away_is_asked_again(
    tmp_path: Path, package: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    """It may be back for the sensor's next query."""
    fields = {"conn_type": "postgres", "host": str(tmp_path), "login": "x", "schema": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_AWAY", json.dumps(fields))
    with pytest.raises(StorageError, match="'away'"):
        list(package.AlbumImages("away", "trip", "/data").images())


# -- in memory --------------------------------------------------------------------------------


@dataclass(repr=False)
class Numbered(ImageSource):
    """Images with numbers, which cost nothing to read."""

    count_of_images: int
    in_memory: bool
    template_fields: ClassVar[tuple[str, ...]] = ()

    @property
    def is_in_memory(self) -> bool:
        return self.in_memory

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        for number in range(self.count_of_images):
            READ_IN_LOOP.append(_is_in_loop())
            yield Image(f"{number}", content=b"no picture %d" % number)


READ_IN_LOOP: list[bool] = []


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_source_in_memory_is_read_without_a_thread(in_memory: bool, service: Emulator):
    """Of any other, a thread reads the entries."""
    READ_IN_LOOP.clear()
    run(Numbered(3, in_memory))
    assert set(READ_IN_LOOP) == {in_memory}
