"""A month of runs: the cost of each day by the store's record is what the service bills."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from databases import TaskInstance, unlimited
from forked import Driver

from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.options import RunTuning
from airflow_imagetag.operators.run_record import RecordTiming
from airflow_imagetag.stores import LabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator, Faults

DRIVER = Path(__file__).resolve().parent / "label_driver.py"
DAYS = 30
HOURS = range(3, 24, 12)
"""Of the runs of a day; ``range(24)`` makes a month of hourly runs, which takes minutes."""

IMAGES_OF_A_RUN = 5
KILLED = (6, 19)
RETIRED_KEY = 11
NEW_PRICE = 15 * 24 + 12
"""Hour of the month, in the middle of a day."""


@pytest.fixture(params=["postgres", "parquet"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LabelStore:
    """Describe a store."""
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    request.getfixturevalue(request.param)
    return SqlLabelStore("warehouse")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Start the process that forks tasks."""
    running = Driver(DRIVER, tmp_path_factory.mktemp("tasks"))
    yield running
    running.end()


def price_at(hour: int) -> float:
    """Return the price of 1,000 calls.

    :param hour: since the begin of the month.
    """
    return 2.5 if hour < NEW_PRICE else 4.0


class Month:
    """The runs of a month, each of which finds new images.

    :param store: where the labels go.
    :param service: the emulator.
    :param pictures: contents of images; each is used by one key.
    :param folder: for images of runs in processes of their own.
    """

    def __init__(
        self, store: LabelStore, service: Emulator, pictures: list[bytes], folder: Path
    ) -> None:
        self.store = store
        self.service = service
        self.pictures = pictures
        self.folder = folder
        now = datetime.now(UTC)
        self.begin = now.replace(hour=0, minute=0, second=0, microsecond=0) - now

    def new_images(self, count: int) -> list[str]:
        """Write new files and return their paths."""
        paths = []
        for _ in range(count):
            content = self.pictures.pop()
            paths.append(str(self.folder / f"{len(self.pictures)}.jpg"))
            Path(paths[-1]).write_bytes(content)
        return paths

    def until(self, hour: int) -> timedelta:
        """Return the time from the real clock to an hour of the month."""
        return self.begin + timedelta(hours=hour)

    def connection(self, hour: int) -> str:
        """Return the connection with the price of the hour."""
        return unlimited(self.service, price_per_thousand=price_at(hour))

    def run(self, hour: int, patch: pytest.MonkeyPatch) -> None:
        """Label the images of one run; on one day the key of the account is retired."""
        later = self.until(hour)

        class OfTheHour(ImageTagOperator):
            def _tuning(self) -> RunTuning:
                return RunTuning(record=RecordTiming(clock=lambda: datetime.now(UTC) + later))

        is_retired = hour // 24 == RETIRED_KEY
        connection = self.connection(hour)
        if is_retired:
            connection = connection.replace('"password": "', '"password": "x')
        patch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", connection)
        images: list[Any] = self.new_images(IMAGES_OF_A_RUN)
        images.append({"image_key": f"{hour}", "content": f"no image {hour}".encode()})
        instance = TaskInstance()
        instance.run_id = f"{hour}"
        task = OfTheHour(task_id="label", images=images, store=self.store, max_failure_ratio=1)
        try:
            task.execute({"ti": instance})
        except ImageTagError:
            assert is_retired

    def kill(self, hour: int, driver: Driver) -> None:
        """Start a run in a process of its own and kill it while it labels."""
        job = {"source": self.new_images(40), "store": self.store.serialize(), "try_number": 1}
        job |= {"max_in_flight": 4, "flush_seconds": 0.1, "record_seconds": 0.1}
        job["seconds_ahead"] = self.until(hour).total_seconds()
        before, faults = self.service.stats.billed, self.service.faults
        self.service.faults = Faults(latency_seconds=0.05)
        task = driver.start(
            job,
            {
                "AIRFLOW_CONN_IMAGETAG_DEFAULT": self.connection(hour),
                "AIRFLOW_CONN_WAREHOUSE": os.environ.get("AIRFLOW_CONN_WAREHOUSE", ""),
            },
        )
        deadline = time.monotonic() + 60
        while self.service.stats.billed < before + 15:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        task.signal(signal.SIGKILL)
        assert task.wait() == -signal.SIGKILL
        time.sleep(0.2)
        self.service.faults = faults


def test_the_cost_of_each_day_is_what_is_billed(
    store: LabelStore,
    service: Emulator,
    driver: Driver,
    small_jpegs: Callable[[int], list[bytes]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """With failures, lost answers, kills, a changed price and a retired key."""
    (tmp_path / "pictures").mkdir()
    pictures = small_jpegs(DAYS * len(HOURS) * IMAGES_OF_A_RUN + 40 * len(KILLED))
    month = Month(store, service, pictures, tmp_path / "pictures")
    service.faults = Faults(error_rates={503: 0.05}, drop_after_work_rate=0.03)
    bill = []
    for day in range(DAYS):
        bill.append(0.0)
        for hour in (24 * day + hour for hour in HOURS):
            before = service.stats.billed
            if day in KILLED and hour % 24 == HOURS[0]:
                month.kill(hour, driver)
            month.run(hour, monkeypatch)
            bill[-1] += (service.stats.billed - before) * price_at(hour) / 1000
    runs = pd.concat(store.runs())
    assert runs["outcome"].value_counts().to_dict() == {
        "success": (DAYS - 1) * len(HOURS),
        "failed": len(HOURS),
        "killed": len(KILLED),
    }
    failed = runs[runs["outcome"] == "failed"]
    assert set(failed["error"]) == {"AuthenticationError"}
    runs["unknown"] = runs["unknown_calls"] * runs["price_per_thousand"] / 1000
    by_day = runs.groupby(runs["started_at"].dt.floor("D"))[["cost", "unknown"]].sum()
    assert len(by_day) == DAYS
    with capsys.disabled():
        print(
            f"\na month of {len(runs)} runs: {by_day['cost'].sum():.4f} by the record, "
            f"{sum(bill):.4f} billed, {by_day['unknown'].sum():.4f} of it unknown"
        )
    for (cost, unknown), billed in zip(by_day.itertuples(index=False), bill, strict=True):
        assert cost - unknown - 1e-9 <= billed <= cost + 1e-9
    assert by_day["unknown"].sum() > 0
