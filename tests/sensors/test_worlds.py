"""The same world gives the same result in poke, reschedule and deferrable mode."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from impatient import ImpatientStore
from modes import MODES, Clock, Task
from places import PAIRS, BucketPlace, Place, SqlPlace, label, make_pair

from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.stores.base import LabelStore
from airflow_imagetag.watching.events import MAX_EVENT_IMAGES as MOST

SQL_SOURCES = tuple(name for name in PAIRS if not name.startswith("bucket"))
LONG = 400.0

Checked = Callable[[], bool]


@dataclass
class Scene:
    """The parts of a world.

    :param place: where images are.
    :param store: where labels are kept.
    :param clock: the time.
    :param patch: changes that end with the test.
    :param stack: callbacks that run when the task has ended.
    """

    place: Place
    store: LabelStore
    clock: Clock
    patch: pytest.MonkeyPatch
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


@dataclass
class Expected:
    """The outcome of a task in every mode.

    :param names: names of the images that it returns; None if it returns none.
    :param kind: ``returned``, ``skipped`` or the error's class.
    :param message: part of the error's message.
    :param passed: range of the seconds that pass until then.
    :param fields: parameters of the sensor.
    :param values: values of its templates.
    :param source: the source; None for the place's own.
    """

    names: list[str] | None = None
    kind: str = "returned"
    message: str = ""
    passed: tuple[float, float] = (0, 0)
    fields: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    source: Any = None


World = Callable[[Scene], Expected]
WORLDS: list[Any] = []
TIMED_OUT = Expected(kind="AirflowSensorTimeout", message="timed out", passed=(LONG, LONG + 60))


def world(*pairs: str) -> Callable[[World], World]:
    """Try a world with these sources and stores."""

    def keep(make: World) -> World:
        WORLDS.extend(pytest.param(make, pair, id=f"{make.__name__}-{pair}") for pair in pairs)
        return make

    return keep


def names(count: int, first: int = 0) -> list[str]:
    """Return names of images, in their order."""
    return [f"p{number:04}" for number in range(first, first + count)]


@world("sqlite-sql", "sqlite-parquet")
def nothing_at_all(scene: Scene) -> Expected:
    """The source is empty, and the store was never written."""
    return TIMED_OUT


@world(*PAIRS)
def some_new(scene: Scene) -> Expected:
    """Some are labelled and some are not."""
    scene.place.put(*names(5))
    label(scene.place, scene.store, *names(3))
    return Expected(names(2, 3))


@world("sqlite-sql", "sqlite-parquet")
def all_labelled(scene: Scene) -> Expected:
    """Nothing is new, and nothing comes."""
    scene.place.put(*names(5))
    label(scene.place, scene.store, *names(5))
    return TIMED_OUT


@world("sqlite-sql", "bucket-parquet")
def one_comes_later(scene: Scene) -> Expected:
    """Nothing is new at first; then an image is."""
    scene.place.put("a")
    label(scene.place, scene.store, "a")
    scene.clock.at(50, lambda: scene.place.put("b"))
    return Expected(["b"], passed=(60, 60))


@world("postgres-sql", "sqlite-sql", "bucket-sql")
def settling(scene: Scene) -> Expected:
    """Images that were just written are left out until they have settled."""
    scene.place.put("a", "b")
    return Expected(["a", "b"], passed=(60, 60), fields={"settle_seconds": 45})


@world("postgres-sql", "sqlite-parquet")
def settled_and_settling(scene: Scene) -> Expected:
    """Of two images, one is still being written."""
    scene.place.put("old", age=300)
    scene.place.put("young")
    return Expected(["old"], fields={"settle_seconds": "90"})


@world("sqlite-sql", "bucket-sql")
def replaced(scene: Scene) -> Expected:
    """A labelled image was replaced by another one of the same name."""
    scene.place.put("a", "b", "c")
    label(scene.place, scene.store, "a", "b", "c")
    scene.place.put("b", content=1)
    return Expected(["b"])


@world("sqlite-sql")
def replaced_and_never_labelled_again(scene: Scene) -> Expected:
    """It was replaced, and the operator would not label it again."""
    scene.place.put("a", "b")
    label(scene.place, scene.store, "a", "b")
    scene.place.put("b", content=1)
    scene.clock.at(130, lambda: scene.place.put("c"))
    return Expected(["c"], passed=(180, 180), fields={"retag": "never"})


@world("postgres-sql", "bucket-parquet")
def deleted(scene: Scene) -> Expected:
    """Images are gone: one that had labels, and one that had none."""
    scene.place.put("a", "b", "c")
    label(scene.place, scene.store, "a")
    scene.place.delete("a", "b")
    return Expected(["c"])


@world("sqlite-sql")
def deleted_while_it_waits(scene: Scene) -> Expected:
    """An image goes away before there are enough."""
    scene.place.put("a")
    scene.clock.at(70, lambda: scene.place.delete("a"))
    scene.clock.at(130, lambda: scene.place.put("b", "c"))
    return Expected(["b", "c"], passed=(180, 180), fields={"min_images": 2})


@world("postgres-sql", "sqlite-parquet")
def more_than_max_images(scene: Scene) -> Expected:
    """The first are returned and the others left for the next run."""
    scene.place.put(*names(12))
    label(scene.place, scene.store, *names(2))
    return Expected(names(7, 2), fields={"max_images": 7})


@world("sqlite-sql")
def more_than_max_images_later(scene: Scene) -> Expected:
    """They come while the task waits."""
    scene.clock.at(70, lambda: scene.place.put(*names(12)))
    return Expected(names(7), passed=(120, 120), fields={"max_images": "7"})


@world("postgres-sql", "sqlite-parquet", "bucket-sql")
def more_than_an_event_holds(scene: Scene) -> Expected:
    """Many images come while the task waits, and all are returned."""
    scene.clock.at(50, lambda: scene.place.put(*names(MOST + 50)))
    return Expected(names(MOST + 50), passed=(60, 60))


@world("sqlite-sql", "sqlite-parquet")
def more_than_an_event_holds_and_than_max_images(scene: Scene) -> Expected:
    """The first are returned, and others are left."""
    scene.clock.at(70, lambda: scene.place.put(*names(2 * MOST + 60)))
    return Expected(names(MOST + 30), passed=(120, 120), fields={"max_images": MOST + 30})


@world("sqlite-sql")
def as_many_as_an_event_holds(scene: Scene) -> Expected:
    """The last one is not lost."""
    scene.clock.at(70, lambda: scene.place.put(*names(MOST)))
    return Expected(names(MOST), passed=(120, 120), fields={"max_images": MOST})


@world("sqlite-sql", "bucket-parquet")
def too_few_and_then_enough(scene: Scene) -> Expected:
    """The images that came first are returned with those that made it enough."""
    scene.place.put(*names(2))
    scene.clock.at(50, lambda: scene.place.put(*names(2, 2)))
    scene.clock.at(110, lambda: scene.place.put(*names(2, 4)))
    return Expected(names(6), passed=(120, 120), fields={"min_images": "5"})


@world("sqlite-sql")
def more_are_needed_than_may_be_returned(scene: Scene) -> Expected:
    """It waits for four and returns three."""
    scene.place.put(*names(3))
    scene.clock.at(70, lambda: scene.place.put(*names(2, 3)))
    return Expected(names(3), passed=(120, 120), fields={"min_images": 4, "max_images": 3})


@world("postgres-sql", "sqlite-sql", "sqlite-parquet", "bucket-sql")
def labelled_while_it_waits(scene: Scene) -> Expected:
    """The operator makes the store and labels the first images, before there are enough."""
    scene.place.put("a", "b")

    def go_on() -> None:
        label(scene.place, scene.store, "a", "b")
        scene.place.put("c")

    scene.clock.at(50, go_on)
    scene.clock.at(110, lambda: scene.place.put("d", "e"))
    return Expected(["c", "d", "e"], passed=(120, 120), fields={"min_images": 3})


@world("postgres-sql", "sqlite-sql")
def changed_after_a_moment(scene: Scene) -> Expected:
    """Without a store, images that changed since then are new."""
    scene.place.put("old", age=5_000)
    scene.place.put("young", "younger", age=100)
    moment = scene.clock.now() - timedelta(seconds=1_000)
    return Expected(["young", "younger"], fields={"store": None, "modified_after": moment})


@world("bucket-sql")
def objects_changed_after_a_moment(scene: Scene) -> Expected:
    """The storage's own time counts; an object of the same second is included."""
    moment = scene.clock.now()
    scene.place.put("a", "b")
    fields = {"store": None, "modified_after": moment.isoformat()}
    return Expected(["a", "b"], fields=fields)


