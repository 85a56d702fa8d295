"""The comparisons outside Airflow: each contender is one process, or four that share a quota."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any

from contenders import CONTENDERS, Job, Result
from server import Server, serving
from table import Round, Row, Target, print_comparison, print_table, row
from warehouse import redis
from workers import run, run_together

KB = 1000


@dataclass(frozen=True, slots=True)
class Bench:
    """Settings of the measurements.

    :param environment: environment of the contenders' processes.
    :param repeats: number of rounds; every contender runs once in each.
    :param is_quick: use fewer images.
    :param images: number of images in every comparison; None takes each comparison's own number.
    """

    environment: Mapping[str, str]
    repeats: int
    is_quick: bool = False
    images: int | None = None

    def count(self, images: int, quick: int) -> int:
        """Return the number of images of a comparison."""
        return self.images or (quick if self.is_quick else images)

    def interleaved(
        self, runs: Mapping[str, Callable[[], Round]], *, once: Container[str] = ()
    ) -> dict[str, Row]:
        """Run all contenders in turns and return the medians of each.

        :param once: names of contenders that run in the first round only.
        """
        rounds: dict[str, list[Round]] = {name: [] for name in runs}
        for number in range(self.repeats):
            for name, run_once in runs.items():
                if not number or name not in once:
                    rounds[name].append(run_once())
        return {name: row(found) for name, found in rounds.items()}

    def once(self, server: Server, **fields: Any) -> Round:
        """Run one contender.

        :param fields: fields of its job.
        """
        job = Job(connection=server.connection, **fields)
        result = run(job, self.environment)
        return Round(job.images, result, server.counts()["over_limit"])


# -- no quota ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """A service without a quota.

    :param latency_ms: latency of the service.
    :param image_kb: size of an image.
    :param images: number of images.
    :param quick: number of images in a quick run.
    """

    latency_ms: int
    image_kb: int
    images: int
    quick: int


SETTINGS = (
    Setting(0, 20, 6000, 1500),
    Setting(0, 200, 2000, 600),
    Setting(0, 500, 1000, 400),
    Setting(50, 20, 2000, 500),
    Setting(50, 500, 1000, 300),
    Setting(300, 20, 600, 256),
    Setting(300, 500, 600, 256),
)


def speed(bench: Bench) -> list[Target]:
    """Compare all contenders on a service without a quota."""
    targets = []
    for setting in SETTINGS:
        images = bench.count(setting.images, setting.quick)
        with serving("canned", latency_seconds=setting.latency_ms / 1000) as server:
            job = {"images": images, "image_bytes": setting.image_kb * KB}
            runs = {name: partial(bench.once, server, contender=name, **job) for name in CONTENDERS}
            rows = bench.interleaved(runs)
        where = f"{setting.latency_ms} ms, {setting.image_kb} KB"
        print_comparison(f"No quota, {where}: 64 at a time", rows)
        if setting.latency_ms == 0 and setting.image_kb in (20, 200):
            targets += _speed_targets(f"no quota, {where}", rows)
        if setting.latency_ms == 0:
            unsigned, bare = rows["ours, DetectLabelPro, unsigned"], rows[UNSIGNED]
            ratio = unsigned.images_per_second / bare.images_per_second
            text = f"no quota, {where}: DetectLabelPro unsigned, to bare aiohttp with JSON"
            targets.append(Target(text, ratio, 0.85, is_floor=True, unit=" x"))
    return targets


def _speed_targets(where: str, rows: Mapping[str, Row]) -> list[Target]:
    ours, bare, threads = (rows[name] for name in ("ours", "bare aiohttp", "requests, threads"))
    faster = ours.images_per_second / threads.images_per_second
    to_bare = ours.images_per_second / bare.images_per_second
    cpu = ours.cpu_per_thousand / bare.cpu_per_thousand
    return [
        Target(f"{where}: speed, to bare aiohttp", to_bare, 0.7, is_floor=True, unit=" x"),
        Target(f"{where}: speed, to requests in threads", faster, 2.5, is_floor=True, unit=" x"),
        Target(f"{where}: CPU, to bare aiohttp", cpu, 1.6, unit=" x"),
    ]


# -- with a quota -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Paced:
    """A service with a quota.

    :param requests_per_second: the quota.
    :param latency_ms: latency of the service.
    :param threads: number of threads, slightly more than the quota needs.
    :param images: number of images.
    :param quick: number of images in a quick run.
    :param factor: maximum ratio of a run's time to the least that the quota allows.
    """

    requests_per_second: int
    latency_ms: int
    threads: int
    images: int
    quick: int
    factor: float

    def least_seconds(self, images: int) -> float:
        """Return the time of a perfect client: a request at each slot, then the last answer."""
        return (images - 1) / self.requests_per_second + self.latency_ms / 1000


PACED = (Paced(20, 300, 16, 600, 200, 1.03), Paced(200, 500, 128, 4000, 1200, 1.03))

PARTS = {"vendor's SDK, threads": 5}
"""Divisor of the images of a contender: each refused request takes the SDK seven seconds."""

UNSIGNED = "bare aiohttp, JSON"
"""It makes no signature, and a service with a quota refuses it."""

PACED_BY_US = ("ours", "ours, DetectLabelPro")


def quota(bench: Bench) -> list[Target]:
    """Compare all contenders on a service that refuses requests over its quota."""
    targets = []
    for paced in PACED:
        images = bench.count(paced.images, paced.quick)
        with _limited(paced) as server:
            job = {
                "image_bytes": 20 * KB,
                "requests_per_second": paced.requests_per_second,
                "at_once": paced.threads,
            }
            runs = {
                name: partial(
                    bench.once, server, contender=name, images=images // PARTS.get(name, 1), **job
                )
                for name in CONTENDERS
                if name != UNSIGNED
            }
            # The quota sets the pace, so a single run of the others suffices.
            rows = bench.interleaved(runs, once=runs.keys() - {*PACED_BY_US})
        where = f"{paced.requests_per_second} per second, {paced.latency_ms} ms"
        print_comparison(f"A quota of {where}, 20 KB: {paced.threads} threads", rows)
        for name in PACED_BY_US:
            time_ratio = rows[name].seconds / paced.least_seconds(images)
            text = f"{name}, quota of {where}"
            targets += [
                Target(f"{text}: time, to the ideal", time_ratio, paced.factor, unit=" x"),
                Target(f"{text}: over limit", rows[name].over_limit, 0),
            ]
    return targets


def _limited(paced: Paced) -> contextlib.AbstractContextManager[Server]:
    return serving(
        "emulator",
        latency_seconds=paced.latency_ms / 1000,
        requests_per_second=paced.requests_per_second,
    )


WORKERS = 4


def shared(bench: Bench) -> list[Target]:
    """Measure four processes that share one quota through Redis."""
    paced = PACED[0]
    images = bench.count(paced.images, paced.quick)
    with redis() as connection, _limited(paced) as server:
        environment = {**bench.environment, "AIRFLOW_CONN_QUOTA": connection}
        extra = {**server.connection["extra"], "quota_conn_id": "quota"}
        job = Job(
            contender="ours",
            connection={**server.connection, "extra": extra},
            images=images // WORKERS,
            image_bytes=20 * KB,
            requests_per_second=paced.requests_per_second,
        )
        jobs = [replace(job, first=part * job.images) for part in range(WORKERS)]

        def together() -> Round:
            result = _sum(run_together(jobs, environment))
            return Round(job.images * WORKERS, result, server.counts()["over_limit"])

        one = bench.interleaved({"ours": together})["ours"]
    where = f"20 per second, 300 ms, {WORKERS} processes and a Redis"
    print_comparison(f"A quota of {where}", {"ours": one})
    used = 100 * one.images_per_second / paced.requests_per_second
    refused = 100 * one.over_limit / one.images
    return [
        Target(f"quota of {where}: used", used, 95, is_floor=True, unit=" %"),
        Target(f"quota of {where}: over limit", refused, 0.5, unit=" %"),
    ]


def _sum(results: Sequence[Result]) -> Result:
    return Result(
        labelled=sum(result.labelled for result in results),
        seconds=max(result.seconds for result in results),
        cpu_seconds=sum(result.cpu_seconds for result in results),
        peak_mb=sum(result.peak_mb for result in results),
        above_start_mb=sum(result.above_start_mb for result in results),
    )


# -- a bad day --------------------------------------------------------------------------------


BAD_DAY = {"error_rates": {"500": 0.05, "503": 0.05}, "drop_rate": 0.02}


def faults(bench: Bench) -> list[Target]:
    """Compare a service with 10 % of 5xx answers with a service without faults."""
    images = bench.count(3000, 1000)
    job = {"contender": "ours", "images": images, "image_bytes": 20 * KB}
    good, bad = "ours, no faults", "ours, 10 % 5xx and 2 % dropped"
    with (
        serving("emulator", latency_seconds=0.3) as sound,
        serving("emulator", latency_seconds=0.3, **BAD_DAY) as faulty,
    ):
        runs = {
            good: partial(bench.once, sound, **job),
            bad: partial(bench.once, faulty, **job),
        }
        rows = bench.interleaved(runs)
    print_comparison("Faults of the service, 300 ms, 20 KB", rows, ours=bad)
    share = 100 * rows[bad].images_per_second / rows[good].images_per_second
    labelled = 100 * rows[bad].labelled / images
    return [
        Target("10 % 5xx, 2 % dropped: speed", share, 85, is_floor=True, unit=" %"),
        Target("10 % 5xx, 2 % dropped: labelled", labelled, 100, is_floor=True, unit=" %"),
    ]


# -- growth -----------------------------------------------------------------------------------


def _into_dataset(bench: Bench, server: Server, images: int) -> Result:
    with tempfile.TemporaryDirectory(prefix="imagetag-benchmark-") as folder:
        job = {"images": images, "image_bytes": 20 * KB, "store": f"file://{folder}/labels"}
        return bench.once(server, contender="ours", **job).result


def growth(bench: Bench) -> list[Target]:
    """Label growing numbers of images into a Parquet dataset."""
    sizes = [bench.images] if bench.images else [1_000, 10_000, 100_000]
    sizes = sizes[:2] if bench.is_quick else sizes
    found: dict[int, Result] = {}
    with serving("canned") as server:
        for size in sizes:
            # The allocator's spare memory differs between runs; the largest run takes long.
            repeats = bench.repeats if size < sizes[-1] else 1
            results = [_into_dataset(bench, server, size) for _ in range(repeats)]
            found[size] = sorted(results, key=attrgetter("above_start_mb"))[len(results) // 2]
    lines = [
        (
            f"{size:,}",
            f"{result.seconds:.1f}",
            f"{1000 * result.seconds / size:.2f}",
            f"{result.above_start_mb:.0f}",
            f"{1000 * result.above_start_mb / size:.1f}",
        )
        for size, result in found.items()
    ]
    head = ("images", "seconds", "ms per image", "peak MB above start", "KB per image")
    print_table("Growth: no quota, 0 ms, 20 KB, labels into a Parquet dataset", head, lines)
    if len(found) < 2:
        return []
    *_, smaller, larger = found
    ratio = found[larger].above_start_mb / found[smaller].above_start_mb
    text = f"peak memory above start, {larger:,} images to {smaller:,}"
    return [Target(text, ratio, 1.1, unit=" x")] if larger == 100_000 else []
