"""Objects of a bucket of Tencent Cloud COS, labelled where they lie."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from buckets import Bucket
from databases import Database, TaskInstance

from airflow_imagetag import errors
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.testing import Emulator, Faults

BUCKET = "emulator-1250000001"
VARIABLE = "AIRFLOW_CONN_IMAGETAG_DEFAULT"
KEY = "emulatorSecretKey000000000000000"


def use(monkeypatch: pytest.MonkeyPatch, emulator: Emulator, **extra: Any) -> None:
    """Make the emulator with ``ci_detect_label`` the connection ``imagetag_default``."""
    fields = json.loads(emulator.connection_json_for("ci_detect_label"))
    fields["extra"] |= {"requests_per_second": 0} | extra
    monkeypatch.setenv(VARIABLE, json.dumps(fields))


def run(**parameters: Any) -> tuple[Any, TaskInstance]:
    """Run the operator, and return its result and the task."""
    task = TaskInstance()
    return ImageTagOperator(task_id="x", **parameters).execute({"ti": task}), task


@pytest.fixture
def images(small_jpegs: Callable[[int], list[bytes]]) -> list[bytes]:
    """Give a few images."""
    return small_jpegs(4)


def test_a_large_bucket(emulator, images, sqlite, monkeypatch):
    """2,500 objects are listed page by page and labelled once each; none is downloaded."""
    use(monkeypatch, emulator)
    for number in range(2500):
        emulator.put_object(f"2026/{number:05}.jpg", images[number % len(images)])
    emulator.put_object("2026/notes.txt", b"no image")
    emulator.put_object("2025/old.jpg", images[0])
    source = ObjectStorageImages(f"cos://{BUCKET}/2026/")
    store = SqlLabelStore(sqlite.conn_id)
    summary, _ = run(images=source, store=store)
    assert (summary["tagged"], summary["failed"], summary["calls"]) == (2500, 0, 2500)
    assert emulator.stats.billed_by_api == {"ci_detect_label": 2500}
    assert emulator.stats.object_downloads == 0
    again, _ = run(images=source, store=store)
    assert (again["tagged"], again["calls"]) == (0, 0)
    emulator.put_object("2026/00000.jpg", images[1])
    third, _ = run(images=source, store=store)
    assert third["tagged"] == 1
    frame = next(iter(store.labels()))
    assert set(frame["api"]) == {"ci_detect_label"}
    assert set(frame["scene"]) == {"CAMERA"}
    assert frame["image_key"].str.startswith(f"cos://{BUCKET}/2026/").all()


def test_a_bucket_through_the_interface_of_s3(emulator, images, bucket: Bucket, monkeypatch):
    """Objects that S3's protocol lists are sent by their name; the worker reads none."""
    use(monkeypatch, emulator)
    names = ["a b.jpg", "ü/日本.jpg", "what?x=1.jpg", "a/../b.jpg", "100%.jpg", "plus+.png"]
    bucket.client.create_bucket(Bucket=BUCKET)
    read: list[str] = []
    for name in names:
        bucket.client.put_object(Bucket=BUCKET, Key=name, Body=b"not what is labelled")
        emulator.put_object(name, images[0])
    from airflow_imagetag.loading import content

    monkeypatch.setattr(content, "read_start", lambda place, _: read.append(place.path))
    frame, task = run(images=ObjectStorageImages(f"s3://aws_default@{BUCKET}/"))
    assert set(frame["image_key"]) == {f"s3://{BUCKET}/{name}" for name in names}
    assert task.xcoms["summary"]["tagged"] == len(names)
    assert not read
    assert emulator.stats.object_downloads == 0


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    "name", ["a b.jpg", "ü?x=1&y#z.jpg", "a/../b.jpg", "100%25.jpg", "a//b.jpg"]
)
def test_the_hook(emulator, images, monkeypatch, name, is_async):
    """Both clients name an object exactly as it is called."""
    use(monkeypatch, emulator, scenes="web,album")
    emulator.put_object(name, images[0])
    uri = f"cos://{BUCKET}/{name}"
    hook = ImageTagHook()
    result = asyncio.run(hook.atag(uri)) if is_async else hook.tag(uri)
    assert {label.scene for label in result.labels} == {"WEB", "ALBUM"}
    assert result.content_sha256 is None
    assert emulator.stats.billed == 2


def test_the_connection_is_tested_without_a_call(emulator, monkeypatch):
    """The signature is proved by an object that is not there."""
    use(monkeypatch, emulator)
    assert ImageTagHook().test_connection() == (
        True,
        f"{emulator.url} accepts the signature of the account for ci_detect_label",
    )
    fields = json.loads(emulator.connection_json_for("ci_detect_label"))
    monkeypatch.setenv(VARIABLE, json.dumps(fields | {"password": "wrong"}))
    is_good, message = ImageTagHook().test_connection()
    assert not is_good
    assert "SignatureDoesNotMatch" in message
    assert emulator.stats.billed == 0


