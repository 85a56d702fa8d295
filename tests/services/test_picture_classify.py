"""Requests of ``picture_classify``."""

from __future__ import annotations

import base64
import dataclasses
import email
import email.policy
import json
from email.message import MIMEPart

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
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, Payload, Request
from airflow_imagetag.services.recognition.base import MAX_BODY_BYTES
from airflow_imagetag.services.recognition.picture_classify import PictureClassify
from airflow_imagetag.services.registry import BUILT_IN

MULTIPART = Account("1250000001", "AKIDlogin", "key", "http://gateway:8080")
BASE64 = dataclasses.replace(MULTIPART, image_encoding="base64")
BOTH = pytest.mark.parametrize("account", [MULTIPART, BASE64], ids=["multipart", "base64"])


def build(payload: Payload, account: Account = MULTIPART):
    """Build a signed request."""
    return PictureClassify(account).build(payload)


def is_signed(request: Request) -> bool:
    """Tell whether a request carries a signature of the account, and nothing else beside it."""
    signed = base64.b64decode(request.headers["Authorization"], validate=True)
    return b"a=1250000001&b=&k=AKIDlogin&" in signed and len(request.headers) == 2


@BOTH
def test_a_url_goes_as_json(account):
    """With either encoding of bytes, a URL is sent as it is, in a JSON body."""
    url = 'https://host/été "1".jpg?X-Amz-Signature=a&b=\u20ac'
    request = build(Payload(url=url, content=b"ignored"), account)
    assert request.url == "http://gateway:8080/imagetag/picture_classify"
    assert request.headers["Content-Type"] == "application/json"
    assert is_signed(request)
    assert json.loads(request.body) == {"app_id": "1250000001", "url": url}


@pytest.mark.parametrize("content", [b"\x00", b"\xff\xd8\xff", bytes(range(256)) * 100])
def test_bytes_go_as_base64(content):
    """The body is one JSON object, whose image decodes to the very bytes."""
    request = build(Payload(content=content), BASE64)
    document = json.loads(request.joined())
    assert base64.b64decode(document.pop("image"), validate=True) == content
    assert document == {"app_id": "1250000001"}
    assert request.headers["Content-Type"] == "application/json"


def parts_of(request: Request) -> dict[str, MIMEPart]:
    """Return the parts of a multipart body by name, as the standard library reads them."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + request.joined(), policy=email.policy.HTTP)
    assert message.get_content_type() == "multipart/form-data"
    assert not message.defects
    return {part["Content-Disposition"].params["name"]: part for part in message.iter_parts()}


@pytest.mark.parametrize(
    "content", [b"\xff\xd8", b"\r\n--\r\n", bytes(range(256)) * 100, b"--" * 5000]
)
def test_bytes_go_as_multipart(content):
    """The file part is named image and holds the very bytes; the app_id stands beside it."""
    request = build(Payload(content=content))
    assert request.url == "http://gateway:8080/imagetag/picture_classify"
    assert is_signed(request)
    boundary = request.headers["Content-Type"].partition("boundary=")[2].encode()
    assert request.joined().count(b"--" + boundary) == 3
    parts = parts_of(request)
    assert set(parts) == {"app_id", "image"}
    assert parts["app_id"].get_content().strip() == "1250000001"
    assert parts["image"].get_filename() == "image"
    assert parts["image"].get_content_type() == "application/octet-stream"
    _, _, rest = request.joined().rpartition(b"octet-stream\r\n\r\n")
    assert rest == content + b"\r\n--" + boundary + b"--\r\n"


def test_no_two_bodies_have_the_same_boundary():
    """An image cannot be made to end the next request early, even with knowledge of this one."""
    service = PictureClassify(MULTIPART)
    built = [service.build(Payload(content=b"x")) for _ in range(600)]
    assert len({request.headers["Content-Type"] for request in built}) == 600


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


@BOTH
def test_the_limit_of_six_megabytes(account):
    """The largest image is sent within the limit; one byte more is an error that says 6 MB."""
    assert MAX_BODY_BYTES == 6 * 1024 * 1024
    largest = PictureClassify(account).limits.max_content_bytes
    assert largest == (MAX_BODY_BYTES - 1024) * (1 if account is MULTIPART else 0.75)
    request = build(Payload(content=b"x" * largest), account)
    assert len(request.joined()) <= MAX_BODY_BYTES
    with pytest.raises(ImageTooLargeError, match="6 MB"):
        build(Payload(content=b"x" * (largest + 1)), account)


def test_base64_advises_multipart():
    """An image that only base64 makes too large is told so."""
    content = b"x" * 5_000_000
    with pytest.raises(ImageTooLargeError, match="multipart carries more"):
        build(Payload(content=content), BASE64)
    assert content in build(Payload(content=content)).body


def test_repr_of_a_request_shows_nothing_secret():
    """Signature, URL and bytes stay out of the reprs."""
    payload = Payload(url="https://host/a?sig=5ecre7", content=b"5ecre7")
    request = build(payload)
    shown = repr(payload) + repr(request) + repr(build(Payload(content=b"5ecre7")))
    assert "5ecre7" not in shown
    assert request.headers["Authorization"] not in shown


def test_the_probe_is_an_empty_image():
    """It is signed and complete, and holds nothing that could be labelled and billed."""
    request = PictureClassify(MULTIPART).build_probe()
    assert json.loads(request.joined()) == {"app_id": "1250000001", "image": ""}
    assert is_signed(request)


@pytest.mark.parametrize("code", [-1300, -1102])
def test_a_good_probe(code):
    """A refusal of the image proves that all before it was accepted."""
    PictureClassify(MULTIPART).check_probe(
        HttpResponse(200, {}, json.dumps({"code": code}).encode())
    )


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
        PictureClassify(MULTIPART).check_probe(HttpResponse(status, {}, body))


def test_the_registry_knows_the_interface():
    """A connection's api finds it."""
    assert BUILT_IN["picture_classify"].api == "picture_classify"
