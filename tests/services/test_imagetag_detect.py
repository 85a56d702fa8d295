"""Requests and answers of ``imagetag_detect``, version 1."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest

from airflow_imagetag.engine.flow.retry_policy import is_unreadable_success
from airflow_imagetag.errors import (
    Billing,
    ImageDecodeError,
    ImageEmptyError,
    ImageTooLargeError,
    InvalidImageError,
    MalformedAnswerError,
)
from airflow_imagetag.models import Label
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, ParsedLabels, Payload
from airflow_imagetag.services.recognition.imagetag_detect import ImagetagDetect

ACCOUNT = Account("1250000001", "AKIDlogin", "key", "http://gateway:8080", api="imagetag_detect")
WITH_BUCKET = dataclasses.replace(ACCOUNT, bucket="photos")


def build(payload: Payload, account: Account = ACCOUNT):
    """Build a signed request."""
    return ImagetagDetect(account).build(payload)


def read(document: Any, status: int = 200) -> ParsedLabels:
    """Return the labels of a response."""
    return ImagetagDetect(ACCOUNT).read(HttpResponse(status, {}, json.dumps(document).encode()))


@pytest.mark.parametrize(
    ("account", "fields"),
    [
        (ACCOUNT, {"appid": "1250000001"}),
        (WITH_BUCKET, {"appid": "1250000001", "bucket": "photos"}),
    ],
)
def test_requests(account, fields):
    """URL and bytes go as JSON, the bytes in base64; a bucket is there when there is one."""
    by_url = build(Payload(url="https://host/é.jpg", content=b"ignored"), account)
    assert json.loads(by_url.body) == {**fields, "url": "https://host/é.jpg"}
    content = bytes(range(256))
    by_bytes = build(Payload(content=content), account)
    document = json.loads(by_bytes.joined())
    assert base64.b64decode(document.pop("image"), validate=True) == content
    assert document == fields
    for request in (by_url, by_bytes):
        assert request.url == "http://gateway:8080/v1/detection/imagetag_detect"
        assert request.headers["Content-Type"] == "application/json"
        signed = base64.b64decode(request.headers["Authorization"], validate=True)
        assert f"a=1250000001&b={account.bucket}&k=AKIDlogin&".encode() in signed


def test_multipart_is_never_used():
    """The interface takes none, although the connection may say multipart for the other one."""
    account = dataclasses.replace(ACCOUNT, image_encoding="multipart")
    assert build(Payload(content=b"x"), account).headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("account", [ACCOUNT, WITH_BUCKET])
def test_the_limit_of_six_megabytes(account):
    """The largest image makes a body within the limit; one byte more is an error that says so."""
    largest = ImagetagDetect(account).limits.max_content_bytes
    body = build(Payload(content=b"x" * largest), account).joined()
    assert 6 * 1024 * 1024 - 1024 < len(body) <= 6 * 1024 * 1024
    with pytest.raises(ImageTooLargeError, match=r"in base64, and the service takes 6 MB"):
        build(Payload(content=b"x" * (largest + 1)), account)


def test_no_image_is_not_sent():
    """Nothing, or no bytes, is an error before anything is sent."""
    with pytest.raises(ImageEmptyError):
        build(Payload(content=b""))
    with pytest.raises(InvalidImageError):
        build(Payload())


def test_labels():
    """Confidence is a whole number up to 100; the most probable label is first."""
    tags = [
        {"tag_name": "天空", "tag_confidence": 27, "tag_confidence_f": 0.27},
        {"tag_name": "sea", "tag_confidence": 100},
        {"tag_name": "bird", "tag_confidence": 0},
    ]
    reading = read({"code": 0, "message": "success", "tags": tags})
    assert reading.labels == (Label("sea", 1.0), Label("天空", 0.27), Label("bird", 0.0))
    assert read({"code": 0, "tags": []}) == ParsedLabels(())


@pytest.mark.parametrize(
    "tags",
    [
        None,
        {},
        "sky",
        ["sky"],
        [{"tag_name": "sky"}],
        [{"tag_confidence": 5}],
        [{"tag_name": " ", "tag_confidence": 5}],
        [{"tag_name": "half \ud83d", "tag_confidence": 5}],
        [{"tag_name": "sky", "tag_confidence": 101}],
        [{"tag_name": "sky", "tag_confidence": "27"}],
    ],
)
def test_tags_that_cannot_be_understood(tags):
    """It may have been billed, and the engine does not try it six times."""
    with pytest.raises(MalformedAnswerError) as caught:
        read({"code": 0, "tags": tags})
    assert is_unreadable_success(caught.value)
    assert caught.value.billing is Billing.UNKNOWN


@pytest.mark.parametrize(
    ("code", "expected"), [(-1102, ImageDecodeError), (-1300, ImageEmptyError)]
)
def test_the_codes_are_those_of_version_2(code, expected):
    """Both versions are one service."""
    with pytest.raises(expected) as caught:
        read({"code": code, "message": "no"})
    assert caught.value.code == str(code)


def test_the_probe_is_an_empty_image():
    """It is complete, and a refusal of the image proves the rest."""
    service = ImagetagDetect(WITH_BUCKET)
    document = json.loads(service.build_probe().joined())
    assert document == {"appid": "1250000001", "bucket": "photos", "image": ""}
    service.check_probe(HttpResponse(200, {}, b'{"code": -1300}'))
    with pytest.raises(MalformedAnswerError):
        service.check_probe(HttpResponse(200, {}, b'{"code": 0, "tags": []}'))
