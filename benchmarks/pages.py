"""Measure the pages of labels: the time of each page by the size of the store, and small pictures.

The stores are PostgreSQL tables, filled by SQL, and Parquet datasets, filled in batches as in a
run: five labels for each image, one in a hundred images failed, another one waits. Each page is
made by an application of its own, so none is one that was kept. The last part asks a server for
small pictures of many photographs at once, and reads the memory of its process meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from table import print_table
from warehouse import warehouse

SIZES = (1_000, 100_000, 1_000_000)
QUICK_SIZES = (200, 1_000)
API = "DetectLabelPro"
LABELS = 5
RARE = 2_000
"""Number of images of which one has the rare label."""
RUNS = 200
ROUNDS = 3
PARQUET_BATCH = 20_000
PICTURES = 2_000

PAGES = {
    "overview": "overview",
    "labels": "labels",
    "gallery, first page": "gallery",
    "gallery, a page in the middle": f"gallery?after_api={API}&after=8{'0' * 63}",
    "gallery, a common label": "gallery?label=label+7",
    "gallery, a rare label": "gallery?label=tabby",
    "gallery, a rare label below 0.3": "gallery?label=tabby&max=0.3",
    "gallery, a label that is not there": "gallery?label=unicorn",
    "gallery, probability from 0.95": "gallery?min=0.95",
    "gallery, part of a key": "gallery?q=000123",
    "gallery, waiting": "gallery?status=waiting",
    "gallery, last day": "gallery?since={today}",
    "gallery, key": "gallery?key=sku-000000150",
    "one image": "image?key={digest}",
    "failures": "failures",
    "runs": "runs",
}


def main() -> int:
    """Measure, print the tables and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", help="numbers of images in PostgreSQL")
    parser.add_argument("--parquet", type=int, nargs="*", help="numbers of images in Parquet")
    parser.add_argument("--pictures", type=int, help="number of small pictures asked for at once")
    parser.add_argument("--index", action="store_true", help="with an index on the labels")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--work", nargs=2, help="internal: measure a store, or serve a folder")
    given = parser.parse_args()
    if given.work:
        kind, place = given.work
        _WORK[kind](place)
        return 0
    sizes = QUICK_SIZES if given.quick else SIZES
    _postgres(sizes if given.sizes is None else given.sizes, has_index=given.index)
    _parquet(sizes if given.parquet is None else given.parquet)
    pictures = 20 if given.quick else PICTURES
    _pictures(pictures if given.pictures is None else given.pictures)
    return 0


def _print_pages(title: str, measured: Mapping[int, Mapping[str, str]]) -> None:
    if not measured:
        return
    names = list(next(iter(measured.values())))
    head = ("seconds", *(f"{size:,} images" for size in measured))
    print_table(
        title, head, [(name, *(found[name] for found in measured.values())) for name in names]
    )


def _run(kind: str, place: str, environment: Mapping[str, str]) -> dict[str, str]:
    command = [sys.executable, str(Path(__file__).resolve()), "--work", kind, place]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    result: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return result


# -- pages ------------------------------------------------------------------------------------


def _postgres(sizes: Sequence[int], *, has_index: bool) -> None:
    measured = {}
    with warehouse() as (database, environment):
        for size in sizes:
            _fill_tables(database, size, has_index=has_index)
            measured[size] = _run("postgres", f"labels_{size}", environment)
    _print_pages(f"PostgreSQL{', with an index on the labels' if has_index else ''}", measured)


def _fill_tables(database: sa.Engine, size: int, *, has_index: bool) -> None:
    from airflow_imagetag.stores.sql_schema import tables

    name = f"labels_{size}"
    tables(name, None)[0].metadata.create_all(database)
    statements = f"""
        CREATE TEMPORARY TABLE made AS
        SELECT n, 'sku-' || lpad(n::text, 9, '0') AS image_key,
            encode(sha256(('sku-' || lpad(n::text, 9, '0'))::bytea), 'hex') AS digest,
            'https://shop.example.com/photos/' || n || '.jpg' AS uri,
            CASE n % 100 WHEN 0 THEN 'failed' WHEN 1 THEN 'waiting' ELSE 'tagged' END AS status,
            now() - (n % 90) * interval '1 day' AS at
        FROM generate_series(1, {size}) AS n;
        INSERT INTO {name}_images (api, key_sha256, image_key, image_uri, version, status,
            labels_count, error, code, message, attempts, tagged_at, next_try_at)
        SELECT '{API}', digest, image_key, uri, 'v1', status,
            CASE status WHEN 'tagged' THEN {LABELS} ELSE 0 END,
            CASE status WHEN 'failed' THEN 'ImageDecodeError' WHEN 'waiting' THEN
                'ServiceUnavailableError' END,
            CASE status WHEN 'failed' THEN '-1301' WHEN 'waiting' THEN '503' END,
            CASE status WHEN 'tagged' THEN NULL ELSE 'It failed.' END, 1, at,
            CASE status WHEN 'waiting' THEN at END
        FROM made ORDER BY n;
        INSERT INTO {name} (api, key_sha256, rank, image_key, image_uri, label, probability,
            tagged_at)
        SELECT '{API}', digest, rank, image_key, uri,
            CASE WHEN n % {RARE} = 7 AND rank = {LABELS} THEN 'tabby'
                ELSE 'label ' || floor(500 * power(random(), 2)) END,
            random() / rank, at
        FROM made, generate_series(1, {LABELS}) AS rank WHERE status = 'tagged' ORDER BY n;
        DROP TABLE made;
    """
    with database.begin() as connection:
        connection.exec_driver_sql(statements.replace("%", "%%"))
        if has_index:
            connection.exec_driver_sql(
                f"CREATE INDEX ON {name} (api, label, key_sha256, probability)"
            )
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in (name, f"{name}_images"):
            # The database does it within a minute; until then, its plans may be poor.
            connection.exec_driver_sql(f"VACUUM ANALYZE {table}")


