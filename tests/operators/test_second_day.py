"""The second day: dead links wait, good images come first, the worker's faults are nobody's image.

The stored times are moved back instead of the clock being moved on.
"""

from __future__ import annotations

import http.client
import itertools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from buckets import Bucket, s3_connection
from databases import Database
from web_servers import Handler, serving

from airflow_imagetag.errors import (
    AuthenticationError,
    StorageAccessError,
    TooManyFailuresError,
    UnknownConnectionError,
)
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator

STORE = SqlLabelStore("warehouse", "labels")
_numbers = itertools.count(1)
TIMES = ("next_try_at", "first_failed_at", "tagged_at")


@dataclass
class Shop:
    """A table of products, a web server with some of their photographs, and a store.

    :param database: has the table and the store.
    :param pages: the photographs by path; others are dead links.
    :param url: of the web server.
    :param service: the emulator.
    """

    database: Database
    pages: dict[str, bytes]
    url: str
    service: Emulator
    source: Any = field(
        default_factory=lambda: SqlImages("warehouse", table="products", version="changed")
    )

    def add(self, *keys: str, version: str = "1") -> None:
        """Add products, each with a link to a photograph of its name."""
        rows = [{"id": key, "url": f"{self.url}/{key}", "version": version} for key in keys]
        self.database.run("INSERT INTO products VALUES (:id, :url, :version)", *rows)

    def run(self, **parameters: Any) -> dict[str, Any]:
        """Run the operator and return its summary."""
        task = ImageTagOperator(task_id="label", images=self.source, store=STORE, **parameters)
        summary = task.execute({})
        assert isinstance(summary, dict)
        return summary

    def pass_time(self, text: str) -> None:
        """Let time pass: move the stored times back."""
        moved = ", ".join(f"{name} = {name} - interval '{text}'" for name in TIMES)
        self.database.script(f"UPDATE labels_images SET {moved}")

    def statuses(self) -> dict[str, str]:
        """Return the status of each image of the store."""
        rows = self.database.rows("SELECT image_key, status FROM labels_images")
        return {str(key): str(status) for key, status in rows}


@pytest.fixture
def shop(
    postgres: Database,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    small_jpegs: Callable[[int], list[bytes]],
) -> Iterator[Shop]:
    """Open a shop without products; photographs are served for the keys B00, B01, ..."""
    fields = json.loads(emulator.connection_json)
    fields["extra"] |= {"api": "DetectLabelPro", "requests_per_second": 0}
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(fields))
    pages = {f"/B{number:02}": data for number, data in enumerate(small_jpegs(40))}
    postgres.run("CREATE TABLE products (id text PRIMARY KEY, image_url text, changed text)")

    class Pages(Handler):
        def answer(self) -> None:
            content = pages.get(self.path)
            self.respond(content or b"", status=200 if content else 404)

    with serving(Pages) as url:
        yield Shop(postgres, pages, url, emulator)


@pytest.mark.parametrize("is_pushed_down", [True, False], ids=["one database", "two"])
def test_dead_links_do_not_starve_good_ones(
    shop: Shop, is_pushed_down: bool, monkeypatch: pytest.MonkeyPatch
):
    """Three runs label all good images; a dead link costs two calls, and none until it is due."""
    shop.add(*(f"A{n:02}" for n in range(25)), *(f"B{n:02}" for n in range(25)))
    if not is_pushed_down:
        monkeypatch.setenv("AIRFLOW_CONN_SAME", shop.database.connection_json)
        shop.source = SqlImages("same", table="products", version="changed")
    summaries = [shop.run(max_images=20, max_failure_ratio=1) for _ in range(3)]
    assert [summary["new"] for summary in summaries] == [20, 20, 10]
    assert [summary["tagged"] for summary in summaries] == [0, 15, 10]
    assert [summary["waiting"] for summary in summaries] == [20, 25, 25]
    assert sum(summary["calls"] for summary in summaries) == 2 * 25 + 25
    assert summaries[0]["next_try_at"]
    assert (summary := shop.run(max_images=20))["calls"] == 0
    assert (summary["new"], summary["due"], summary["waiting"]) == (0, 0, 25)
    shop.pass_time("61 minutes")
    shop.add(*(f"B{n:02}" for n in range(25, 30)))
    summary = shop.run(max_images=20)
    assert (summary["new"], summary["tagged"]) == (5, 5), "those never tried come first"
    assert (summary["due"], summary["failed_again"]) == (15, 15)
    assert len(summary["failures_sample"]) == 15
    assert {failure["tries"] for failure in summary["failures_sample"]} == {2}


