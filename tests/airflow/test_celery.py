"""One table, labelled by mapped tasks on two of Celery's workers, with one quota for all."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest
from clusters import HERE, ROOT, Cluster, wait_until
from databases import Database, postgres_database
from redis_server import running_redis

from airflow_imagetag.testing import Faults

IMAGES = 400
RATE = 40
"""Requests per second that the service allows."""

SHARDS = 8
BATCH_SIZE, MAX_IN_FLIGHT, TASKS_OF_A_WORKER = 5, 4, 2
"""Of the DAG in small batches, and of the cluster."""

WORKERS = ("worker_1", "worker_2")
PRELOADED = [
    "airflow.providers.postgres.hooks.postgres",
    "airflow.providers.redis.hooks.redis",
    "airflow_imagetag.operators.run",
    "airflow_imagetag.sources.sql_reader",
    "airflow_imagetag.stores.sql_open",
    "pandas",
]
"""Modules that each task would load by itself, which takes seconds of a small machine."""

LOST_TASKS = {
    # The scheduler knows a task whose worker is gone by its missing heartbeat.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
    # The same in Airflow 2.
    "AIRFLOW__SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "1",
}


@dataclass
class Warehouse:
    """Products under Celery's workers.

    :param cluster: with the workers.
    :param database: holds the products and their labels.
    """

    cluster: Cluster
    database: Database

    def assert_complete(self, labels: str) -> None:
        """Find every product once among the images, and each of its labels once."""
        [counts] = self.database.rows(
            f"select count(*), count(distinct image_key), sum(labels_count) from {labels}_images "
            "where status = 'tagged' and image_key in (select sku from products)"
        )
        rows = self.database.value(f"select count(*) from {labels}")
        assert counts == (IMAGES, IMAGES, rows)

    def tasks_of(self, worker: str, run_id: str, state: str = "%") -> set[int]:
        """Return the map indexes of the tasks of a run that a worker was given.

        :param state: only those that are in this state.
        """
        log = (self.cluster.home.path / f"{worker}.log").read_text()
        given = set(re.findall(r"\[([0-9a-f-]{36})\] Executing (?:workload|command)", log))
        rows = self.cluster.home.query(
            "select map_index, external_executor_id from task_instance"
            " where run_id = ? and state like ?",
            run_id,
            state,
        )
        return {index for index, celery_id in rows if celery_id in given}

    def report(self, what: str, started: float) -> None:
        """Print the figures."""
        stats = self.cluster.emulator.stats
        print(
            f"{what}: {stats.billed} billed, {stats.over_limit} over the limit, at most "
            f"{stats.peak_requests_per_second} in a second, {time.monotonic() - started:.0f} s"
        )


@pytest.fixture(scope="module")
def warehouse(
    cluster_in_postgres: Callable[..., AbstractContextManager[Cluster]],
    many_urls: Callable[[int], list[str]],
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Warehouse]:
    """Start the example under two workers; their broker is the Redis that shares the quota."""
    with (
        pytest.MonkeyPatch.context() as patch,
        postgres_database(pytestconfig, patch) as database,
        running_redis(tmp_path_factory.mktemp("redis")) as redis,
    ):
        database.run(
            "create table products (sku text primary key, photo_url text, updated_at timestamptz)"
        )
        rows = [{"sku": f"sku {n:05}", "url": url} for n, url in enumerate(many_urls(IMAGES))]
        database.run("insert into products values (:sku, :url, now())", *rows)
        settings = LOST_TASKS | {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{redis.port}/0",
            "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": PRELOADED}),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
            "AIRFLOW_CONN_QUOTA": redis.connection_json,
            "AIRFLOW_CONN_WAREHOUSE": database.connection_json,
        }
        files = [ROOT / "dags_examples" / "sharded_warehouse.py", HERE / "dags" / "sharing.py"]
        account = {"requests_per_second": RATE, "quota_conn_id": "quota"}
        with cluster_in_postgres(files, settings, account, workers=WORKERS) as cluster:
            cluster.emulator.faults = Faults(latency_seconds=(0.1, 0.2), requests_per_second=RATE)
            yield Warehouse(cluster, database)


@pytest.fixture
def running_warehouse(warehouse: Warehouse) -> Warehouse:
    """Give the cluster with fresh counts, after a restart of the workers that a test killed."""
    warehouse.cluster.emulator.reset_stats()
    for name in WORKERS:
        if warehouse.cluster.processes[name].poll() is not None:
            warehouse.cluster.start(name)
    return warehouse


def test_two_workers_share_a_table_and_a_quota(running_warehouse):
    """Every image is paid once, both workers label a part, and the quota is kept."""
    cluster, started = running_warehouse.cluster, time.monotonic()
    run_id = cluster.trigger("sharded_warehouse", {})
    assert cluster.wait(run_id) == "success", cluster.logs()
    running_warehouse.report("two workers", started)
    running_warehouse.assert_complete("product_labels")
    stats = cluster.emulator.stats
    assert stats.billed == IMAGES
    assert set(stats.billed_images.values()) == {1}
    # A process that gets no processor time for a while sends late; the benchmarks measure the pace.
    assert stats.over_limit <= 0.05 * IMAGES
    parts = [running_warehouse.tasks_of(name, run_id) for name in WORKERS]
    assert all(parts), parts
    assert sorted(parts[0] | parts[1]) == list(range(16))
    assert not parts[0] & parts[1]


def test_a_lost_worker_costs_a_few_images_and_loses_none(running_warehouse):
    """The other worker tries its tasks again and pays twice only for unwritten labels."""
    cluster, started = running_warehouse.cluster, time.monotonic()
    run_id = cluster.trigger("label_in_small_batches", {})
    wait_until(
        lambda: (
            cluster.emulator.stats.billed > IMAGES / 4
            and running_warehouse.tasks_of(WORKERS[0], run_id, "running")
        ),
        cluster.logs,
    )
    cluster.kill(WORKERS[0])
    assert cluster.wait(run_id) == "success", cluster.logs()
    running_warehouse.report("one worker killed", started)
    running_warehouse.assert_complete("labels_in_small_batches")
    tries = dict(
        cluster.home.query(
            "select map_index, try_number from task_instance where run_id = ?", run_id
        )
    )
    assert len(tries) == SHARDS
    lost = {index for index, number in tries.items() if number > 1}
    assert 1 <= len(lost) <= TASKS_OF_A_WORKER
    assert lost <= running_warehouse.tasks_of(WORKERS[1], run_id)
    stats = cluster.emulator.stats
    assert len(stats.billed_images) == IMAGES
    assert IMAGES <= stats.billed <= IMAGES + len(lost) * (BATCH_SIZE + MAX_IN_FLIGHT)
