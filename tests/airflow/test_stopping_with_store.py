"""A run into a store that is killed again and again: every image is labelled, and paid once.

By hand with the figures of a real evening: ``IMAGETAG_TEST_IMAGES=5000 IMAGETAG_TEST_KILLS=20``.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import psutil
import pytest
import sqlalchemy as sa
from clusters import Cluster, wait_until
from databases import new_engine, postgres_server

from airflow_imagetag.testing import Faults

IMAGES = int(os.environ.get("IMAGETAG_TEST_IMAGES", "600"))
KILLS = int(os.environ.get("IMAGETAG_TEST_KILLS", "3"))
BATCH_SIZE = 50
"""That of the DAG."""

MAX_IN_FLIGHT = 8
SLOW = Faults(latency_seconds=(0.05, 0.15))
SLOWER = Faults(latency_seconds=(0.2, 0.4))
"""A state that is set by hand reaches the task with its next heartbeat, and not at once."""

RUN_SECONDS = 120 + KILLS * 15 + IMAGES * 0.1
"""Far more than any run takes."""


@dataclass
class Table:
    """A table of products, and the tables of its labels.

    :param name: of the table.
    :param engine: the database.
    """

    name: str
    engine: sa.engine.Engine

    @property
    def labels(self) -> str:
        """Name of the labels table."""
        return f"{self.name}_labels"

    def value(self, sql: str) -> int:
        """Return a number."""
        statement = sql.format(labels=f"public.{self.labels}", images=f"{self.labels}_images")
        with self.engine.connect() as connection:
            return int(connection.execute(sa.text(statement)).scalar_one())

    def stored(self) -> int:
        """Return how many images the store holds as tagged; none before there is a store."""
        if not sa.inspect(self.engine).has_table(f"{self.labels}_images"):
            return 0
        return self.value("select count(*) from {images} where status = 'tagged'")

    def assert_complete(self) -> None:
        """Find every product once among the images, and its labels as often as they were given."""
        assert self.value("select count(*) from {images}") == IMAGES
        assert self.value("select count(distinct image_key) from {images}") == IMAGES
        assert self.stored() == IMAGES
        missing = f"select count(*) from {self.name} where sku not in (select image_key from "
        assert self.value(missing + "{images})") == 0
        assert self.value(missing + "{labels})") == 0
        rows = self.value("select count(*) from {labels}")
        assert rows == self.value("select sum(labels_count) from {images}")
        assert rows == self.value("select count(distinct (image_key, label)) from {labels}")
        assert rows == self.value("select count(distinct (image_key, rank)) from {labels}")


@pytest.fixture
def table(pytestconfig: pytest.Config, many_urls: Callable[[int], list[str]]) -> Iterator[Table]:
    """Make a table of products in the cluster's warehouse."""
    folder = postgres_server(pytestconfig).pgdata
    engine = new_engine(f"postgresql+psycopg2://postgres@/postgres?host={folder}")
    name = f"products_{time.time_ns()}"
    rows = [{"sku": f"sku {n:05}", "url": url} for n, url in enumerate(many_urls(IMAGES))]
    with engine.begin() as connection:
        connection.exec_driver_sql(
            f"create table {name} (sku text primary key, photo_url text, updated_at timestamptz)"
        )
        connection.execute(sa.text(f"insert into {name} values (:sku, :url, now())"), rows)
    yield Table(name, engine)
    with engine.begin() as connection:
        for each in (name, f"{name}_labels", f"{name}_labels_images"):
            connection.exec_driver_sql(f"drop table if exists {each}")
    engine.dispose()


def start(cluster: Cluster, table: Table, faults: Faults = SLOW) -> str:
    """Start a run over the table."""
    cluster.emulator.faults = faults
    return cluster.trigger("label_table", {"table": table.name, "labels": table.labels})


def labelling_process(cluster: Cluster, run_id: str, billed: int) -> psutil.Process:
    """Return the process that labels, once this number of images has been billed."""

    def running() -> psutil.Process | None:
        if cluster.emulator.stats.billed < billed:
            return None
        found = cluster.home.query(
            "select pid from task_instance where run_id = ? and state = 'running'", run_id
        )
        if not found or not found[0][0]:
            return None
        try:
            return psutil.Process(found[0][0])
        except psutil.NoSuchProcess:
            return None

    process = wait_until(running, cluster.logs, RUN_SECONDS)
    assert isinstance(process, psutil.Process)
    return process


