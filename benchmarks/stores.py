"""Measure stores of a warehouse: whole runs into DuckDB and Delta, and Parquet beside Delta.

The first table is of the operator: images of a PostgreSQL table, labelled by the emulator without
latency or quota into a DuckDB file and into Delta tables, and run once more. What DuckDB, pandas
and polars read of the labels is compared with ``store.labels()``. The second table is of the two
stores in a local folder, written in batches with five labels for each image. Each line is a process
of its own.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from incremental import fill, without_quota
from memory import peak_mb
from scaling import API, write
from warehouse import warehouse

from airflow_imagetag.stores import DeltaLabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator

RUN_IMAGES = 100_000
SIZES = (10_000, 100_000)
LARGE = 1_000_000
BATCH = 5_000
KEYS = 1_000
COLUMNS = ["image_key", "label", "probability", "rank"]
FOLDER_STORES = {"parquet": ParquetLabelStore, "delta": DeltaLabelStore}

MODULES = {
    "duckdb": ("duckdb_engine", "airflow_imagetag.stores.sql_open"),
    "delta": ("deltalake", "airflow_imagetag.stores.delta_open"),
}

Figures = dict[str, Any]


def main() -> int:
    """Measure, print the tables and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=RUN_IMAGES, help="images of a run; 0: none")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="images of a folder")
    parser.add_argument("--large", action="store_true", help="measure a million images, too")
    parser.add_argument("--work", nargs=3, help="internal: run one measurement", default=None)
    arguments = parser.parse_args()
    if arguments.work:
        kind, name, place = arguments.work
        work = _task if kind == "run" else partial(_folder, int(kind))
        print(json.dumps(work(name, place)))
        return 0
    if arguments.images:
        _print_runs(arguments.images)
    sizes = [*arguments.sizes, *([LARGE] if arguments.large else [])]
    if sizes:
        _print_folders(sizes)
    return 0


def _print_runs(images: int) -> None:
    print(f"{'store':10}{'run':8}{'calls':>9}{'seconds':>9}{'peak, MB':>10}{'files':>7}{'MB':>8}")
    with (
        tempfile.TemporaryDirectory(prefix="imagetag-benchmark-") as folder,
        warehouse() as (database, environment),
        Emulator() as emulator,
    ):
        environment["AIRFLOW_CONN_IMAGETAG_DEFAULT"] = without_quota(emulator.connection_json)
        fields = {"conn_type": "duckdb", "host": f"{folder}/labels.duckdb"}
        environment["AIRFLOW_CONN_LABELS"] = json.dumps(fields)
        fill(database, "products", images)
        for name in ("duckdb", "delta"):
            same: dict[str, bool] = {}
            for run in ("first", "again"):
                emulator.reset_stats()
                figures = _child("run", name, f"{folder}/lake", environment)
                same = figures["same"]
                print(
                    f"{name:10}{run:8}{emulator.stats.requests:>9,}{figures['seconds']:>9.1f}"
                    f"{figures['peak_mb']:>10.0f}{figures['files']:>7}{figures['mb']:>8.1f}"
                )
            told = ", ".join(f"{tool} {is_same}" for tool, is_same in same.items())
            print(f"{name:10}labels as in store.labels(): {told}")


def _print_folders(sizes: Iterable[int]) -> None:
    steps = ("write", "open", "compare", "labels", "compact")
    print(f"\n{'store':10}{'images':>10}", *(f"{step:>9}" for step in steps), end="")
    print(f"{'files':>8}{'compacted':>11}{'peak, MB':>10}")
    for size in sizes:
        for name in FOLDER_STORES:
            with tempfile.TemporaryDirectory(prefix="imagetag-benchmark-") as folder:
                figures = _child(str(size), name, folder, dict(os.environ))
            print(f"{name:10}{size:>10,}", *(f"{figures[step]:>9.1f}" for step in steps), end="")
            print(f"{figures['files']:>8}{figures['compacted']:>11}{figures['peak_mb']:>10.0f}")


def _child(kind: str, name: str, place: str, environment: dict[str, str]) -> Figures:
    command = [sys.executable, str(Path(__file__).resolve()), "--work", kind, name, place]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    result: Figures = json.loads(done.stdout.splitlines()[-1])
    return result


# -- whole runs ---------------------------------------------------------------------------------


