"""The images of a source as a sensor reads them: without bytes, of a window of time."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket
from databases import Database
from fsspec.implementations.memory import MemoryFileSystem

from airflow_imagetag.errors import ConfigurationError, StorageError
from airflow_imagetag.models import Image
from airflow_imagetag.selection.rules import Window
from airflow_imagetag.sources import ObjectStorageImages, SqlImages, listing
from airflow_imagetag.sources.sql_reader import PageSizes, SqlReader
from airflow_imagetag.sources.values import ValueImages

try:
    from airflow.sdk.io import attach
except ImportError:
    from airflow.io.store import attach  # type: ignore[no-redef]

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=8))
SECOND = timedelta(seconds=1)
KINDS = {"postgresql": ("timestamptz", "timestamp"), "sqlite": ("timestamp", "text")}


def keys(source: Any, window: Window | None = None, **fields: Any) -> list[str]:
    """Return the keys of the images."""
    return [image.key for image in source.images(window=window, **fields)]


# -- tables -----------------------------------------------------------------------------------


def table(database: Database, kind: str, rows: dict[str, Any], *, unique: bool = True) -> SqlImages:
    """Make a table with these versions."""
    key = "PRIMARY KEY" if unique else ""
    database.run(f"CREATE TABLE products (id varchar(9) {key}, image_url text, changed {kind})")
    statement = "INSERT INTO products VALUES (:id, 'https://x', :changed)"
    for key, changed in rows.items():
        database.run(statement, {"id": key, "changed": changed})
    return SqlImages("warehouse", table="products", version="changed")


HOURS = {f"{hour:02}": f"2026-07-01 {hour:02}:00:00" for hour in (0, 9, 10, 11, 12, 13, 14, 23)}


WINDOWS = [
    (Window(NOON), ["12", "13", "14", "23"]),
    (Window(NOON + SECOND), ["13", "14", "23"]),
    (Window(None, NOON), ["00", "09", "10", "11", "12"]),
    (Window(None, NOON - SECOND), ["00", "09", "10", "11"]),
    (Window(NOON - 3600 * SECOND, NOON + 3600 * SECOND), ["11", "12", "13"]),
    (Window(NOON, NOON), ["12"]),
    (Window(NOON.astimezone(EAST), (NOON + SECOND).astimezone(EAST)), ["12"]),
    (Window(NOON + 86400 * SECOND), []),
    (Window(), list(HOURS)),
]


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("place", [0, 1])
def test_rows_of_a_time(database: Database, place: int, unique: bool):
    """Both ends belong to it, whatever their zone; a column without a zone is in UTC."""
    source = table(database, KINDS[database.dialect][place], HOURS, unique=unique)
    assert [keys(source, window) for window, _ in WINDOWS] == [found for _, found in WINDOWS]


@pytest.mark.parametrize(
    "text",
    [
        "2026-07-01 12:00:00",
        "2026-07-01 12:00:00.000000",
        "2026-07-01T12:00:00",
        "2026-07-01T12:00:00Z",
        "2026-07-01T12:00:00+00:00",
        "2026-07-01 20:00:00+08:00",
    ],
)
def test_the_forms_of_a_time_in_sqlite(sqlite: Database, text: str):
    """A timestamp is a text there, as one of several programs wrote it."""
    source = table(sqlite, "text", {"a": text})
    assert keys(source, Window(NOON, NOON)) == ["a"]
    assert keys(source, Window(NOON + SECOND)) == []
    assert keys(source, Window(None, NOON - SECOND)) == []


@pytest.mark.parametrize("after_seconds", [0, 0.5, 43199.9, 86399.9])
def test_a_date_is_all_of_its_day(database: Database, after_seconds: float):
    """The hour at which a row of this day changed is unknown, so the row belongs to the window."""
    kind = {"postgresql": "date", "sqlite": "text"}[database.dialect]
    days = {"a": "2026-06-30", "b": "2026-07-01", "c": "2026-07-02"}
    source = table(database, kind, days)
    midnight = NOON - 43200 * SECOND
    assert keys(source, Window(midnight + after_seconds * SECOND)) == ["b", "c"]
    assert keys(source, Window(None, midnight + after_seconds * SECOND)) == ["a", "b"]


@pytest.mark.parametrize("zone", [UTC, EAST])
def test_the_day_of_a_date_is_that_of_utc(database: Database, zone: timezone):
    """As for all times in a database, whatever the zone of the time that is asked about."""
    kind = {"postgresql": "date", "sqlite": "text"}[database.dialect]
    source = table(database, kind, {"a": "2026-06-30", "b": "2026-07-01"})
    assert keys(source, Window((NOON + 7 * 3600 * SECOND).astimezone(zone))) == ["b"]


def test_midnight_is_no_day(database: Database):
    """A time has its precision, even if it is one at which a day begins."""
    source = table(database, KINDS[database.dialect][0], {"a": "2026-07-01 00:00:00"})
    assert keys(source, Window(NOON)) == []


@pytest.mark.parametrize(
    ("text", "after_seconds", "found"),
    [
        ("12:00:00", 0.5, ["a"]),
        ("12:00:00", 0.000001, ["a"]),
        ("12:00:00", 1, []),
        ("11:59:59", 0.5, []),
        ("12:00:00.123", 0.1236, ["a"]),
        ("12:00:00.123", 0.124, []),
        ("12:00:00.250", 0.5, []),
        ("12:00:00.750", 0.5, ["a"]),
    ],
)
def test_whole_seconds_and_milliseconds(
    database: Database, text: str, after_seconds: float, found: list[str]
):
    """A column of whole seconds tells no more than that a row changed in this one."""
    source = table(database, KINDS[database.dialect][0], {"a": f"2026-07-01 {text}"})
    assert keys(source, Window(NOON + after_seconds * SECOND)) == found
    assert keys(source, Window((NOON + after_seconds * SECOND).astimezone(EAST))) == found


@pytest.mark.parametrize("value", ["v1", "12:00", "now", "1751371200", 1751371200, 1, "1 July"])
@pytest.mark.parametrize("unique", [True, False])
def test_versions_that_are_no_times_in_sqlite(sqlite: Database, value: Any, unique: bool):
    """The error names the row and the remedy, so that the sensor does not wait for ever."""
    kind = "text" if isinstance(value, str) else "integer"
    rows = {"a": "2026-07-01 12:00:00", "b": None, "c": " ", "d": value, "e": "2026-07-01"}
    source = table(sqlite, kind, rows, unique=unique)
    for window in (Window(NOON), Window(None, NOON), Window(NOON, NOON)):
        with pytest.raises(ConfigurationError, match=r"'changed' of the row 'd'.*sql="):
            keys(source, window)
    assert keys(source) == list("abcde")


def test_times_can_be_made_by_a_query(sqlite: Database):
    """As the message of the error says."""
    table(sqlite, "integer", {"a": int(NOON.timestamp())})
    source = SqlImages(
        "warehouse",
        sql="SELECT id, image_url, datetime(changed, 'unixepoch') AS changed FROM products",
        version="changed",
    )
    assert keys(source, Window(NOON)) == ["a"]
    assert keys(source, Window(NOON + SECOND)) == []


@pytest.mark.parametrize(("kind", "value"), [("text", "2026-07-01"), ("integer", 1)])
def test_versions_that_are_no_times_in_postgres(postgres: Database, kind: str, value: Any):
    """The database refuses to compare them; the message names the remedy."""
    source = table(postgres, kind, {"a": value})
    with pytest.raises(ConfigurationError, match=r"'changed'.*timestamps.*sql="):
        keys(source, Window(NOON))


def test_the_zone_of_a_database_changes_nothing(postgres: Database):
    """A server whose default is another zone than UTC gives the same rows."""
    name = postgres.engine.url.database
    postgres.script(f"ALTER DATABASE {name} SET timezone = 'Asia/Shanghai'")
    source = table(postgres, "timestamp", HOURS)
    assert keys(source, Window(NOON, NOON)) == ["12"]


def test_rows_without_a_time_are_of_none(database: Database):
    """The time of their change is unknown; without a window they are images."""
    source = table(database, KINDS[database.dialect][0], {"a": "2026-07-01 12:00:00", "b": None})
    assert keys(source, Window(NOON - SECOND)) == ["a"]
    assert keys(source, Window(None, NOON + SECOND)) == ["a"]
    assert keys(source) == ["a", "b"]


def test_of_rows_that_share_a_key_the_last_change_counts(database: Database):
    """While the newest row is still being written, the image is; an older row is no other one."""
    kind = KINDS[database.dialect][0]
    source = table(database, kind, {"a": "2026-07-01 12:00:00"}, unique=False)
    database.run("INSERT INTO products VALUES ('a', 'https://x/2', '2026-07-01 13:00:00')")
    assert keys(source, Window(None, NOON)) == []
    [image] = source.images(window=Window(NOON + SECOND))
    assert (image.key, image.uri) == ("a", "https://x/2")


def test_a_table_without_versions_knows_no_times(database: Database):
    """The message names the parameter."""
    table(database, "text", {})
    source = SqlImages("warehouse", table="products")
    with pytest.raises(ConfigurationError, match="version="):
        keys(source, Window(NOON))


def test_a_version_that_is_no_time_is_refused(postgres: Database):
    """PostgreSQL compares no text with a time, and waiting would not mend it."""
    source = table(postgres, "text", {"a": "v1"})
    with pytest.raises(ConfigurationError, match="'products'"):
        keys(source, Window(NOON))


@pytest.mark.parametrize("unique", [True, False])
def test_rows_without_an_image_are_left_out(database: Database, unique: bool):
    """Neither a row without a URI nor one without a key is ever waited for."""
    key = "UNIQUE" if unique else ""
    database.run(f"CREATE TABLE products (id varchar(9) {key}, image_url text)")
    database.run(
        "INSERT INTO products VALUES (:id, :uri)",
        *(
            {"id": key, "uri": uri}
            for key, uri in [
                ("a", None),
                ("b", ""),
                ("c", "  "),
                ("d", "https://x"),
                ("e", "\t\n"),
                (None, "x"),
            ]
        ),
    )
    [image] = SqlImages("warehouse", table="products").images()
    assert image == Image("d", "https://x", version="")


def test_bytes_are_not_read(database: Database):
    """A sensor needs none; rows whose bytes are NULL or empty are no images."""
    kind = "bytea" if database.is_postgres else "blob"
    database.run(f"CREATE TABLE photos (id varchar(9) PRIMARY KEY, jpeg {kind})")
    database.run(
        "INSERT INTO photos VALUES (:id, :jpeg)",
        {"id": "a", "jpeg": b"picture"},
        {"id": "b", "jpeg": None},
        {"id": "c", "jpeg": b""},
    )
    source = SqlImages("warehouse", table="photos", content="jpeg")
    assert list(source.images()) == [Image("a", None, version="")]


def test_no_more_rows_are_read_than_are_taken(database: Database, caplog: pytest.LogCaptureFixture):
    """Of a table of any size, one page is read, as long as the limit."""
    source = table(database, "text", {f"{number:04}": None for number in range(200)})
    pages = PageSizes(indexed=50)
    assert len(list(SqlReader(source, pages=pages).images(None))) == 200
    caplog.set_level(logging.INFO, "sqlalchemy.engine")
    found = SqlReader(source, limit=3, pages=pages).images(None)
    assert [next(found).key for _ in range(3)] == ["0000", "0001", "0002"]
    statements = [
        record
        for record in caplog.records
        if "LIMIT" in (text := str(record.msg)) and "image_url" in text
    ]
    assert len(statements) == 1


# -- storages ---------------------------------------------------------------------------------


def test_objects_of_a_time(bucket: Bucket):
    """The storage tells whole seconds, and an object of the same second is not missed."""
    for key in ("a.jpg", "b.png", "notes.txt"):
        bucket.put(key, b"x")
    bucket.put("empty.jpg", b"")
    source = ObjectStorageImages(f"s3://aws_default@{bucket.name}/")
    names = [f"s3://{bucket.name}/{name}" for name in ("a.jpg", "b.png")]
    listed = bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]
    first = min(item["LastModified"] for item in listed)
    last = max(item["LastModified"] for item in listed)
    assert keys(source) == names
    assert keys(source, Window(first)) == names
    assert keys(source, Window(first.replace(microsecond=999_999))) == names
    assert keys(source, Window(first, last)) == names
    assert keys(source, Window(last + SECOND)) == []
    assert keys(source, Window(None, first - SECOND)) == []


def test_files_of_a_time(tmp_path: Path):
    """A folder of the worker knows when a file was written; a copy may be older than it is."""
    for hours, name in enumerate(["early.jpg", "noon.jpg", "late.jpg"], -1):
        path = tmp_path / name
        path.write_bytes(b"x")
        moment = (NOON + timedelta(hours=hours)).timestamp()
        os.utime(path, (moment, moment))

    def found(window: Window) -> list[str]:
        source = ObjectStorageImages(f"file://{tmp_path}")
        return [Path(key).name for key in keys(source, window)]

    assert found(Window(NOON)) == ["late.jpg", "noon.jpg"]
    assert found(Window(None, NOON)) == ["early.jpg", "noon.jpg"]
    assert found(Window(NOON, NOON)) == ["noon.jpg"]


def test_a_storage_that_tells_no_times_says_so():
    """Rather than taking every object, or none."""
    files = MemoryFileSystem()
    files.pipe("/photos-without-times/a.jpg", b"x")
    attach("memory", fs=files)
    source = ObjectStorageImages("memory://photos-without-times/")
    assert len(keys(source)) == 1
    with pytest.raises(ConfigurationError, match="does not tell when"):
        keys(source, Window(NOON))
    files.rm("/photos-without-times", recursive=True)


def test_a_listing_is_read_as_far_as_it_is_taken(bucket: Bucket):
    """Of a bucket of 2,500 objects, the first page is enough for one image."""
    bucket.put_many((f"{number:04}.jpg", b"x") for number in range(2500))
    asked: list[Any] = []
    source = ObjectStorageImages(f"s3://aws_default@{bucket.name}/")
    original = listing._s3_objects

    def counted(*arguments: Any) -> Any:
        for item in original(*arguments):
            asked.append(item)
            yield item

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "_s3_objects", counted)
        next(source.images())
    assert len(asked) == 1


# -- lists ------------------------------------------------------------------------------------


def test_a_list_knows_no_times():
    """The message names the parameters."""
    with pytest.raises(ConfigurationError, match="modified_after and settle_seconds"):
        keys(ValueImages(["https://x"]), Window(NOON))


def test_the_images_of_a_list():
    """Entries that are wrong, and the second of two, are left out."""
    source = ValueImages(
        ["https://x/a", {"image_key": "b"}, "https://x/a", Image("c", "https://y")]
    )
    assert keys(source) == ["https://x/a", "c"]


def test_a_source_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It may be back, so it is the storage's fault and not the configuration's."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_WAREHOUSE",
        f'{{"conn_type": "postgres", "host": "{tmp_path}", "login": "x", "schema": "x"}}',
    )
    with pytest.raises(StorageError, match="'warehouse'"):
        keys(SqlImages("warehouse", table="products"))
