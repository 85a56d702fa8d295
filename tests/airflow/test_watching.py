"""A bucket that is watched: each image starts one run, also when processes die in between.

By hand with the figures of a real evening: ``IMAGETAG_WATCH_IMAGES=30 IMAGETAG_WATCH_SECONDS=120``.
"""

from __future__ import annotations

import io
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket, s3_bucket
from clusters import AIRFLOW_2, ROOT, Cluster, wait_until

from airflow_imagetag.testing import Emulator
from airflow_imagetag.watching.announcements import FIRST_REMINDER, AnnouncementState

IMAGES = int(os.environ.get("IMAGETAG_WATCH_IMAGES", "8"))
SECONDS = float(os.environ.get("IMAGETAG_WATCH_SECONDS", "20"))

POKE_SECONDS = 5
"""Between two looks of the example's watcher."""

PART = re.compile(r"labels/images/.*\.parquet")
EXAMPLE = ROOT / "dags_examples" / "watched_bucket.py"

pytestmark = pytest.mark.skipif(AIRFLOW_2, reason="watched assets need Airflow 3")


@dataclass(frozen=True)
class WatchedRun:
    """A run that images have started.

    :param run_id: names it.
    :param state: success or failed.
    :param started: time of its creation.
    :param events: number of the announcements that started it.
    :param announced: number of the images in them.
    :param summary: of its label task.
    """

    run_id: str
    state: str
    started: datetime
    events: int
    announced: int
    summary: dict[str, Any]


@dataclass
class Watched:
    """The example under a scheduler and a triggerer.

    :param cluster: runs it.
    :param bucket: is watched.
    :param photographs: all different.
    """

    cluster: Cluster
    bucket: Bucket
    photographs: Iterator[bytes]

    @property
    def emulator(self) -> Emulator:
        """The service."""
        return self.cluster.emulator

    def put(self, *names: str) -> None:
        """Write images, each with a photograph of its own."""
        for name in names:
            self.bucket.put(f"incoming/{name}.jpg", next(self.photographs))

    def stored(self, prefix: str = "") -> Counter[str]:
        """Return the number of the store's entries for each image of these names."""
        import pandas as pd

        keys = [key for key in self.bucket.all_keys() if PART.fullmatch(key)]
        bodies = [self.bucket.client.get_object(Bucket=self.bucket.name, Key=key) for key in keys]
        names: Counter[str] = Counter()
        for body in bodies:
            frame = pd.read_parquet(io.BytesIO(body["Body"].read()))
            assert set(frame["status"]) == {"tagged"}
            names.update(Path(key).stem for key in frame["image_key"])
        return Counter({name: times for name, times in names.items() if name.startswith(prefix)})

    def run_ids(self, dag_id: str = "watched_bucket") -> list[str]:
        """Return the runs of a DAG in their order."""
        rows = self.cluster.home.query(
            "select run_id from dag_run where dag_id = ? order by id", dag_id
        )
        return [run_id for (run_id,) in rows]

    def runs(self) -> list[WatchedRun]:
        """Return the runs of the example."""
        home = self.cluster.home
        rows = home.query(
            "select dag_run.run_id, state, queued_at, count(event_id) from dag_run"
            " left join dagrun_asset_event on dag_run_id = dag_run.id"
            " where dag_id = 'watched_bucket' group by dag_run.id order by dag_run.id"
        )
        found = []
        for run_id, state, started, events in rows:
            xcoms = home.xcoms("watched_bucket", run_id)
            announced = len(xcoms.get(("announced", "return_value"), ()))
            summary = xcoms.get(("label", "return_value"), {})
            found.append(WatchedRun(run_id, state, started, events, announced, summary))
        return found

    def reports(self) -> dict[str, int]:
        """Return the count of each run of the DAG behind the example."""
        return {
            run_id: self.cluster.home.xcoms("after_labels", run_id)["report", "return_value"]
            for run_id in self.run_ids("after_labels")
        }

    def events(self) -> int:
        """Return the number of announcements that have arrived."""
        [[number]] = self.cluster.home.query(
            "select count(*) from asset_event join asset on asset.id = asset_id"
            " where asset.name = 'incoming_photographs'"
        )
        return int(number)

    def memory(self) -> AnnouncementState:
        """Return the state that the watcher keeps."""
        found = self.cluster.home.query("select value from asset_state_store")
        assert len(found) <= 1
        return AnnouncementState.load(json.loads(found[0][0])) if found else AnnouncementState()

    def remember(self, memory: AnnouncementState) -> None:
        """Replace the state that the watcher keeps; it reads it when it starts."""
        self.cluster.home.execute(
            "update asset_state_store set value = ?", json.dumps(memory.dump())
        )

    def wait_for_rest(self) -> None:
        """Wait until every run has ended."""
        unfinished = "select run_id from dag_run where state not in ('success', 'failed')"
        queued = "select target_dag_id from asset_dag_run_queue"
        wait_until(
            lambda: not self.cluster.home.query(unfinished) and not self.cluster.home.query(queued),
            self.cluster.logs,
        )

    def wait_for(self, names: Counter[str], prefix: str) -> None:
        """Wait until the store has these images and every run has ended."""

        def has_all() -> bool:
            return self.stored(prefix).total() >= names.total()

        wait_until(has_all, lambda: f"{self.table()}\n{self.cluster.logs()}")
        self.wait_for_rest()
        assert self.stored(prefix) == names

    def table(self) -> str:
        """Return the runs with their counts, as a table to print."""
        columns = ("seen", "tagged", "reused", "skipped", "failed", "calls")
        lines = [f"{'run':>4} {'made at':13}{'state':9}{'events':>7}{'images':>7}"]
        lines[0] += "".join(f"{name:>8}" for name in columns)
        for number, run in enumerate(self.runs(), 1):
            line = f"{number:>4} {run.started:%H:%M:%S.%f}"[:-3] + f" {run.state:9}"
            line += f"{run.events:>7}{run.announced:>7}"
            lines.append(line + "".join(f"{run.summary.get(name, '-'):>8}" for name in columns))
        return "\n".join(lines)


