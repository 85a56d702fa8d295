"""A real Airflow with a database of its own, photographs, and a server that hands them out."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from databases import (  # noqa: F401 (fixtures among them)
    _moto,
    bucket_fixture,
    postgres_fixture,
    postgres_server,
    s3_connection,
    s3_url_fixture,
)

from airflow_imagetag.testing import Emulator, Faults

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOST_SECONDS = 120
WRONG_KEY = "aWrongSecretKeyThatOpensNothing0"

AIRFLOW_2 = metadata.version("apache-airflow").startswith("2.")


def connection(emulator: Emulator, **changes: Any) -> str:
    """Return the emulator's connection without a quota, changed as told.

    :param changes: fields of the connection, and names in its extra for all others.
    """
    fields = json.loads(emulator.connection_json)
    fields["extra"]["requests_per_second"] = 0
    for name, value in changes.items():
        (fields if name in ("login", "password", "host", "port") else fields["extra"])[name] = value
    return json.dumps(fields)


@dataclass(frozen=True)
class Run:
    """What a DAG run left behind.

    :param state: of the run.
    :param states: of each task, by (task id, map index).
    :param xcoms: by (task id, map index, key).
    :param rendered: rendered fields by (task id, map index).
    :param log: what all tasks logged.
    """

    state: str
    states: Mapping[tuple[str, int], str]
    xcoms: Mapping[tuple[str, int, str], Any]
    rendered: Mapping[tuple[str, int], Mapping[str, Any]]
    log: str

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return one XCom."""
        assert (task_id, map_index, key) in self.xcoms, self.log
        return self.xcoms[task_id, map_index, key]


@dataclass
class AirflowHome:
    """An Airflow home with a database of the newest schema.

    :param path: the folder.
    :param environment: of every process that works on it.
    """

    path: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, log: Path | None = None) -> subprocess.Popen[str]:
        """Start an ``airflow`` command as a process group of its own."""
        log = log or self.path / "command.log"
        with log.open("a") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                cwd=self.path,
            )

    def command(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run an ``airflow`` command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.path,
        )

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the metadata database."""
        with contextlib.closing(sqlite3.connect(self.path / "airflow.db", timeout=30)) as database:
            return database.execute(sql, values).fetchall()

    def execute(self, sql: str, *values: Any) -> None:
        """Change the metadata database."""
        connected = sqlite3.connect(self.path / "airflow.db", timeout=30)
        with contextlib.closing(connected) as database, database:
            database.execute(sql, values)

    def xcoms(self, dag_id: str, run_id: str | None = None) -> dict[tuple[str, str], Any]:
        """Return the JSON of every XCom of a DAG by task and key, all runs unless one is named."""
        rows = self.query(
            "select task_id, key, value from xcom where dag_id = ? and run_id like ?",
            dag_id,
            run_id or "%",
        )
        # SQLite turns a JSON number into one of its own.
        return {
            (task_id, key): value if isinstance(value, (int, float)) else json.loads(value)
            for task_id, key, value in rows
        }


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill the process and everything that it started."""
    started = []
    # Airflow gives some of its children groups of their own.
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait(30)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the metadata database once."""
    folder = tmp_path_factory.mktemp("migrated")
    home = AirflowHome(folder, environment_of(folder))
    done = home.command("db", "migrate")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def environment_of(folder: Path, dags: Path | None = None) -> dict[str, str]:
    """Return the environment of an Airflow in this folder, free of the tests' own settings."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    return own | {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags or folder / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        # Airflow 2's executor calls the command by its name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }


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


class AirflowHost:
    """A process in which DAGs that test modules build are run, one after another.

    :param home: its Airflow home.
    """

    def __init__(self, home: AirflowHome) -> None:
        self.home = home
        self._log = home.path / "host.log"
        self._pipe, theirs = multiprocessing.Pipe()
        with self._log.open("wb") as output, theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "airflow_host.py"), str(theirs.fileno())],
                env=home.environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of a test module inside Airflow's process."""
        return self._ask("call", function, {}, args)

    def run(
        self,
        build: Callable[..., Any],
        *args: Any,
        conf: dict[str, Any] | None = None,
        **environment: str,
    ) -> Run:
        """Run the DAG that a function of a test module builds.

        :param conf: the run's configuration, which holds its params.
        :param environment: variables to set for it.
        """
        start = self._log.stat().st_size
        found = self._ask("run", build, environment, args, conf or {})
        return Run(**found, log=self._log.read_bytes()[start:].decode())

    def _ask(
        self, todo: str, function: Callable[..., Any], environment: dict[str, str], *arguments: Any
    ) -> Any:
        self._pipe.send(
            {
                "todo": todo,
                "path": function.__code__.co_filename,
                "function": function.__name__,
                "arguments": arguments,
                "environment": environment,
            }
        )
        assert self._pipe.poll(HOST_SECONDS), self._log.read_text()[-4000:]
        good, answer = self._pipe.recv()
        assert good, f"{answer}\n{self._log.read_text()[-4000:]}"
        return answer

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="session")
def airflow_host(new_home: Callable[..., AirflowHome], image_folder: Path) -> Iterator[AirflowHost]:
    """Start the process that runs DAGs."""
    home = new_home(
        AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS=str(image_folder),
        AIRFLOW__CORE__ALLOWED_DESERIALIZATION_CLASSES="airflow.* airflow_imagetag.models.Image",
    )
    host = AirflowHost(home)
    yield host
    host.stop()


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Run the label service for one test."""
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
    """Cut a thousand different small photographs out of scikit-image's large ones."""
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

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = pages.get(self.path.partition("?")[0])
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with serving(Pages) as url:
        yield [url + path for path in pages]


