"""Budgets: never more calls than allowed, shared by the runs of a store, and nothing lost."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from databases import TaskInstance, unlimited

from airflow_imagetag.errors import BudgetUsedUpError, ConfigurationError, StoreError
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.operators.options import RunTuning
from airflow_imagetag.operators.run_record import RecordTiming
from airflow_imagetag.stores import LabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator, Faults

SmallJpegs = Callable[[int], list[bytes]]
URL = "https://shop.example/{}.jpg"


@pytest.fixture(params=["postgres", "parquet"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LabelStore:
    """Describe a store."""
    if request.param == "parquet":
        return ParquetLabelStore(f"{tmp_path}/lake")
    request.getfixturevalue(request.param)
    return SqlLabelStore("warehouse")


@pytest.fixture
def priced(service: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Give the connection a price."""
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", unlimited(service, price_per_thousand=2.0))
    return service


def rows_of(contents: list[bytes]) -> list[dict[str, Any]]:
    """Return dicts that name these images."""
    return [{"image_key": f"k{n}", "content": content} for n, content in enumerate(contents)]


def task_instance(run_id: str = "one", map_index: int = -1, try_number: int = 1) -> Any:
    """Return the instance of a task."""
    made = TaskInstance(try_number)
    made.run_id, made.map_index = run_id, map_index
    return made


class At(ImageTagOperator):
    """The operator on a day.

    :param day: number of days from now.
    """

    def __init__(self, *, day: int = 0, **fields: Any) -> None:
        super().__init__(**fields)
        self.day = day

    def _tuning(self) -> RunTuning:
        return RunTuning(
            record=RecordTiming(clock=lambda: datetime.now(UTC) + timedelta(days=self.day))
        )


def label(store: LabelStore | None, images: Any, ti: Any = None, **fields: Any) -> dict[str, Any]:
    """Run a task and return its summary."""
    instance = ti or task_instance()
    At(task_id="label", images=images, store=store, **fields).execute({"ti": instance})
    summary: dict[str, Any] = instance.xcoms["summary"]
    return summary


def outcomes(store: LabelStore) -> list[str]:
    """Return the outcomes of all runs."""
    found: list[str] = pd.concat(store.runs())["outcome"].tolist()
    return found


# -- one run ------------------------------------------------------------------------------------


def test_a_run_ends_at_its_budget_and_the_next_goes_on(
    store: LabelStore, service: Emulator, small_jpegs: SmallJpegs
):
    """What is left stays new; each DAG run has a budget of its own, each try the rest of it."""
    images = rows_of(small_jpegs(50))
    first = label(store, images, max_calls=20)
    assert (first["tagged"], first["calls"], first["out_of_budget"]) == (20, 20, True)
    assert service.stats.billed == 20
    again = label(store, images, task_instance(try_number=2), max_calls=20)
    assert (again["tagged"], again["out_of_budget"]) == (0, True)
    more = label(store, images, task_instance(try_number=3), max_calls=25)
    assert more["tagged"] == 5
    other = label(store, images, task_instance("two"), max_calls=30)
    assert (other["tagged"], other["out_of_budget"]) == (25, False)
    assert service.stats.billed == 50
    assert outcomes(store) == [*["out_of_budget"] * 3, "success"]


def test_a_run_without_a_store_has_a_budget_too(service: Emulator, small_jpegs: SmallJpegs):
    """The frame has the images that were paid for."""
    instance = task_instance()
    task = ImageTagOperator(task_id="label", images=rows_of(small_jpegs(30)), max_calls="12")
    frame = task.execute({"ti": instance})
    assert isinstance(frame, pd.DataFrame)
    assert frame["image_key"].nunique() == 12 == service.stats.billed
    assert instance.xcoms["summary"]["out_of_budget"] is True


def test_refused_and_lost_calls(store: LabelStore, service: Emulator, small_jpegs: SmallJpegs):
    """Refused calls are not billed and cost nothing of the budget; lost ones do."""
    service.faults = Faults(error_rates={429: 0.3}, drop_after_work_rate=0.2)
    summary = label(store, rows_of(small_jpegs(120)), max_calls=60, max_failure_ratio=1)
    assert summary["calls"] - summary["refused_calls"] == 60
    assert summary["refused_calls"] > 0
    assert summary["unknown_calls"] > 0
    assert service.stats.billed <= 60


def test_a_budget_of_money(priced: Emulator, store: LabelStore, small_jpegs: SmallJpegs):
    """At the price of the connection, also where a sum is not exact in binary."""
    summary = label(store, rows_of(small_jpegs(60)), max_cost=0.1)
    assert (summary["calls"], summary["estimated_cost"]) == (50, 0.1)
    assert pd.concat(store.runs())["cost"].tolist() == [pytest.approx(0.1)]


