"""The log lines of a run."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from databases import Database, add, failed

from airflow_imagetag.cli.labelling import XComs
from airflow_imagetag.models import Image
from airflow_imagetag.operators import run
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import LabelStore, ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator


@pytest.mark.parametrize(("count", "said"), [(1, "1 image"), (2, "2 images")])
def test_the_first_line_says_what_is_labelled_and_how(
    count: int,
    said: str,
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
    small_jpegs: Callable[[int], list[bytes]],
):
    """How many images, with which interface and account, where, and at what pace."""
    images = [Image(str(number), content=data) for number, data in enumerate(small_jpegs(count))]
    with caplog.at_level(logging.INFO, run.log.name):
        ImageTagOperator(task_id="label", images=images).execute({})
    first = next(record.getMessage() for record in caplog.records if record.name == run.log.name)
    assert first == (
        f"Labelling {said} with picture_classify at {emulator.url} (connection "
        "'imagetag_default'): up to 256 at a time, 20 requests per second"
    )


def ends(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the last line of each run, without its rate."""
    lines = [record.getMessage() for record in caplog.records if record.name == run.log.name]
    return [
        re.sub(r"[\d.,]+ images/s, ", "", line).removeprefix("Ended: ")
        for line in lines
        if line.startswith("Ended: ")
    ]


def test_the_last_line_of_a_run_without_a_store_has_no_later_tries(
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
    small_jpegs: Callable[[int], list[bytes]],
):
    """Nothing is kept, so no image is due again, waits or is given up."""
    images = [Image(str(number), content=data) for number, data in enumerate(small_jpegs(2))]
    images.append(Image("gone", uri="/no/such/photo.jpg"))
    task = ImageTagOperator(task_id="label", images=images)
    pushed = XComs({})
    with caplog.at_level(logging.INFO, run.log.name):
        task.execute({"ti": pushed})
    assert pushed.kept["summary"]["waiting"] == 1
    assert ends(caplog) == ["3 of 3 images (100%), 1 failed, 2 calls (0 retries)"]


def test_the_last_line_counts_equal_bytes_and_images_without_labels(
    sqlite: Database,
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
    small_jpegs: Callable[[int], list[bytes]],
):
    """Images of which no label is kept have no row, and are in the summary and the log."""
    images = [Image(str(number), content=data) for number, data in enumerate(small_jpegs(2))]
    images += [Image(f"copy of {image.key}", content=image.content) for image in images]
    task = ImageTagOperator(
        task_id="label", images=images, store=SqlLabelStore("warehouse"), min_probability=1.0
    )
    with caplog.at_level(logging.INFO, run.log.name):
        summary = task.execute({})
    assert (summary["tagged"], summary["reused"], summary["without_labels"]) == (4, 2, 4)
    assert ends(caplog) == [
        (
            "4 of 4 images (100%), 4 labelled (2 by calls, 2 from earlier answers), 0 failed, "
            "2 calls (0 retries); 4 new, 0 due again, 4 without labels"
        )
    ]
    bare = ImageTagOperator(task_id="label", images=images, min_probability=1.0)
    assert len(bare.execute({})) == 0
    assert ends(caplog)[1].endswith("; 4 without labels")


@pytest.mark.parametrize(("price", "said"), [(2.5, "; about 0.005 of cost"), (0, ""), (None, "")])
def test_the_last_line_names_a_cost_where_calls_have_a_price(
    price: float | None,
    said: str,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    small_jpegs: Callable[[int], list[bytes]],
):
    """A free model and an unknown price have none."""
    connection = json.loads(emulator.connection_json)
    connection["extra"]["price_per_thousand"] = price
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))
    images = [Image(str(number), content=data) for number, data in enumerate(small_jpegs(2))]
    with caplog.at_level(logging.INFO, run.log.name):
        ImageTagOperator(task_id="label", images=images).execute({})
    assert ends(caplog) == [f"2 of 2 images (100%), 0 failed, 2 calls (0 retries){said}"]


@pytest.fixture
def store(request: pytest.FixtureRequest, products: Database, tmp_path: Path) -> LabelStore:
    """Give a store in the database of the products, or beside it."""
    return SqlLabelStore("warehouse") if request.param else ParquetLabelStore(str(tmp_path))


def run_log(store: LabelStore, caplog: pytest.LogCaptureFixture) -> str:
    """Label the products, and return the log."""
    task = ImageTagOperator(
        task_id="label",
        images=SqlImages("warehouse", table="products"),
        store=store,
        max_failure_ratio=1.0,
        requests_per_second=1000,
    )
    with caplog.at_level(logging.INFO):
        task.execute({})
    return caplog.text


@pytest.mark.parametrize("store", [True, False], indirect=True)
def test_a_run_with_a_store_says_how_many_there_are(
    store: LabelStore,
    products: Database,
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
):
    """New ones, those that are due, and those that are left alone; then how much is done."""
    add(products, *(f"{number}" for number in range(9)))
    later = datetime.now(UTC) + timedelta(hours=1)
    with store.open("picture_classify") as opened:
        opened.write(
            [
                failed("0", final=False, next_try_at=datetime.now(UTC)),
                failed("1", final=False, next_try_at=later),
                failed("2", final=False, has_given_up=True),
            ]
        )
    log = run_log(store, caplog)
    assert "To label: 6 new images, 1 due again; 1 wait for another try; 1 were given up" in log
    assert "Ended: 7 of 7 images (100%)" in log


@pytest.mark.parametrize(
    ("store", "said", "is_counted"),
    [(True, "600 images", True), (False, "500 images or", False)],
    indirect=["store"],
)
def test_a_run_with_many_images_counts_where_a_database_can(
    store: LabelStore,
    said: str,
    is_counted: bool,
    products: Database,
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
):
    """Else it says how many there are at least."""
    add(products, *(f"{number}" for number in range(600)))
    log = run_log(store, caplog)
    assert f"To label: {said}" in log
    assert ("of 600 images (100%)" in log) is is_counted
