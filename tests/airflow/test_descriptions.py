"""Sources and stores in DAGs: how they are serialized, rendered, shown and mapped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from buckets import Bucket
from clusters import AIRFLOW_2
from databases import Database
from hosts import AirflowHost, Run, connection, serialized

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore


def new_dag(**params: Any) -> DAG:
    """Return a DAG without tasks and without a schedule."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return DAG("described", schedule=None, start_date=start, params=params)


def label_table(path: str) -> DAG:
    """Label the images of a table and of a query, with a template in every field."""
    with new_dag(
        conn="warehouse", table="products", labels="labels_of", schema="public", top=3
    ) as dag:
        by_table = ImageTagOperator(
            task_id="table",
            images=SqlImages(
                "{{ params.conn }}", table="{{ params.table }}", key="sku", uri="photo_url"
            ),
            store=SqlLabelStore(
                "{{ params.conn }}", table="{{ params.labels }}_table", schema="{{ params.schema }}"
            ),
        )
        by_query = ImageTagOperator(
            task_id="query",
            images=SqlImages(
                "{{ params.conn }}",
                sql="select * from {{ params.table }} order by sku limit {{ params.top }}",
                key="sku",
                uri="photo_url",
            ),
            store=ParquetLabelStore(path + "/{{ params.labels }}"),
        )
        by_table >> by_query
    return dag


def label_bucket() -> DAG:
    """Label the images of a bucket, with a template in every field."""
    with new_dag(bucket="", conn="aws_default", pattern="*") as dag:
        ImageTagOperator(
            task_id="label",
            images=ObjectStorageImages(
                "s3://{{ params.bucket }}/photos/",
                conn_id="{{ params.conn }}",
                pattern="{{ params.pattern }}",
            ),
            store=ParquetLabelStore("s3://{{ params.bucket }}/labels", conn_id="{{ params.conn }}"),
        )
    return dag


def label_shards(path: str) -> DAG:
    """Label the parts of a table in mapped tasks that share source and store."""
    source = SqlImages("warehouse", table="{{ params.table }}", key="sku", uri="photo_url")
    with new_dag(table="products") as dag:
        ImageTagOperator.partial(
            task_id="label",
            images=source,
            store=ParquetLabelStore(path + "/part {{ ti.map_index }}"),
        ).expand(shard=source.shards(3))
    return dag


def label_into_stores(path: str) -> DAG:
    """Label a table once into each of several stores, in mapped tasks."""
    with new_dag(table="products", labels="labels_of") as dag:
        ImageTagOperator.partial(
            task_id="label",
            images=SqlImages("warehouse", table="{{ params.table }}", key="sku", uri="photo_url"),
        ).expand(
            store=[
                ParquetLabelStore(path + "/first/{{ params.labels }}"),
                ParquetLabelStore(path + "/second/{{ ti.map_index }}"),
                SqlLabelStore("warehouse", table="{{ params.labels }}_{{ ti.map_index }}"),
            ]
        )
    return dag


def label_folders(path: str) -> DAG:
    """Label each folder of a bucket in a mapped task of its own."""
    with new_dag(bucket="") as dag:
        ImageTagOperator.partial(task_id="label", store=ParquetLabelStore(path)).expand(
            images=[
                ObjectStorageImages("s3://aws_default@{{ params.bucket }}/photos/" + folder)
                for folder in ("0/", "1/")
            ]
        )
    return dag


@pytest.fixture
def run_warehouse(airflow_host: AirflowHost, emulator: Any) -> Callable[..., Run]:
    """Run a DAG in an Airflow with a warehouse and a bucket."""

    def run(build: Callable[..., Any], *args: Any, place: Database | Bucket, **conf: Any) -> Run:
        name = (
            "AIRFLOW_CONN_WAREHOUSE" if isinstance(place, Database) else "AIRFLOW_CONN_AWS_DEFAULT"
        )
        return airflow_host.run(
            build,
            *args,
            conf=conf,
            AIRFLOW_CONN_IMAGETAG_DEFAULT=connection(emulator),
            **{name: place.connection_json},
        )

    return run


@pytest.fixture
def products(postgres: Database, image_urls: list[str]) -> Database:
    """Give a database with two tables of products."""
    for name, urls in (("products", image_urls[:9]), ("others", image_urls[9:12])):
        postgres.run(f"create table {name} (sku text primary key, photo_url text)")
        rows = [{"sku": f"{name} {number}", "url": url} for number, url in enumerate(urls)]
        postgres.run(f"insert into {name} values (:sku, :url)", *rows)
    return postgres


def shown(kind: str, **fields: str) -> Any:
    """Return a source or store as Airflow shows it: its fields, on Airflow 2 as text."""
    if AIRFLOW_2:
        return f"{kind}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"
    return {"type": kind} | fields


def keys_in(path: Path) -> set[str]:
    """Return the keys of the images in a Parquet dataset."""
    import pandas as pd

    files = list((path / "images").glob("*.parquet"))
    return {key for file in files for key in pd.read_parquet(file)["image_key"]}


def test_templates_of_sql_sources_and_stores_are_rendered(run_warehouse, products, tmp_path):
    """Connection, table, query, labels table and schema come from the run's params."""
    run = run_warehouse(
        label_table, str(tmp_path), place=products, table="others", labels="mine", top=2
    )
    assert run.state == "success", run.log
    others = {f"others {number}" for number in range(3)}
    assert {key for (key,) in products.rows("select image_key from mine_table_images")} == others
    assert keys_in(tmp_path / "mine") == {"others 0", "others 1"}


