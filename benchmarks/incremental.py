"""Measure updates of a label table: calls, time and memory, for two sizes of a table.

The setting is a PostgreSQL table of images, its labels in the same database, and the emulator
without latency or quota. Each run is a process of its own, as a task is. Prints the figures of each
run, and the ratio of the memory of the larger table to that of the smaller one.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from memory import peak_mb
from PIL import Image
from warehouse import warehouse

from airflow_imagetag.testing import Emulator

SIZES = (10_000, 100_000)
CHANGED = 100


def main() -> int:
    """Measure, print a table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=SIZES, help="rows of the tables")
    parser.add_argument("--work", help="internal: run one task on this table", default=None)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(_task(arguments.work)))
        return 0
    print(
        f"{'rows':>8} {'run':16}{'calls':>8}{'tagged':>8}{'seconds':>9}{'peak above start, MB':>22}"
    )
    peaks = {}
    with warehouse() as (database, environment), Emulator() as emulator:
        environment["AIRFLOW_CONN_IMAGETAG_DEFAULT"] = without_quota(emulator.connection_json)
        for rows in arguments.sizes:
            table = f"products_{rows}"
            fill(database, table, rows)
            for run in ("first", "again", f"{CHANGED} changed"):
                if run.endswith("changed"):
                    _change(database, table)
                emulator.reset_stats()
                figures = _run(table, environment)
                peaks[rows, run] = figures["peak_mb"]
                print(
                    f"{rows:>8,} {run:16}{emulator.stats.requests:>8,}{figures['tagged']:>8,}"
                    f"{figures['seconds']:>9.1f}{figures['peak_mb']:>22.1f}"
                )
    small, large = (peaks[rows, "first"] for rows in arguments.sizes)
    print(
        f"\npeak memory, {arguments.sizes[1]:,} rows to {arguments.sizes[0]:,}: {large / small:.2f}"
    )
    return 0


def fill(database: sa.Engine, table: str, rows: int) -> None:
    """Create a table of images."""
    with database.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE {table} (sku text PRIMARY KEY, photo bytea, updated_at timestamptz)"
        )
        statement = sa.text(f"INSERT INTO {table} VALUES (:sku, :photo, now())")
        for start in range(0, rows, 5_000):
            numbers = range(start, min(start + 5_000, rows))
            connection.execute(
                statement, [{"sku": f"sku-{n:07}", "photo": _image(n)} for n in numbers]
            )


def _image(number: int) -> bytes:
    """Return a small PNG that differs for each number."""
    picture = Image.new("RGB", (8, 8), (number % 256, number // 256 % 256, number // 65536))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _change(database: sa.Engine, table: str) -> None:
    # A PNG may have trailing bytes; equal bytes would need no call.
    with database.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE {table} SET updated_at = now(), photo = photo || 'changed'::bytea"
            f" WHERE sku IN (SELECT sku FROM {table} ORDER BY md5(sku) LIMIT {CHANGED})"
        )


def without_quota(connection_json: str) -> str:
    """Return a connection without its quota."""
    connection = json.loads(connection_json)
    extra = connection["extra"]
    extra = json.loads(extra) if isinstance(extra, str) else extra
    return json.dumps({**connection, "extra": {**extra, "requests_per_second": 0}})


def _run(table: str, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--work", table]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _task(table: str) -> dict[str, Any]:
    # A task of this kind has loaded these modules before its first image.
    for name in (
        "pandas",
        "airflow_imagetag.operators.run",
        "airflow_imagetag.stores.sql_open",
    ):
        importlib.import_module(name)
    from airflow_imagetag.operators.imagetag import ImageTagOperator
    from airflow_imagetag.sources import SqlImages
    from airflow_imagetag.stores import SqlLabelStore

    operator = ImageTagOperator(
        task_id="label",
        images=SqlImages(
            "warehouse", table=table, key="sku", content="photo", version="updated_at"
        ),
        store=SqlLabelStore("warehouse", table=f"{table}_labels"),
    )
    start_mb = peak_mb()
    started = time.monotonic()
    summary = operator.execute({})
    return {
        "tagged": summary["tagged"],
        "seconds": time.monotonic() - started,
        "peak_mb": peak_mb() - start_mb,
    }


if __name__ == "__main__":
    sys.exit(main())
