"""Airflow homes, each with a metadata database of its own, and Airflow's own processes on them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import requests

from airflow_imagetag.testing import Emulator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

DEADLINE_SECONDS = 180
"""Far more than any wait takes, also on a busy machine."""

AIRFLOW_2 = metadata.version("apache-airflow").startswith("2.")


# -- homes ------------------------------------------------------------------------------------


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
        """Ask the metadata database; a question mark stands for a value."""
        with self._cursor() as (cursor, mark):
            cursor.execute(sql.replace("?", mark), values)
            return list(cursor.fetchall())

    def execute(self, sql: str, *values: Any) -> None:
        """Change the metadata database; a question mark stands for a value."""
        with self._cursor() as (cursor, mark):
            cursor.execute(sql.replace("?", mark), values)

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[tuple[Any, str]]:
        url = self.environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
        database: Any
        if url.startswith("sqlite"):
            database, mark = sqlite3.connect(self.path / "airflow.db", timeout=30), "?"
        else:
            import psycopg2

            database, mark = psycopg2.connect(url.replace("+psycopg2", "")), "%s"
        with contextlib.closing(database), database:
            yield database.cursor(), mark

    def xcoms(self, dag_id: str, run_id: str | None = None) -> dict[tuple[str, str], Any]:
        """Return every XCom of a DAG by task and key, of all runs unless one is named.

        Without those in which Airflow keeps the links of operators.
        """
        rows = self.query(
            "select task_id, key, value from xcom where dag_id = ? and run_id like ?",
            dag_id,
            run_id or "%",
        )
        return {
            (task_id, key): _plain(value)
            for task_id, key, value in rows
            if not key.startswith("_link_")
        }


def _plain(value: Any) -> Any:
    # SQLite converts a JSON number, and PostgreSQL decodes JSON. What is left as text is Airflow's
    # JSON inside of JSON.
    if isinstance(value, memoryview):
        value = value.tobytes()
    return json.loads(value) if isinstance(value, (str, bytes)) else value


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


# -- processes --------------------------------------------------------------------------------


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


def wait_until(
    condition: Callable[[], Any], explain: Callable[[], str], seconds: float = DEADLINE_SECONDS
) -> Any:
    """Wait until the condition is true, and return its value.

    :param explain: returns the text of the failure at the deadline.
    :param seconds: the deadline.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, explain()
        time.sleep(0.1)
    return found


def token(url: str) -> str:
    """Log in, which needs no password here, and return the token."""
    answer = requests.get(f"{url}/auth/token", timeout=20)
    assert answer.ok, answer.text
    return str(answer.json()["access_token"])


