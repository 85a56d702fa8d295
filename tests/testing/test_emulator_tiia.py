"""Every code that the emulator gives for TIIA, over real HTTP."""

from __future__ import annotations

import base64
import colorsys
import io
import json
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from tc3_requests import TiiaClient, code_of

from airflow_imagetag.testing import Emulator, Faults
from airflow_imagetag.testing._labels import label
from airflow_imagetag.testing._tiia import CATEGORIES, SCENES, items
from airflow_imagetag.testing.faults import Garbage

FOUR_MEGABYTES = 4 * 1024 * 1024


@pytest.fixture
def files(tmp_path: Path, serve_folder):
    """Serve a folder over HTTP."""
    with serve_folder(tmp_path) as url:
        yield tmp_path, url


def encoded(image: bytes) -> dict[str, str]:
    """Return the parameters for an image."""
    return {"ImageBase64": base64.b64encode(image).decode()}


def picture(kind: str) -> bytes:
    """Draw a picture in a format."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "orange").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("action", ["DetectLabelPro", "DetectLabel"])
def test_the_form_of_an_answer(tiia, photograph, action):
    """An answer has status 200 and exactly the vendor's fields."""
    response = tiia.send(encoded(photograph), action)
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"Response"}
    lists = {"Labels"}
    if action == "DetectLabel":
        lists |= {"CameraLabels", "AlbumLabels", "NewsLabels"}
    assert set(answer["Response"]) == {*lists, "RequestId"}
    fields = {"Name", "Confidence", "FirstCategory", "SecondCategory"}
    assert all(set(item) == fields for item in answer["Response"]["Labels"])


@pytest.mark.parametrize("header", ["Action", "Timestamp", "Version", "Region"])
def test_a_header_that_is_missing(tiia, header):
    """Each of the four gives a MissingParameter that names it."""
    response = tiia.send({}, changes={f"X-TC-{header}": None})
    assert code_of(response) == "MissingParameter"
    assert f"X-TC-{header}" in response.text
    assert tiia.emulator.stats.by_code == {"MissingParameter": 1}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"X-TC-Action": "DetectPet"}, "InvalidAction"),
        ({"X-TC-Action": "detectlabelpro"}, "InvalidAction"),
        ({"X-TC-Version": "2018-01-01"}, "NoSuchVersion"),
        ({"X-TC-Version": "newest"}, "NoSuchVersion"),
        ({"Content-Type": "text/plain"}, "InvalidParameter"),
    ],
)
def test_a_header_that_is_wrong(tiia, photograph, changes, code):
    """An unknown action, version or type is refused; an unknown action counts for no API."""
    assert code_of(tiia.send(encoded(photograph), changes=changes)) == code
    assert ("DetectLabelPro" in tiia.emulator.stats.by_api) == ("X-TC-Action" not in changes)
    assert tiia.emulator.stats.billed == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "InvalidParameter"),
        (b"{", "InvalidParameter"),
        (b"\xff", "InvalidParameter"),
        (100_000 * b"[", "InvalidParameter"),
        (b"[]", "InvalidParameter"),
        ({"ImageUrl": 5}, "InvalidParameter"),
        ({"ImageBase64": ["AAAA"]}, "InvalidParameter"),
        ({"imageUrl": "http://x"}, "UnknownParameter"),
        ({"Scenes": ["WEB"]}, "UnknownParameter"),
        ({}, "MissingParameter.ErrorParameterEmpty"),
        ({"ImageUrl": "", "ImageBase64": None}, "MissingParameter.ErrorParameterEmpty"),
        ({"ImageBase64": ""}, "FailedOperation.EmptyImageError"),
        ({"ImageBase64": "not base64!"}, "FailedOperation.ImageDecodeFailed"),
        ({"ImageBase64": "é"}, "FailedOperation.ImageDecodeFailed"),
        ({"ImageBase64": "data:image/png;base64,AAAA"}, "FailedOperation.ImageDecodeFailed"),
        (encoded(b"plain text"), "FailedOperation.ImageDecodeFailed"),
        (encoded(picture("PNG")[:60]), "FailedOperation.ImageDecodeFailed"),
        (encoded(picture("GIF")), "FailedOperation.ImageNotSupported"),
        (encoded(picture("TIFF")), "FailedOperation.ImageNotSupported"),
        (encoded(picture("WEBP")), "FailedOperation.ImageNotSupported"),
        ({"ImageUrl": "file:///etc/passwd"}, "FailedOperation.ImageUrlInvalid"),
        ({"ImageUrl": "no url at all"}, "FailedOperation.ImageUrlInvalid"),
        ({"ImageUrl": "http://[broken/a.jpg"}, "FailedOperation.ImageUrlInvalid"),
        ({"ImageUrl": "http://127.0.0.1:1/a.jpg"}, "FailedOperation.ImageDownloadError"),
    ],
)
def test_a_body_that_is_wrong(tiia, body, code):
    """Each mistake in the body has its code; nothing is billed."""
    assert code_of(tiia.send(body)) == code
    assert tiia.emulator.stats.by_code == {code: 1}
    assert tiia.emulator.stats.billed == 0


