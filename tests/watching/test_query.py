"""The query of sensor and trigger: its result, the open store, the interface of the account."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conditions import condition
from databases import Database, tagged

from airflow_imagetag.errors import ConfigurationError, UnknownConnectionError
from airflow_imagetag.models import Image
from airflow_imagetag.services.account import DEFAULT_API
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.stores.base import StoreMode
from airflow_imagetag.stores.parquet_open import OpenParquetStore
from airflow_imagetag.watching.query import NewImagesQuery, QueryResult, target_of

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@dataclass(repr=False)
class CountedStore(ParquetLabelStore):
    """A store that counts how often it is opened, and how often it is open now."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.openings = 0
        self.open_now = 0

    @contextmanager
    def open(self, api: str, mode: StoreMode = StoreMode.WRITE) -> Iterator[OpenParquetStore]:
        """Open the store and count it."""
        with super().open(api, mode) as opened:
            self.openings += 1
            self.open_now += 1
            yield opened
        self.open_now -= 1


def keys(result: QueryResult) -> list[str]:
    """Return the keys of the images that were found."""
    return [image.key for image in result.images]


def test_a_sensor_leaves_out_what_the_service_does_not_take(tmp_path):
    """As the operator does, or a GIF would end every wait."""
    for name in ("a.jfif", "b.gif"):
        (tmp_path / name).write_bytes(b"x")
    after = "2020-01-01"
    query = NewImagesQuery(condition(ObjectStorageImages(str(tmp_path)), modified_after=after))
    assert keys(query.run(NOON, enough=10)) == [f"file://{tmp_path}/a.jfif"]
    query.close()


def test_a_source_without_times_is_an_error():
    """A list does not know when an image changed."""
    query = NewImagesQuery(condition(settle_seconds=30))
    with pytest.raises(ConfigurationError, match="does not know when"):
        query.run(NOON, enough=1)
    query.close()


def test_the_interface_of_the_account(monkeypatch: pytest.MonkeyPatch):
    """A store keeps the labels of each interface apart; the default account need not exist."""
    assert target_of("imagetag_default").api == DEFAULT_API
    with pytest.raises(UnknownConnectionError, match="elsewhere"):
        target_of("elsewhere")
    fields = {
        "conn_type": "imagetag",
        "login": "AKIDlogin",
        "password": "5ecre7",
        "extra": {"app_id": "1250000001", "api": "DetectNothing"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", json.dumps(fields))
    with pytest.raises(ConfigurationError, match="DetectNothing"):
        target_of("elsewhere")


def test_the_next_query_finds_rows_that_were_written_meanwhile(sqlite: Database):
    """The store stays open between queries; rows of other writers and new tables are found."""
    sqlite.run("CREATE TABLE products (id text PRIMARY KEY, image_url text)")
    sqlite.run(
        "INSERT INTO products VALUES (:id, 'https://x')", *({"id": key} for key in ("a", "b", "c"))
    )
    store = SqlLabelStore("warehouse")
    query = NewImagesQuery(condition(SqlImages("warehouse", table="products"), store))
    assert keys(query.run(NOON, enough=9)) == ["a", "b", "c"]
    with store.open(DEFAULT_API) as opened:
        opened.write([tagged("a", "x")])
    assert keys(query.run(NOON, enough=9)) == ["b", "c"]
    query.close()
    result = query.run(NOON, enough=1)
    assert (keys(result), result.is_all) == (["b"], False)
    query.close()


def test_the_store_stays_open_between_queries(tmp_path: Path):
    """The index of a dataset is read once, and is closed with the query."""
    store = CountedStore(f"{tmp_path}/lake")
    query = NewImagesQuery(condition(store=store))
    for _ in range(3):
        query.run(NOON, enough=1)
    assert (store.openings, store.open_now) == (1, 1)
    query.close()
    assert store.open_now == 0


@pytest.mark.parametrize("enough", [1, 2, 3, 4])
def test_a_query_takes_no_more_images_than_are_enough(enough: int, tmp_path: Path):
    """The result tells whether there may be more."""
    source = ValueImages([f"https://x/{name}.jpg" for name in "abc"])
    query = NewImagesQuery(condition(source, ParquetLabelStore(f"{tmp_path}/lake")))
    result = query.run(NOON, enough=enough)
    query.close()
    assert len(result.images) == min(enough, 3)
    assert result.is_all == (enough > 3)


def test_closing_does_not_wait_for_a_query_that_hangs(tmp_path: Path):
    """``close`` returns at once; the query closes the store when it ends."""
    goes_on = threading.Event()
    has_begun = threading.Event()

    def hang(images: Iterator[Image]) -> int:
        has_begun.set()
        goes_on.wait(20)
        return len(list(images))

    store = CountedStore(f"{tmp_path}/lake")
    query = NewImagesQuery(condition(store=store))
    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(query.read, hang, NOON)
        assert has_begun.wait(20)
        query.close()
        assert store.open_now == 1
        goes_on.set()
        assert hanging.result(20) == 1
    assert store.open_now == 0