@world("sqlite-sql")
def nothing_changed_after_a_moment(scene: Scene) -> Expected:
    """All images are older."""
    scene.place.put("a")
    moment = scene.clock.now() + timedelta(seconds=5_000)
    return Expected(
        kind=TIMED_OUT.kind,
        passed=TIMED_OUT.passed,
        fields={"store": None, "modified_after": moment},
    )


@world("postgres-sql", "sqlite-sql")
def changed_after_a_moment_and_not_labelled(scene: Scene) -> Expected:
    """With a store, an image must have changed and have no labels."""
    scene.place.put("a", "b")
    label(scene.place, scene.store, "a")
    moment = scene.clock.now() - timedelta(seconds=1_000)
    return Expected(["b"], fields={"modified_after": moment})


@world("postgres-sql", "bucket-parquet")
def entries_that_are_no_images(scene: Scene) -> Expected:
    """An empty object or a row without a URI is never waited for."""
    scene.place.put_nothing("a")
    scene.place.put_nothing("z")
    scene.clock.at(50, lambda: scene.place.put("m"))
    return Expected(["m"], passed=(60, 60))


@world("postgres-sql", "bucket-sql")
def source_away_for_a_while(scene: Scene) -> Expected:
    """The source cannot be reached at first."""
    scene.place.put("a")
    away = scene.place.away(scene.patch)
    away.__enter__()
    scene.clock.at(50, lambda: away.__exit__(None, None, None))
    return Expected(["a"], passed=(60, 60))