@pytest.mark.parametrize(
    ("scenes", "code"),
    [
        ("WEB", "InvalidParameter"),
        ([5], "InvalidParameterValue.InvalidParameterValueLimit"),
        ([None], "InvalidParameterValue.InvalidParameterValueLimit"),
        ([["WEB"]], "InvalidParameterValue.InvalidParameterValueLimit"),
        (["web"], "InvalidParameterValue.InvalidParameterValueLimit"),
    ],
)
def test_scenes_that_are_wrong(tiia, photograph, scenes, code):
    """Scenes are a list of the four names."""
    response = tiia.send({**encoded(photograph), "Scenes": scenes}, "DetectLabel")
    assert code_of(response) == code


@pytest.mark.parametrize("scenes", [[], None])
def test_no_scenes_are_the_default(tiia, photograph, scenes):
    """An empty list, or null, stands for WEB."""
    answer = tiia.send({**encoded(photograph), "Scenes": scenes}, "DetectLabel").json()
    assert answer["Response"]["Labels"]
    assert answer["Response"]["NewsLabels"] is None
    assert tiia.emulator.stats.billed == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_formats_that_are_taken(tiia, kind):
    """PNG, JPEG and BMP are labelled."""
    labels = tiia.send(encoded(picture(kind))).json()["Response"]["Labels"]
    assert {"Orange", "Warm"} <= {item["Name"] for item in labels}


def test_an_image_over_four_megabytes(tiia, files):
    """The limit holds for the image in Base64, also from a URL; the limit itself is allowed."""
    folder, url = files
    largest = FOUR_MEGABYTES // 4 * 3
    for size, code in (
        (largest, "FailedOperation.ImageDecodeFailed"),
        (largest + 1, "LimitExceeded.TooLargeFileError"),
    ):
        (folder / "huge.jpg").write_bytes(bytes(size))
        assert code_of(tiia.send(encoded(bytes(size)))) == code
        assert code_of(tiia.send({"ImageUrl": f"{url}/huge.jpg"})) == code


def test_files_that_are_missing_or_empty_behind_a_url(tiia, files):
    """A status that is not 200 is a failed download, and no bytes are an empty image."""
    folder, url = files
    (folder / "empty.jpg").write_bytes(b"")
    missing = code_of(tiia.send({"ImageUrl": f"{url}/missing.jpg"}))
    assert missing == "FailedOperation.ImageDownloadError"
    empty = code_of(tiia.send({"ImageUrl": f"{url}/empty.jpg"}))
    assert empty == "FailedOperation.EmptyImageError"


