"""Measure the load of many deferred sensors on a triggerer: event loop, heartbeat and memory.

The setting is a real scheduler and triggerer of Airflow 3, a PostgreSQL for Airflow's metadata and
the images, and a mapped sensor whose query takes two seconds. The triggerer's own watchdog logs
each delay of its event loop. The first row is an idle triggerer: the delays of the machine itself.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import sqlalchemy as sa
from airflows import Airflow, airflow
from warehouse import warehouse

SENSORS = 100
SECONDS = 60.0
QUERY_SECONDS = 2.0
POKE_INTERVAL = 5.0
TICK_SECONDS = 0.1
"""Interval of the watchdog, which logs the real duration of each sleep."""

WARNING_SECONDS = 0.2
"""Airflow's default threshold of a warning."""

BLOCKED = re.compile(rb"async thread was blocked for ([\d.]+) seconds")

SETTINGS = {
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
    "AIRFLOW__CORE__PARALLELISM": "6",
    # The threshold of one tick logs every tick, not only slow ones.
    "AIRFLOW__TRIGGERER__BLOCKED_MAIN_THREAD_WARNING_THRESHOLD": str(TICK_SECONDS),
}

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
    parser.add_argument("--seconds", type=float, default=SECONDS, help="duration of a measurement")
    parser.add_argument("--query", type=float, default=QUERY_SECONDS, help="seconds of a query")
    parser.add_argument("--poke-interval", type=float, default=POKE_INTERVAL)
    parser.add_argument("--keep-logs", type=Path, help="an empty folder to copy all logs to")
    arguments = parser.parse_args()
    text = DAG_FILE.replace("QUERY_SECONDS", str(arguments.query))
    text = text.replace("POKE_INTERVAL", str(arguments.poke_interval))
    text = text.replace("SENSORS", str(arguments.sensors))
    with (
        warehouse() as (database, environment),
        airflow(database, environment, **SETTINGS) as started,
    ):
        _fill(database)
        monitor = _TriggererMonitor(started)
        print(
            f"{'':12}{'sensors':>8}{'polls':>7}{'longest block, ms':>19}{'99 of 100, ms':>15}"
            f"{'warnings':>10}{'oldest heartbeat, s':>21}{'peak MB':>9}"
        )
        started.start("triggerer", "--skip-serve-logs")
        started.wait(lambda: monitor.heartbeat_age() is not None, 120)
        monitor.measure("idle", 0, arguments.seconds)
        (started.home / "dags" / "wait.py").write_text(text)
        started.start_scheduling()
        monitor.measure(
            "deferring", arguments.sensors, 900, lambda: monitor.deferred() == arguments.sensors
        )
        monitor.measure("waiting", arguments.sensors, arguments.seconds)
        still_deferred = monitor.deferred()
        if arguments.keep_logs:
            shutil.copytree(started.home, arguments.keep_logs, dirs_exist_ok=True)
    print(f"\n{still_deferred} of {arguments.sensors} sensors are still deferred")
    return 0 if still_deferred == arguments.sensors else 1


@dataclass
class _TriggererMonitor:
    """Measure the triggerer of an Airflow.

    :param airflow: the Airflow.
    """

    airflow: Airflow

    def measure(
        self,
        phase: str,
        sensors: int,
        seconds: float,
        is_over: Callable[[], bool] | None = None,
    ) -> None:
        """Print the figures of a time span, which ``is_over`` can end early."""
        log = self.airflow.log("triggerer")
        begin, end = log.stat().st_size, time.monotonic() + seconds
        polls, ages, peak = self._polls(), [0.0], 0.0
        while time.monotonic() < end and not (is_over and is_over()):
            ages.append(self.heartbeat_age() or 0.0)
            peak = max(peak, self._memory())
            time.sleep(0.25)
        logged = log.read_bytes()[begin:]
        ticks = sorted(float(found) for found in BLOCKED.findall(logged))
        blocks = [max(tick - TICK_SECONDS, 0) * 1000 for tick in ticks]
        warnings = sum(tick > WARNING_SECONDS for tick in ticks)
        print(
            f"{phase:12}{sensors:>8}{self._polls() - polls:>7}{blocks[-1]:>19.0f}"
            f"{blocks[int(len(blocks) * 0.99) - 1]:>15.0f}{warnings:>10}{max(ages):>21.1f}"
            f"{peak:>9.0f}",
            flush=True,
        )

    def heartbeat_age(self) -> float | None:
        """Return the seconds since the triggerer's last heartbeat; None before the first."""
        age: float | None = self.airflow.value(
            "SELECT extract(epoch FROM now() - latest_heartbeat)::float FROM job"
            " WHERE job_type = 'TriggererJob'"
        )
        return age

    def deferred(self) -> int:
        """Return the number of sensors that the triggerer runs."""
        return int(
            self.airflow.value(
                "SELECT count(*) FROM task_instance JOIN trigger ON trigger.id = trigger_id"
                " WHERE state = 'deferred' AND triggerer_id IS NOT NULL"
            )
        )

    def _polls(self) -> int:
        logs = (self.airflow.home / "logs").rglob("*.trigger.*.log")
        return sum(path.read_bytes().count(b"of at least") for path in logs)

    def _memory(self) -> float:
        triggerer = psutil.Process(self.airflow.processes["triggerer"].pid)
        resident = [process.memory_info().rss for process in triggerer.children(recursive=True)]
        return max(resident, default=0) / 2**20


def _fill(database: sa.Engine) -> None:
    """Create the table that all sensors query."""
    with database.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE pictures (id text, image_url text)")
        connection.exec_driver_sql("INSERT INTO pictures VALUES ('1', 'https://shop/1.jpg')")


if __name__ == "__main__":
    sys.exit(main())