def test_rendered_fields_show_rendered_names(run_warehouse, products, tmp_path):
    """The web interface shows the source and the store that the run used."""
    run = run_warehouse(label_table, str(tmp_path), place=products, table="others", labels="mine")
    columns = {"key": "sku", "uri": "photo_url"}
    table, query = run.rendered["table", -1], run.rendered["query", -1]
    assert table["images"] == shown("SqlImages", conn_id="warehouse", table="others", **columns)
    assert table["store"] == shown(
        "SqlLabelStore", conn_id="warehouse", table="mine_table", schema="public"
    )
    sql = "select * from others order by sku limit 3"
    assert query["images"] == shown("SqlImages", conn_id="warehouse", sql=sql, **columns)
    assert query["store"] == shown("ParquetLabelStore", path=f"{tmp_path}/mine")
    stored = {"type": "ParquetLabelStore", "path": f"{tmp_path}/mine"}
    assert run.xcom("query", "summary")["store"] == stored


def test_templates_of_object_storage_are_rendered(run_warehouse, bucket, photographs):
    """Path, connection and pattern come from the run's params, of the source and of the store."""
    for number in range(4):
        bucket.put(f"photos/{number % 2}/{number}.jpg", photographs[number])
    run = run_warehouse(label_bucket, place=bucket, bucket=bucket.name, pattern="1/*.jpg")
    assert run.state == "success", run.log
    assert run.xcom("label")["tagged"] == 2
    written = {tuple(key.split("/")[:2]) for key in sorted(bucket.all_keys())}
    relations = {("labels", name) for name in ("labels", "images", "runs")}
    assert written == {("photos", "0"), ("photos", "1"), *relations}
    rendered = run.rendered["label", -1]
    assert rendered["images"] == shown(
        "ObjectStorageImages",
        path=f"s3://{bucket.name}/photos/",
        conn_id="aws_default",
        pattern="1/*.jpg",
        send="bytes",
    )
    assert rendered["store"] == shown(
        "ParquetLabelStore", path=f"s3://{bucket.name}/labels", conn_id="aws_default"
    )


def test_mapped_shards_do_not_see_each_others_rendered_values(run_warehouse, products, tmp_path):
    """Tasks that share a source and a store each render their own, and divide the images."""
    run = run_warehouse(label_shards, str(tmp_path), place=products)
    assert run.state == "success", run.log
    found = [keys_in(tmp_path / f"part {index}") for index in range(3)]
    assert set.union(*found) == {f"products {number}" for number in range(9)}
    assert sum(map(len, found)) == 9
    for index in range(3):
        rendered = run.rendered["label", index]
        assert rendered["shard"] == f"{index}/3"
        assert rendered["store"] == shown("ParquetLabelStore", path=f"{tmp_path}/part {index}")
        assert rendered["images"] == shown(
            "SqlImages", conn_id="warehouse", table="products", key="sku", uri="photo_url"
        )
        assert run.xcom("label", "summary", map_index=index)["tagged"] == len(found[index])


def test_mapped_stores_do_not_see_each_others_rendered_values(run_warehouse, products, tmp_path):
    """Each of several stores is a task of its own, with its own path, table and kind."""
    run = run_warehouse(label_into_stores, str(tmp_path), place=products, labels="mine")
    assert run.state == "success", run.log
    everything = {f"products {number}" for number in range(9)}
    assert keys_in(tmp_path / "first" / "mine") == everything
    assert keys_in(tmp_path / "second" / "1") == everything
    assert {key for (key,) in products.rows("select image_key from mine_2_images")} == everything
    assert [run.rendered["label", index]["store"] for index in range(3)] == [
        shown("ParquetLabelStore", path=f"{tmp_path}/first/mine"),
        shown("ParquetLabelStore", path=f"{tmp_path}/second/1"),
        shown("SqlLabelStore", conn_id="warehouse", table="mine_2"),
    ]


def test_mapped_folders_are_each_a_task(run_warehouse, bucket, photographs, tmp_path):
    """Each of several sources is labelled by a task of its own, into one store."""
    for number, content in enumerate(photographs[:4]):
        bucket.put(f"photos/{number % 2}/{number}.jpg", content)
    run = run_warehouse(label_folders, str(tmp_path), place=bucket, bucket=bucket.name)
    assert run.state == "success", run.log
    assert keys_in(tmp_path) == {f"s3://{bucket.name}/photos/{n % 2}/{n}.jpg" for n in range(4)}
    for index in range(2):
        assert run.xcom("label", "summary", map_index=index)["tagged"] == 2
        path = f"s3://aws_default@{bucket.name}/photos/{index}/"
        images = run.rendered["label", index]["images"]
        assert images == shown("ObjectStorageImages", path=path, send="bytes")


def serialized_dags() -> str:
    """Return the serializations of all DAGs of this module."""
    dags = [label_table("/lake"), label_bucket(), label_shards("/lake"), label_into_stores("/lake")]
    dags.append(label_folders("/lake"))
    with new_dag() as last:
        ImageTagOperator(
            task_id="secret",
            images=ObjectStorageImages("s3://key:HushHush@bucket/photos/"),
            store=ParquetLabelStore("s3://bucket/labels?X-Amz-Signature=HushHush"),
        )
    return serialized(*dags, last)


def test_two_parses_in_two_processes_serialize_alike(airflow_host):
    """The serialized DAGs are the same text under different hash seeds, and hold no secret."""
    text = airflow_host.serialized(__file__)
    assert " object at 0x" not in text
    assert "HushHush" not in text
    for name in ("SqlImages", "SqlLabelStore", "ObjectStorageImages", "ParquetLabelStore"):
        assert name in text
    assert "select * from {{ params.table }}" in text
