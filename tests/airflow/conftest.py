"""A real Airflow with a database of its own, photographs, and a server that hands them out."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from buckets import s3_connection, s3_server
from clusters import (
    AIRFLOW_2,
    HERE,
    ROOT,
    AirflowHome,
    Cluster,
    cluster_environment,
    environment_of,
    free_port,
    running,
)
from databases import Database, postgres_database, postgres_server
from hosts import WRONG_KEY, AirflowHost, Run, connection
from shared import Shared
from web_servers import Handler, serving

from airflow_imagetag.testing import Emulator, Faults

_SHARED = pytest.StashKey[Shared]()


@pytest.fixture(scope="session")
def shared(pytestconfig: pytest.Config) -> Shared:
    """Keep what runs for all tests of this folder."""
    return pytestconfig.stash.setdefault(_SHARED, Shared())


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End what runs for all tests of this folder, if the next test is of another."""
    if nextitem is None or nextitem.path.parent != HERE:
        item.config.stash.setdefault(_SHARED, Shared()).end()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the metadata database once."""
    folder = tmp_path_factory.mktemp("migrated")
    home = AirflowHome(folder, environment_of(folder))
    done = home.command("db", "migrate")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def new_home(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., AirflowHome]:
    """Make Airflow homes, each with a fresh copy of the database."""

    def make(dags: Path | None = None, **environment: str) -> AirflowHome:
        folder = tmp_path_factory.mktemp("home")
        shutil.copy(migrated / "airflow.db", folder)
        (folder / "dags").mkdir()
        return AirflowHome(folder, environment_of(folder, dags) | environment)

    return make


@pytest.fixture
def airflow_host(
    new_home: Callable[..., AirflowHome], image_folder: Path, shared: Shared
) -> AirflowHost:
    """Give the process that runs DAGs."""

    @contextlib.contextmanager
    def begin() -> Iterator[AirflowHost]:
        home = new_home(
            AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS=str(image_folder),
            AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES=(
                "airflow.* airflow_imagetag.models.Image"
            ),
        )
        host = AirflowHost(home)
        yield host
        host.stop()

    return shared.get("host", begin)


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run an emulator for one test."""
    with Emulator() as running:
        yield running


@pytest.fixture
def run_dag(airflow_host: AirflowHost, emulator: Emulator) -> Callable[..., Run]:
    """Run DAGs whose connection ``imagetag_default`` is the emulator."""

    def run(build: Callable[..., Any], *args: Any, conf: dict[str, Any] | None = None) -> Run:
        uri = connection(emulator)
        return airflow_host.run(build, *args, conf=conf, AIRFLOW_CONN_IMAGETAG_DEFAULT=uri)

    return run


@pytest.fixture(scope="session")
def photographs() -> list[bytes]:
    """Cut a thousand small photographs, all different, out of scikit-image's large ones."""
    from PIL import Image

    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    found: dict[bytes, None] = {}
    for name in (
        "astronaut.png",
        "coffee.png",
        "chelsea.png",
        "rocket.jpg",
        "hubble_deep_field.jpg",
    ):
        with Image.open(data / name) as picture:
            colours = picture.convert("RGB")
        for left in range(0, colours.width - 40, 28):
            for top in range(0, colours.height - 40, 28):
                file = io.BytesIO()
                colours.crop((left, top, left + 40, top + 40)).save(file, "JPEG")
                found[file.getvalue()] = None
    chosen = list(found)[:1000]
    assert len(chosen) == 1000
    return chosen