def test_a_quiet_week_is_green_and_a_dead_link_is_given_up(shop: Shop):
    """The link is tried less and less often, and no run fails."""
    shop.add("A00", "B00")
    # Before, at and after each try; between them a run now and then.
    hours = [*range(7), 12, 20, 28, 29, 30, 48, 72, 100, 101, 102, 130, 167]
    calls = {0: shop.run()["calls"]}
    for before, hour in itertools.pairwise(hours):
        shop.pass_time(f"{hour - before} hours {hour - before} seconds")
        calls[hour] = shop.run()["calls"]
    assert calls[0] == 3
    assert [hour for hour, count in calls.items() if count] == [0, 1, 5, 29, 101]
    assert sum(calls.values()) == 3 + 2 * 4
    assert shop.statuses() == {"A00": "waiting", "B00": "tagged"}
    shop.pass_time("22 days")
    assert shop.run()["calls"] == 2
    shop.pass_time("2 days")
    summary = shop.run()
    assert (summary["failed"], summary["failed_again"], summary["gave_up"]) == (1, 1, 1)
    assert shop.statuses()["A00"] == "gave_up"
    shop.pass_time("90 days")
    assert shop.run()["calls"] == 0
    shop.pages["/A00"] = shop.pages["/B30"]
    assert shop.run(retry_failed=True)["tagged"] == 1


def test_a_link_that_comes_back_is_labelled_when_it_is_due(shop: Shop):
    """And at once when its version changes."""
    shop.add("A00", "A01")
    assert shop.run()["waiting"] == 2
    shop.pages.update({"/A00": shop.pages["/B30"], "/A01": shop.pages["/B31"]})
    assert shop.run()["tagged"] == 0
    shop.database.run("UPDATE products SET changed = '2' WHERE id = 'A01'")
    assert (summary := shop.run())["tagged"] == 1
    assert summary["new"] == 1
    shop.pass_time("61 minutes")
    assert (summary := shop.run())["tagged"] == 1
    assert (summary["due"], summary["failed_again"], summary["waiting"]) == (1, 0, 0)


def test_only_failed_takes_nothing_else(shop: Shop):
    """What waits is tried now; images never tried are left for another run."""
    shop.add("A00", "B00")
    shop.run()
    shop.add("B01")
    shop.pages["/A00"] = shop.pages["/B30"]
    summary = shop.run(only_failed=True)
    assert (summary["new"], summary["due"], summary["tagged"]) == (0, 1, 1)
    assert "B01" not in shop.statuses()


def test_a_sensor_announces_what_a_run_would_send_now(shop: Shop):
    """A dead link does not end the wait until it is due."""
    shop.add("A00")
    shop.run()
    sensor = NewImagesSensor(task_id="wait", images=shop.source, store=STORE)
    assert not sensor.poke({}).is_done
    shop.pass_time("61 minutes")
    found = sensor.poke({})
    assert found.is_done
    assert found.xcom_value is not None
    assert [image["image_key"] for image in found.xcom_value] == ["A00"]


@pytest.mark.parametrize(
    ("dead", "good", "is_red"), [(1, 0, False), (2, 0, False), (3, 0, True), (9, 20, False)]
)
def test_a_few_failures_are_no_ratio(shop: Shop, dead: int, good: int, is_red: bool):
    """Fewer than ten failures fail no task, unless all of at least three images failed."""
    shop.add(*(f"A{n:02}" for n in range(dead)), *(f"B{n:02}" for n in range(good)))
    if not is_red:
        assert shop.run()["failed"] == dead
        return
    with pytest.raises(TooManyFailuresError):
        shop.run()
    assert shop.run()["failed"] == 0, "what failed before is no news"


def test_ten_failures_are_judged(shop: Shop):
    """Over the accepted share, with the commonest errors in the message."""
    shop.add(*(f"A{n:02}" for n in range(10)), *(f"B{n:02}" for n in range(20)))
    with pytest.raises(TooManyFailuresError, match=r"10 of 30 images failed \(33.3%\)"):
        shop.run()
    shop.pass_time("61 minutes")
    assert shop.run()["failed_again"] == 10


# -- the worker's faults ----------------------------------------------------------------------


def rows_of(bucket: Bucket, conn_id: str, keys: Iterator[str]) -> list[dict[str, str]]:
    """Return rows of data that name a connection."""
    return [{"image_key": key, "image_uri": f"s3://{conn_id}@{bucket.name}/{key}"} for key in keys]