def test_fail_says_so_and_is_not_retried(
    store: LabelStore, service: Emulator, small_jpegs: SmallJpegs
):
    """All that was paid is stored, and the message names the budget; the next period goes on."""
    images = rows_of(small_jpegs(30))
    given = {"max_calls": 10, "budget_period": "day", "on_budget": "fail"}
    with pytest.raises(
        AirflowFailException, match=r"budget is used up \(max_calls=10 for each day\)"
    ) as raised:
        label(store, images, **given)
    assert isinstance(raised.value, BudgetUsedUpError)
    with pytest.raises(BudgetUsedUpError):
        label(store, images, task_instance("two"), **given)
    assert service.stats.billed == 10
    assert sum(frame["image_key"].nunique() for frame in store.labels()) == 10
    with pytest.raises(BudgetUsedUpError):
        label(store, images, task_instance("three"), day=1, **given)
    assert service.stats.billed == 20
    assert set(outcomes(store)) == {"failed"}


def test_a_budget_that_suffices_is_no_error(
    store: LabelStore, service: Emulator, small_jpegs: SmallJpegs
):
    """The last call may be the last of the budget, and equal bytes need none."""
    content = small_jpegs(10)
    images = rows_of([*content, content[0]])
    summary = label(store, images, max_calls=10, on_budget="fail")
    assert (summary["calls"], summary["reused"], summary["out_of_budget"]) == (10, 1, False)


# -- shared -------------------------------------------------------------------------------------


def test_mapped_shards_share_a_budget(
    store: LabelStore,
    service: Emulator,
    small_jpegs: SmallJpegs,
    capsys: pytest.CaptureFixture[str],
):
    """500 calls for four tasks at once: 495 to 500 are billed, never more."""
    images = rows_of(small_jpegs(800))
    service.faults = Faults(latency_seconds=0.02, error_rates={429: 0.02})
    summaries: list[dict[str, Any]] = []

    def work(index: int) -> None:
        summaries.append(
            label(
                store,
                images,
                task_instance("mapped", map_index=index),
                shard=f"{index}/4",
                max_calls=500,
                max_in_flight=16,
            )
        )

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(summaries) == 4
    with capsys.disabled():
        print(f"\na budget of 500 for 4 shards: {service.stats.billed} billed")
    assert 495 <= service.stats.billed <= 500
    assert sum(summary["tagged"] for summary in summaries) == service.stats.billed


def test_dags_that_use_one_store_share_a_day_and_a_month(
    store: LabelStore, service: Emulator, small_jpegs: SmallJpegs
):
    """Another interface does not count, and the next day begins anew within the month."""
    images = rows_of(small_jpegs(60))
    instance = task_instance()
    instance.dag_id = "another"
    assert label(store, images, instance, max_images=10)["calls"] == 10
    assert label(store, images, max_calls=25, budget_period="day")["calls"] == 15
    later = {"day": 1, "max_calls": 5, "budget_period": "day"}
    assert label(store, images, task_instance("2"), **later)["calls"] == 5
    now = datetime.now(UTC)
    same_month = (now + timedelta(days=1)).month == now.month
    month = {"day": 1, "max_calls": 40, "budget_period": "month"}
    # On the last day of a month only the calls of the next day count.
    calls = label(store, images, task_instance("3"), **month)["calls"]
    assert calls == (10 if same_month else 30)


# -- refused before anything is sent --------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_calls": -1}, "max_calls must be"),
        ({"max_calls": 1.5}, "max_calls must be"),
        ({"max_cost": "dear"}, "max_cost must be"),
        ({"max_cost": 1}, "max_cost=1 needs the price of a call"),
        ({"budget_period": "week"}, "budget_period must be one of run, day, month"),
        ({"on_budget": "ask"}, "on_budget must be one of stop, fail"),
        ({"max_calls": 5, "budget_period": "day"}, "budget_period='day' needs a store"),
    ],
)
def test_a_wrong_budget(given: dict[str, Any], message: str, service: Emulator):
    """Each says what to change, and nothing is sent."""
    task = ImageTagOperator(task_id="label", images=[URL.format(1)], **given)
    with pytest.raises(ConfigurationError, match=message):
        task.execute({})
    assert service.stats.requests == 0


def test_a_shared_budget_needs_the_record(sqlite: Any, service: Emulator):
    """A store that cannot keep the runs sends nothing."""
    sqlite.run("CREATE TABLE image_labels_runs (id integer)")
    task = ImageTagOperator(
        task_id="label",
        images=[URL.format(1)],
        store=SqlLabelStore("warehouse"),
        max_calls=5,
        budget_period="month",
    )
    with pytest.raises(StoreError, match="image_labels_runs could not be written"):
        task.execute({})
    assert service.stats.requests == 0


def test_the_summary_can_be_an_xcom(service: Emulator, small_jpegs: SmallJpegs, store: LabelStore):
    """It is JSON."""
    summary = label(store, rows_of(small_jpegs(3)), max_calls=2)
    assert json.loads(json.dumps(summary)) == summary