def _measure_postgres(table: str) -> None:
    from airflow_imagetag.stores import SqlLabelStore

    store = SqlLabelStore("warehouse", table)
    _record_runs(store)
    print(json.dumps(_times(store)))


def _parquet(sizes: Sequence[int]) -> None:
    measured = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="imagetag-benchmark-") as folder:
            environment = {**os.environ, "AIRFLOW_HOME": f"{folder}/airflow"}
            measured[size] = _run("parquet", f"{folder}/{size}", environment)
    _print_pages("Parquet, whose first page waits for a copy", measured)


def _measure_parquet(place: str) -> None:
    from airflow_imagetag.stores import ParquetLabelStore

    store = ParquetLabelStore(place)
    with store.open(API) as opened:
        size = int(Path(place).name)
        for first in range(1, size + 1, PARQUET_BATCH):
            opened.write(list(_outcomes(first, min(PARQUET_BATCH, size + 1 - first))))
    store.compact()
    _record_runs(store)
    print(json.dumps(_times(store)))


def _outcomes(first: int, count: int) -> Iterator[Any]:
    import random

    from airflow_imagetag.models import Failure, Label, TagResult

    chance = random.Random(first)
    now = datetime.now(UTC)
    for number in range(first, first + count):
        key, uri = f"sku-{number:09}", f"https://shop.example.com/photos/{number}.jpg"
        at = now - timedelta(days=number % 90)
        if number % 100 < 2:
            error = ("ImageDecodeError", "-1301") if number % 100 else ("ServiceError", "503")
            yield Failure(key, uri, *error, "It failed.", 1, at, is_final=bool(number % 100))
            continue
        names = [f"label {int(500 * chance.random() ** 2)}" for _ in range(LABELS)]
        if number % RARE == 7:
            names[-1] = "tabby"
        labels = (Label(name, chance.random() / rank) for rank, name in enumerate(names, 1))
        yield TagResult(key, uri, tuple(labels), API, at)


def _record_runs(store: Any) -> None:
    from airflow_imagetag.stores.runs import RunOutcome, RunRecord

    now = datetime.now(UTC)
    with store.open(API) as opened:
        for number in range(RUNS):
            at = now - timedelta(hours=12 * number)
            record = RunRecord(
                f"{number:032x}",
                API,
                at,
                at,
                at + timedelta(minutes=9),
                dag_id="label_products",
                task_id="label",
                run_id=f"scheduled__{at.isoformat()}",
                map_index=-1,
                calls=1_000,
                price_per_thousand=0.25,
                outcome=RunOutcome.SUCCESS,
            )
            opened.record_run(record)


