"""Labels kept up to date: any source with any store, killed and restarted, never paid twice."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from buckets import Bucket
from databases import Database, TaskInstance, gathered, unlimited
from forked import Driver, Task
from web_servers import Handler, serving

from airflow_imagetag.engine.flow.retry_policy import RetryPolicy
from airflow_imagetag.engine.settings import EngineTuning
from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.options import RunTuning
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import DeltaLabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator, Faults

DRIVER = Path(__file__).resolve().parent / "label_driver.py"
MAX_IN_FLIGHT = 8


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Start the process that forks tasks."""
    running = Driver(DRIVER, tmp_path_factory.mktemp("tasks"))
    yield running
    running.end()


@dataclass
class Setup:
    """A source that can be changed, and a store.

    :param source: where images are.
    :param store: where labels are kept.
    :param put: writes an image under a key.
    :param environment: the connections, for other processes.
    :param batch_size: for a run that is ended.
    """

    source: Any
    store: Any
    put: Callable[[dict[str, bytes]], None]
    environment: dict[str, str] = field(default_factory=dict)
    batch_size: int = 20

    def run(
        self, operator: type[ImageTagOperator] = ImageTagOperator, **parameters: Any
    ) -> dict[str, Any]:
        """Run the operator here and return its summary."""
        task = operator(task_id="label", images=self.source, store=self.store, **parameters)
        summary = task.execute({})
        assert isinstance(summary, dict)
        return summary

    def start(self, driver: Driver, service: Emulator, **fields: Any) -> Task:
        """Run the operator in a process of its own."""
        job = {"source": self.source.serialize(), "store": self.store.serialize(), **fields}
        connections = {"AIRFLOW_CONN_IMAGETAG_DEFAULT": unlimited(service)}
        return driver.start(job, {**connections, **self.environment})

    def labelled(self) -> Counter[str]:
        """Return how often the store has each image's most probable label."""
        frames = list(self.store.labels())
        return Counter(
            key.rpartition("/")[2].removesuffix(".jpg")
            for frame in frames
            for key, rank in zip(frame["image_key"], frame["rank"], strict=True)
            if rank == 1
        )


def sql_source(database: Database) -> tuple[SqlImages, Callable[[dict[str, bytes]], None]]:
    """Make a table of images, and a way to write into it."""
    binary = "bytea" if database.is_postgres else "BLOB"
    database.run(f"CREATE TABLE photos (id varchar(40) PRIMARY KEY, photo {binary}, version text)")

    def put(images: dict[str, bytes]) -> None:
        database.run(
            "INSERT INTO photos VALUES (:id, :photo, :version)"
            " ON CONFLICT (id) DO UPDATE SET photo = excluded.photo, version = excluded.version",
            *(
                {"id": key, "photo": data, "version": str(time.time_ns())}
                for key, data in images.items()
            ),
        )

    return SqlImages("warehouse", table="photos", content="photo", version="version"), put


@pytest.fixture(params=["sql-sql", "sql-parquet", "s3-sql", "s3-parquet"])
def crossing(request: pytest.FixtureRequest, postgres: Database, bucket: Bucket) -> Setup:
    """Give every crossing of source and store."""
    kind, _, store_kind = request.param.partition("-")
    store: Any = SqlLabelStore("warehouse", "photo_labels")
    if store_kind == "parquet":
        store = ParquetLabelStore(f"s3://aws_default@{bucket.name}/labels/")
    if kind == "sql":
        return Setup(*reordered(sql_source(postgres), store))

    def put(images: dict[str, bytes]) -> None:
        for key, data in images.items():
            bucket.put(f"photos/{key}.jpg", data)

    return Setup(ObjectStorageImages(f"s3://aws_default@{bucket.name}/photos/"), store, put)


def reordered(source: tuple[Any, Any], store: Any) -> tuple[Any, Any, Any]:
    """Return source, store and the way to write."""
    return source[0], store, source[1]


# -- from run to run --------------------------------------------------------------------------


