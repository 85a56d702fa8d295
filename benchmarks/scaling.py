"""Measure the growth of cost with the number of images: difference, store size, flush, memory.

The first setting is a PostgreSQL table of images and a label store in the same database, filled by
SQL: five labels for each image, every image stored. The second is a Parquet dataset, written in
batches as in a run. Prints one line for each size, so that the columns show slopes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from memory import peak_mb
from warehouse import warehouse

from airflow_imagetag.models import Label, TagResult
from airflow_imagetag.selection.difference import new_entries
from airflow_imagetag.selection.rules import Rule
from airflow_imagetag.selection.shards import parse_shard
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.stores.open_store import OpenStore
from airflow_imagetag.stores.sql_schema import tables

SQL_SIZES = (10_000, 30_000, 100_000, 1_000_000)
PARQUET_SIZES = (10_000, 30_000, 100_000)
API = "picture_classify"
LABELS = 5
BATCH = 200
FLUSHES = 10
SHARD = "3/16"

SQL_COLUMNS = (
    "sql_bytes", "difference_us", "shard_us", "shard_rows", "flush_us", "flush_40_us", "peak_mb"
)  # fmt: skip
PARQUET_COLUMNS = (
    "parts", "bytes", "flush_us", "open_us", "compact_us", "compacted_bytes", "peak_mb"
)  # fmt: skip

EXPLANATION = """
Each line is a number of images. Bytes and microseconds (us) are for one image; the difference is
divided by the number of all images, also for a shard.
"""


def main() -> int:
    """Measure, print the tables and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sql", type=int, nargs="*", default=SQL_SIZES, help="sizes in PostgreSQL")
    parser.add_argument(
        "--parquet", type=int, nargs="*", default=PARQUET_SIZES, help="sizes in Parquet"
    )
    parser.add_argument("--work", nargs=2, help="internal: measure this kind with this many images")
    arguments = parser.parse_args()
    if arguments.work:
        kind, images = arguments.work
        print(json.dumps({"sql": _sql, "parquet": _parquet}[kind](int(images))))
        return 0
    print(EXPLANATION)
    with warehouse() as (database, environment):
        _print_head("PostgreSQL", SQL_COLUMNS)
        for images in arguments.sql:
            _fill(database, images)
            sizes = (f"pg_total_relation_size('labels_{images}{of}')" for of in ("", "_images"))
            with database.connect() as connection:
                size = connection.exec_driver_sql(f"SELECT {' + '.join(sizes)}").scalar_one()
            measured = _run("sql", images, environment)
            _print_line(images, {**measured, "sql_bytes": size / images}, SQL_COLUMNS)
        _print_head("Parquet", PARQUET_COLUMNS)
        for images in arguments.parquet:
            _print_line(images, _run("parquet", images, environment), PARQUET_COLUMNS)
    return 0


def _print_head(title: str, columns: tuple[str, ...]) -> None:
    print(f"\n{title:>12}" + "".join(f"{name:>17}" for name in columns))


def _print_line(images: int, values: dict[str, float], columns: tuple[str, ...]) -> None:
    print(f"{images:>12,}" + "".join(f"{values[name]:>17,.1f}" for name in columns), flush=True)