def test_a_request_over_ten_megabytes(tiia):
    """The limit of requests with this signature is ten megabytes."""
    body = bytes(10 * 1024 * 1024 + 1)
    assert code_of(tiia.send(body)) == "RequestSizeLimitExceeded"


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_another_method(tiia, photograph, method):
    """TIIA accepts only POST."""
    assert code_of(tiia.send(encoded(photograph), method=method)) == "UnsupportedProtocol"


def test_a_body_of_unknown_length(tiia):
    """A chunked body has no Content-Length and gets 411, as in the other protocols."""
    response = tiia.session.post(
        tiia.emulator.url,
        data=iter([b"{}"]),
        headers={"X-TC-Action": "DetectLabelPro"},
        timeout=60,
    )
    assert response.status_code == 411


def test_other_requests_are_not_found(tiia, photograph):
    """Without TIIA's headers / is 404, and on other paths they change nothing."""
    url = tiia.emulator.url
    headers = {"X-TC-Action": "DetectLabelPro"}
    assert tiia.session.post(url, json={}, timeout=60).status_code == 404
    assert tiia.session.post(f"{url}/x", headers=headers, timeout=60).status_code == 404
    v2 = tiia.session.post(f"{url}/imagetag/picture_classify", headers=headers, timeout=60)
    assert v2.status_code == 401


def test_checks_come_in_their_order(tiia, photograph):
    """Headers before signature, signature before action, action before version, then the body."""
    unsigned = {"Authorization": "TC3-HMAC-SHA256"}
    nothing = b"{"
    for changes, code in (
        ({**unsigned, "X-TC-Region": None, "X-TC-Action": "x"}, "MissingParameter"),
        ({**unsigned, "X-TC-Action": "x"}, "AuthFailure.InvalidAuthorization"),
        ({"X-TC-Action": "x", "X-TC-Version": "x"}, "InvalidAction"),
        ({"X-TC-Version": "x"}, "NoSuchVersion"),
        ({}, "InvalidParameter"),
    ):
        assert code_of(tiia.send(nothing, changes=changes)) == code


def test_the_quota_and_its_advice(tiia, photograph):
    """Over the quota the code comes with Retry-After, for any ``throttle_status``."""
    tiia.emulator.faults = Faults(
        requests_per_second=0.1, retry_after_seconds=3, throttle_status=503
    )
    assert tiia.send(encoded(photograph)).json()["Response"]["Labels"]
    refused = tiia.send(encoded(photograph))
    assert code_of(refused) == "RequestLimitExceeded"
    assert refused.headers["Retry-After"] == "3"


def test_all_apis_share_the_quota(tiia, client, photograph):
    """A request of V2 uses up the quota of TIIA."""
    tiia.emulator.faults = Faults(requests_per_second=0.1)
    assert client.base64(photograph).json()["code"] == 0
    assert code_of(tiia.send(encoded(photograph))) == "RequestLimitExceeded"


def test_codes_are_for_tiia_alone(tiia, client, small_images):
    """Statuses and codes share one draw; V2 gets the statuses and, for codes, its labels."""
    faults = Faults(error_rates={500: 0.3}, error_codes={"InternalError": 0.3, "Internal.X": 0.3})
    tiia.emulator.faults = faults
    by_tiia = [tiia.send(encoded(image)) for image in small_images[:40]]
    codes = {code_of(answer) for answer in by_tiia if b'"Error"' in answer.content}
    assert codes == {"InternalError", "Internal.X"}
    tiia.emulator.faults = faults
    by_v2 = [client.multipart(image).status_code for image in small_images[:40]]
    assert by_v2 == [answer.status_code for answer in by_tiia]
    assert set(by_v2) == {200, 500}


