"""Keys and URIs from the source to the store: exactly as the source has them, on every way.

Each image of these tests has bytes of its own, whose digest a store keeps, so a store tells whether
an image got the answer for another one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket
from databases import Database, TaskInstance
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from properties import SCALE, property_test
from web_servers import Handler, serving

from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.models import Entry, Image
from airflow_imagetag.operators.checkpoint import checkpoint_store
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ImageSource, ObjectStorageImages, Shard, SqlImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.stores.base import LabelStore, StoreMode
from airflow_imagetag.testing import Emulator

EXAMPLES = int(12 * SCALE)
"""Of each of the twelve pairs of a way and a store, with some three keys each: 400 keys in all."""

# What parsers, shells, libraries of storages and collations of databases take for something else.
PIECES = (
    *("a", "A", "b", "1", ".jpg", "#", "?", "&", ";", "%", "%20", "%2F", "%C3%A9", "=", "+", "@"),
    *(" ", "  ", "\t", "\u00a0", "\u3000", "\u00e9", "e\u0301", "\u65e5", "\U0001f600", "\u200b"),
    *("?versionId=1", "?token=1", "&sig=2", "#access_token=3", "*", "[1]", "{b}", "~", "'", '"'),
    *("\\", ":", ",", "!", "$", "|", "<", ">", "^", "`", "..", "user:pw@", "data:,", "None", "nan"),
)
names = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join)
groups = st.lists(
    names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=5, unique=True
)

_numbers = itertools.count()


@dataclass
class World:
    """The places of one test.

    :param folder: of files that data may name.
    :param bucket: of S3.
    :param database: an SQLite file.
    :param jpegs: makes any number of different images.
    """

    folder: Path
    bucket: Bucket
    database: Database
    jpegs: Callable[[int], list[bytes]]

    def fresh(self) -> Path:
        """Return an empty folder."""
        folder = self.folder / f"n{next(_numbers)}"
        folder.mkdir()
        return folder


@pytest.fixture
def world(
    tmp_path: Path,
    bucket: Bucket,
    sqlite: Database,
    small_jpegs: Callable[[int], list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    """Give the places of one test."""
    folder = tmp_path / "photos"
    folder.mkdir()
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS", str(folder))
    return World(folder, bucket, sqlite, small_jpegs)


Found = tuple[Any, dict[str, bytes]]
"""The parameter ``images``, and the bytes of each key that the outputs must have."""


def as_paths(world: World, found: Mapping[str, bytes]) -> Found:
    """Give local paths as texts."""
    folder = world.fresh()
    for name, content in found.items():
        (folder / name).write_bytes(content)
    expected = {f"{folder}/{name}": content for name, content in found.items()}
    return [*expected], expected


def as_dicts(world: World, found: Mapping[str, bytes]) -> Found:
    """Give keys beside bytes."""
    images = [{"image_key": key, "content": content} for key, content in found.items()]
    return images, dict(found)


def as_objects(world: World, found: Mapping[str, bytes]) -> Found:
    """Give a prefix of a bucket."""
    prefix = f"p#{next(_numbers)}?/"
    for name, content in found.items():
        world.bucket.put(f"{prefix}{name}", content)
    place = f"{world.bucket.name}/{prefix}"
    expected = {f"s3://{place}{name}": content for name, content in found.items()}
    return ObjectStorageImages(f"s3://aws_default@{place}", pattern="*"), expected


def as_files(world: World, found: Mapping[str, bytes]) -> Found:
    """Give a folder, as a file URI."""
    folder = world.fresh() / "my #?%41 photos"
    folder.mkdir()
    for name, content in found.items():
        (folder / name).write_bytes(content)
    expected = {f"file://{folder}/{name}": content for name, content in found.items()}
    return ObjectStorageImages(folder.as_uri(), pattern="*"), expected


def as_rows(world: World, found: Mapping[str, bytes]) -> Found:
    """Give rows of a table whose collation calls many keys equal."""
    table = f"photos{next(_numbers)}"
    world.database.run(f"CREATE TABLE {table} (id text COLLATE NOCASE, photo BLOB)")
    world.database.run(
        f"INSERT INTO {table} VALUES (:id, :photo)",
        *({"id": key, "photo": content} for key, content in found.items()),
    )
    return SqlImages("warehouse", table=table, content="photo"), dict(found)


def as_list_of_a_sensor(world: World, found: Mapping[str, bytes]) -> Found:
    """Give the XCom of a sensor over a folder."""
    source, expected = as_files(world, found)
    sensor = NewImagesSensor(
        task_id="wait", images=source, store=ParquetLabelStore(str(world.fresh()))
    )
    return json.loads(json.dumps(sensor.execute({}))), expected


WAYS = (as_paths, as_dicts, as_objects, as_files, as_rows, as_list_of_a_sensor)


def store_of(kind: str, world: World) -> LabelStore:
    """Return an empty store."""
    if kind == "sql":
        return SqlLabelStore("warehouse", f"labels{next(_numbers)}")
    return ParquetLabelStore((world.fresh() / "my #?%41 labels").as_uri())


def stored(store: LabelStore, expected: Mapping[str, bytes]) -> dict[str, str]:
    """Return the keys of the labels in a store; each must have the answer for its own bytes."""
    digests = {hashlib.sha256(content).hexdigest(): key for key, content in expected.items()}
    with store.open("picture_classify", StoreMode.READ) as opened:
        answers = opened.answers(list(digests))
        assert {answers[digest].image_key for digest in digests} == set(expected)
        for digest, key in digests.items():
            assert answers[digest].image_key == key
        assert set(opened.known(list(expected))) == set(expected)
    return {key: "" for frame in store.labels() for key in frame["image_key"]}


def label(images: Any, store: LabelStore | None = None) -> Any:
    """Run a task."""
    task = ImageTagOperator(task_id="label", images=images, store=store, max_failure_ratio=0)
    return task.execute({"ti": TaskInstance()})


few = settings(
    property_test,
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("kind", ["sql", "parquet"])
@pytest.mark.parametrize("way", WAYS)
@few
@given(found=groups)
def test_a_store_has_the_keys_of_the_source(
    world: World, service: Emulator, way: Callable[..., Found], kind: str, found: list[str]
):
    """On every way into both stores, and a second run finds each of them there."""
    contents = dict(zip(found, world.jpegs(len(found)), strict=True))
    images, expected = way(world, contents)
    store = store_of(kind, world)
    assert label(images, store)["tagged"] == len(found)
    assert set(stored(store, expected)) == set(expected)
    assert label(images, store)["calls"] == 0


class LosingTaskInstance(TaskInstance):
    """Loses the connection to Airflow when the result is kept."""

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value, except for the result."""
        if key == "return_value":
            raise ConnectionError("Airflow is away")
        super().xcom_push(key, value)