def test_each_run_pays_for_what_is_new(
    crossing: Setup, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """All, none, changed and new images: each is paid once, in every crossing."""
    images = small_jpegs(60)
    crossing.put({f"k{n:02}": images[n] for n in range(40)})

    def calls(**fields: Any) -> int:
        service.reset_stats()
        crossing.run(**fields)
        return service.stats.requests

    assert calls(batch_size=7) == 40
    assert calls() == 0
    crossing.put({"k03": images[40], "k17": images[41], "k39": images[42]})
    assert calls(retag="never") == 0
    assert calls() == 3
    assert calls() == 0
    crossing.put({f"k{n:02}": images[n + 3] for n in range(40, 45)})
    assert calls(max_images=2) == 2
    assert calls(max_images="2") == 2
    assert calls(max_images=2) == 1
    assert calls() == 0
    # A new version with the bytes that were paid for before costs nothing.
    crossing.put({"k05": images[6]})
    assert calls() == 0
    assert calls(retag="always") == 44
    assert crossing.labelled() == {f"k{n:02}": 1 for n in range(45)}


def test_failures_are_remembered(
    crossing: Setup, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """An image at fault is sent again when its version changes or the user asks for it."""
    images = {f"k{n}": data for n, data in enumerate(small_jpegs(9))}
    crossing.put(images | {"bad": b"no picture", "worse": b"no picture either"})

    def run(**fields: Any) -> tuple[int, int, int]:
        service.reset_stats()
        summary = crossing.run(max_failure_ratio=1, **fields)
        return summary["tagged"], summary["failed"], service.stats.requests

    assert run() == (9, 2, 11)
    assert run() == (0, 0, 0)
    assert run(retry_failed=True) == (0, 2, 2)
    crossing.put({"bad": small_jpegs(10)[9]})
    assert run() == (1, 0, 1)
    assert run(retry_failed="True") == (0, 1, 1)
    assert crossing.labelled() == dict.fromkeys([*images, "bad"], 1)


def test_an_outage_is_made_up_for(
    crossing: Setup,
    service: Emulator,
    small_jpegs: Callable[[int], list[bytes]],
):
    """Images that failed by the service's fault wait, and are labelled when they are due."""

    class Quick(ImageTagOperator):
        def _tuning(self) -> RunTuning:
            return RunTuning(engine={"retry": RetryPolicy(max_attempts=2, first_wait_seconds=0.01)})

    crossing.put({f"k{n}": data for n, data in enumerate(small_jpegs(30))})
    service.faults = Faults(error_rates={503: 0.5})
    with pytest.raises(ImageTagError):
        crossing.run(Quick, max_failure_ratio=0)
    assert 0 < service.stats.billed < 30
    service.faults = Faults()
    summary = crossing.run()
    assert (summary["new"], summary["calls"]) == (0, 0)
    waiting = summary["waiting"]
    assert service.stats.billed == 30 - waiting
    summary = crossing.run(only_failed=True)
    assert (summary["due"], summary["failed"], summary["waiting"]) == (waiting, 0, 0)
    assert service.stats.billed == 30
    assert crossing.labelled() == dict.fromkeys((f"k{n}" for n in range(30)), 1)


def test_copies_are_paid_once(
    bucket: Bucket,
    postgres: Database,
    service: Emulator,
    small_jpegs: Callable[[int], list[bytes]],
    capsys: pytest.CaptureFixture[str],
):
    """Of 400 objects 80 are copies of others: 320 calls, in one run or in two."""
    images = small_jpegs(320)
    chance = random.Random(7)
    contents = images + [chance.choice(images) for _ in range(80)]
    chance.shuffle(contents)
    bucket.put_many((f"photos/{n:04}.jpg", data) for n, data in enumerate(contents))
    source = ObjectStorageImages(f"s3://aws_default@{bucket.name}/photos/")
    store = SqlLabelStore("warehouse", "photo_labels")
    setup = Setup(source, store, lambda images: None)
    summaries = [setup.run(max_images=limit) for limit in (160, None)]
    assert [summary["tagged"] for summary in summaries] == [160, 240]
    assert sum(summary["reused"] for summary in summaries) == 80
    with capsys.disabled():
        print(f"\n400 objects, 80 copies: {service.stats.billed} billed calls")
    assert service.stats.billed == 320
    assert setup.labelled().total() == 400


def test_copies_are_paid_once_however_far_apart(
    crossing: Setup,
    service: Emulator,
    small_jpegs: Callable[[int], list[bytes]],
):
    """A run looks up the answers that it has written, and remembers those that it has not."""

    class Forgetful(ImageTagOperator):
        def _tuning(self) -> RunTuning:
            return RunTuning(engine={"tuning": EngineTuning(min_remembered=1)})

    images = small_jpegs(60)
    crossing.put({f"k{n:03}": image for n, image in enumerate([*images, *images])})
    summary = crossing.run(Forgetful, batch_size=5, max_in_flight=4)
    assert (summary["tagged"], summary["reused"]) == (120, 60)
    assert service.stats.billed == 60
    assert crossing.labelled() == {f"k{n:03}": 1 for n in range(120)}


# -- several processes ------------------------------------------------------------------------


@pytest.fixture(params=["postgres", "sqlite", "parquet"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Setup:
    """Give a table of images and a store that several processes use."""
    kind = "sqlite" if request.param == "sqlite" else "postgres"
    database: Database = request.getfixturevalue(kind)
    source, put = sql_source(database)
    store: Any = SqlLabelStore("warehouse", "photo_labels")
    if request.param == "parquet":
        store = ParquetLabelStore(str(tmp_path / "lake"))
    return Setup(source, store, put, {"AIRFLOW_CONN_WAREHOUSE": database.connection_json})


def test_many_processes_write_one_store(
    place: Setup, driver: Driver, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """Eight with a shard each and one more with the same as another: no error, no row twice."""
    service.faults = Faults(latency_seconds=0.01)
    images = small_jpegs(200)
    place.put({f"k{n:03}": data for n, data in enumerate(images)})
    shards = [*(f"{n}/8" for n in range(8)), "0/8"]
    started = [place.start(driver, service, shard=shard, batch_size=5) for shard in shards]
    summaries = [task.summary() for task in started]
    assert place.labelled() == {f"k{n:03}": 1 for n in range(200)}
    rows = gathered(place.store.labels())
    assert len(rows) == len(set(rows))
    assert sum(summary["tagged"] for summary in summaries[:8]) >= 150
    assert set(service.stats.billed_images.values()) <= {1, 2}
    assert place.run()["calls"] == 0


def test_keys_that_a_collation_calls_equal_are_paid_once_each(
    latin1: Database,
    monkeypatch: pytest.MonkeyPatch,
    small_jpegs: Callable[[int], list[bytes]],
):
    """In a MariaDB whose tables are latin1 by default, with Chinese labels and an emoji."""
    keys = ["a", "A", "a ", "ä", "Ä", "e", "E", "é", "É", "猫\U0001f600", "ß", "ss"]
    latin1.run(
        "CREATE TABLE products (id varchar(20), photo blob, version text)"
        " CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"
    )
    rows = [{"id": key, "photo": data} for key, data in zip(keys, small_jpegs(12), strict=True)]
    latin1.run("INSERT INTO products VALUES (:id, :photo, '1')", *rows)
    source = SqlImages("warehouse", table="products", content="photo", version="version")
    place = Setup(source, SqlLabelStore("warehouse", "labels"), lambda images: None)
    with Emulator(language="zh") as service:
        monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", unlimited(service))
        assert [place.run()["calls"] for _ in range(2)] == [12, 0]
        assert service.stats.billed == 12
    labels = pd.concat(place.store.labels())
    assert sorted(labels[labels["rank"] == 1]["image_key"]) == sorted(keys)
    assert all(re.search("[\u4e00-\u9fff]", label) for label in labels["label"])


# -- killed -----------------------------------------------------------------------------------

IMAGES = 600
KILLS = int(os.environ.get("KILLS", "3"))


def wait_for(task: Task, condition: Callable[[], bool]) -> None:
    """Wait for something that a running task brings about."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert task.poll() is None, task.output.read_text()[-4000:]
        time.sleep(0.002)


def interrupted(
    place: Setup, driver: Driver, service: Emulator, number: signal.Signals, thresholds: list[int]
) -> list[int]:
    """Start the operator, end it by a signal at these counts of calls, and then let it finish.

    :return: the exit codes of those that were ended.
    """
    fields = {"batch_size": place.batch_size, "max_in_flight": MAX_IN_FLIGHT}
    codes = []
    wanted = 0

    def is_reached() -> bool:
        return service.stats.billed >= wanted

    for threshold in thresholds:
        task = place.start(driver, service, **fields)
        wanted = service.stats.billed + threshold
        wait_for(task, is_reached)
        task.signal(number)
        codes.append(task.wait())
    assert place.start(driver, service, **fields).summary()["failed"] == 0
    return codes


@pytest.fixture(params=["postgres", "duckdb", "parquet", "delta"])
def killed_place(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres: Database,
    small_jpegs: Callable[[int], list[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> Setup:
    """Give 600 images and a store."""
    source, put = sql_source(postgres)
    put({f"k{n:03}": data for n, data in enumerate(small_jpegs(IMAGES))})
    environment = {"AIRFLOW_CONN_WAREHOUSE": postgres.connection_json}
    store: Any = SqlLabelStore("warehouse", "photo_labels")
    if request.param == "parquet":
        store = ParquetLabelStore(str(tmp_path / "lake"))
    elif request.param == "delta":
        store = DeltaLabelStore(str(tmp_path / "lake"))
    elif request.param == "duckdb":
        fields = {"conn_type": "duckdb", "host": str(tmp_path / "labels.duckdb")}
        environment["AIRFLOW_CONN_LABELS_FILE"] = json.dumps(fields)
        monkeypatch.setenv("AIRFLOW_CONN_LABELS_FILE", environment["AIRFLOW_CONN_LABELS_FILE"])
        # A batch takes DuckDB some tenths of a second, whatever its size.
        return Setup(source, SqlLabelStore("labels_file", "photo_labels"), put, environment, 60)
    return Setup(source, store, put, environment)


def test_sigkill_loses_at_most_a_window(
    killed_place: Setup, driver: Driver, service: Emulator, capsys: pytest.CaptureFixture[str]
):
    """Killed again and again: each image is labelled once, and little is paid for twice.

    ``KILLS=10`` in the environment kills it ten times.
    """
    service.faults = Faults(latency_seconds=(0.002, 0.02))
    chance = random.Random()
    thresholds = [chance.randint(1, 100) for _ in range(KILLS)]
    codes = interrupted(killed_place, driver, service, signal.SIGKILL, thresholds)
    assert codes == [-signal.SIGKILL] * KILLS
    billed, bound = service.stats.billed, IMAGES
    bound += KILLS * (killed_place.batch_size + MAX_IN_FLIGHT)
    with capsys.disabled():
        print(f"\nkill -9 after {thresholds} more calls: {billed} billed, at most {bound}")
    assert killed_place.labelled() == {f"k{n:03}": 1 for n in range(IMAGES)}
    assert IMAGES <= billed <= bound


def test_sigkill_while_the_store_is_slow(
    postgres: Database,
    driver: Driver,
    service: Emulator,
    small_jpegs: Callable[[int], list[bytes]],
    capsys: pytest.CaptureFixture[str],
):
    """However long a batch takes to be written, no more than a window waits behind it."""
    source, put = sql_source(postgres)
    put({f"k{n:03}": data for n, data in enumerate(small_jpegs(150))})
    store = SqlLabelStore("warehouse", "photo_labels")
    place = Setup(source, store, put, {"AIRFLOW_CONN_WAREHOUSE": postgres.connection_json})

    def stored() -> int:
        return int(postgres.value("SELECT count(*) FROM photo_labels_images"))

    service.faults = Faults(latency_seconds=0.02)
    task = place.start(driver, service, batch_size=20, max_in_flight=MAX_IN_FLIGHT)
    wait_for(task, lambda: service.stats.billed >= 5)
    with postgres.engine.connect() as connection:
        connection.exec_driver_sql("LOCK TABLE photo_labels IN ACCESS EXCLUSIVE MODE")
        billed = -1
        while billed != service.stats.billed:
            billed = service.stats.billed
            time.sleep(1)
        task.signal(signal.SIGKILL)
        task.wait()
    with capsys.disabled():
        print(f"\nkill -9 while the store stands still: {billed - stored()} billed and lost")
    assert 20 <= billed - stored() <= 20 + MAX_IN_FLIGHT
    place.run()
    assert place.labelled() == {f"k{n:03}": 1 for n in range(150)}
    assert service.stats.billed <= 150 + 20 + MAX_IN_FLIGHT


def test_sigterm_loses_nothing(
    killed_place: Setup, driver: Driver, service: Emulator, capsys: pytest.CaptureFixture[str]
):
    """Finished images and those on their way are written, so each is paid for once."""
    service.faults = Faults(latency_seconds=(0.002, 0.02))
    chance = random.Random()
    # On a busy machine a signal comes late, and the last try must find images left.
    thresholds = [chance.randint(1, 100) for _ in range(3)]
    codes = interrupted(killed_place, driver, service, signal.SIGTERM, thresholds)
    assert codes == [3] * 3
    with capsys.disabled():
        print(f"\nSIGTERM after {thresholds} more calls: {service.stats.billed} billed")
    assert killed_place.labelled() == {f"k{n:03}": 1 for n in range(IMAGES)}
    assert service.stats.billed == IMAGES


# -- trust ------------------------------------------------------------------------------------


@dataclass
class Inside:
    """A server on the worker that images from data must not reach.

    :param port: where it listens.
    :param asked: paths that were asked for.
    """

    port: int
    asked: list[str]


@pytest.fixture
def inside() -> Iterator[Inside]:
    """Run the server; a path below ``/to/`` redirects to its rest."""
    with listening() as found:
        yield found


@contextmanager
def listening() -> Iterator[Inside]:
    """Run a server for a ``with`` block."""
    asked: list[str] = []

    class Redirecting(Handler):
        def answer(self) -> None:
            asked.append(self.path)
            if self.path.startswith("/to/"):
                self.respond(status=302, headers={"Location": self.path.removeprefix("/to/")})
            else:
                self.respond()

    with serving(Redirecting) as url:
        yield Inside(int(url.rpartition(":")[2]), asked)


@pytest.mark.parametrize("kind", ["sql", "parquet"])
@pytest.mark.parametrize("fetch", ["service", "worker"])
def test_uris_that_lead_inside(
    sqlite: Database,
    tmp_path: Path,
    service: Emulator,
    inside: Inside,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    fetch: str,
):
    """Each is recorded with a class that says why; none is read, fetched or sent."""
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_PRIVATE_HOSTS", "localhost")
    uris = {
        "file:///etc/passwd": "ImageNotAllowedError",
        "/etc/passwd": "ImageNotAllowedError",
        "file://localhost/etc/passwd": "ImageNotAllowedError",
        "../../../etc/passwd": "ImageNotAllowedError",
        "local:///etc/passwd": "ImageNotAllowedError",
        "http://169.254.169.254/latest": "ImageNotAllowedError",
        "http://[::ffff:169.254.169.254]/latest": "ImageNotAllowedError",
        "ftp://127.0.0.1/secret": "InvalidImageError",
        "zip::file:///etc/passwd": "InvalidImageError",
        "'; DROP TABLE photos; --": "ImageNotAllowedError",
    }
    if fetch == "worker":
        allowed = f"http://localhost:{inside.port}/to/"
        uris |= {
            f"http://127.0.0.1:{inside.port}/": "ImageNotAllowedError",
            f"http://2130706433:{inside.port}/": "ImageNotAllowedError",
            # A digit of another width, which a URL may hold.
            f"http://\uff1127.0.0.1:{inside.port}/": "ImageNotAllowedError",
            f"{allowed}http://127.0.0.1:{inside.port}/secret": "ImageNotAllowedError",
            f"{allowed}http://169.254.169.254/latest": "ImageNotAllowedError",
            f"{allowed}file:///etc/passwd": "ImageNotAllowedError",
            "http://[broken/": "InvalidImageError",
        }
    sqlite.run("CREATE TABLE photos (id integer PRIMARY KEY, image_url text)")
    sqlite.run(
        "INSERT INTO photos VALUES (:id, :uri)",
        *({"id": n, "uri": uri} for n, uri in enumerate(uris)),
    )
    store: Any = SqlLabelStore("warehouse", "photo_labels")
    if kind == "parquet":
        store = ParquetLabelStore(str(tmp_path / "lake"))
    task_instance = TaskInstance()
    summary = ImageTagOperator(
        task_id="label",
        images=SqlImages("warehouse", table="photos"),
        store=store,
        fetch=fetch,
        max_failure_ratio=1,
    ).execute({"ti": task_instance})
    failures = task_instance.xcoms["failures"]
    found = dict(zip(failures["image_key"], failures["error"], strict=True))
    assert found == {str(n): error for n, error in enumerate(uris.values())}
    assert summary["failed"] == len(uris)
    assert service.stats.requests == 0
    assert all(path.startswith("/to/") for path in inside.asked)
    assert len(inside.asked) == (3 if fetch == "worker" else 0)
    assert "photos" in sqlite.tables()
    assert not re.search("root:", " ".join(failures["message"]))


def test_localhost_without_permission(sqlite: Database, service: Emulator, inside: Inside):
    """With nothing allowed the worker fetches from no private host, by name or by address."""
    sqlite.run("CREATE TABLE photos (id integer PRIMARY KEY, image_url text)")
    for n, host in enumerate(("localhost:1", f"localhost:{inside.port}", "10.0.0.1", "[::1]:1")):
        sqlite.run("INSERT INTO photos VALUES (:n, :uri)", {"n": n, "uri": f"http://{host}/"})
    task_instance = TaskInstance()
    ImageTagOperator(
        task_id="label",
        images=SqlImages("warehouse", table="photos"),
        store=SqlLabelStore("warehouse"),
        fetch="worker",
        max_failure_ratio=1,
    ).execute({"ti": task_instance})
    assert task_instance.xcoms["failures"]["error"].tolist() == ["ImageNotAllowedError"] * 4
    assert inside.asked == []
    assert service.stats.requests == 0


def test_a_service_of_the_internet_is_given_no_private_url(
    sqlite: Database, service: Emulator, monkeypatch: pytest.MonkeyPatch
):
    """It could not fetch it, and need not know it; nothing is sent."""
    elsewhere = json.loads(unlimited(service)) | {"host": "labels.example.invalid"}
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(elsewhere))
    sqlite.run("CREATE TABLE photos (id integer PRIMARY KEY, image_url text)")
    hosts = ("localhost:1", "LOCALHOST.", "127.1", "10.0.0.1", "[::1]", "metadata.google.internal")
    for n, host in enumerate(hosts):
        sqlite.run("INSERT INTO photos VALUES (:n, :uri)", {"n": n, "uri": f"http://{host}/"})
    task_instance = TaskInstance()
    summary = ImageTagOperator(
        task_id="label",
        images=SqlImages("warehouse", table="photos"),
        store=SqlLabelStore("warehouse"),
        max_failure_ratio=1,
    ).execute({"ti": task_instance})
    failures = task_instance.xcoms["failures"]
    assert failures["error"].tolist() == ["ImageNotAllowedError"] * len(hosts)
    assert summary["calls"] == 0


HOSTILE = "'; DROP TABLE victims; --"
ODD_KEYS = [
    HOSTILE,
    f'"{HOSTILE}',
    'it\'s "so" `or` \\so',
    "\U0001f600" * 2000,
    "k" * 2000,
    "two\nlines",
    "50% of %(key)s, :name, {brace} and {{ 1 / 0 }}",
    "../../etc/passwd",
]


@pytest.mark.parametrize("kind", ["sql", "parquet"])
@pytest.mark.parametrize("database_kind", ["postgres", "sqlite"])
def test_odd_names_and_keys_from_end_to_end(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    service: Emulator,
    small_jpegs: Callable[[int], list[bytes]],
    database_kind: str,
    kind: str,
):
    """Names of tables and columns, and keys, are names and keys: labelled once, and no SQL."""
    database: Database = request.getfixturevalue(database_kind)
    binary = "bytea" if database.is_postgres else "BLOB"
    table, key, photo, labels = (f'"{name}{HOSTILE}"' for name in "tkpl")
    database.run("CREATE TABLE victims (id integer)")
    database.script(f"CREATE TABLE {table} ({key} text PRIMARY KEY, {photo} {binary})")
    place = "%s" if database.is_postgres else "?"
    with database.engine.begin() as connection:
        for row in zip(ODD_KEYS, small_jpegs(len(ODD_KEYS)), strict=True):
            insert = f"INSERT INTO {table} VALUES ({place}, {place})"
            connection.exec_driver_sql(insert, row)
    store: Any = SqlLabelStore("warehouse", labels)
    if kind == "parquet":
        store = ParquetLabelStore(str(tmp_path / "lake"))
    source = SqlImages("warehouse", table=table, key=key.strip('"'), content=photo.strip('"'))
    setup = Setup(source, store, lambda images: None)
    assert setup.run()["tagged"] == len(ODD_KEYS)
    assert setup.run()["calls"] == 0
    assert {key for key, _ in gathered(store.labels())} == set(ODD_KEYS)
    assert "victims" in database.tables()
