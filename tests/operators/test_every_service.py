"""Every interface of the service behind the same operator: same frames, same stores, same rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import toy_service
from buckets import Bucket
from databases import Database, TaskInstance
from web_servers import Handler, serving

from airflow_imagetag.errors import TooManyFailuresError
from airflow_imagetag.frames import FAILURE_COLUMNS, LABEL_COLUMNS
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.models import Image, Label
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.messages import HttpResponse, ParsedLabels
from airflow_imagetag.services.registry import find_service
from airflow_imagetag.sources import ObjectStorageImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.testing import Emulator, Faults

APIS = ["picture_classify", "imagetag_detect", "DetectLabelPro", "DetectLabel"]
SCENES = "WEB,NEWS"
DOCS = Path(__file__).resolve().parents[2] / "docs"


def use(
    monkeypatch: pytest.MonkeyPatch, emulator: Emulator, api: str, **extra: Any
) -> dict[str, Any]:
    """Make the emulator with this ``api`` the connection ``imagetag_default``, without a quota."""
    fields: dict[str, Any] = json.loads(emulator.connection_json)
    fields["extra"] |= {"api": api, "requests_per_second": 0, "scenes": SCENES} | extra
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(fields))
    return fields


def calls_of(api: str) -> int:
    """Return how many calls are billed for an image."""
    return 2 if api == "DetectLabel" else 1


@contextmanager
def served(answer: Callable[[Handler, bytes], bytes]) -> Iterator[str]:
    """Run a web server that answers with the result of a function of a request and its body."""

    class Answering(Handler):
        def answer(self) -> None:
            self.respond(answer(self, self.body()))

    with serving(Answering) as url:
        yield url


@pytest.fixture
def web(small_jpegs: Callable[[int], list[bytes]]) -> Iterator[str]:
    """Serve small JPEGs at the paths /0, /1 and so on."""
    images = small_jpegs(8)
    with served(lambda request, _: images[int(request.path[1:].partition("?")[0])]) as url:
        yield url


@pytest.fixture(params=["url", "bytes", "s3"])
def images(
    request: pytest.FixtureRequest, small_jpegs: Callable[[int], list[bytes]], bucket: Bucket
) -> Any:
    """Give four images, of each kind of place."""
    if request.param == "url":
        web = request.getfixturevalue("web")
        return [f"{web}/{number}" for number in range(4)]
    if request.param == "bytes":
        return [Image(str(number), content=data) for number, data in enumerate(small_jpegs(4))]
    for number, data in enumerate(small_jpegs(4)):
        bucket.put(f"photos/{number}.jpg", data)
    return ObjectStorageImages(f"s3://aws_default@{bucket.name}/photos/")


@pytest.fixture(params=["frame", "sql", "parquet"])
def store(request: pytest.FixtureRequest, bucket: Bucket) -> Any:
    """Give a store of each kind, and none."""
    if request.param == "sql":
        request.getfixturevalue("postgres")
        return SqlLabelStore("warehouse", "photo_labels")
    if request.param == "parquet":
        return ParquetLabelStore(f"s3://aws_default@{bucket.name}/labels/")
    return None


@pytest.mark.parametrize("api", APIS)
def test_any_image_with_any_service_into_any_place(
    api: str, images: Any, store: Any, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
):
    """All images are labelled and paid once, and the labels have the same form everywhere."""
    use(monkeypatch, emulator, api, price_per_thousand=2.5)
    task_instance = TaskInstance()
    task = ImageTagOperator(task_id="label", images=images, store=store)
    returned = task.execute({"ti": task_instance})
    summary = task_instance.xcoms["summary"]
    counts = {name: summary[name] for name in ("seen", "tagged", "failed", "calls", "retries")}
    calls = 4 * calls_of(api)
    assert counts == {"seen": 4, "tagged": 4, "failed": 0, "calls": calls, "retries": 0}
    assert summary["estimated_cost"] == pytest.approx(calls * 2.5 / 1000)
    assert emulator.stats.billed_by_api == {api: calls}
    frame = returned if store is None else pd.concat(store.labels())
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == list(LABEL_COLUMNS)
    assert frame["image_key"].nunique() == 4
    assert set(frame["api"]) == {api}
    assert frame["probability"].between(0, 1).all()
    assert frame["probability"].max() > 0.5
    for _, labels in frame.groupby("image_key"):
        assert sorted(labels["rank"]) == list(range(1, len(labels) + 1))
        assert labels.sort_values("rank")["probability"].is_monotonic_decreasing
    # The vendor gives none for the scene NEWS.
    with_category = frame[frame["scene"].fillna("") != "NEWS"]
    has_categories = api.startswith("DetectLabel")
    assert with_category["category"].notna().all() == has_categories
    assert with_category["subcategory"].notna().any() == has_categories
    scenes = {"WEB", "NEWS"} if api == "DetectLabel" else set()
    assert set(frame["scene"].dropna()) == scenes


@pytest.mark.parametrize("kind", ["sql", "parquet"])
def test_switching_the_api_between_two_runs(
    kind: str,
    tmp_path: Path,
    postgres: Database,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    small_jpegs: Callable[[int], list[bytes]],
):
    """The same task labels all images under the new api and leaves the old labels as they are."""
    store: Any = SqlLabelStore("warehouse")
    if kind == "parquet":
        store = ParquetLabelStore(str(tmp_path / "labels"))
    images = [Image(str(number), content=data) for number, data in enumerate(small_jpegs(6))]
    task = ImageTagOperator(task_id="label", images=images, store=store)
    use(monkeypatch, emulator, "picture_classify")
    assert task.execute({})["tagged"] == 6
    before = pd.concat(store.labels()).sort_values(["image_key", "rank"], ignore_index=True)

    use(monkeypatch, emulator, "DetectLabelPro")
    second = task.execute({})
    assert (second["tagged"], second["calls"]) == (6, 6)
    assert task.execute({})["calls"] == 0
    after = pd.concat(store.labels())
    old = after[after["api"] == "picture_classify"]
    old = old.sort_values(["image_key", "rank"], ignore_index=True)
    pd.testing.assert_frame_equal(old, before)
    assert after[after["api"] == "DetectLabelPro"]["image_key"].nunique() == 6

    # Back again: nothing is paid anew.
    use(monkeypatch, emulator, "picture_classify")
    assert task.execute({})["calls"] == 0


def test_the_statements_of_the_page_on_migration(
    database: Database,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    small_jpegs: Callable[[int], list[bytes]],
):
    """Views, comparison and deletion work as the page describes, with labels of two services."""
    statements = re.findall(r"```sql\n(.*?)```", (DOCS / "migrating.md").read_text(), re.DOTALL)
    current, best, compared, deleted = statements
    images = [Image(str(number), content=data) for number, data in enumerate(small_jpegs(4))]
    store = SqlLabelStore(database.conn_id, "product_labels")
    for api, some in (("picture_classify", images), ("DetectLabelPro", images[:3])):
        use(monkeypatch, emulator, api)
        ImageTagOperator(task_id="label", images=some, store=store).execute({})
    database.script(current)
    database.script(best)
    assert database.value("SELECT COUNT(DISTINCT image_key) FROM current_labels") == 3
    assert set(database.rows("SELECT DISTINCT image_key, api FROM best_labels")) == {
        *((str(number), "DetectLabelPro") for number in range(3)),
        ("3", "picture_classify"),
    }
    # The emulator recognises the same through every interface.
    agreed = {key: (old, new) for key, old, new in database.rows(compared)}
    assert all(old == new > 0 for old, new in (agreed[str(number)] for number in range(3)))
    assert agreed["3"][1] == 0
    for statement in deleted.split(";")[:2]:
        database.script(statement)
    for table in ("product_labels", "product_labels_images"):
        assert database.rows(f"SELECT DISTINCT api FROM {table}") == [("DetectLabelPro",)]


@pytest.mark.parametrize("api", ["DetectLabelPro", "DetectLabel"])
def test_throttled_answers(
    api: str,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    small_jpegs: Callable[[int], list[bytes]],
):
    """With three answers in ten throttled every image is labelled, and none is billed twice."""
    use(monkeypatch, emulator, api)
    emulator.faults = Faults(error_codes={"RequestLimitExceeded": 0.3})
    images = [Image(str(number), content=data) for number, data in enumerate(small_jpegs(60))]
    task_instance = TaskInstance()
    frame = ImageTagOperator(task_id="label", images=images).execute({"ti": task_instance})
    assert frame["image_key"].nunique() == 60
    assert set(emulator.stats.billed_images.values()) == {calls_of(api)}
    assert emulator.stats.billed == 60 * calls_of(api)
    summary = task_instance.xcoms["summary"]
    assert summary["throttled"] == emulator.stats.by_code["RequestLimitExceeded"] > 5
    assert summary["retries"] == summary["throttled"]


@pytest.mark.parametrize(
    ("code", "error", "attempts"),
    [
        ("FailedOperation.ImageDecodeFailed", "ImageDecodeError", 1),
        ("FailedOperation.DownLoadError", "ImageDownloadError", 2),
        ("InvalidParameter.PictureSolidColorError", "ImageRefusedError", 1),
    ],
)
def test_errors_of_single_images(
    code: str,
    error: str,
    attempts: int,
    postgres: Database,
    emulator: Emulator,
    web: str,
    monkeypatch: pytest.MonkeyPatch,
):
    """They are recorded with code and class; one that may pass is tried again when it is due."""
    use(monkeypatch, emulator, "DetectLabelPro")
    emulator.faults = Faults(error_codes={code: 1.0})
    task = ImageTagOperator(
        task_id="label",
        images=[f"{web}/{number}" for number in range(3)],
        store=SqlLabelStore("warehouse"),
        max_failure_ratio=1,
    )
    task_instance = TaskInstance()
    summary = task.execute({"ti": task_instance})
    failures = task_instance.xcoms["failures"]
    assert list(failures.columns) == list(FAILURE_COLUMNS)
    assert summary["failed"] == 3
    assert set(failures["error"]) == {error}
    assert set(failures["code"]) == {code}
    assert set(failures["attempts"]) == {attempts}
    emulator.faults = Faults()
    expected = 3 if error == "ImageDownloadError" else 0
    assert summary["waiting"] == expected
    assert task.execute({})["tagged"] == 0
    with postgres.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE image_labels_images SET next_try_at = now()")
    assert task.execute({})["tagged"] == expected


def test_many_dead_urls_are_no_outage(
    emulator: Emulator, web: str, monkeypatch: pytest.MonkeyPatch
):
    """The service answers: a table of URLs that it cannot download does not end the run."""
    use(monkeypatch, emulator, "DetectLabelPro")
    emulator.faults = Faults(error_codes={"FailedOperation.ImageDownloadError": 1.0})
    task = ImageTagOperator(task_id="label", images=[f"{web}/{n % 8}?v={n}" for n in range(40)])
    with pytest.raises(TooManyFailuresError, match="40 of 40"):
        task.execute({})
    assert emulator.stats.requests == 80


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a package with a service of its own."""
    toy_service.install(tmp_path, monkeypatch)


