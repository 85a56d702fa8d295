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
from sqlalchemy import inspect
from test_examples import bucket_to_parquet, products

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
    events = events_of(
        "clean_up_deleted",
        tmp_path,
        new_home,
        AIRFLOW_CONN_IMAGETAG_DEFAULT=connection(emulator, price_per_thousand=1.5),
        AIRFLOW_CONN_WAREHOUSE=warehouse.connection_json,
    )
    database = warehouse.engine.url.database
    assert database is not None
    name = f"{database}.public."
    for task, counts in (
        ("label_products", {"tagged": 9, "failed": 1, "calls": 9}),
        ("clean_up", {"held": 11, "missing": 1, "deleted": 1}),
    ):
        start, complete = of_task(events, task)
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
    end = of_task(events, "label_products")[1]
    labels, images = end["outputs"]
    rows = warehouse.value("select count(*) from product_labels")
    assert labels["outputFacets"]["outputStatistics"]["rowCount"] == rows > 9
    assert images["outputFacets"]["outputStatistics"]["rowCount"] == 10
    for output in (labels, images):
        columns = {one["name"] for one in output["facets"]["schema"]["fields"]}
        table = output["name"].rpartition(".")[2]
        assert columns == {
            column["name"] for column in inspect(warehouse.engine).get_columns(table)
        }
    origins = labels["facets"]["columnLineage"]["fields"]["label"]["inputFields"]
    assert [(one["name"], one["field"]) for one in origins] == [(f"{name}products", "photo_url")]
    facet = end["run"]["facets"]["imagetag"]
    assert facet["estimatedCost"] == pytest.approx(0.0135)
    assert facet["api"] == "picture_classify"
    assert "SKU-" not in json.dumps(events)


def test_events_name_the_bucket(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    new_home: Callable[..., AirflowHome],
    emulator: Emulator,
):
    """A prefix as input, two folders as outputs, and no origin of columns: objects have none."""
    setting = bucket_to_parquet(tmp_path, request)
    events = events_of(
        "bucket_to_parquet",
        tmp_path,
        new_home,
        "--conf",
        json.dumps(setting.conf),
        AIRFLOW_CONN_IMAGETAG_DEFAULT=connection(emulator),
        **setting.environment,
    )
    bucket, _, prefix = setting.conf["photographs"].partition("@")[2].partition("/")
    lake = setting.conf["labels"].partition("@")[2].partition("/")[2].strip("/")
    for event in of_task(events, "label_photographs"):
        assert [(one["namespace"], one["name"]) for one in event["inputs"]] == [
            (f"s3://{bucket}", prefix.strip("/"))
        ]
        assert [(one["namespace"], one["name"]) for one in event["outputs"]] == [
            (f"s3://{bucket}", f"{lake}/{kind}") for kind in ("labels", "images")
        ]
        for output in event["outputs"]:
            assert "schema" in output["facets"]
            assert "columnLineage" not in output["facets"]
    labels, images = event["outputs"]
    counts = event["run"]["facets"]["imagetag"]["counts"]
    assert images["outputFacets"]["outputStatistics"]["rowCount"] == counts["seen"] > 0
    assert labels["outputFacets"]["outputStatistics"]["rowCount"] >= counts["tagged"] > 0


def events_of(
    dag_id: str,
    folder: Path,
    new_home: Callable[..., AirflowHome],
    *options: str,
    **environment: str,
) -> list[dict[str, Any]]:
    """Run an example, and return the events that Airflow writes."""
    log, dags = folder / "events.json", folder / "dags"
    dags.mkdir()
    shutil.copy(ROOT / "dags_examples" / f"{dag_id}.py", dags)
    transport = {"type": "file", "log_file_path": str(log), "append": True}
    home = new_home(dags, AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps(transport), **environment)
    done = home.command("dags", "test", dag_id, *options, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in log.read_text().splitlines()]


def of_task(events: list[dict[str, Any]], task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the event of the start of a task, and that of its end."""
    start, complete = (
        event
        for event in events
        if event["job"]["name"].partition(".")[2] == task
        and event["eventType"] in ("START", "COMPLETE")
    )
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    return start, complete
