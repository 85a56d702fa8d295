"""An Airflow 3 for one benchmark, with its metadata in PostgreSQL."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa


@dataclass
class Airflow:
    """A running Airflow.

    :param home: AIRFLOW_HOME.
    :param environment: environment of its processes.
    :param metadata: engine of its metadata database.
    :param port: port of its API server.
    :param processes: running processes by name.
    """

    home: Path
    environment: dict[str, str]
    metadata: sa.Engine
    port: str
    processes: dict[str, subprocess.Popen[bytes]]

    def log(self, name: str) -> Path:
        """Return the log of one of its processes."""
        return self.home / f"{name}.log"

    def start(self, name: str, *arguments: str) -> None:
        """Start one of its processes."""
        with self.log(name).open("wb") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", name, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start_scheduling(self) -> None:
        """Start scheduler, DAG processor and API server."""
        self.start("scheduler", "--skip-serve-logs")
        self.start("dag-processor")
        self.start("api-server", "--host", "127.0.0.1", "--port", self.port)

    def command(self, *arguments: str) -> None:
        """Run an ``airflow`` command.

        :raises SystemExit: the command failed.
        """
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)

    def value(self, sql: str, **values: Any) -> Any:
        """Return the first value of a query on the metadata."""
        with self.metadata.connect() as connection:
            return connection.execute(sa.text(sql), values).scalar()

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until the condition is true.

        :raises SystemExit: the time is over; its text is the ends of the logs.
        """
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = [self.log(name).read_text()[-3000:] for name in self.processes]
                raise SystemExit("\n".join(logs))
            time.sleep(0.25)

    def end(self) -> None:
        """Kill all processes and their children."""
        for process in self.processes.values():
            children = []
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(process.pid).children(recursive=True)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.wait(30)


@contextlib.contextmanager
def airflow(
    database: sa.Engine, environment: Mapping[str, str], **settings: str
) -> Iterator[Airflow]:
    """Create an Airflow without processes, and kill its processes at the end of the block.

    :param database: engine of the server on which the metadata database is created.
    :param environment: environment of the processes.
    :param settings: environment variables of this benchmark.
    """
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE DATABASE airflow")
    url = database.url.set(database="airflow")
    home = Path(environment["AIRFLOW_HOME"])
    (home / "dags").mkdir(parents=True)
    port = _free_port()
    own = {
        **environment,
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # Without it, each process that starts would generate a key of its own.
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(bytes(range(32))).decode(),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a-secret-of-this-benchmark-and-no-other-0123456789",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url.render_as_string(hide_password=False),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        # On a busy machine the API server exceeds Airflow's default.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        # An installed package has its bytecode; this one writes it in the first run.
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "PYTHONUNBUFFERED": "1",
        **settings,
    }
    made = Airflow(home, own, sa.create_engine(url), port, {})
    # The default action of SIGTERM would leave the processes running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        made.command("db", "migrate")
        yield made
    finally:
        made.end()
        made.metadata.dispose()


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
