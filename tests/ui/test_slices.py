"""Pages of a table that is too large to be searched at once: piece by piece, and never for long."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest
import sqlalchemy as sa
from databases import API, Database, tagged
from pictures import write
from web import client_of

from airflow_imagetag.errors import StorageError
from airflow_imagetag.stores import SqlLabelStore, digest_slices, sql_browsing
from airflow_imagetag.stores.browsing import Cursor, ImageFilter, QueryTooSlowError, StoreBrowser
from airflow_imagetag.stores.digest_slices import LAST_DIGEST, slices
from airflow_imagetag.stores.rows import key_digest
from airflow_imagetag.stores.sql_browsing import open_sql_browser

KEYS = sorted((f"key {number}" for number in range(60)), key=key_digest)


@pytest.mark.parametrize("start", ["", "8" + "0" * 63, "f" * 63 + "e", LAST_DIGEST])
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_slices_follow_each_other_to_the_end(start, seconds):
    """Without a gap; those that take long get smaller, and quick ones larger."""
    now = [0.0]
    found: list[tuple[str, str]] = []
    for part in slices(start, clock=lambda: now[0]):
        now[0] += seconds
        found.append(part)
        if len(found) > 3_000:
            break
    lows, highs = [low for low, _ in found], [high for _, high in found]
    assert lows[:1] == ([] if start == LAST_DIGEST else [start])
    assert lows[1:] == highs[:-1]
    assert seconds == 1.0 or highs[-1:] in ([], [LAST_DIGEST])
    sizes = [int(high, 16) - int(low or "0", 16) for low, high in found[:3]]
    if len(sizes) == 3:
        assert [round(size / sizes[0], 3) for size in sizes] == {
            0.0: [1, 2, 4],
            0.3: [1, 1, 1],
            1.0: [1, 0.5, 0.25],
        }[seconds]


@pytest.fixture
def store(database: Database, monkeypatch: pytest.MonkeyPatch) -> SqlLabelStore:
    """Fill a store whose pages are never found at once."""
    monkeypatch.setattr(sql_browsing, "WHOLE_SHARE", 0)
    monkeypatch.setattr(digest_slices, "FIRST_SHARE", 4)
    found = SqlLabelStore("warehouse", "product_labels")
    write(found, [tagged(key, "cat" if place % 2 else "dog") for place, key in enumerate(KEYS)])
    return found


def test_a_page_is_gathered_from_slices(store):
    """It is the same as one that is found at once, and so is the next one."""
    with open_sql_browser(store.conn_id, store.table, None) as browser:
        first = browser.page(ImageFilter(label="cat"), None, 20)
        assert [image.image_key for image in first.images] == KEYS[1:40:2]
        assert not first.is_cut
        second = browser.page(ImageFilter(label="cat"), first.after, 20)
        assert [image.image_key for image in second.images] == KEYS[41::2]
        assert (second.after, second.is_cut) == (None, False)


def test_when_the_time_is_over_the_next_page_goes_on(store, monkeypatch):
    """From the last slice that was searched, also where it held nothing that was looked for."""

    def slow(start: str) -> Iterator[tuple[str, str]]:
        yield next(slices(start))
        raise QueryTooSlowError("The time is over.")

    monkeypatch.setattr(sql_browsing, "slices", slow)
    with open_sql_browser(store.conn_id, store.table, None) as browser:
        first = browser.page(ImageFilter(text="cat"), None, 50)
        quarter = f"{int(LAST_DIGEST, 16) // 4:064x}"
        assert (first.after, first.is_cut) == (Cursor(API, quarter), True)
        keys = [key for key in KEYS[1::2] if key_digest(key) <= quarter]
        assert [image.image_key for image in first.images] == keys
        empty = browser.page(ImageFilter(label="unicorn"), first.after, 50)
        assert (len(empty.images), empty.is_cut) == (0, True)
        assert empty.after is not None
        assert empty.after.digest > quarter
    with (
        open_sql_browser(store.conn_id, store.table, None, seconds=1e-9) as browser,
        pytest.raises(QueryTooSlowError),
    ):
        browser.page(ImageFilter(label="cat"), None, 50)


NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

LONG = {
    "postgres": "SELECT pg_sleep(60)",
    "sqlite": NUMBERS,
    "duckdb_file": "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a < b",
}


@pytest.mark.parametrize("database", LONG)
def test_a_query_that_takes_too_long_is_ended(request, database):
    """By the database itself; the next query is answered, and one that is wrong is told apart."""
    request.getfixturevalue(database)
    found = SqlLabelStore("warehouse", "product_labels")
    write(found, [tagged("key", "cat")])
    with open_sql_browser(found.conn_id, found.table, None) as browser:

        def ask(statement: str, seconds: float) -> object:
            return browser._within(seconds, lambda c: c.execute(sa.text(statement)).scalar())

        began = time.monotonic()
        with pytest.raises(QueryTooSlowError, match=r"did not answer within 0\.3 seconds"):
            ask(LONG[database], 0.3)
        assert time.monotonic() - began < 20
        assert ask("SELECT 1", 5) == 1
        assert len(browser.page(ImageFilter(), None, 5).images) == 1
        with pytest.raises(StorageError) as raised:
            ask("SELECT nothing FROM nowhere", 5)
        assert not isinstance(raised.value, QueryTooSlowError)


def test_a_page_of_a_database_that_is_too_slow_says_what_to_do(sqlite: Database):
    """Instead of an error, for each page and in both languages."""

    class Slow(SqlLabelStore):
        def _browse(self) -> AbstractContextManager[StoreBrowser]:
            return open_sql_browser(self.conn_id, self.table, None, seconds=0)

    write(SqlLabelStore("warehouse", "product_labels"), [tagged("key", "cat")])
    with client_of({"products": Slow("warehouse", "product_labels")}) as client:
        for page in ("overview", "labels", "gallery", "failures", f"image?key={key_digest('key')}"):
            answer = client.get(f"/products/{page}")
            assert answer.status_code == 503
            assert "did not answer in time. Load this page again in a minute." in answer.text
        assert (
            "标签库未及时响应。请一分钟后重新加载此页。"
            in client.get("/products/labels?lang=zh").text
        )
        assert client.get("/products/runs").status_code == 200