def use_toy(monkeypatch: pytest.MonkeyPatch, url: str, **extra: Any) -> None:
    """Make the toy service at a URL the connection ``imagetag_default``, without a quota."""
    connection = {
        "conn_type": "imagetag",
        "host": url,
        "password": "acmeKey",
        "extra": {"api": "acme", "requests_per_second": 0, **extra},
    }
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(connection))


@pytest.mark.usefixtures("toy")
def test_a_service_of_another_package(
    postgres: Database,
    monkeypatch: pytest.MonkeyPatch,
    small_jpegs: Callable[[int], list[bytes]],
):
    """One file and an entry point: its labels come through the same operator and store."""
    seen: list[tuple[str | None, bytes]] = []

    def answer(request: Handler, body: bytes) -> bytes:
        seen.append((request.headers["Authorization"], body))
        if not body:
            return b'{"error": "no image"}'
        return json.dumps({"labels": [["cat", 0.25], [f"size-{len(body)}", 0.75]]}).encode()

    with served(answer) as url:
        use_toy(monkeypatch, url)
        images = [Image(str(number), content=data) for number, data in enumerate(small_jpegs(5))]
        task = ImageTagOperator(task_id="label", images=images, store=SqlLabelStore("warehouse"))
        assert task.execute({})["tagged"] == 5
        assert task.execute({})["calls"] == 0
        assert ImageTagHook().test_connection()[0]
    assert sorted(body for _, body in seen if body) == sorted(small_jpegs(5))
    assert {authorization for authorization, _ in seen} == {"Bearer acmeKey"}
    rows = postgres.rows("SELECT api, image_key, label, rank FROM image_labels WHERE rank = 1")
    assert sorted(rows) == [
        ("acme", str(number), f"size-{len(data)}", 1) for number, data in enumerate(small_jpegs(5))
    ]