@world("postgres-sql")
def source_away_in_between(scene: Scene) -> Expected:
    """The source cannot be reached for a while, and images come meanwhile."""
    away = scene.place.away(scene.patch)
    scene.clock.at(70, away.__enter__)
    scene.clock.at(190, lambda: scene.place.put("a"))
    scene.clock.at(250, lambda: away.__exit__(None, None, None))
    return Expected(["a"], passed=(300, 300))


@world("postgres-sql")
def source_away_for_good(scene: Scene) -> Expected:
    """The timeout ends the wait."""
    scene.place.away(scene.patch).__enter__()
    return TIMED_OUT


@world("sqlite-sql")
def store_locked_for_a_while(scene: Scene) -> Expected:
    """Another program locks the database of the store for a while."""
    scene.place.put("a")
    label(scene.place, scene.store, "a")
    scene.place.put("b")
    engine = sa.create_engine(f"sqlite:///{database_file()}", poolclass=sa.pool.NullPool)
    connection = engine.raw_connection()
    connection.isolation_level = None  # type: ignore[attr-defined]
    connection.cursor().execute("BEGIN EXCLUSIVE")
    scene.stack.callback(connection.close)
    scene.clock.at(130, connection.rollback)
    store = ImpatientStore("warehouse", busy_seconds=0.02)
    return Expected(["b"], passed=(180, 180), fields={"store": store})


def database_file() -> str:
    """Return the path of the SQLite database."""
    from airflow.providers.common.compat.sdk import BaseHook

    return str(BaseHook.get_connection("warehouse").host)


def misplaced(place: Place) -> Any:
    """Return a source that does not exist."""
    if isinstance(place, BucketPlace):
        return place.source(path="s3://aws_default@there-is-none/photos/")
    return SqlImages("warehouse", table="there_is_none")


@world("postgres-sql", "sqlite-sql", "bucket-sql")
def no_such_source(scene: Scene) -> Expected:
    """The table or bucket does not exist, and the task fails at once."""
    return Expected(
        kind="ConfigurationError", message="there", source=misplaced(scene.place), passed=(0, 0)
    )


@world("postgres-sql", "bucket-parquet")
def source_removed_while_it_waits(scene: Scene) -> Expected:
    """The table is dropped, or the bucket deleted: the task fails at the next query."""
    if isinstance(scene.place, SqlPlace):
        database = scene.place.database
        scene.clock.at(50, lambda: database.run("DROP TABLE products"))
    elif isinstance(scene.place, BucketPlace):
        bucket = scene.place.bucket
        scene.clock.at(50, lambda: bucket.client.delete_bucket(Bucket=bucket.name))
    return Expected(kind="ConfigurationError", passed=(60, 60))