@few
@given(found=groups)
def test_a_checkpoint_has_the_keys_of_the_source(world: World, service: Emulator, found: list[str]):
    """A second try of the task takes each answer from there, and pays for none."""
    contents = dict(zip(found, world.jpegs(len(found)), strict=True))
    images, expected = as_paths(world, contents)
    with pytest.MonkeyPatch.context() as patch:
        place = (world.fresh() / "my #?%41 checkpoints").as_uri()
        patch.setenv("AIRFLOW__IMAGETAG__CHECKPOINT_PATH", place)
        with suppress(ConnectionError):
            lost = LosingTaskInstance()
            ImageTagOperator(task_id="x", images=images).execute({"ti": lost})
        assert set(stored(checkpoint_store(place, lost), expected)) == set(expected)
        service.reset_stats()
        frame = label(images)
    assert set(frame["image_key"]) == set(expected)
    assert service.stats.billed == 0


@few
@given(found=groups)
def test_values_name_their_images_exactly(world: World, found: list[str]):
    """As texts, dicts, objects and paths, every value is an image of its own."""
    from airflow_imagetag.sources.values import ValueImages

    paths = [f"/d/{name}" for name in found]
    for values in (
        paths,
        [{"image_uri": path} for path in paths],
        [Image(path, path) for path in paths],
        [f"s3://conn@bucket{path}" for path in paths],
    ):
        entries = list(ValueImages(values).entries())
        assert all(isinstance(entry, Image) for entry in entries)
        texts = [value if isinstance(value, str) else paths[n] for n, value in enumerate(values)]
        assert [(entry.key, entry.uri) for entry in entries] == [(text, text) for text in texts]  # type: ignore[union-attr]
        assert [entry.display_uri for entry in entries] == texts  # type: ignore[union-attr]
    assert [entry.key for entry in ValueImages([*map(Path, paths)]).entries()] == [
        str(Path(path)) for path in paths
    ]


# -- names that are too long ------------------------------------------------------------------

LONG_URI = "data:image/png;base64," + "A" * 2_000_000


