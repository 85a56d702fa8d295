"""What many deferred sensors do to a triggerer: its event loop, its heartbeat and its memory.

A real scheduler and triggerer of Airflow 3, a PostgreSQL for Airflow's metadata and for the images,
and a mapped sensor whose query takes two seconds. The triggerer's own watchdog logs each delay of
its event loop. The first row is a triggerer without any work: what the machine itself is late.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa
from warehouse import warehouse

SENSORS = 100
SECONDS = 60.0
QUERY_SECONDS = 2.0
POKE_INTERVAL = 5.0
TICK_SECONDS = 0.1
"""The watchdog sleeps so long, and logs how long that took."""

WARNING_SECONDS = 0.2
"""From which on Airflow warns, unless it is configured otherwise."""

BLOCKED = re.compile(rb"async thread was blocked for ([\d.]+) seconds")

DAG_FILE = """
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore

SLOW = (
    "SELECT id, image_url FROM pictures, pg_sleep(QUERY_SECONDS) AS slow(nothing)"
    " WHERE slow.nothing::text = 'never NUMBER'"
)

with DAG("wait", schedule="@once", start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    NewImagesSensor.partial(
        task_id="wait",
        store=SqlLabelStore("warehouse", table="picture_labels"),
        poke_interval=POKE_INTERVAL,
        timeout=3600,
        deferrable=True,
    ).expand(
        images=[
            SqlImages("warehouse", sql=SLOW.replace("NUMBER", str(number)))
            for number in range(SENSORS)
        ]
    )
"""


def main() -> int:
    """Measure, print a table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sensors", type=int, default=SENSORS, help="deferred sensors")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long to measure")
    parser.add_argument("--query", type=float, default=QUERY_SECONDS, help="seconds of a look")
    parser.add_argument("--poke-interval", type=float, default=POKE_INTERVAL)
    parser.add_argument("--keep-logs", type=Path, help="an empty folder to copy all logs to")
    arguments = parser.parse_args()
    text = DAG_FILE.replace("QUERY_SECONDS", str(arguments.query))
    text = text.replace("POKE_INTERVAL", str(arguments.poke_interval))
    text = text.replace("SENSORS", str(arguments.sensors))
    with warehouse() as (database, environment), _airflow(database, environment) as airflow:
        print(
            f"{'':12}{'sensors':>8}{'looks':>7}{'longest block, ms':>19}{'99 of 100, ms':>15}"
            f"{'warnings':>10}{'oldest heartbeat, s':>21}{'peak MB':>9}"
        )
        airflow.start("triggerer", "--skip-serve-logs")
        airflow.wait(lambda: airflow.heartbeat_age() is not None, 120)
        airflow.measure("idle", 0, arguments.seconds)
        (airflow.home / "dags" / "wait.py").write_text(text)
        airflow.start("scheduler", "--skip-serve-logs")
        airflow.start("dag-processor")
        airflow.start("api-server", "--host", "127.0.0.1", "--port", airflow.port)
        airflow.measure(
            "deferring", arguments.sensors, 900, lambda: airflow.deferred() == arguments.sensors
        )
        airflow.measure("waiting", arguments.sensors, arguments.seconds)
        still = airflow.deferred()
        if arguments.keep_logs:
            shutil.copytree(airflow.home, arguments.keep_logs, dirs_exist_ok=True)
    print(f"\n{still} of {arguments.sensors} sensors are still deferred")
    return 0 if still == arguments.sensors else 1