def _task(name: str, place: str) -> Figures:
    from airflow_imagetag.operators.imagetag import ImageTagOperator
    from airflow_imagetag.sources import SqlImages

    store: Any = DeltaLabelStore(place) if name == "delta" else SqlLabelStore("labels")
    operator = ImageTagOperator(
        task_id="label",
        images=SqlImages(
            "warehouse", table="products", key="sku", content="photo", version="updated_at"
        ),
        store=store,
        batch_size=BATCH if name == "delta" else None,
        flush_seconds=60,
    )
    # The modules that every task has loaded take more memory than its work.
    for module in ("airflow_imagetag.operators.run", *MODULES[name]):
        importlib.import_module(module)
    start_mb = peak_mb()
    started = time.monotonic()
    operator.execute({})
    seconds, peak = time.monotonic() - started, peak_mb() - start_mb
    files = _files(Path(place) if name == "delta" else Path(place).parent, name)
    wanted = _sorted(pd.concat(store.labels()))
    readers = _readers_of_delta if name == "delta" else _readers_of_duckdb
    return {
        "seconds": seconds,
        "peak_mb": peak,
        "files": len(files),
        "mb": sum(path.stat().st_size for path in files) / 1e6,
        "same": {tool: _sorted(read()).equals(wanted) for tool, read in readers(place).items()},
    }


def _files(folder: Path, name: str) -> list[Path]:
    pattern = "*" if name == "delta" else "labels.duckdb*"
    return [path for path in folder.rglob(pattern) if path.is_file()]


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    types = {"image_key": "str", "label": "str", "probability": "float64", "rank": "int64"}
    plain = frame[COLUMNS].astype(types)
    return plain.sort_values(["image_key", "rank"], ignore_index=True)


def _readers_of_delta(place: str) -> dict[str, Callable[[], pd.DataFrame]]:
    import duckdb
    from deltalake import DeltaTable

    files = DeltaTable(f"{place}/labels").file_uris()
    readers: dict[str, Callable[[], pd.DataFrame]] = {
        "duckdb": lambda: duckdb.read_parquet(files).df(),
        "pandas": lambda: pd.concat(map(pd.read_parquet, files)),
    }
    if importlib.util.find_spec("polars"):
        polars = importlib.import_module("polars")
        readers["polars"] = lambda: polars.read_delta(f"{place}/labels").to_pandas()
    return readers


def _readers_of_duckdb(place: str) -> dict[str, Callable[[], pd.DataFrame]]:
    import duckdb

    connection = duckdb.connect(str(Path(place).parent / "labels.duckdb"), read_only=True)
    query = f"SELECT {', '.join(COLUMNS)} FROM image_labels"
    readers: dict[str, Callable[[], pd.DataFrame]] = {
        "duckdb": lambda: connection.execute(query).df(),
        "pandas": lambda: pd.DataFrame(connection.execute(query).fetchall(), columns=COLUMNS),
    }
    if importlib.util.find_spec("polars"):
        polars = importlib.import_module("polars")
        readers["polars"] = lambda: polars.from_arrow(
            connection.execute(query).to_arrow_table()
        ).to_pandas()
    return readers


# -- folders alone ------------------------------------------------------------------------------


def _folder(images: int, name: str, place: str) -> Figures:
    store: Any = FOLDER_STORES[name](f"{place}/lake")
    with FOLDER_STORES[name](f"{place}/first").open(API) as opened:
        write(opened, 1, 1, 0)
    # The libraries, now loaded, take more memory than a small store.
    start_mb = peak_mb()
    keys = [f"new-{number:09}" for number in range(images)]

    def fill_store() -> None:
        with store.open(API) as opened:
            write(opened, images // BATCH, BATCH, 0)

    def compare() -> float:
        with store.open(API) as opened:
            started = time.monotonic()
            held = sum(len(opened.known(keys[n : n + KEYS])) for n in range(0, images, KEYS))
            assert held == images
            return time.monotonic() - started

    def open_store() -> None:
        with store.open(API):
            pass

    def read() -> None:
        assert sum(map(len, store.labels())) == 5 * images

    def files() -> int:
        return sum(path.is_file() for path in Path(place, "lake").rglob("*"))

    figures: Figures = {"write": _seconds(fill_store), "files": files()}
    figures |= {"open": _seconds(open_store), "compare": compare(), "labels": _seconds(read)}
    figures |= {"compact": _seconds(store.compact), "compacted": files()}
    return figures | {"peak_mb": peak_mb() - start_mb}


def _seconds(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
