"""Requests of ``picture_classify``."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest

from airflow_imagetag.errors import (
    AuthenticationError,
    EndpointError,
    ImageEmptyError,
    ImageTooLargeError,
    InvalidImageError,
    InvalidRequestError,
    MalformedAnswerError,
)
from airflow_imagetag.service.account import Account
from airflow_imagetag.service.base import Answer, Payload
from airflow_imagetag.service.picture_classify import MAX_BODY_BYTES, PictureClassify
from airflow_imagetag.service.registry import SERVICES

SERVICE = PictureClassify()
MULTIPART = Account("1250000001", "AKIDlogin", "key", "http://gateway:8080")
BASE64 = dataclasses.replace(MULTIPART, image_encoding="base64")
BOTH = pytest.mark.parametrize("account", [MULTIPART, BASE64], ids=["multipart", "base64"])


def build(payload: Payload, account: Account = MULTIPART):
    """Build a request with a marked signature."""
    return SERVICE.build(account, payload, "the signature")


@BOTH
def test_a_url_goes_as_json(account):
    """Whatever the encoding of bytes, a URL is sent as it is, in a JSON body."""
    url = 'https://host/été "1".jpg?X-Amz-Signature=a&b=\u20ac'
    request = build(Payload(url=url, content=b"ignored"), account)
    assert request.url == "http://gateway:8080/imagetag/picture_classify"
    assert request.headers == {
        "Authorization": "the signature",
        "Content-Type": "application/json",
    }
    assert json.loads(request.body) == {"app_id": "1250000001", "url": url}
    assert request.file is None


@pytest.mark.parametrize("content", [b"\x00", b"\xff\xd8\xff", bytes(range(256)) * 100])
def test_bytes_go_as_base64(content):
    """The body is one JSON object, whose image decodes to the very bytes."""
    request = build(Payload(content=content), BASE64)
    document = json.loads(request.body)
    assert base64.b64decode(document.pop("image"), validate=True) == content
    assert document == {"app_id": "1250000001"}
    assert request.headers["Content-Type"] == "application/json"
    assert request.file is None


def test_bytes_go_as_multipart():
    """The file part is named image; the boundary, and so Content-Type, is the HTTP client's."""
    request = build(Payload(content=b"\xff\xd8"))
    assert request.url == "http://gateway:8080/imagetag/picture_classify"
    assert request.headers == {"Authorization": "the signature"}
    assert request.form == {"app_id": "1250000001"}
    assert request.file == ("image", b"\xff\xd8")
    assert request.body is None


@BOTH
def test_an_empty_image_is_not_sent(account):
    """Zero bytes are an error before anything is sent."""
    with pytest.raises(ImageEmptyError) as caught:
        build(Payload(content=b""), account)
    assert caught.value.code is None


def test_nothing_is_not_sent():
    """A payload without URL and bytes is no image."""
    with pytest.raises(InvalidImageError):
        build(Payload())


@pytest.mark.parametrize(
    ("account", "largest"),
    [(MULTIPART, MAX_BODY_BYTES - 1024), (BASE64, (MAX_BODY_BYTES - 64) * 3 // 4)],
    ids=["multipart", "base64"],
)
def test_the_limit_of_six_megabytes(account, largest):
    """What fits is sent within the limit, one byte more is an error that says 6 MB."""
    assert MAX_BODY_BYTES == 6 * 1024 * 1024
    request = build(Payload(content=b"x" * largest), account)
    assert len(request.body or b"") <= MAX_BODY_BYTES
    with pytest.raises(ImageTooLargeError, match="6 MB"):
        build(Payload(content=b"x" * (largest + 2)), account)


def test_base64_advises_multipart():
    """An image that only base64 makes too large is told so."""
    content = b"x" * 5_000_000
    with pytest.raises(ImageTooLargeError, match="multipart carries more"):
        build(Payload(content=content), BASE64)
    assert build(Payload(content=content)).file == ("image", content)


def test_repr_of_a_request_shows_nothing_secret():
    """Signature, URL and bytes stay out of the reprs."""
    payload = Payload(url="https://host/a?sig=5ecre7", content=b"5ecre7")
    shown = repr(payload) + repr(build(payload)) + repr(build(Payload(content=b"5ecre7")))
    assert "5ecre7" not in shown
    assert "the signature" not in shown


def test_the_probe_is_an_empty_image():
    """It is signed and complete, and holds nothing that could be labelled and billed."""
    request = SERVICE.build_probe(MULTIPART, "the signature")
    assert json.loads(request.body or b"") == {"app_id": "1250000001", "image": ""}
    assert request.headers["Authorization"] == "the signature"


@pytest.mark.parametrize("code", [-1300, -1102])
def test_a_good_probe(code):
    """A refusal of the image proves that all before it was accepted."""
    SERVICE.check_probe(Answer(200, {}, json.dumps({"code": code}).encode()))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (403, b'{"code": -1300}', AuthenticationError),
        (401, b"", AuthenticationError),
        (404, b"<html>", EndpointError),
        (302, b"", EndpointError),
        (200, b'{"code": -1301}', InvalidRequestError),
        (200, b"<html>", MalformedAnswerError),
        (200, b'{"code": 0, "data": {"items": []}}', MalformedAnswerError),
    ],
)
def test_a_bad_probe(status, body, expected):
    """Anything else is the error that the answer stands for, success included."""
    with pytest.raises(expected):
        SERVICE.check_probe(Answer(status, {}, body))


def test_the_registry_knows_the_interface():
    """A connection's api finds it."""
    assert SERVICES["picture_classify"].api == "picture_classify"