@pytest.mark.parametrize("kind", ["sql", "parquet"])
def test_a_connection_that_comes_later(
    kind: str,
    shop: Shop,
    bucket: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    caplog: pytest.LogCaptureFixture,
):
    """Images of an unknown connection wait, a warning names it, and they are labelled later."""
    store: Any = STORE if kind == "sql" else ParquetLabelStore(f"{tmp_path}/lake")
    for number in range(4):
        bucket.put(f"{number}.jpg", shop.pages[f"/B0{number}"])
    conn_id = f"my_s3_{next(_numbers)}"
    images = rows_of(bucket, conn_id, (f"{number}.jpg" for number in range(4)))
    images.append({"image_key": "good", "image_uri": f"{shop.url}/B10"})

    def run(**parameters: Any) -> dict[str, Any]:
        # As an upstream task gives them: data.
        task = ImageTagOperator(
            task_id="label", images=ValueImages(images), store=store, **parameters
        )
        summary = task.execute({})
        assert isinstance(summary, dict)
        return summary

    log = logging.getLogger("airflow_imagetag.engine.shared_causes")
    log.addHandler(caplog.handler)
    summary = run(max_failure_ratio=1)
    log.removeHandler(caplog.handler)
    assert (summary["tagged"], summary["failed"], summary["waiting"]) == (1, 4, 4)
    assert {failure["error"] for failure in summary["failures_sample"]} == {"ImageStorageError"}
    warning = f"4 images wait, since they could not be read: connection '{conn_id}'"
    assert warning in caplog.text
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", bucket.connection_json)
    assert run()["failed"] == 0
    summary = run(only_failed=True)
    assert (summary["tagged"], summary["waiting"]) == (4, 0)


def test_twenty_in_a_row_end_the_run(shop: Shop, bucket: Bucket):
    """A table full of a connection that does not exist is not walked to its end."""
    uris = [f"s3://no_s3@{bucket.name}/{number}.jpg" for number in range(500)]
    rows = [{"id": f"{n:03}", "url": uri} for n, uri in enumerate(uris)]
    shop.database.run("INSERT INTO products VALUES (:id, :url, '1')", *rows)
    with pytest.raises(StorageAccessError, match="20 images in a row"):
        shop.run()
    statuses = shop.statuses()
    assert set(statuses.values()) == {"waiting"}
    assert 20 <= len(statuses) < 200
    assert shop.service.stats.requests == 0


class FaultyStorage:
    """A proxy before S3 that refuses some reads of objects.

    :param target: URL of the server behind it.
    """

    def __init__(self, target: str) -> None:
        # Airflow and fsspec keep the file system of a connection as long as the process lives.
        self.conn_id = f"faulty_s3_{next(_numbers)}"
        self.answers: dict[str, tuple[int, str]] = {}
        """Status and code by the end of the object's name; an empty text stands for all."""
        address = target.removeprefix("http://")
        storage = self

        class Proxy(Handler):
            def answer(self) -> None:
                path = self.path.partition("?")[0]
                for end, (status, code) in storage.answers.items():
                    if self.command == "GET" and path.count("/") > 1 and path.endswith(end):
                        error = f"<Error><Code>{code}</Code><Message>told</Message></Error>"
                        headers = {"Content-Type": "application/xml"}
                        self.respond(error.encode(), status=status, headers=headers)
                        return
                behind = http.client.HTTPConnection(address)
                behind.request(self.command, self.path, headers=dict(self.headers))
                response = behind.getresponse()
                body = response.read()
                kept = ("Content-Type", "ETag", "Last-Modified")
                found = {name: response.headers[name] for name in kept if name in response.headers}
                self.respond(body, status=response.status, headers=found)
                behind.close()

        self.handler = Proxy


@pytest.fixture
def faulty(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStorage]:
    """Stand before the server of the bucket, behind a connection of its own."""
    storage = FaultyStorage(bucket.url)
    with serving(storage.handler) as url:
        connection = json.loads(s3_connection(url))
        connection["extra"]["config_kwargs"] = {"retries": {"max_attempts": 1}}
        monkeypatch.setenv(f"AIRFLOW_CONN_{storage.conn_id.upper()}", json.dumps(connection))
        yield storage