def _run(kind: str, images: int, environment: dict[str, str]) -> dict[str, float]:
    """Measure in a process of its own, whose memory is that of the measurement."""
    command = [sys.executable, str(Path(__file__).resolve()), "--work", kind, str(images)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _fill(database: sa.Engine, images: int) -> None:
    """Create a table of images and a store with all of them."""
    products, labels = f"products_{images}", f"labels_{images}"
    digest = "encode(sha256(sku::bytea), 'hex')"
    statements = f"""
        SET TIME ZONE 'UTC';
        CREATE TABLE {products} (sku text PRIMARY KEY, photo_url text, updated_at timestamptz);
        INSERT INTO {products}
        SELECT 'sku-' || lpad(n::text, 9, '0'),
            'https://shop.example.com/photos/' || n || '.jpg', '2026-01-01'
        FROM generate_series(1, {images}) AS n;
        INSERT INTO {labels}_images (api, key_sha256, image_key, image_uri, version, status,
            labels_count, attempts, tagged_at)
        SELECT '{API}', {digest}, sku, photo_url, '2026-01-01 00:00:00+00', 'tagged', {LABELS}, 1,
            now()
        FROM {products};
        INSERT INTO {labels} (api, key_sha256, rank, image_key, image_uri, label, probability,
            tagged_at)
        SELECT '{API}', {digest}, rank, sku, photo_url, 'label ' || rank, 1.0 / (1 + rank), now()
        FROM {products}, generate_series(1, {LABELS}) AS rank;
    """
    tables(labels, None)[0].metadata.create_all(database)
    with database.begin() as connection:
        connection.exec_driver_sql(statements)
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in (products, labels, f"{labels}_images"):
            # The database does it within a minute; until then, its plans may be poor.
            connection.exec_driver_sql(f"VACUUM ANALYZE {table}")


def _sql(images: int) -> dict[str, float]:
    store = SqlLabelStore("warehouse", table=f"labels_{images}")
    source = SqlImages(
        "warehouse", table=f"products_{images}", key="sku", uri="photo_url", version="updated_at"
    )
    with store.open(API) as opened:
        # The libraries, now loaded, take more memory than the work.
        start_mb = peak_mb()

        def difference(shard: str | None) -> float:
            part = parse_shard(shard)

            def compare() -> None:
                entries = new_entries(source, opened, Rule(), shard=part, limit=None)
                assert not list(entries), "the store holds every image"

            return min(_seconds(compare) for _ in range(3)) / images * 1e6

        whole, part = difference(None), difference(SHARD)
        # Without a store the source reads every row of the shard, and no other.
        rows = sum(1 for _ in source.entries(shard=parse_shard(SHARD)))
        flush, small_flush = (
            _seconds(partial(write, opened, FLUSHES, batch, first)) / (FLUSHES * batch) * 1e6
            for batch, first in ((BATCH, 0), (40, 10**6))
        )
    return {
        "difference_us": whole,
        "shard_us": part,
        "shard_rows": rows,
        "flush_us": flush,
        "flush_40_us": small_flush,
        "peak_mb": peak_mb() - start_mb,
    }


def _parquet(images: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="imagetag-benchmark-") as folder:
        store = ParquetLabelStore(f"file://{folder}/lake")
        with store.open(API) as opened:
            write(opened, 1, 1, 10**6)
        # The libraries, now loaded, take more memory than the work.
        start_mb = peak_mb()

        def write_all() -> None:
            with store.open(API) as opened:
                write(opened, images // BATCH, BATCH, 0)

        def open_store() -> None:
            with store.open(API):
                pass

        flush = _seconds(write_all) / images * 1e6
        files = list(Path(folder).rglob("*.parquet"))
        size = sum(path.stat().st_size for path in files)
        open_us = _seconds(open_store) / images * 1e6
        compact_us = _seconds(store.compact) / images * 1e6
        compacted = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    return {
        "parts": len(files),
        "bytes": size / images,
        "flush_us": flush,
        "open_us": open_us,
        "compact_us": compact_us,
        "compacted_bytes": compacted / images,
        "peak_mb": peak_mb() - start_mb,
    }


def write(opened: OpenStore, batches: int, size: int, first: int) -> None:
    """Write batches of results, each with five labels."""
    for number in range(batches):
        opened.write(list(_results(first + number * size, size)))


def _results(first: int, count: int) -> Iterator[TagResult]:
    now = datetime.now(UTC)
    labels = tuple(Label(f"label {rank}", 1 / (1 + rank)) for rank in range(1, LABELS + 1))
    for number in range(first, first + count):
        uri = f"https://shop.example.com/photos/{number}.jpg"
        yield TagResult(f"new-{number:09}", uri, labels, API, now)


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