@world("sqlite-sql")
def no_such_source_and_silent_fail(scene: Scene) -> Expected:
    """Airflow's option lets the task wait on after any error."""
    return Expected(
        kind=TIMED_OUT.kind,
        passed=TIMED_OUT.passed,
        source=misplaced(scene.place),
        fields={"silent_fail": True},
    )


@world("sqlite-sql")
def no_such_source_and_silent_fail_until_it_is_made(scene: Scene) -> Expected:
    """The error is corrected while the task waits."""
    if isinstance(scene.place, SqlPlace):
        database = scene.place.database
        database.run("ALTER TABLE products RENAME TO others")
        scene.clock.at(70, lambda: database.run("ALTER TABLE others RENAME TO products"))
        scene.clock.at(130, lambda: scene.place.put("a"))
    elif isinstance(scene.place, BucketPlace):
        bucket = scene.place.bucket
        bucket.client.delete_bucket(Bucket=bucket.name)
        scene.clock.at(70, lambda: bucket.client.create_bucket(Bucket=bucket.name))
        scene.clock.at(130, lambda: scene.place.put("a"))
    return Expected(["a"], passed=(180, 180), fields={"silent_fail": True})


@world("sqlite-sql")
def no_such_source_and_soft_fail(scene: Scene) -> Expected:
    """Only a timeout is soft."""
    return Expected(
        kind="ConfigurationError", source=misplaced(scene.place), fields={"soft_fail": True}
    )


@world("sqlite-sql")
def no_such_source_and_never_fail(scene: Scene) -> Expected:
    """Airflow's option skips the task."""
    return Expected(kind="skipped", source=misplaced(scene.place), fields={"never_fail": True})


@world("postgres-sql")
def source_removed_while_it_waits_and_never_fail(scene: Scene) -> Expected:
    """A later error skips the task, too."""
    assert isinstance(scene.place, SqlPlace)
    database = scene.place.database
    scene.clock.at(70, lambda: database.run("DROP TABLE products"))
    return Expected(kind="skipped", passed=(120, 120), fields={"never_fail": True})


@world("sqlite-parquet")
def soft_fail(scene: Scene) -> Expected:
    """A timeout skips the task."""
    return Expected(kind="skipped", passed=TIMED_OUT.passed, fields={"soft_fail": True})


@world("sqlite-sql")
def no_time_at_all(scene: Scene) -> Expected:
    """With a timeout of zero the sensor queries and does not wait."""
    scene.clock.at(120, lambda: scene.place.put("a"))
    return Expected(kind=TIMED_OUT.kind, passed=(0, 60), fields={"timeout": 0})


@world("sqlite-sql")
def backing_off(scene: Scene) -> Expected:
    """The pauses grow, and the images are found."""
    scene.clock.at(400, lambda: scene.place.put("a"))
    fields = {
        "exponential_backoff": True,
        "max_wait": timedelta(seconds=200),
        "timeout": timedelta(seconds=5_000),
    }
    return Expected(["a"], passed=(400, 700), fields=fields)


@world("sqlite-sql")
def longest_wait_without_backoff(scene: Scene) -> Expected:
    """The longest wait bounds a growing pause only: it does not shorten the interval."""
    scene.clock.at(50, lambda: scene.place.put("a"))
    return Expected(["a"], passed=(60, 60), fields={"max_wait": timedelta(seconds=20)})


@world("postgres-sql", "sqlite-parquet")
def rows_that_share_a_key(scene: Scene) -> Expected:
    """Of a query's rows with one key, the one with the greatest version is an image, once."""
    scene.place.put("a", "b", age=10)
    sql = (
        "SELECT id, image_url, changed FROM products UNION ALL "
        "SELECT id, 'https://shop/older.jpg', NULL FROM products"
    )
    source = SqlImages("warehouse", sql=sql, version="changed")
    return Expected(["a", "b"], source=source)


@world("sqlite-sql", "sqlite-parquet")
def a_list(scene: Scene) -> Expected:
    """Images given as a list, with one of them twice, are compared with the store."""
    scene.place.put("a", "b", "c")
    label(scene.place, scene.store, "b")
    images = [scene.place.image(name) for name in "abca"]
    return Expected(["a", "c"], source=images)