def _times(store: Any) -> dict[str, str]:
    from airflow_imagetag.stores.opening import is_copied
    from airflow_imagetag.stores.rows import key_digest

    found = {}
    given = {"today": f"{datetime.now(UTC):%Y-%m-%d}", "digest": key_digest("sku-000000150")}
    paths = {name: path.format(**given) for name, path in PAGES.items()}
    with _client(store) as (client, waited):
        # The libraries are loaded, and the database has read what it reads first.
        client.get("/products/gallery")
        if is_copied(store):
            # One copy serves all, so only the first answer of each page is measured.
            found["the copy"] = f"{waited:.1f}"
            return found | {name: _time(client, path)[1] for name, path in paths.items()}
    for name, path in paths.items():
        rounds = []
        for _ in range(ROUNDS):
            with _client(store) as (client, _):
                rounds.append(_time(client, path))
        found[name] = sorted(rounds)[len(rounds) // 2][1]
    return found


def _time(client: Any, path: str) -> tuple[float, str]:
    """Return the seconds of a page, and how they are shown."""
    began = time.monotonic()
    answer = client.get(f"/products/{path}")
    seconds = time.monotonic() - began
    text = answer.text
    told = " (no answer)" if "did not answer in time" in text else ""
    told = " (cut)" if "was over before it was full" in text else told
    return seconds, f"{seconds:.2f}{told}"


@contextlib.contextmanager
def _client(store: Any) -> Iterator[tuple[Any, float]]:
    """Make a client of new pages, and wait until their copy is there."""
    from starlette.testclient import TestClient

    from airflow_imagetag.ui.application import make_application
    from airflow_imagetag.ui.hub import StoreHub
    from airflow_imagetag.ui.thumbnails import configured_thumbnails

    hub = StoreHub({"products": store})
    client = TestClient(make_application(hub, configured_thumbnails(), lambda: None))
    began = time.monotonic()
    while "http-equiv" in client.get("/products/runs").text:
        time.sleep(0.05)
    try:
        yield client, time.monotonic() - began
    finally:
        hub.close()


# -- small pictures ---------------------------------------------------------------------------


def _pictures(count: int) -> None:
    """Print the memory of a server that is asked for many small pictures at once, twice."""
    if not count:
        return
    with tempfile.TemporaryDirectory(prefix="imagetag-benchmark-") as folder:
        _photograph(Path(folder) / "photographs", count)
        environment = {
            **os.environ,
            "AIRFLOW_HOME": f"{folder}/airflow",
            "AIRFLOW_CONN_WAREHOUSE": json.dumps(
                {"conn_type": "sqlite", "host": f"{folder}/warehouse.db"}
            ),
            "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": f"{folder}/photographs",
        }
        command = [sys.executable, str(Path(__file__).resolve()), "--work", "serve", folder]
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stdout is not None
                url = next(line for line in server.stdout if line.startswith("http")).strip()
                lines = [
                    _round(server.pid, url, folder, name, count) for name in ("first", "second")
                ]
            finally:
                server.terminate()
    head = (
        "round",
        "seconds",
        "pictures",
        "busy",
        "MB before",
        "MB peak",
        "MB after",
        "slowest page",
    )
    print_table(f"{count:,} small pictures of 12 megapixels at once", head, lines)


def _photograph(folder: Path, count: int) -> None:
    """Write a photograph of 12 megapixels under different names."""
    from PIL import Image

    folder.mkdir()
    picture = Image.effect_noise((400, 300), 60).resize((4_000, 3_000)).convert("RGB")
    picture.save(folder / "0.jpg", quality=80)
    for number in range(1, count):
        (folder / f"{number}.jpg").hardlink_to(folder / "0.jpg")


def _serve(folder: str) -> None:
    import uvicorn

    from airflow_imagetag.models import Label, TagResult
    from airflow_imagetag.stores import SqlLabelStore
    from airflow_imagetag.ui.application import make_application
    from airflow_imagetag.ui.asgi import LazyApplication
    from airflow_imagetag.ui.hub import StoreHub
    from airflow_imagetag.ui.thumbnails import configured_thumbnails

    store = SqlLabelStore("warehouse", "product_labels")
    now = datetime.now(UTC)
    with store.open(API) as opened:
        opened.write(
            [
                TagResult(path.name, str(path), (Label("x", 0.5),), API, now)
                for path in (Path(folder) / "photographs").iterdir()
            ]
        )
    made = make_application(StoreHub({"products": store}), configured_thumbnails(), lambda: None)
    config = uvicorn.Config(
        LazyApplication(lambda: made), port=0, lifespan="off", log_level="error", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    print(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", flush=True)
    thread.join()


def _round(process: int, url: str, folder: str, name: str, count: int) -> tuple[str, ...]:
    before = _memory_mb(process)
    seen: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            seen.append(_memory_mb(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    kinds, slowest = asyncio.run(_ask(url, sorted((Path(folder) / "photographs").iterdir())))
    seconds = time.monotonic() - began
    ended.set()
    watcher.join()
    figures = (before, max(seen, default=before), _memory_mb(process))
    return (
        name,
        f"{seconds:.1f}",
        f"{kinds.count('image/jpeg'):,}",
        f"{count - kinds.count('image/jpeg'):,}",
        *(f"{figure:.0f}" for figure in figures),
        f"{slowest:.2f} s",
    )


async def _ask(url: str, paths: Sequence[Path]) -> tuple[list[str], float]:
    """Return the kinds of all answers, and the time of the slowest page meanwhile."""
    import aiohttp

    from airflow_imagetag.stores.rows import key_digest

    slowest: list[float] = [0.0]
    timeout = aiohttp.ClientTimeout(total=600)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def kind(path: Path) -> str:
            address = f"{url}/products/thumbnail?api={API}&key={key_digest(path.name)}"
            async with session.get(address) as answer:
                await answer.read()
                return answer.content_type

        async def turn_pages() -> None:
            while True:
                began = time.monotonic()
                async with session.get(f"{url}/products/gallery") as answer:
                    await answer.read()
                slowest.append(time.monotonic() - began)
                await asyncio.sleep(0.2)

        turning = asyncio.create_task(turn_pages())
        kinds = await asyncio.gather(*map(kind, paths))
        turning.cancel()
        return list(kinds), max(slowest)


def _memory_mb(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


_WORK = {"postgres": _measure_postgres, "parquet": _measure_parquet, "serve": _serve}


if __name__ == "__main__":
    sys.exit(main())