def wait_for_the_end_of(process: psutil.Process, cluster: Cluster) -> None:
    """Wait until a process has ended."""
    wait_until(
        lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
        cluster.logs,
    )


def has_sent_more(cluster: Cluster, before: int) -> bool:
    """Tell whether the service has had requests since there were this many."""
    return cluster.emulator.stats.requests > before


def kill_again_and_again(cluster: Cluster, run_id: str, number: signal.Signals) -> list[int]:
    """Kill the task at random moments all over the run; return the images billed at each."""
    chance = random.Random(3)
    # The run still labels at the last moment.
    moments = sorted(chance.sample(range(MAX_IN_FLIGHT, IMAGES - 2 * BATCH_SIZE), KILLS))
    met = []
    for moment in moments:
        before = cluster.emulator.stats.requests
        process = labelling_process(cluster, run_id, moment)
        # Not while it starts: a try that has sent nothing has nothing to lose.
        wait_until(partial(has_sent_more, cluster, before), cluster.logs)
        os.kill(process.pid, number)
        wait_for_the_end_of(process, cluster)
        met.append(cluster.emulator.stats.billed)
    return met


def report(cluster: Cluster, table: Table, what: str, started: float, met: list[int]) -> None:
    """Print the figures."""
    stats = cluster.emulator.stats
    print(
        f"{what}: {IMAGES} images, killed after {met} billed: {stats.requests} requests, "
        f"{stats.billed} billed, most of one image {max(stats.billed_images.values())}, "
        f"{table.stored()} in the store, at most {stats.max_in_flight} in flight, "
        f"{time.monotonic() - started:.0f} s"
    )


def tries(cluster: Cluster, run_id: str) -> int:
    """Return how many tries the task has had."""
    [[number]] = cluster.home.query("select try_number from task_instance where run_id = ?", run_id)
    return int(number)


def test_sigterm_again_and_again_pays_each_image_once(cluster, table):
    """A try that is asked to end writes every billed image; the next begins with the others."""
    started = time.monotonic()
    run_id = start(cluster, table)
    met = kill_again_and_again(cluster, run_id, signal.SIGTERM)
    assert cluster.wait(run_id, RUN_SECONDS) == "success"
    report(cluster, table, "SIGTERM", started, met)
    table.assert_complete()
    assert tries(cluster, run_id) == KILLS + 1
    stats = cluster.emulator.stats
    assert stats.billed == IMAGES
    assert set(stats.billed_images.values()) == {1}


def test_kill_minus_nine_again_and_again_pays_one_batch_twice_at_most(cluster, table):
    """A try that is killed loses one batch and the requests under way, and no image."""
    started = time.monotonic()
    run_id = start(cluster, table)
    met = kill_again_and_again(cluster, run_id, signal.SIGKILL)
    assert cluster.wait(run_id, RUN_SECONDS) == "success"
    report(cluster, table, "SIGKILL", started, met)
    table.assert_complete()
    assert tries(cluster, run_id) == KILLS + 1
    stats = cluster.emulator.stats
    assert len(stats.billed_images) == IMAGES
    assert stats.max_in_flight <= 2 * MAX_IN_FLIGHT
    assert stats.billed <= IMAGES + KILLS * (BATCH_SIZE + MAX_IN_FLIGHT)


@pytest.mark.parametrize("again", ["cleared", "triggered"])
def test_a_run_marked_failed_and_done_again_pays_each_image_once(again, cluster, table):
    """The next run pays only for images that the run marked failed had not labelled."""
    started = time.monotonic()
    run_id = start(cluster, table, SLOWER)
    process = labelling_process(cluster, run_id, IMAGES // 4)
    cluster.mark_failed("label_table", run_id)
    wait_for_the_end_of(process, cluster)
    assert cluster.wait(run_id) == "failed"
    met = cluster.emulator.stats.billed
    assert IMAGES // 4 <= met < IMAGES
    assert table.stored() == met
    cluster.emulator.faults = SLOW
    if again == "cleared":
        cluster.clear("label_table", run_id)
        wait_until(lambda: cluster.state(run_id) != "failed", cluster.logs)
    else:
        run_id = start(cluster, table)
    assert cluster.wait(run_id, RUN_SECONDS) == "success"
    report(cluster, table, f"Marked failed, {again}", started, [met])
    table.assert_complete()
    stats = cluster.emulator.stats
    assert stats.billed == IMAGES
    assert set(stats.billed_images.values()) == {1}