@world("postgres-sql")
def templates(scene: Scene) -> Expected:
    """Fields are rendered before each start, in any mode."""
    scene.place.put("old", age=5_000)
    scene.place.put("a", "b", "c", age=100)
    return Expected(
        ["a", "b"],
        source=scene.place.source(table="{{ table }}"),
        fields={
            "store": SqlLabelStore("warehouse", "{{ labels }}"),
            "modified_after": "{{ data_interval_start }}",
            "min_images": "{{ 1 + 1 }}",
            "max_images": "{{ most }}",
            "settle_seconds": "{{ settle }}",
            "retag": "{{ retag }}",
        },
        values={
            "table": "products",
            "labels": "product_labels",
            "data_interval_start": scene.clock.now() - timedelta(seconds=1_000),
            "most": 2,
            "settle": 30,
            "retag": "changed",
        },
    )


@world("bucket-sql")
def templates_of_a_bucket(scene: Scene) -> Expected:
    """A path and a pattern are templates; the images come while the task waits."""
    assert isinstance(scene.place, BucketPlace)
    scene.clock.at(50, lambda: scene.place.put("a", "b", "c"))
    path = "s3://aws_default@{{ bucket }}/photos/"
    return Expected(
        ["b"],
        passed=(60, 60),
        source=scene.place.source(path=path, pattern="{{ name }}.*"),
        values={"bucket": scene.place.bucket.name, "name": "b"},
    )


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("retag", {"retag": "always"}, "nothing to wait for"),
    ("no_store", {"store": None}, "modified_after="),
    ("moment", {"modified_after": "yesterday"}, "modified_after must be"),
    ("settle", {"settle_seconds": "-1"}, "settle_seconds must be"),
    ("min", {"min_images": "some"}, "min_images must be"),
    ("max", {"max_images": 0}, "max_images must be"),
    ("min_silently", {"min_images": "some", "silent_fail": True}, "min_images must be"),
    ("max_silently", {"max_images": 0, "silent_fail": True}, "max_images must be"),
    ("settle_silently", {"settle_seconds": "-1", "silent_fail": True}, "settle_seconds must be"),
    ("min_and_never_fail", {"min_images": "some", "never_fail": True}, "min_images must be"),
    ("account", {"imagetag_conn_id": "there_is_none"}, "there_is_none"),
]


def wrong_parameter(fields: dict[str, Any], message: str) -> World:
    """Return a world in which a parameter is wrong."""

    def make(scene: Scene) -> Expected:
        scene.place.put("a")
        kind = "UnknownConnectionError" if "imagetag_conn_id" in fields else "ConfigurationError"
        return Expected(kind=kind, message=message, fields=fields)

    return make


WORLDS += [
    pytest.param(wrong_parameter(fields, message), "sqlite-sql", id=f"wrong_{name}")
    for name, fields, message in WRONG
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("make", "pair"), WORLDS)
def test_the_same_world_gives_the_same_result_in_every_mode(
    make: World,
    pair: str,
    mode: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Result, error and time do not depend on the mode in which a task waits."""
    clock = Clock()
    place, store = make_pair(pair, request, tmp_path)
    clock.install(monkeypatch)
    scene = Scene(place, store, clock, monkeypatch)
    with scene.stack:
        expected = make(scene)
        fields: dict[str, Any] = {
            "task_id": "wait",
            "images": place.source() if expected.source is None else expected.source,
            "store": store,
            "poke_interval": 60,
            "timeout": LONG,
        }
        task = Task(mode, clock, monkeypatch, **expected.values)
        outcome = task.run(lambda **mode: NewImagesSensor(**(fields | expected.fields | mode)))
    if outcome.error is not None and outcome.kind != expected.kind:
        raise outcome.error
    assert outcome.kind == expected.kind
    if expected.names is not None:
        assert outcome.xcom == [place.image(name) for name in expected.names]
    else:
        assert outcome.xcom is None
        assert expected.message in str(outcome.error)
    first, last = expected.passed
    assert first <= clock.passed <= last
    assert bool(task.deferrals) <= (mode == "deferrable")
    assert task.deferrals or mode != "deferrable" or not clock.passed
