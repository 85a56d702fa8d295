"""What is asked for: parameters that may come from templates."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from databases import API, Database, tagged

from airflow_imagetag.errors import ConfigurationError, UnknownConnectionError
from airflow_imagetag.models import Image
from airflow_imagetag.selection.rules import Retag
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.watching.query import (
    NewImagesQuery,
    WaitCondition,
    api_of,
    parse_count,
    parse_moment,
    parse_seconds,
    parse_wait_condition,
)

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))


def question(**fields: Any) -> WaitCondition:
    """Return a question about a list."""
    usual: dict[str, Any] = {
        "source": ValueImages(["https://x/a.jpg"]),
        "store": ParquetLabelStore("/tmp/lake"),
        "imagetag_conn_id": "imagetag_default",
        "retag": "changed",
        "modified_after": None,
        "settle_seconds": 0,
        "min_images": 1,
        "max_images": 10,
    }
    return parse_wait_condition(**(usual | fields))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("None", None),
        (NOON, NOON),
        (NOON.replace(tzinfo=None), NOON),
        ("2026-07-01T12:00:00+00:00", NOON),
        ("2026-07-01T12:00:00Z", NOON),
        ("2026-07-01 12:00:00", NOON),
        ("2026-07-01T14:00:00+02:00", NOON),
        (NOON.astimezone(EAST), NOON),
        ("2026-07-01", NOON.replace(hour=0)),
    ],
)
def test_points_in_time(value: Any, expected: datetime | None):
    """A text, as templates give it, or a datetime; without a zone it is UTC."""
    moment = parse_moment("modified_after", value)
    assert moment == expected
    assert moment is None or moment.tzinfo is not None


@pytest.mark.parametrize("value", ["yesterday", "12", 5, True, "{{ ds }}", [], "2026-13-01", b"x"])
def test_what_is_no_point_in_time_is_named(value: Any):
    """With the parameter, and what it may be."""
    with pytest.raises(ConfigurationError, match="modified_after must be a point in time"):
        parse_moment("modified_after", value)


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (2.5, 2.5), ("30", 30), (" 1e3 ", 1000), ("0", 0)]
)
def test_seconds(value: Any, expected: float):
    """A number or its text."""
    assert parse_seconds("settle_seconds", value) == expected


@pytest.mark.parametrize("value", [-1, "-0.5", "soon", "", None, True, "nan", "inf", [], {}])
def test_what_is_no_number_of_seconds_is_named(value: Any):
    """With the parameter."""
    with pytest.raises(ConfigurationError, match="settle_seconds must be a number of seconds"):
        parse_seconds("settle_seconds", value)


@pytest.mark.parametrize(("value", "expected"), [(1, 1), ("7", 7), (1e4, 10_000), ("1e3", 1000)])
def test_counts(value: Any, expected: int):
    """A whole number or its text."""
    count = parse_count("min_images", value)
    assert count == expected
    assert type(count) is int


@pytest.mark.parametrize(
    "value", [0, -3, 1.5, "0", "some", "", None, True, "nan", "inf", "-inf", [], "0x10"]
)
def test_what_is_no_count_is_named(value: Any):
    """With the parameter."""
    with pytest.raises(ConfigurationError, match="min_images must be a whole number from 1"):
        parse_count("min_images", value)


def test_labelling_always_is_nothing_to_wait_for():
    """Every image would be new at any time."""
    with pytest.raises(ConfigurationError, match="retag='always'"):
        question(retag="always")
    assert question(retag="never").rule.retag is Retag.NEVER
    with pytest.raises(ConfigurationError, match="retag must be one of"):
        question(retag="sometimes")


def test_new_compared_with_what():
    """There must be a store, or a moment."""
    with pytest.raises(ConfigurationError, match=r"store=.*modified_after="):
        question(store=None)
    assert question(store=None, modified_after=NOON).modified_after == NOON


def test_the_time_in_which_images_changed():
    """It begins at the moment and ends before those that may still be being written."""
    assert question().window(NOON) is None
    settling = question(settle_seconds="30").window(NOON)
    assert settling is not None
    assert (settling.after, settling.before) == (None, NOON - timedelta(seconds=30))
    both = question(settle_seconds=30, modified_after=NOON).window(NOON)
    assert both is not None
    assert (both.after, both.before) == (NOON, NOON - timedelta(seconds=30))


def test_a_source_without_times_says_so():
    """A list knows of no time at which an image changed."""
    lookout = NewImagesQuery(question(settle_seconds=30))
    with pytest.raises(ConfigurationError, match="knows no time"):
        lookout.look(NOON, enough=1)
    lookout.close()


def test_the_interface_is_the_accounts(monkeypatch: pytest.MonkeyPatch):
    """A store keeps the labels of each interface apart; the default account need not exist."""
    assert api_of("imagetag_default") == "picture_classify"
    with pytest.raises(UnknownConnectionError, match="elsewhere"):
        api_of("elsewhere")
    fields = {
        "conn_type": "imagetag",
        "login": "AKIDlogin",
        "password": "5ecre7",
        "extra": {"app_id": "1250000001", "api": "DetectNothing"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", json.dumps(fields))
    with pytest.raises(ConfigurationError, match="DetectNothing"):
        api_of("elsewhere")


def test_looking_again_sees_what_was_written_meanwhile(sqlite: Database):
    """A lookout keeps the store open between looks, and sees other writers, and a new table."""
    sqlite.run("CREATE TABLE products (id text PRIMARY KEY, image_url text)")
    sqlite.run(
        "INSERT INTO products VALUES (:id, 'https://x')", *({"id": key} for key in ("a", "b", "c"))
    )
    store = SqlLabelStore("warehouse")
    lookout = NewImagesQuery(question(source=SqlImages("warehouse", table="products"), store=store))
    assert [image.key for image in lookout.look(NOON, enough=9).images] == ["a", "b", "c"]
    with store.open() as opened:
        opened.write([tagged("a", "x")], API)
    assert [image.key for image in lookout.look(NOON, enough=9).images] == ["b", "c"]
    lookout.close()
    found = lookout.look(NOON, enough=1)
    assert ([image.key for image in found.images], found.is_all) == (["b"], False)
    lookout.close()


@pytest.mark.parametrize("enough", [1, 2, 3, 4])
def test_a_look_takes_as_many_as_are_enough(enough: int, tmp_path: Path):
    """It says whether there may be more."""
    source = ValueImages([f"https://x/{name}.jpg" for name in "abc"])
    asked = question(source=source, store=ParquetLabelStore(f"{tmp_path}/lake"))
    lookout = NewImagesQuery(asked)
    found = lookout.look(NOON, enough=enough)
    lookout.close()
    assert len(found.images) == min(enough, 3)
    assert found.is_all == (enough > 3)


def test_closing_does_not_wait_for_a_look_that_hangs():
    """Who closes goes on at once; the look lets go of what it holds when it ends."""
    goes_on = threading.Event()
    began = threading.Event()

    def hang(images: Iterator[Image]) -> int:
        began.set()
        goes_on.wait(20)
        return len(list(images))

    store = ParquetLabelStore("/nowhere/at/all")
    lookout = NewImagesQuery(question(store=store))
    with ThreadPoolExecutor(1) as threads:
        looking = threads.submit(lookout.ask, hang, datetime.now(UTC))
        assert began.wait(20)
        lookout.close()
        assert lookout._opened is not None
        goes_on.set()
        assert looking.result(20) == 1
    assert lookout._opened is None