def test_a_first_attempt_fails_and_the_second_works(tiia, small_images):
    """The chosen images fail exactly once, by status or by code."""
    tiia.emulator.faults = Faults(
        first_attempts={503: 0.3}, first_attempt_codes={"FailedOperation.RpcFail": 0.3}
    )
    answers = [tiia.send(encoded(image)) for image in small_images]
    failed = [answer for answer in answers if b'"Labels"' not in answer.content]
    assert 40 <= len(failed) <= 80
    assert {answer.status_code for answer in failed} == {200, 503}
    assert all(tiia.send(encoded(image)).json()["Response"]["Labels"] for image in small_images)
    assert tiia.emulator.stats.billed == 200 - len(failed)


def test_dropped_connections(tiia, photograph):
    """A drop before the work bills nothing; a drop after it bills every scene."""
    for field, billed in (("drop_rate", 0), ("drop_after_work_rate", 2)):
        faults: dict[str, Any] = {field: 1.0}
        tiia.emulator.faults = Faults(**faults)
        with pytest.raises(requests.ConnectionError):
            tiia.send({**encoded(photograph), "Scenes": ["WEB", "NEWS"]}, "DetectLabel")
        stats = tiia.emulator.stats
        assert stats.billed == stats.billed_dropped == billed
    stats = tiia.emulator.stats
    assert stats.dropped == 2
    assert stats.by_status == {}


@pytest.mark.parametrize("action", ["DetectLabelPro", "DetectLabel"])
def test_each_kind_of_garbage(tiia, photograph, action):
    """Garbage has the form of TIIA, as far as it has one, and is billed."""
    parameters: dict[str, Any] = encoded(photograph)
    if action == "DetectLabel":
        parameters["Scenes"] = ["CAMERA", "NEWS"]

    def answer(kind: Garbage) -> requests.Response:
        tiia.emulator.faults = Faults(garbage_rate=1.0, garbage=kind)
        response = tiia.send(parameters, action)
        assert response.status_code == 200
        return response

    assert answer("html").headers["Content-Type"].startswith("text/html")
    assert answer("empty").content == b""
    for kind in ("truncated", "not_json"):
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer(kind).content)
    assert answer("truncated").content.startswith(b'{"Response": ')
    assert set(answer("missing_data").json()["Response"]) == {"RequestId"}
    bad = answer("bad_probability").json()["Response"]
    lists = [bad[name] or [] for name in bad if name != "RequestId"]
    assert {item["Confidence"] for labels in lists for item in labels} == {1750}
    stats = tiia.emulator.stats
    assert stats.garbage == 7
    assert stats.billed == 7 * len(parameters.get("Scenes", ["WEB"]))


def test_latency(tiia, photograph):
    """A request of TIIA takes at least its latency."""
    tiia.emulator.faults = Faults(latency_seconds=0.2)
    assert tiia.send(encoded(photograph)).elapsed.total_seconds() >= 0.2


def test_a_scene_that_ignores_all_labels():
    """A scene that ignores all labels returns them nevertheless, so that no scene is empty."""
    assert [item["Name"] for item in items([("Square", 0.5)], SCENES["CAMERA"])] == ["Square"]


def test_every_label_has_its_categories(photographs):
    """Every label of photographs and plain colours has a category."""
    images = [
        path.read_bytes() for path in photographs.glob("*.*") if path.suffix in {".jpg", ".png"}
    ]
    for step in range(360):
        colour = colorsys.hsv_to_rgb(step / 360, (step % 7) / 6, (step % 5) / 4)
        file = io.BytesIO()
        size = (32, 8) if step % 2 else (8, 32)
        Image.new("RGB", size, tuple(round(255 * part) for part in colour)).save(file, "PNG")
        images.append(file.getvalue())
    found = {name for image in images for name, _ in label(image)}
    assert found <= set(CATEGORIES)
    assert len(found) > 15


def test_an_emulator_with_a_bucket_asks_none_of_tiia(connect_tiia, photograph):
    """TIIA ignores AppID and bucket, which belong to V1 and V2."""
    with Emulator(app_id="5", bucket="mine") as emulator:
        tiia: TiiaClient = connect_tiia(emulator)
        assert tiia.send(encoded(photograph)).json()["Response"]["Labels"]
