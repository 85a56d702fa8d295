"""The bucket and ``ci_detect_label`` of the emulator, with the vendor's own unchanged client."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from qcloud_cos import CosConfig, CosS3Client
from qcloud_cos.cos_exception import CosServiceError

from airflow_imagetag.testing import Emulator, Faults

SECRET_ID = "AKIDemulator0000000000000000000000"
SECRET_KEY = "emulatorSecretKey000000000000000"
BUCKET = "anything-1250000001"

Connect = Callable[..., CosS3Client]


@pytest.fixture
def connect(emulator: Emulator) -> Connect:
    """Return a function that makes the vendor's client for the emulator's address."""

    def make(**changes: Any) -> CosS3Client:
        fields = {"SecretId": SECRET_ID, "SecretKey": SECRET_KEY, **changes}
        configuration = CosConfig(
            Region="ap-guangzhou",
            Scheme="http",
            Domain=f"127.0.0.1:{emulator.port}",
            KeepAlive=False,
            **fields,
        )
        return CosS3Client(configuration, retry=0)

    return make


def items(section: Any) -> list[dict[str, str]]:
    """Return the labels of a part of an answer."""
    found = section["Labels"]
    return found if isinstance(found, list) else [found]


def test_an_object_is_labelled_where_it_lies(connect, emulator, photograph):
    """The client gets labels of it, and nothing is downloaded."""
    emulator.put_object("2026/a b&ü.jpg", photograph)
    answer = connect().ci_image_detect_label(BUCKET, "2026/a b&ü.jpg")
    names = {item["Name"]: int(item["Confidence"]) for item in items(answer)}
    assert "Blue" in names
    assert all(0 <= confidence <= 100 for confidence in names.values())
    assert emulator.stats.billed_by_api == emulator.stats.by_api == {"ci_detect_label": 1}
    assert emulator.stats.object_downloads == 0


def test_scenes_have_sections_of_their_own(connect, emulator, photograph):
    """Each is billed as a call."""
    emulator.put_object("a.jpg", photograph)
    answer = connect().ci_image_detect_label(BUCKET, "a.jpg", Scenes="web,news")
    assert set(answer) == {"WebLabels", "NewsLabels"}
    assert items(answer["WebLabels"])
    assert items(answer["NewsLabels"])
    assert emulator.stats.billed == 2


def test_a_url_in_place_of_an_object(connect, emulator, photographs, serve_folder):
    """The service fetches it, also if an object is named."""
    with serve_folder(photographs) as url:
        client = connect()
        for key in ("", "missing.jpg"):
            answer = client.ci_image_detect_label(BUCKET, key, DetectUrl=f"{url}/rocket.jpg")
            assert "Blue" in {item["Name"] for item in items(answer)}
    assert emulator.stats.billed == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SecretKey": "wrong"}, "SignatureDoesNotMatch"),
        ({"SecretId": "AKIDother"}, "InvalidAccessKeyId"),
        ({"Token": "unknown"}, "InvalidToken"),
    ],
)
def test_wrong_keys(connect, emulator, photograph, changes, code):
    """They are refused by their code, and nothing is billed."""
    emulator.put_object("a.jpg", photograph)
    with pytest.raises(CosServiceError) as caught:
        connect(**changes).ci_image_detect_label(BUCKET, "a.jpg")
    assert caught.value.get_status_code() == 403
    assert caught.value.get_error_code() == code
    assert emulator.stats.rejected_signatures == 1
    assert emulator.stats.billed == 0


@pytest.mark.parametrize("shift", [-3600, 36_000])
def test_a_clock_that_is_wrong(shift, photograph, monkeypatch):
    """A signature of another time is refused."""
    import time

    now = time.time()
    with Emulator(clock=lambda: now + shift) as emulator:
        emulator.put_object("a.jpg", photograph)
        configuration = CosConfig(
            Region="ap-guangzhou",
            Scheme="http",
            Domain=f"127.0.0.1:{emulator.port}",
            KeepAlive=False,
            SecretId=SECRET_ID,
            SecretKey=SECRET_KEY,
        )
        with pytest.raises(CosServiceError) as caught:
            CosS3Client(configuration, retry=0).ci_image_detect_label(BUCKET, "a.jpg")
    code = "RequestTimeTooSkewed" if shift < 0 else "RequestIsExpired"
    assert caught.value.get_error_code() == code


def gif() -> bytes:
    """Draw a small GIF."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "GIF")
    return file.getvalue()


@pytest.mark.parametrize(
    ("key", "scenes", "status", "code"),
    [
        ("missing.jpg", None, 404, "NoSuchKey"),
        ("text.jpg", None, 400, "ImageDecodeFailed"),
        ("empty.jpg", None, 400, "ImageEmpty"),
        ("a.gif", None, 400, "ImageFormatNotSupport"),
        ("text.jpg", "cinema", 400, "InvalidArgument"),
    ],
)
def test_objects_that_cannot_be_labelled(connect, emulator, key, scenes, status, code):
    """Each fault has a code; none is billed."""
    emulator.put_object("text.jpg", b"no image")
    emulator.put_object("empty.jpg", b"")
    emulator.put_object("a.gif", gif())
    with pytest.raises(CosServiceError) as caught:
        connect().ci_image_detect_label(BUCKET, key, Scenes=scenes)
    assert (caught.value.get_status_code(), caught.value.get_error_code()) == (status, code)
    assert emulator.stats.by_code == {code: 1}
    assert emulator.stats.billed == 0


def test_the_quota(connect, emulator, photograph):
    """A request too many is told to slow down."""
    emulator.put_object("a.jpg", photograph)
    emulator.faults = Faults(requests_per_second=1)
    client = connect()
    client.ci_image_detect_label(BUCKET, "a.jpg")
    with pytest.raises(CosServiceError) as caught:
        client.ci_image_detect_label(BUCKET, "a.jpg")
    assert (caught.value.get_status_code(), caught.value.get_error_code()) == (503, "SlowDown")
    assert emulator.stats.over_limit == 1


def test_a_fault_by_its_code(connect, emulator, photograph):
    """Any code can be injected, with the status that it has."""
    emulator.put_object("a.jpg", photograph)
    emulator.faults = Faults(error_codes={"AccessDenied": 1.0})
    with pytest.raises(CosServiceError) as caught:
        connect().ci_image_detect_label(BUCKET, "a.jpg")
    assert (caught.value.get_status_code(), caught.value.get_error_code()) == (400, "AccessDenied")


def test_listing_and_download(connect, emulator):
    """The bucket is listed page by page, and a download is counted."""
    for number in range(5):
        emulator.put_object(f"a/{number}.jpg", b"x" * number)
    emulator.put_object("b.jpg", b"y")
    client = connect()
    first = client.list_objects(BUCKET, Prefix="a/", MaxKeys=3)
    assert first["IsTruncated"] == "true"
    second = client.list_objects(BUCKET, Prefix="a/", Marker=first["NextMarker"])
    keys = [each["Key"] for page in (first, second) for each in page["Contents"]]
    assert keys == [f"a/{number}.jpg" for number in range(5)]
    assert second["IsTruncated"] == "false"
    assert emulator.stats.object_downloads == 0
    body = client.get_object(BUCKET, "a/3.jpg")["Body"].get_raw_stream().read()
    assert body == b"xxx"
    assert emulator.stats.object_downloads == 1
    assert emulator.stats.requests == 0
