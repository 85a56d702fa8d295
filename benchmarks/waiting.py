"""Measure time and memory of the sensor that finds the few new rows of a large table.

The setting is a PostgreSQL table of images, all but a few of which are labelled, and the labels in
the same database. In the last setting some images wait for another try, and none is due. Each
measurement is a process of its own, as a task is, with the sensor's first poll and a second one.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from memory import peak_mb
from warehouse import warehouse

ROWS = 1_000_000
NEW = 10
WAITING = 10_000
API = "DetectLabelPro"
SETTINGS = ("a table", "a query", "nothing new", "many wait")


def main() -> int:
    """Measure, print a table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of the table")
    parser.add_argument("--work", help="internal: measure this setting", default=None)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(_measure(arguments.work)))
        return 0
    with warehouse() as (database, environment):
        _fill(database, arguments.rows)
        print(f"{arguments.rows:,} rows, {NEW} of them new; seconds, and MB above the start")
        print(f"{'setting':24}{'found':>7}{'first poll':>12}{'second':>9}{'peak MB':>9}")
        for setting in SETTINGS:
            if setting == "nothing new":
                _label(database)
            if setting == "many wait":
                _let_wait(database)
            command = [sys.executable, str(Path(__file__).resolve()), "--work", setting]
            done = subprocess.run(
                command, env=environment, check=False, capture_output=True, text=True
            )
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)
            figures = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{setting:24}{figures['found']:>7}{figures['first']:>12.2f}"
                f"{figures['second']:>9.2f}"
                f"{figures['peak_mb']:>9.1f}"
            )
    return 0


def _fill(database: sa.Engine, rows: int) -> None:
    from airflow_imagetag.stores.sql_schema import tables

    images, _ = tables("product_labels", None)
    with database.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE products (sku text PRIMARY KEY, url text, updated_at timestamptz)"
        )
        connection.exec_driver_sql(
            "INSERT INTO products SELECT 'sku-' || lpad(n::text, 8, '0'),"
            " 'https://example.com/' || n || '.jpg', '2026-07-01'::timestamptz"
            f" FROM generate_series(1, {rows}) AS n"
        )
        images.metadata.create_all(connection)
    # The new rows are scattered over the table.
    _label(database, f"sku NOT IN (SELECT sku FROM products ORDER BY md5(sku) LIMIT {NEW})")
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


def _label(database: sa.Engine, condition: str = "true") -> None:
    """Store labels of the rows that meet the condition."""
    with database.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO product_labels_images (api, key_sha256, image_key, image_uri, version,"
            " status, labels_count, attempts, tagged_at)"
            " SELECT api, encode(sha256(convert_to(sku, 'UTF8')), 'hex'), sku, url,"
            " updated_at::text, 'tagged', 0, 1, now() FROM products,"
            f" (VALUES ('{API}')) AS apis (api) WHERE {condition}"
            " ON CONFLICT DO NOTHING"
        )


def _let_wait(database: sa.Engine) -> None:
    """Turn some of the labelled rows into failures that are not due yet."""
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            "UPDATE product_labels_images SET status = 'waiting', tries = 1,"
            " first_failed_at = now(), next_try_at = now() + interval '1 day'"
            " WHERE image_key IN"
            f" (SELECT image_key FROM product_labels_images ORDER BY key_sha256 LIMIT {WAITING})"
        )
        connection.exec_driver_sql("VACUUM ANALYZE")


def _measure(setting: str) -> dict[str, Any]:
    from airflow_imagetag.sensors.imagetag import NewImagesSensor
    from airflow_imagetag.sources import SqlImages
    from airflow_imagetag.stores import SqlLabelStore

    rows: dict[str, Any] = {"table": "products"}
    if setting == "a query":
        rows = {"sql": "SELECT * FROM products"}
    source = SqlImages("warehouse", **rows, key="sku", uri="url", version="updated_at")
    store = SqlLabelStore("warehouse", table="product_labels")
    sensor = NewImagesSensor(task_id="wait", images=source, store=store)
    start_mb = peak_mb()
    found: list[Any] = []
    seconds = []
    for _ in range(2):
        started = time.monotonic()
        found = sensor.poke({}).xcom_value or []
        seconds.append(time.monotonic() - started)
    return {
        "found": len(found),
        "first": seconds[0],
        "second": seconds[1],
        "peak_mb": peak_mb() - start_mb,
    }


if __name__ == "__main__":
    sys.exit(main())