@pytest.fixture(scope="module")
def started(
    triggering_cluster: Callable[..., AbstractContextManager[Cluster]],
    photographs: list[bytes],
    pytestconfig: pytest.Config,
) -> Iterator[Watched]:
    """Start the example as it is."""
    with (
        pytest.MonkeyPatch.context() as patch,
        s3_bucket(pytestconfig, patch) as bucket,
        triggering_cluster([EXAMPLE], IMAGETAG_LAKE=f"s3://aws_default@{bucket.name}") as cluster,
    ):
        yield Watched(cluster, bucket, iter(photographs))


@pytest.fixture
def watched(started: Watched) -> Watched:
    """Give the running example at rest, with fresh counts of the service."""
    started.wait_for_rest()
    started.emulator.reset_stats()
    return started


def drop(watched: Watched, names: list[str]) -> None:
    """Write images at random moments."""
    chance = random.Random(4)
    moments = sorted(chance.uniform(0, SECONDS) for _ in names)
    begin = time.monotonic()
    for moment, name in zip(moments, names, strict=True):
        time.sleep(max(begin + moment - time.monotonic(), 0))
        watched.put(name)


def kill_triggerer(watched: Watched) -> None:
    """Kill the triggerer as soon as an announcement has arrived."""
    before = watched.events()
    wait_until(lambda: watched.events() > before, watched.cluster.logs)
    watched.cluster.kill("triggerer")
    time.sleep(2)
    watched.cluster.start("triggerer")


def restart_scheduler(watched: Watched) -> None:
    """End the scheduler and start it again."""
    watched.cluster.end("scheduler")
    watched.cluster.start("scheduler")