@pytest.mark.parametrize(
    "answer",
    [
        (400, "ExpiredToken"),
        (403, "InvalidAccessKeyId"),
        (403, "RequestTimeTooSkewed"),
        (404, "NoSuchBucket"),
    ],
    ids=lambda answer: answer[1],
)
def test_a_storage_that_the_dag_names_ends_the_run_at_once(
    answer: tuple[int, str], shop: Shop, bucket: Bucket, faulty: FaultyStorage
):
    """No image is recorded, so the next run labels all of them."""
    for number in range(6):
        bucket.put(f"photos/{number}.jpg", shop.pages[f"/B0{number}"])
    shop.source = ObjectStorageImages(f"s3://{faulty.conn_id}@{bucket.name}/photos/")
    faulty.answers[""] = answer
    with pytest.raises(StorageAccessError, match=answer[1]):
        shop.run()
    assert shop.statuses() == {}
    faulty.answers.clear()
    assert shop.run()["tagged"] == 6


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((403, "AccessDenied"), "ImageUnreadableError"),
        ((404, "NoSuchKey"), "ImageUnreadableError"),
        ((403, "InvalidObjectState"), "ImageUnreadableError"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else value,
)
def test_one_object_that_is_refused_waits(
    answer: tuple[int, str], error: str, shop: Shop, bucket: Bucket, faulty: FaultyStorage
):
    """The others are labelled, and it is labelled once it can be read."""
    for number in range(6):
        bucket.put(f"photos/{number}.jpg", shop.pages[f"/B0{number}"])
    shop.source = ObjectStorageImages(f"s3://{faulty.conn_id}@{bucket.name}/photos/")
    faulty.answers["3.jpg"] = answer
    summary = shop.run()
    assert (summary["tagged"], summary["waiting"]) == (5, 1)
    assert [failure["error"] for failure in summary["failures_sample"]] == [error]
    faulty.answers.clear()
    assert shop.run()["calls"] == 0
    shop.pass_time("61 minutes")
    assert shop.run()["tagged"] == 1


def test_a_link_that_expired_in_the_queue_is_tried_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
):
    """The worker downloads it: a fresh link for the same version is used when it is due."""
    shop.add("B00")
    shop.database.run("UPDATE products SET image_url = image_url || '?expired'")
    monkeypatch.setenv("AIRFLOW__IMAGETAG__ALLOWED_PRIVATE_HOSTS", "127.0.0.1")
    assert shop.run(fetch="worker")["waiting"] == 1
    shop.database.run("UPDATE products SET image_url = replace(image_url, '?expired', '')")
    shop.pass_time("61 minutes")
    assert shop.run(fetch="worker")["tagged"] == 1


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        ({"password": "wrong"}, AuthenticationError),
        (None, UnknownConnectionError),
    ],
)
def test_certain_errors_are_not_retried(
    shop: Shop, patch: dict[str, str] | None, error: type[Exception], monkeypatch: Any
):
    """Airflow fails the task at once, under the name of the error."""
    shop.add("B00")
    if patch is None:
        monkeypatch.delenv("AIRFLOW_CONN_IMAGETAG_DEFAULT")
    else:
        fields = json.loads(shop.service.connection_json) | patch
        monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(fields))
    with pytest.raises(error) as caught:
        shop.run()
    assert isinstance(caught.value, AirflowFailException)
    assert type(caught.value).__name__ == error.__name__
    assert shop.service.stats.billed == 0


def test_a_poisoned_row_of_each_kind_ends_no_run(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    """All other rows are labelled."""
    poison = [
        "/proc/1/cwd",
        "s3://no_s3@bucket/a.jpg",
        "s3://",
        "s3://bucket",
        "s3:///a.jpg",
        "file://host/a.jpg",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "http://127.0.0.1:0/",
        "ftp://host/a.jpg",
        "simplecache::s3://b/a.jpg",
        "\\\\server\\share",
        "gs://bucket/a.jpg",
        "abfs://c@account/a.jpg",
        "hdfs://host/a.jpg",
        "x" * 10_000,
        "http://" + "a" * 5_000 + "/",
        "://",
        "s3",
        "?",
        "#",
        "%",
        " ",
    ]
    rows = [{"id": f"P{number:02}", "url": uri} for number, uri in enumerate(poison)]
    mixed = itertools.chain.from_iterable(
        (row, {"id": f"B{n:02}", "url": f"{shop.url}/B{n:02}"}) for n, row in enumerate(rows)
    )
    shop.database.run("INSERT INTO products VALUES (:id, :url, '1')", *mixed)
    summary = shop.run(max_failure_ratio=1)
    assert summary["tagged"] == len(poison)
    assert summary["failed"] == len(poison)
    assert shop.run()["calls"] == 0