@dataclass
class _Airflow:
    """An Airflow of this benchmark.

    :param home: its folder.
    :param environment: of its processes.
    :param metadata: its database.
    :param port: of its API server.
    :param processes: those that run.
    """

    home: Path
    environment: dict[str, str]
    metadata: sa.Engine
    port: str
    processes: dict[str, subprocess.Popen[bytes]]

    @property
    def log(self) -> Path:
        """The log of the triggerer."""
        return self.home / "triggerer.log"

    def start(self, name: str, *arguments: str) -> None:
        """Start one of its processes."""
        with (self.home / f"{name}.log").open("wb") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "airflow", name, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def measure(
        self,
        what: str,
        sensors: int,
        seconds: float,
        is_over: Callable[[], bool] | None = None,
    ) -> None:
        """Print what the triggerer does for so many seconds, or until something is over."""
        begin, end = self.log.stat().st_size, time.monotonic() + seconds
        looks, ages, peak = self._looks(), [0.0], 0.0
        while time.monotonic() < end and not (is_over and is_over()):
            ages.append(self.heartbeat_age() or 0.0)
            peak = max(peak, self._memory())
            time.sleep(0.25)
        said = self.log.read_bytes()[begin:]
        ticks = sorted(float(found) for found in BLOCKED.findall(said))
        blocks = [max(tick - TICK_SECONDS, 0) * 1000 for tick in ticks]
        warnings = sum(tick > WARNING_SECONDS for tick in ticks)
        print(
            f"{what:12}{sensors:>8}{self._looks() - looks:>7}{blocks[-1]:>19.0f}"
            f"{blocks[int(len(blocks) * 0.99) - 1]:>15.0f}{warnings:>10}{max(ages):>21.1f}"
            f"{peak:>9.0f}",
            flush=True,
        )

    def heartbeat_age(self) -> float | None:
        """Return how long ago the triggerer gave a sign of life."""
        return self._value(
            "SELECT extract(epoch FROM now() - latest_heartbeat)::float FROM job"
            " WHERE job_type = 'TriggererJob'"
        )

    def deferred(self) -> int:
        """Return how many sensors are in the triggerer's hands."""
        return int(
            self._value(
                "SELECT count(*)::float FROM task_instance JOIN trigger ON trigger.id = trigger_id"
                " WHERE state = 'deferred' AND triggerer_id IS NOT NULL"
            )
            or 0
        )

    def wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(self.log.read_text()[-3000:])
            time.sleep(0.25)

    def end(self) -> None:
        """Kill all processes and what they have started."""
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

    def _value(self, sql: str) -> float | None:
        with self.metadata.connect() as connection:
            return connection.execute(sa.text(sql)).scalar()

    def _looks(self) -> int:
        logs = (self.home / "logs").rglob("*.trigger.*.log")
        return sum(path.read_bytes().count(b"of at least") for path in logs)

    def _memory(self) -> float:
        triggerer = psutil.Process(self.processes["triggerer"].pid)
        resident = [process.memory_info().rss for process in triggerer.children(recursive=True)]
        return max(resident, default=0) / 2**20


@contextlib.contextmanager
def _airflow(database: sa.Engine, environment: dict[str, str]) -> Iterator[_Airflow]:
    """Make an Airflow with a database of its own beside the images."""
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE DATABASE airflow")
        connection.exec_driver_sql("CREATE TABLE pictures (id text, image_url text)")
        connection.exec_driver_sql("INSERT INTO pictures VALUES ('1', 'https://shop/1.jpg')")
    url = database.url.set(database="airflow")
    home = Path(environment["AIRFLOW_HOME"])
    (home / "dags").mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    settings = environment | {
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # Processes that start at the same time would each make one of its own.
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(bytes(range(32))).decode(),
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
        "AIRFLOW__CORE__PARALLELISM": "6",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API_AUTH__JWT_SECRET": "a-secret-of-this-benchmark-and-no-other-0123456789",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url.render_as_string(hide_password=False),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        # So that every tick is logged, and not only the slow ones.
        "AIRFLOW__TRIGGERER__BLOCKED_MAIN_THREAD_WARNING_THRESHOLD": str(TICK_SECONDS),
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "PYTHONUNBUFFERED": "1",
    }
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(migrate, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    airflow = _Airflow(home, settings, sa.create_engine(url), port, {})
    try:
        yield airflow
    finally:
        airflow.end()
        airflow.metadata.dispose()


if __name__ == "__main__":
    sys.exit(main())
