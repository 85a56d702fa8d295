"""``source - store``: chunks, limits and the way through one database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import pytest
from databases import API, Database, tagged

from airflow_imagetag.errors import InvalidImageError
from airflow_imagetag.models import Entry, Image, RejectedImage, SkippedImage
from airflow_imagetag.selection import difference
from airflow_imagetag.selection.difference import limited, new_entries, pending_entries
from airflow_imagetag.selection.rules import Retag, Rule, Status, StoredState
from airflow_imagetag.selection.shards import parse_shard
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore


class Held:
    """An open store that counts the keys of each look-up."""

    database = None

    def __init__(self, held: Mapping[str, StoredState]) -> None:
        self.held = held
        self.asked: list[int] = []

    def condition(self, rule: Rule) -> None:
        """Return None: the store has no database."""

    def may_be_due(self, rule: Rule) -> bool:
        """Return True: it is not known."""
        return True

    def known(self, keys: Collection[str]) -> Mapping[str, StoredState]:
        """Return the states of the keys that are held."""
        self.asked.append(len(keys))
        return {key: self.held[key] for key in keys if key in self.held}


def images(count: int, version: str | None = None) -> list[Entry]:
    """Return images with the keys ``key 0``, ``key 1``, ..."""
    return [Image(f"key {n}", f"https://x/{n}", version=version) for n in range(count)]


def pending(entries: list[Entry], held: Any, rule: Rule | None = None) -> list[str]:
    """Return the keys of the new entries."""
    return [entry.key for entry in pending_entries(entries, held, rule or Rule())]


def test_the_store_is_asked_in_chunks():
    """A question for each image would cost more than the image."""
    held = Held({f"key {n}": StoredState("", Status.TAGGED) for n in range(0, 1200, 2)})
    assert pending(images(1200), held) == [f"key {n}" for n in range(1, 1200, 2)]
    assert held.asked == [500, 500, 200]


def test_nothing_is_read_before_it_is_asked_for():
    """A source of a million entries is read as far as the run goes."""
    read = 0

    def entries() -> Iterator[Entry]:
        nonlocal read
        for entry in images(5000):
            read += 1
            yield entry

    found = pending_entries(entries(), Held({}), Rule())
    next(found)
    assert read == difference.LOOKUP_ENTRIES


def test_the_order_stays():
    """Images come in the order of their source."""
    assert pending(images(10), Held({})) == [f"key {n}" for n in range(10)]


def test_rejected_entries_follow_the_same_rule():
    """A row that failed is reported once for each version, and again when asked for."""
    error = InvalidImageError("no URI")
    entries: list[Entry] = [RejectedImage("a", None, error, version="1"), SkippedImage("b")]
    assert pending(entries, Held({})) == ["a", "b"]
    held = Held({"a": StoredState("1", Status.FAILED, False), "b": StoredState("", Status.TAGGED)})
    assert pending(entries, held) == ["b"]
    assert pending(entries, held, Rule(retry_failed=True)) == ["a", "b"]
    assert pending(entries, Held({"a": StoredState("0", Status.FAILED, False)})) == ["a", "b"]


def test_a_uri_that_was_filled_in_is_news():
    """The image failed for want of it."""
    held = Held({"a": StoredState("", Status.FAILED, has_uri=False)})
    assert pending([Image("a", "https://x/a")], held) == ["a"]


@pytest.mark.parametrize(("limit", "expected"), [(None, 6), (1, 2), (3, 4), (5, 6), (9, 6)])
def test_a_limit_counts_images(limit: int | None, expected: int):
    """Entries that cost nothing do not count, and none is taken after the last image."""
    error = InvalidImageError("no URI")
    entries: list[Entry] = [RejectedImage("x", None, error), *images(5)]
    iterator = iter(entries)
    assert len(list(limited(iterator, limit))) == expected
    assert len(list(iterator)) == 6 - expected


def test_one_database_is_asked_in_one_statement(database: Database):
    """The database leaves out the images that the store holds, also of a shard."""
    database.run("CREATE TABLE products (id varchar(9) PRIMARY KEY, image_url text, at text)")
    database.run(
        "INSERT INTO products VALUES (:id, :uri, 'v1')",
        *({"id": f"k{n:03}", "uri": f"https://x/{n}"} for n in range(90)),
    )
    source = SqlImages("warehouse", table="products", version="at")
    store = SqlLabelStore("warehouse")

    def new(rule: Rule | None = None, shard: str | None = None) -> list[str]:
        with store.open(API) as opened:
            entries = new_entries(
                source, opened, rule or Rule(), shard=parse_shard(shard), limit=None
            )
            return [entry.key for entry in entries]

    with store.open(API) as opened:
        opened.write([tagged(f"k{n:03}", "x", version="v1") for n in range(80)])
    assert new() == [f"k{n:03}" for n in range(80, 90)]
    database.run("UPDATE products SET at = 'v2' WHERE id < 'k005'")
    assert new() == [f"k{n:03}" for n in [*range(5), *range(80, 90)]]
    assert len(new(Rule(Retag.NEVER))) == 10
    assert len(new(Rule(Retag.ALWAYS))) == 90
    parts = [new(shard=name) for name in source.shards(3)]
    assert sorted(key for part in parts for key in part) == new()


def test_the_same_source_against_another_store(
    database: Database, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
):
    """Any source and any store make a difference."""
    database.run("CREATE TABLE products (id varchar(9) PRIMARY KEY, image_url text)")
    database.run(
        "INSERT INTO products VALUES (:id, 'https://x/a')", *({"id": f"k{n}"} for n in range(9))
    )
    monkeypatch.setenv("AIRFLOW_CONN_SAME", database.connection_json)
    sources = [
        SqlImages("warehouse", table="products"),
        ValueImages([{"image_key": f"k{n}", "image_uri": "https://x/a"} for n in range(9)]),
    ]
    stores = [SqlLabelStore("same"), ParquetLabelStore(str(tmp_path / "lake"))]
    for store in stores:
        with store.open(API) as opened:
            opened.write([tagged(f"k{n}", "x") for n in range(6)])
            for source in sources:
                found = new_entries(source, opened, Rule(), shard=None, limit=None)
                assert [entry.key for entry in found] == ["k6", "k7", "k8"]