@pytest.mark.parametrize("kind", ["sql", "parquet"])
def test_a_long_name_is_one_failure_of_a_run(
    world: World, service: Emulator, kind: str, caplog: pytest.LogCaptureFixture
):
    """In a list and in a table: refused at once, shown short everywhere, and the others go on."""
    [content] = world.jpegs(1)
    (world.folder / "a.jpg").write_bytes(content)
    good = f"{world.folder}/a.jpg"
    world.database.run("CREATE TABLE photos (id text, image_url text, version text)")
    rows = [(good, good, "v"), ("long", LONG_URI, "v"), ("k" * 5000, good, "v")]
    rows += [("version", good, "v" * 5000), ("data", "data:,x", "v"), ("path", "/d" * 9000, "v")]
    world.database.run(
        "INSERT INTO photos VALUES (:id, :uri, :version)",
        *({"id": key, "uri": uri, "version": version} for key, uri, version in rows),
    )
    table = SqlImages("warehouse", table="photos", version="version")
    values = [
        {"image_key": key, "image_uri": uri, "version": version} for key, uri, version in rows
    ]
    for images in (table, values):
        store, instance = store_of(kind, world), TaskInstance()
        task = ImageTagOperator(task_id="x", images=images, store=store, max_failure_ratio=1)
        started = time.process_time()
        summary = task.execute({"ti": instance})
        assert time.process_time() - started < 5
        assert (summary["tagged"], summary["failed"]) == (1, 5)
        failures = instance.xcoms["failures"]
        assert set(failures["error"]) == {"InvalidImageError"}
        assert max(len(str(cell)) for row in failures.values.tolist() for cell in row) < 250
        found = [key for frame in store.labels() for key in frame["image_key"]]
        assert set(found) == {good}
        summary = task.execute({"ti": TaskInstance()})
        # A list is checked in every run; the store remembers the rows of a table.
        assert (summary["failed"], summary["calls"]) == (0 if images is table else 5, 0)
        sensor = NewImagesSensor(task_id="wait", images=images, store=store)
        assert sensor.poke({}).xcom_value is None
    assert max(map(len, caplog.messages)) < 1000


class LongNames(ImageSource):
    """A source of another package that checks nothing."""

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Yield images whose key or URI is too long."""
        yield Image("k" * 9000, content=b"x")
        yield Image("k", "https://h/" + "u" * 9000)
        yield Image("v", content=b"x", version="v" * 9000)


def test_a_long_name_of_a_source_of_another_package(world: World, service: Emulator):
    """The labeller refuses it, and the failures show it short."""
    instance = TaskInstance()
    task = ImageTagOperator(task_id="x", images=LongNames(), max_failure_ratio=1)
    task.execute({"ti": instance})
    failures = instance.xcoms["failures"]
    assert set(failures["error"]) == {"InvalidImageError"}
    assert [key[:60] for key in failures["image_key"]] == ["k" * 60, "k", "v"]
    assert max(len(str(cell)) for row in failures.values.tolist() for cell in row) < 250
    assert service.stats.requests == 0


# -- single images ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a#1.png", "a?token=1", "a?&;.png", "a.png ", "e\u0301\t%41"])
def test_the_hook_names_an_image_exactly(world: World, service: Emulator, name: str):
    """By its path and by its object."""
    [content] = world.jpegs(1)
    (world.folder / name).write_bytes(content)
    world.bucket.put(name, content)
    hook = ImageTagHook()
    for uri in (f"{world.folder}/{name}", f"s3://aws_default@{world.bucket.name}/{name}"):
        result = hook.tag(uri)
        assert (result.image_key, result.image_uri) == (uri, uri)


@pytest.mark.parametrize("fetch", ["service", "worker"])
def test_a_url_is_fetched_exactly(
    service: Emulator, world: World, monkeypatch: pytest.MonkeyPatch, fetch: str
):
    """Blanks at the end and fragments make URLs of their own."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_PRIVATE_HOSTS", "127.0.0.1")
    contents = dict(zip(("/a.png", "/a.png%20", "/a.png%23"), world.jpegs(3), strict=True))

    class Images(Handler):
        def answer(self) -> None:
            self.respond(contents[self.path])

    with serving(Images) as server:
        urls = [f"{server}/a.png", f"{server}/a.png ", f"{server}/a.png%23"]
        frame = ImageTagOperator(task_id="x", images=urls, fetch=fetch).execute({})
    assert set(frame["image_key"]) == set(frame["image_uri"]) == set(urls)