def test_objects_with_faults(emulator, images, sqlite: Database, monkeypatch):
    """A missing object and one elsewhere wait, an undecodable one is at fault; the others go on."""
    use(monkeypatch, emulator)
    emulator.put_object("good.jpg", images[0])
    emulator.put_object("text.jpg", b"no image")
    given: list[Any] = [f"cos://{BUCKET}/{name}.jpg" for name in ("good", "text", "missing")]
    given += ["cos://other-1250000001/a.jpg", Image("bytes", content=images[0])]
    store = SqlLabelStore(sqlite.conn_id)
    summary, task = run(images=given, store=store, max_failure_ratio=1.0)
    assert summary["tagged"] == 1
    failures = task.xcoms["failures"]
    rows = failures.to_dict("records") if hasattr(failures, "to_dict") else failures
    assert {row["image_key"].rpartition("/")[2]: row["error"] for row in rows} == {
        "text.jpg": "ImageDecodeError",
        "missing.jpg": "ImageUnreadableError",
        "a.jpg": "ImageNotAllowedError",
        "bytes": "InvalidImageError",
    }
    assert (summary["failed"], summary["waiting"]) == (4, 2)


def test_a_service_that_is_not_switched_on(emulator, images, monkeypatch):
    """Twenty refusals of one code end the run; the code is in the message, and nothing is final."""
    use(monkeypatch, emulator)
    for number in range(100):
        emulator.put_object(f"{number}.jpg", images[0])
    emulator.faults = Faults(error_codes={"CINotOpened": 1.0})
    with pytest.raises(errors.StorageAccessError, match="CINotOpened"):
        run(images=ObjectStorageImages(f"cos://{BUCKET}/"))
    assert emulator.stats.requests < 100


def test_no_secret_is_logged(emulator, images, monkeypatch, caplog):
    """Neither keys nor signatures, whatever fails."""
    caplog.set_level(logging.DEBUG)
    use(monkeypatch, emulator)
    emulator.put_object("a.jpg", images[0])
    emulator.faults = Faults(error_rates={500: 0.5, 403: 0.1})
    with pytest.raises(errors.ImageTagError):
        run(images=[f"cos://{BUCKET}/missing{n}.jpg" for n in range(30)])
    assert KEY not in caplog.text
    assert "q-signature" not in caplog.text


def test_a_sensor_waits_for_objects(emulator, images, sqlite, monkeypatch):
    """It lists the bucket, and the operator takes its list."""
    use(monkeypatch, emulator)
    emulator.put_object("a.jpg", images[0])
    store = SqlLabelStore(sqlite.conn_id)
    source = ObjectStorageImages(f"cos://{BUCKET}/")
    sensor = NewImagesSensor(task_id="wait", images=source, store=store, deferrable=False)
    polled: Any = sensor.poke({"ti": TaskInstance()})
    found = polled.xcom_value
    assert [each["image_key"] for each in found] == [f"cos://{BUCKET}/a.jpg"]
    assert run(images=found, store=store)[0]["tagged"] == 1
    assert emulator.stats.object_downloads == 0


@pytest.mark.parametrize(
    ("path", "extra", "match"),
    [
        ("cos://other-1250000001/", {}, "has the bucket 'emulator-1250000001'"),
        (f"cos://{BUCKET}/", {"api": "DetectLabelPro"}, "has the api 'DetectLabelPro'"),
        (f"cos://{BUCKET}/", {"bucket": "photos"}, "with the AppID"),
        (f"cos://{BUCKET}/", {"bucket": None}, "bucket in extra is missing"),
        (f"cos://{BUCKET}/", {"scenes": "CINEMA"}, "scenes in extra must be of"),
        (f"cos://{BUCKET}/", {"role": "qcs::r"}, "role in extra has no use"),
        (f"cos://nobody@{BUCKET}/", {}, "There is no connection 'nobody'"),
    ],
)
def test_a_connection_that_does_not_fit(emulator, monkeypatch, path, extra, match):
    """The message names what to change, before anything is sent."""
    use(monkeypatch, emulator, **extra)
    with pytest.raises(errors.ConfigurationError, match=match):
        run(images=ObjectStorageImages(path))
    assert emulator.stats.requests == 0


def test_keys_that_may_not_list(emulator, monkeypatch):
    """The run ends with the code of the refusal."""
    fields = json.loads(emulator.connection_json_for("ci_detect_label"))
    monkeypatch.setenv(VARIABLE, json.dumps(fields | {"password": "wrong"}))
    with pytest.raises(errors.ConfigurationError, match="SignatureDoesNotMatch"):
        run(images=ObjectStorageImages(f"cos://{BUCKET}/"))


def test_downloads_by_the_worker_have_no_use(emulator, monkeypatch):
    """The service takes no bytes."""
    use(monkeypatch, emulator)
    with pytest.raises(errors.ConfigurationError, match="fetch='service'"):
        run(images=["https://a/b.jpg"], fetch="worker")