def test_each_image_is_labelled_once_by_a_run_that_has_work(watched):
    """Images that arrive one by one start runs that label each once; every run has work.

    In between the triggerer is killed and the scheduler restarted.
    """
    names = [f"each-{number}" for number in range(IMAGES)]
    runs_before, reports_before = watched.run_ids(), watched.run_ids("after_labels")
    with ThreadPoolExecutor(1) as pool:
        dropping = pool.submit(drop, watched, names)
        time.sleep(SECONDS / 4)
        kill_triggerer(watched)
        time.sleep(SECONDS / 4)
        restart_scheduler(watched)
        dropping.result()
    watched.wait_for(Counter(names), "each-")
    print(f"\n{watched.table()}")

    runs = [run for run in watched.runs() if run.run_id not in runs_before]
    assert watched.emulator.stats.billed == watched.emulator.stats.requests == IMAGES
    assert len(watched.emulator.stats.billed_images) == IMAGES
    assert {run.state for run in runs} == {"success"}
    assert all(run.events >= 1 for run in runs)
    # A run labels the images of its announcements, and none that another run has labelled.
    assert [run.summary["tagged"] for run in runs] == [run.announced for run in runs]
    assert all(run.announced >= 1 for run in runs), watched.table()
    assert sum(run.announced for run in runs) == IMAGES
    reports = {name: n for name, n in watched.reports().items() if name not in reports_before}
    assert all(reports.values())
    assert sum(reports.values()) == IMAGES
    jobs = "select count(*) from job where job_type = ?"
    for kind in ("TriggererJob", "SchedulerJob"):
        assert watched.cluster.home.query(jobs, kind)[0][0] >= 2


def test_a_replaced_image_is_announced_and_labelled_again(watched):
    """An image whose object is replaced is new again, for one run and one call."""
    watched.put("replaced")
    watched.wait_for(Counter({"replaced": 1}), "replaced")
    before = watched.run_ids()
    watched.put("replaced")
    watched.wait_for(Counter({"replaced": 2}), "replaced")
    [run] = [run for run in watched.runs() if run.run_id not in before]
    assert (run.announced, run.summary["tagged"]) == (1, 1)
    assert watched.emulator.stats.billed == watched.emulator.stats.requests == 2


def test_nothing_new_starts_no_run(watched):
    """Labelled images, and objects that are no images, start no run and send no call.

    The image that comes last starts the only run.
    """
    watched.put("quiet-0")
    watched.wait_for(Counter({"quiet-0": 1}), "quiet-")
    before, events = watched.run_ids(), watched.events()
    watched.bucket.put("incoming/empty.jpg", b"")
    watched.bucket.put("elsewhere/photograph.jpg", next(watched.photographs))
    # Two looks of the watcher.
    time.sleep(2 * POKE_SECONDS)
    watched.put("quiet-1")
    watched.wait_for(Counter({"quiet-0": 1, "quiet-1": 1}), "quiet-")
    assert watched.events() == events + 1
    [run] = [run for run in watched.runs() if run.run_id not in before]
    assert (run.announced, run.summary["tagged"]) == (1, 1)
    assert watched.emulator.stats.requests == 2


def test_an_announcement_that_was_lost_is_made_again(watched):
    """A watcher that is killed before its event announces the image again after the reminder."""
    lost = lose_an_announcement(watched)
    before, billed = watched.run_ids(), watched.emulator.stats.billed
    events = watched.events()
    watched.cluster.start("triggerer")
    # Two looks of the watcher, and its start.
    time.sleep(3 * POKE_SECONDS)
    assert watched.events() == events, "it may have arrived, so it is not repeated at once"
    watched.cluster.kill("triggerer")
    long_ago = (
        replace(batch, announced_at=batch.announced_at - FIRST_REMINDER) for batch in lost.batches
    )
    watched.remember(AnnouncementState(tuple(long_ago)))
    watched.cluster.start("triggerer")
    wait_until(lambda: watched.run_ids() != before, watched.cluster.logs)
    watched.wait_for_rest()
    [run] = [run for run in watched.runs() if run.run_id not in before]
    assert run.announced == run.summary["tagged"] == 1
    assert watched.emulator.stats.billed == billed + 1


def has_more_than(watched: Watched, known: Set[str]) -> bool:
    """Tell whether the watcher's state has an image beside these."""
    return bool(watched.memory().digests - known)


def lose_an_announcement(watched: Watched) -> AnnouncementState:
    """Kill the triggerer between its state with one image and the event; return the state."""
    for attempt in range(10):
        known, events = watched.memory().digests, watched.events()
        watched.put(f"lost-{attempt}")
        wait_until(partial(has_more_than, watched, known), watched.cluster.logs)
        watched.cluster.kill("triggerer")
        if watched.events() == events:
            return watched.memory()
        # The event was faster than the kill.
        watched.cluster.start("triggerer")
        watched.wait_for(Counter(f"lost-{number}" for number in range(attempt + 1)), "lost-")
    pytest.fail("the triggerer could not be killed in between")