def free_port() -> int:
    """Return a port that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cluster:
    """A running Airflow: scheduler, parser, on Airflow 3 the API server, perhaps more.

    :param home: where it lives.
    :param url: of the API server; None on Airflow 2.
    :param emulator: the service behind ``imagetag_default``, and behind ``wrong_key``, whose
        SecretKey is not the account's.
    :param commands: the arguments of ``airflow`` for each of its processes, by name.
    :param processes: those that run.
    """

    home: AirflowHome
    url: str | None
    emulator: Emulator
    commands: Mapping[str, list[str]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start one of its processes again, or for the first time.

        The one before it has a minute to end, and is killed then, as an init system does it: a
        scheduler of Airflow sometimes hangs at its end.
        """
        if name in self.processes:
            try:
                self.processes[name].wait(60)
            except subprocess.TimeoutExpired:
                self.kill(name)
        command = self.commands[name]
        self.processes[name] = self.home.start(*command, log=self.home.path / f"{name}.log")

    def kill(self, name: str) -> None:
        """Kill one of its processes, and those that it started, in the middle of their work."""
        end_group(self.processes[name])

    def end(self, name: str) -> None:
        """Ask one of its processes to end, which it may do later."""
        self.processes[name].terminate()

    def is_ready(self) -> bool:
        """Tell whether the API server answers, which tasks of Airflow 3 need."""
        if self.url is None:
            return True
        try:
            return requests.get(f"{self.url}/api/v2/version", timeout=5).ok
        except requests.RequestException:
            return False

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler start the runs of a DAG."""
        self.home.execute("update dag set is_paused = false where dag_id = ?", dag_id)

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a run and return its id."""
        run_id = f"test_{time.time_ns()}"
        if self.url is not None:
            body = {"dag_run_id": run_id, "conf": conf, "logical_date": None}
            self.ask("post", f"dags/{dag_id}/dagRuns", body)
            return run_id
        # There is no API without the web interface of Airflow 2.
        done = self.home.command("dags", "trigger", dag_id, "-r", run_id, "-c", json.dumps(conf))
        assert done.returncode == 0, done.stdout + done.stderr
        return run_id

    def state(self, run_id: str) -> str:
        """Return the state of a run."""
        [[state]] = self.home.query("select state from dag_run where run_id = ?", run_id)
        return str(state)

    def task_states(self, run_id: str) -> dict[str, str | None]:
        """Return the state of each task of a run."""
        return dict(
            self.home.query("select task_id, state from task_instance where run_id = ?", run_id)
        )

    def mark_failed(self, dag_id: str, run_id: str) -> None:
        """Mark a run failed, as the web interface does."""
        if self.url is None:
            # The web interface of Airflow 2 does this, and these tests do not start it.
            sql = "update task_instance set state = 'failed' where run_id = ? and state = 'running'"
            self.home.execute(sql, run_id)
            return
        self.ask("patch", f"dags/{dag_id}/dagRuns/{run_id}", {"state": "failed"})

    def clear(self, dag_id: str, run_id: str) -> None:
        """Have a run done again, as the web interface does."""
        if self.url is None:
            # The command knows no run ids, and without dates it clears the runs of all tests.
            sql = "select execution_date from dag_run where run_id = ?"
            [[date]] = self.home.query(sql, run_id)
            done = self.home.command("tasks", "clear", "-y", "-s", date, "-e", date, dag_id)
            assert done.returncode == 0, done.stdout + done.stderr
            return
        self.ask("post", f"dags/{dag_id}/dagRuns/{run_id}/clear", {"dry_run": False})

    def ask(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        """Send a request to the API server of Airflow 3."""
        assert self.url
        answer = requests.request(
            method,
            f"{self.url}/api/v2/{path}",
            json=body,
            headers={"Authorization": f"Bearer {token(self.url)}"},
            timeout=20,
        )
        assert answer.status_code == 200, answer.text

    def wait(self, run_id: str, seconds: float = DEADLINE_SECONDS) -> str:
        """Return the state of a run that has ended."""
        return str(
            wait_until(
                lambda: (state := self.state(run_id)) in ("success", "failed") and state,
                self.logs,
                seconds,
            )
        )

    def task_log(self, run_id: str) -> str:
        """Return the log of all tasks of a run."""
        files = (self.home.path / "logs").rglob("*.log*")
        return "".join(path.read_text() for path in files if run_id in str(path))

    def logs(self) -> str:
        """Return the end of every log, for a test that failed."""
        files = [*self.home.path.glob("*.log"), *(self.home.path / "logs").rglob("attempt=*.log*")]
        return "\n".join(f"== {path}\n{path.read_text()[-3000:]}" for path in files)


def cluster_environment(port: int) -> dict[str, str]:
    """Return the settings that every running Airflow needs.

    :param port: of the API server.
    """
    return {
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        # Processes that start at the same time would each make one of its own.
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(bytes(range(32))).decode(),
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a-secret-of-this-test-run-and-no-other-0123456789",
        # The files stay as they are; parsing them again takes processor time.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "900",
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "900",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    }


@contextlib.contextmanager
def running(
    home: AirflowHome,
    emulator: Emulator,
    port: int,
    *,
    triggerer: bool = False,
    workers: Iterable[str] = (),
) -> Iterator[Cluster]:
    """Run Airflow's own processes for a ``with`` block, then kill them and their children.

    :param home: its environment holds ``cluster_environment``.
    :param emulator: the service that it labels with.
    :param port: for the API server.
    :param triggerer: whether there is one.
    :param workers: names of Celery's workers, each of which runs two tasks at a time.
    """
    commands = {"scheduler": ["scheduler", "--skip-serve-logs"]}
    if not AIRFLOW_2:
        server = ["api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        commands |= {"dag-processor": ["dag-processor"], "api-server": server}
    if triggerer:
        commands["triggerer"] = ["triggerer", "--skip-serve-logs"]
    for name in workers:
        worker = ["celery", "worker", "--skip-serve-logs", "--concurrency", "2"]
        commands[name] = [*worker, "--celery-hostname", name]
    url = None if AIRFLOW_2 else f"http://127.0.0.1:{port}"
    cluster = Cluster(home, url, emulator, commands)
    files = list(Path(home.environment["AIRFLOW__CORE__DAGS_FOLDER"]).glob("*.py"))
    try:
        for name in commands:
            cluster.start(name)
        parsed = (
            "select count(distinct dag.fileloc) from dag"
            " join serialized_dag on serialized_dag.dag_id = dag.dag_id"
        )
        wait_until(lambda: home.query(parsed)[0][0] == len(files), cluster.logs)
        wait_until(cluster.is_ready, cluster.logs)
        yield cluster
    finally:
        for process in cluster.processes.values():
            end_group(process)