@pytest.fixture(scope="session")
def many_urls(photographs: list[bytes]) -> Iterator[Callable[[int], list[str]]]:
    """Serve any number of photographs, all different, over HTTP and give the URLs of so many."""

    class Pages(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            number = int(self.path[1:].removesuffix(".jpg"))
            content = photographs[number % len(photographs)]
            # A comment in the file makes it one of its own.
            comment = b"%08d" % number
            body = content[:2] + b"\xff\xfe\x00\x0a" + comment + content[2:]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with serving(Pages) as url:
        yield lambda count: [f"{url}/{number}.jpg" for number in range(count)]


class Server(ThreadingHTTPServer):
    """A server that does not wait for its clients' idle connections when it ends."""

    daemon_threads = True
    block_on_close = False


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve HTTP on a free port for a ``with`` block, whose value is the URL."""
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def wait_until(condition: Callable[[], Any], seconds: float, what: Callable[[], str]) -> Any:
    """Return what the condition gives once it is true.

    :param what: says what went wrong when it never was.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)
    return found


def token(url: str) -> str:
    """Log in, as everybody may."""
    answer = requests.get(f"{url}/auth/token", timeout=20)
    assert answer.ok, answer.text
    return str(answer.json()["access_token"])


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cluster:
    """A running Airflow: scheduler, parser, on Airflow 3 the API server, one task at a time.

    :param home: where it lives.
    :param url: of the API server; None on Airflow 2.
    :param emulator: the service behind ``imagetag_default``, and behind ``wrong_key``, whose
        SecretKey is not the account's.
    """

    home: AirflowHome
    url: str | None
    emulator: Emulator

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run with ``airflow dags trigger`` and return its id."""
        run_id = f"test_{time.time_ns()}"
        done = self.home.command("dags", "trigger", dag_id, "-r", run_id, "-c", json.dumps(conf))
        assert done.returncode == 0, done.stdout + done.stderr
        return run_id

    def state(self, run_id: str) -> str:
        """Return the state of a run."""
        [[state]] = self.home.query("select state from dag_run where run_id = ?", run_id)
        return str(state)

    def wait(self, run_id: str, seconds: float = 90) -> str:
        """Return the state of a run that has ended."""
        return str(
            wait_until(
                lambda: (state := self.state(run_id)) in ("success", "failed") and state,
                seconds,
                self.logs,
            )
        )

    def task_log(self, run_id: str) -> str:
        """Return what the tasks of a run logged."""
        files = (self.home.path / "logs").rglob("*.log")
        return "".join(path.read_text() for path in files if run_id in str(path))

    def logs(self) -> str:
        """Return the end of every log, for a test that failed."""
        files = [*self.home.path.glob("*.log"), *(self.home.path / "logs").rglob("attempt=*.log")]
        return "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in files)


def warehouse_json(config: pytest.Config) -> str:
    """Return the connection to the PostgreSQL that all tests share, each with its own tables."""
    host = str(postgres_server(config).pgdata)
    fields = {"conn_type": "postgres", "host": host, "login": "postgres", "schema": "postgres"}
    return json.dumps(fields)


@pytest.fixture(scope="session")
def running_cluster(
    new_home: Callable[..., AirflowHome],
    image_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator[Cluster]:
    """Start Airflow's own processes, and kill them and all that they started."""
    dags = tmp_path_factory.mktemp("dags")
    data = tmp_path_factory.mktemp("data")
    shutil.copy(ROOT / "dags_examples" / "label_images.py", dags)
    for path in (HERE / "dags").glob("*.py"):
        shutil.copy(path, dags)
    files = list(dags.glob("*.py"))
    (data / "photographs").mkdir()
    for path in sorted(image_folder.iterdir())[:3]:
        shutil.copy(path, data / "photographs")
    port = free_port()
    with Emulator() as emulator:
        environment = {
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor" if AIRFLOW_2 else "LocalExecutor",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__PARALLELISM": "2",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a-secret-of-this-test-run-and-no-other-0123456789",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
            "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": f"{image_folder},{data}",
            "AIRFLOW_CONN_IMAGETAG_DEFAULT": connection(emulator, max_in_flight=8),
            "AIRFLOW_CONN_WAREHOUSE": warehouse_json(pytestconfig),
            "AIRFLOW_CONN_AWS_DEFAULT": s3_connection(_moto(pytestconfig)),
            "AIRFLOW_CONN_WRONG_KEY": connection(emulator, password=WRONG_KEY, max_in_flight=8),
            "PHOTOGRAPHS": str(data / "photographs"),
        }
        home = new_home(dags, **environment)
        parts = [["scheduler", "--skip-serve-logs"]]
        if not AIRFLOW_2:
            server = ["api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
            parts += [["dag-processor"], server]
        processes = [home.start(*part, log=home.path / f"{part[0]}.log") for part in parts]
        cluster = Cluster(home, None if AIRFLOW_2 else f"http://127.0.0.1:{port}", emulator)
        try:
            wait_until(
                lambda: len(home.query("select * from serialized_dag")) == len(files),
                60,
                cluster.logs,
            )
            yield cluster
        finally:
            for process in processes:
                end_group(process)


@pytest.fixture
def cluster(running_cluster: Cluster) -> Iterator[Cluster]:
    """Give the running Airflow with fresh counts and a service without faults."""
    running_cluster.emulator.faults = Faults()
    running_cluster.emulator.reset_stats()
    yield running_cluster
    running_cluster.emulator.faults = Faults()
