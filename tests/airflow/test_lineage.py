"""The events of OpenLineage that a real Airflow writes for the operators."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clusters import ROOT, AirflowHome
from databases import tagged
from hosts import connection
from test_examples import products

from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.testing import Emulator


def test_events_name_the_tables(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    new_home: Callable[..., AirflowHome],
    emulator: Emulator,
):
    """With their columns and rows, the calls and the cost; as the file transport writes them."""
    warehouse = products(request)
    with SqlLabelStore("warehouse", "product_labels").open("picture_classify") as opened:
        opened.write([replace(tagged("SKU-GONE", "x"), api="picture_classify")])
    log = tmp_path / "events.json"
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(ROOT / "dags_examples" / "clean_up_deleted.py", dags)
    home = new_home(
        dags,
        AIRFLOW_CONN_IMAGETAG_DEFAULT=connection(emulator, price_per_thousand=1.5),
        AIRFLOW_CONN_WAREHOUSE=warehouse.connection_json,
        AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps(
            {"type": "file", "log_file_path": str(log), "append": True}
        ),
    )
    done = home.command("dags", "test", "clean_up_deleted", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    events = [json.loads(line) for line in log.read_text().splitlines()]

    database = warehouse.engine.url.database
    assert database is not None
    name = f"{database}.public."
    for task, counts in (
        ("label_products", {"tagged": 9, "failed": 1, "calls": 9}),
        ("clean_up", {"held": 11, "missing": 1, "deleted": 1}),
    ):
        start, complete = (
            event
            for event in events
            if event["job"]["name"] == f"clean_up_deleted.{task}"
            and event["eventType"] in ("START", "COMPLETE")
        )
        assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
        for event in (start, complete):
            assert [one["name"] for one in event["inputs"]] == [f"{name}products"]
            outputs = [one["name"] for one in event["outputs"]]
            assert outputs == [f"{name}product_labels", f"{name}product_labels_images"]
            assert len({one["namespace"] for one in event["inputs"] + event["outputs"]}) == 1
            assert event["inputs"][0]["namespace"].startswith("postgres://")
        facet = complete["run"]["facets"]["imagetag"]
        assert counts.items() <= facet["counts"].items()
        assert "imagetag" not in start["run"]["facets"]
        fields = {one["name"] for one in complete["inputs"][0]["facets"]["schema"]["fields"]}
        assert fields == {"sku", "photo_url", "updated_at"}
    labels, images = of_task(events, "label_products")["outputs"]
    found = warehouse.value("select count(*) from product_labels")
    assert labels["outputFacets"]["outputStatistics"]["rowCount"] == found > 9
    assert images["outputFacets"]["outputStatistics"]["rowCount"] == 10
    origins = labels["facets"]["columnLineage"]["fields"]["label"]["inputFields"]
    assert [(one["name"], one["field"]) for one in origins] == [(f"{name}products", "photo_url")]
    facet = of_task(events, "label_products")["run"]["facets"]["imagetag"]
    assert facet["estimatedCost"] == pytest.approx(0.0135)
    assert facet["api"] == "picture_classify"
    assert "SKU-" not in log.read_text()


def of_task(events: list[dict[str, Any]], task: str) -> dict[str, Any]:
    """Return the last event of a task."""
    return [one for one in events if one["job"]["name"] == f"clean_up_deleted.{task}"][-1]