@pytest.fixture(scope="session")
def image_folder(photographs: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a thousand files, of which every twentieth is no picture, all different."""
    folder = tmp_path_factory.mktemp("images")
    for number, content in enumerate(photographs):
        broken = number % 20 == 7
        data = b"\xff\xd8\xff no photograph %d" % number if broken else content
        (folder / f"{number:04}.jpg").write_bytes(data)
    return folder


@pytest.fixture(scope="session")
def image_urls(photographs: list[bytes]) -> Iterator[list[str]]:
    """Serve the first photographs over HTTP and give their URLs."""
    pages = {f"/{number}.jpg": content for number, content in enumerate(photographs[:50])}

    class Pages(Handler):
        def answer(self) -> None:
            content = pages.get(self.path.partition("?")[0])
            self.respond(content or b"", status=200 if content else 404)

    with serving(Pages) as url:
        yield [url + path for path in pages]


@pytest.fixture(scope="session")
def many_urls(photographs: list[bytes]) -> Iterator[Callable[[int], list[str]]]:
    """Serve photographs, all different, over HTTP; give a function that returns their URLs."""

    class Pages(Handler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            number = int(self.path[1:].removesuffix(".jpg"))
            content = photographs[number % len(photographs)]
            # A comment in the file makes its bytes differ from those of all others.
            comment = b"%08d" % number
            self.respond(content[:2] + b"\xff\xfe\x00\x0a" + comment + content[2:])

    with serving(Pages) as url:
        yield lambda count: [f"{url}/{number}.jpg" for number in range(count)]


def warehouse_json(config: pytest.Config) -> str:
    """Return the connection to the PostgreSQL that all tests share, each with its own tables."""
    host = str(postgres_server(config).pgdata)
    fields = {"conn_type": "postgres", "host": host, "login": "postgres", "schema": "postgres"}
    return json.dumps(fields)


@pytest.fixture(scope="session")
def start_cluster(
    new_home: Callable[..., AirflowHome],
    image_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Callable[[], contextlib.AbstractContextManager[Cluster]]:
    """Start an Airflow that runs one task at a time, without a triggerer."""

    @contextlib.contextmanager
    def start() -> Iterator[Cluster]:
        dags = tmp_path_factory.mktemp("dags")
        data = tmp_path_factory.mktemp("data")
        shutil.copy(ROOT / "dags_examples" / "label_images.py", dags)
        for path in (HERE / "dags").glob("label_*.py"):
            shutil.copy(path, dags)
        (data / "photographs").mkdir()
        for path in sorted(image_folder.iterdir())[:3]:
            shutil.copy(path, data / "photographs")
        port = free_port()
        with Emulator() as emulator:
            environment = cluster_environment(port) | {
                "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor" if AIRFLOW_2 else "LocalExecutor",
                "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": f"{image_folder},{data}",
                "AIRFLOW_CONN_IMAGETAG_DEFAULT": connection(emulator, max_in_flight=8),
                "AIRFLOW_CONN_WAREHOUSE": warehouse_json(pytestconfig),
                "AIRFLOW_CONN_AWS_DEFAULT": s3_connection(s3_server(pytestconfig)),
                "AIRFLOW_CONN_WRONG_KEY": connection(emulator, password=WRONG_KEY, max_in_flight=8),
                "PHOTOGRAPHS": str(data / "photographs"),
            }
            with running(new_home(dags, **environment), emulator, port) as cluster:
                yield cluster

    return start


@pytest.fixture(scope="session")
def migrated_postgres(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[str]:
    """Create the metadata database once in PostgreSQL, where several tasks may run at a time."""
    folder = tmp_path_factory.mktemp("migrated-postgres")
    with (
        pytest.MonkeyPatch.context() as patch,
        postgres_database(pytestconfig, patch) as database,
    ):
        home = AirflowHome(folder, environment_of(folder) | metadata_in(database))
        done = home.command("db", "migrate")
        assert done.returncode == 0, done.stdout + done.stderr
        yield str(database.engine.url.database)


def metadata_in(database: Database) -> dict[str, str]:
    """Return the setting of an Airflow whose metadata is in this database."""
    url = database.engine.url.render_as_string(hide_password=False)
    return {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url}


@pytest.fixture(scope="session")
def cluster_in_postgres(
    migrated_postgres: str, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Callable[..., contextlib.AbstractContextManager[Cluster]]:
    """Start Airflows whose metadata is in PostgreSQL: DAG files, environment, account, processes.

    The account's changes are those of ``connection``, the processes those of ``running``.
    """

    @contextlib.contextmanager
    def start(
        files: Iterable[Path],
        environment: dict[str, str],
        account: Mapping[str, Any] | None = None,
        **processes: Any,
    ) -> Iterator[Cluster]:
        folder, dags = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("dags")
        for path in files:
            shutil.copy(path, dags)
        port = free_port()
        with (
            pytest.MonkeyPatch.context() as patch,
            postgres_database(pytestconfig, patch, template=migrated_postgres) as database,
            Emulator() as emulator,
        ):
            settings = cluster_environment(port) | {
                "AIRFLOW_CONN_IMAGETAG_DEFAULT": connection(emulator, **(account or {})),
                "AIRFLOW_CONN_WAREHOUSE": warehouse_json(pytestconfig),
                "AIRFLOW_CONN_AWS_DEFAULT": s3_connection(s3_server(pytestconfig)),
            }
            own = environment_of(folder, dags) | metadata_in(database) | settings | environment
            with running(AirflowHome(folder, own), emulator, port, **processes) as cluster:
                yield cluster

    return start


@pytest.fixture(scope="session")
def triggering_cluster(
    cluster_in_postgres: Callable[..., contextlib.AbstractContextManager[Cluster]],
) -> Callable[..., contextlib.AbstractContextManager[Cluster]]:
    """Start Airflows with a triggerer, which run some tasks at a time."""

    def start(
        files: Iterable[Path], **environment: str
    ) -> contextlib.AbstractContextManager[Cluster]:
        settings = {
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            # The next triggerer takes over the triggers of a killed one after these seconds.
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
        }
        return cluster_in_postgres(files, settings | environment, triggerer=True)

    return start


@pytest.fixture
def cluster(
    start_cluster: Callable[[], contextlib.AbstractContextManager[Cluster]], shared: Shared
) -> Iterator[Cluster]:
    """Give the running Airflow with fresh counts and a service without faults."""
    running_cluster = shared.get("cluster", start_cluster)
    running_cluster.emulator.faults = Faults()
    running_cluster.emulator.reset_stats()
    yield running_cluster
    running_cluster.emulator.faults = Faults()