@pytest.mark.usefixtures("toy")
def test_a_service_of_another_package_may_have_fields_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """It finds them in the account, and no warning is logged."""
    use_toy(monkeypatch, "http://127.0.0.1:1", acme_model="v2")
    assert ImageTagHook().account.extra["acme_model"] == "v2"
    assert "acme_model" not in caplog.text


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("is_foreseen", [True, False], ids=["malformed", "KeyError"])
def test_an_answer_that_a_service_of_another_package_cannot_read(
    monkeypatch: pytest.MonkeyPatch, small_jpegs: Callable[[int], list[bytes]], is_foreseen: bool
):
    """Its error is the failure of one image, and does not end the run."""
    bad = small_jpegs(3)[1]

    def answer(_request: Handler, body: bytes) -> bytes:
        return b'{"labels": [["cat", 0.5]]}' if body != bad else b'{"error": "x", "labels": 1}'

    def read(self: Any, found: HttpResponse) -> Any:
        if b"error" in found.body:
            raise (
                response_parsing.malformed(found, "an odd form")
                if is_foreseen
                else KeyError("labels")
            )
        return original(self, found)

    with served(answer) as url:
        use_toy(monkeypatch, url)
        acme = find_service("acme")
        original = acme.read
        monkeypatch.setattr(acme, "read", read)
        images = [Image(str(number), content=data) for number, data in enumerate(small_jpegs(3))]
        task_instance = TaskInstance()
        task = ImageTagOperator(task_id="label", images=images, max_failure_ratio=1)
        frame = task.execute({"ti": task_instance})
    assert set(frame["image_key"]) == {"0", "2"}
    failures = task_instance.xcoms["failures"]
    assert failures["error"].tolist() == ["MalformedAnswerError"]
    assert ("an odd form" if is_foreseen else "KeyError") in failures["message"].item()
    # It may be billed each time, so it is not asked for again and again.
    assert failures["attempts"].tolist() == [2]


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("stores", [True, False])
@pytest.mark.parametrize(
    "spoiled",
    [
        Label("half of \ud800 a character", 0.5),
        Label(b"bytes", 0.5),  # type: ignore[arg-type]
        Label("cat", 0.5, category=["animal"]),  # type: ignore[arg-type]
        Label("cat", 50),
        Label("cat", float("nan")),
        Label("cat", "high"),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_a_label_that_no_table_can_hold(
    monkeypatch: pytest.MonkeyPatch,
    small_jpegs: Callable[[int], list[bytes]],
    sqlite: Database,
    spoiled: Label,
    stores: bool,
):
    """A faulty answer of another package's service for one image holds back no other image."""
    good, bad = small_jpegs(2)

    def read(_: Any, found: HttpResponse) -> ParsedLabels:
        return ParsedLabels((spoiled if found.body == bad else Label("cat", 0.5),))

    with served(lambda _, body: body) as url:
        use_toy(monkeypatch, url)
        monkeypatch.setattr(find_service("acme"), "read", read)
        task_instance = TaskInstance()
        images = [Image("good", content=good), Image("bad", content=bad)]
        store = SqlLabelStore("warehouse") if stores else None
        task = ImageTagOperator(task_id="label", images=images, store=store, max_failure_ratio=1)
        result = task.execute({"ti": task_instance})
    keys = "SELECT image_key FROM image_labels"
    held = [key for [key] in sqlite.rows(keys)] if stores else result["image_key"].tolist()
    assert held == ["good"]
    failures = task_instance.xcoms["failures"]
    assert failures["image_key"].tolist() == ["bad"]
    assert failures["error"].tolist() == ["MalformedAnswerError"]
