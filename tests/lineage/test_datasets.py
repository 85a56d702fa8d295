"""Names of datasets, by the naming conventions of OpenLineage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_imagetag.adapters.airflow_sdk import Asset
from airflow_imagetag.adapters.dataset_refs import FolderRef, QueryRef, TableRef
from airflow_imagetag.assets import convert_asset_to_openlineage
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.lineage.datasets import DatasetName, names_of
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.sources.images_field import as_source
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore

CONNECTIONS: dict[str, dict[str, Any]] = {
    "lite": {"conn_type": "sqlite", "host": "/data/warehouse.db"},
    "warehouse": {
        "conn_type": "postgres",
        "host": "db.example",
        "schema": "shop",
        "login": "ann",
        "password": "s3cret",
    },
}


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make connections to databases that are not reached."""
    for name, fields in CONNECTIONS.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(fields))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("s3://my_s3@photos/2026/summer/", ("s3://photos", "2026/summer")),
        ("s3://photos", ("s3://photos", "/")),
        ("gs://lake/labels", ("gs://lake", "labels")),
        ("file:///data/my%20photos", ("file", "/data/my photos")),
        ("/data/photos/", ("file", "/data/photos")),
    ],
)
def test_folders(path: str, name: tuple[str, str]):
    """Bucket and path without the connection; local ones in the namespace ``file``."""
    assert names_of(FolderRef(path)) == [DatasetName(*name)]


def test_tables():
    """Host, port, database and schema as the hook tells them, in lower case; no user."""
    assert names_of(TableRef("warehouse", "Catalogue.Products")) == [
        DatasetName("postgres://db.example:5432", "shop.catalogue.products")
    ]


def test_a_hook_without_lineage():
    """SQLite's tells nothing: the kind of the connection and its file name the database."""
    assert names_of(TableRef("lite", "products")) == [
        DatasetName("sqlite:///data/warehouse.db", "products")
    ]


def test_queries():
    """The tables that a query reads."""
    sql = "SELECT p.id, i.url FROM products p JOIN shop.images i ON i.id = p.id"
    names = {name for _, name in names_of(QueryRef("lite", sql))}
    assert names == {"products", "shop.images"}


def test_an_unknown_connection_is_no_error(caplog: pytest.LogCaptureFixture):
    """The task itself reports it."""
    assert names_of(TableRef("nowhere", "products")) == []
    assert "nowhere" in caplog.text


def test_sources_and_stores_tell_their_places(tmp_path: Path):
    """Each its own; a store both of its tables or folders."""
    photos = ObjectStorageImages("s3://aws_default@photos/2026/")
    assert photos.dataset_refs() == [FolderRef("s3://aws_default@photos/2026/")]
    table = SqlImages("lite", table="products", key="sku", uri="url", version="changed")
    [ref] = table.dataset_refs()
    assert isinstance(ref, TableRef)
    assert ref.columns == {"key": "sku", "uri": "url", "version": "changed"}
    store = SqlLabelStore("lite", '"Product ""A"" Labels"', schema="marts")
    assert {kind: names_of(one)[0].name for kind, one in store.dataset_refs().items()} == {
        "labels": 'marts.Product "A" Labels',
        "images": 'marts.Product "A" Labels_images',
    }
    uris = ["s3://my_s3@photos/a.jpg", {"image_key": "b", "image_uri": "gs://lake/b.jpg"}]
    listed = as_source([*uris, "https://shop/c.jpg", b"bytes", "s3://my_s3@photos/d.jpg"])
    names = [name for ref in listed.dataset_refs() for name in names_of(ref)]
    assert names == [DatasetName("gs://lake", "/"), DatasetName("s3://photos", "/")]
    lake = ParquetLabelStore(f"{tmp_path}/lake/")
    assert {kind: names_of(one)[0].name for kind, one in lake.dataset_refs().items()} == {
        "labels": f"{tmp_path}/lake/labels",
        "images": f"{tmp_path}/lake/images",
    }


@pytest.mark.parametrize("schema", [None, "marts"])
def test_the_asset_of_a_table_is_its_dataset(schema: str | None):
    """Airflow asks for it where a task names the asset as inlet or outlet."""
    store = SqlLabelStore("lite", '"product labels"', schema=schema)
    found = convert_asset_to_openlineage(Asset(store.asset_uri), None)
    assert (found.namespace, found.name) == names_of(store.dataset_refs()["labels"])[0]


def test_the_asset_of_an_unknown_connection():
    """The provider of OpenLineage leaves the asset out."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        convert_asset_to_openlineage(Asset("imagetag://nowhere/labels"), None)
