"""Requests and answers of ``ci_detect_label``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest

from airflow_imagetag.engine.flow.retry_policy import is_unreadable_success
from airflow_imagetag.errors import (
    AuthenticationError,
    Billing,
    EndpointError,
    ImageDecodeError,
    ImageNotAllowedError,
    ImageTagError,
    ImageUnreadableError,
    InvalidImageError,
    MalformedAnswerError,
    ParameterTooLongError,
    ServiceUnavailableError,
    ThrottledError,
)
from airflow_imagetag.models import Label
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.ci.detect_label import CiDetectLabel
from airflow_imagetag.services.ci.listing import read_page
from airflow_imagetag.services.ci.xml_tree import MAX_DEPTH, parse
from airflow_imagetag.services.messages import HttpResponse, ParsedLabels, Payload

BUCKET = "photos-1250000001"
ACCOUNT = Account(
    "",
    "AKIDlogin",
    "5ecre7",
    f"https://{BUCKET}.cos.ap-guangzhou.myqcloud.com",
    bucket=BUCKET,
    api="ci_detect_label",
)
TWO_SCENES = dataclasses.replace(ACCOUNT, scenes=("WEB", "NEWS"))


def answer(
    body: str, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})
) -> HttpResponse:
    """Return an answer with an XML body."""
    return HttpResponse(status, headers, f'<?xml version="1.0"?>{body}'.encode())


def refusal(code: str, status: int) -> HttpResponse:
    """Return an answer with an error."""
    text = f"<Code>{code}</Code><Message>said</Message><RequestId>r-2</RequestId>"
    return answer(f"<Error>{text}</Error>", status)


def item(name: str, confidence: Any, more: str = "", tag: str = "Labels") -> str:
    """Return a label as the service writes it."""
    return f"<{tag}><Confidence>{confidence}</Confidence><Name>{name}</Name>{more}</{tag}>"


def read(response: HttpResponse, account: Account = ACCOUNT) -> ParsedLabels:
    """Return the labels of an answer."""
    return CiDetectLabel(account).read(response)


def test_labels_below_the_root():
    """The older form has a list right below the root; the labels are those of the one scene."""
    more = "<FirstCategory> animal </FirstCategory><SecondCategory/>"
    body = item("cat", 7) + item("沙发 &amp; Co", 100, more)
    found = answer(
        f"<RecognitionResult>{body}</RecognitionResult>", headers={"x-cos-request-id": "r-1"}
    )
    parsed = read(found)
    assert parsed == ParsedLabels(
        (
            Label("沙发 & Co", 1.0, "animal", None, "CAMERA"),
            Label("cat", 0.07, None, None, "CAMERA"),
        ),
        "r-1",
    )


@pytest.mark.parametrize("is_nested", [True, False])
def test_labels_in_sections(is_nested):
    """The newer form has a section for each scene, with the labels in it or itself repeated."""
    if is_nested:
        body = f"<WebLabels>{item('web', 10)}</WebLabels><NewsLabels>{item('n', 30)}</NewsLabels>"
    else:
        body = item("web", 10, tag="WebLabels") + item("n", 30, tag="NewsLabels")
    parsed = read(answer(f"<RecognitionResult>{body}</RecognitionResult>"), TWO_SCENES)
    assert parsed.labels == (
        Label("n", 0.3, None, None, "NEWS"),
        Label("web", 0.1, None, None, "WEB"),
    )


@pytest.mark.parametrize(
    "body",
    [
        "<RecognitionResult/>",
        "<RecognitionResult><CameraLabels/></RecognitionResult>",
        '<RecognitionResult xmlns="https://x"><Labels/></RecognitionResult>',
    ],
)
def test_an_image_without_labels(body):
    """XML has no empty list: an answer without elements has no labels."""
    assert read(answer(body)).labels == ()


@pytest.mark.parametrize(
    "body",
    [
        item("", 5),
        item("cat", 101),
        item("cat", -1),
        item("cat", "much"),
        item("cat", "nan"),
        "<Labels><Name>cat</Name></Labels>",
    ],
)
def test_a_success_that_cannot_be_read(body):
    """It was billed, so the engine does not ask for it as often as for a failure."""
    with pytest.raises(MalformedAnswerError) as caught:
        read(answer(f"<RecognitionResult>{body}</RecognitionResult>"))
    assert is_unreadable_success(caught.value)
    assert caught.value.billing is Billing.UNKNOWN


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>",
        b"{}",
        b"<Other/>",
        b"\xff\xfe\x00",
        b"<RecognitionResult>" + b"<a>" * 100_000,
        b'<!DOCTYPE a [<!ENTITY b "c">]><RecognitionResult>&b;</RecognitionResult>',
        b'<?xml version="1.0" encoding="x"?><RecognitionResult/>',
    ],
)
def test_a_body_that_is_no_answer(body):
    """A gateway's page, a document that nests or declares entities: none is read as labels."""
    with pytest.raises(MalformedAnswerError):
        read(HttpResponse(200, {}, body))


def test_nesting_has_a_limit():
    """A document as deep as the limit is read, a deeper one is not."""
    assert parse(b"<a>" * MAX_DEPTH + b"</a>" * MAX_DEPTH) is not None
    assert parse(b"<a>" * (MAX_DEPTH + 1) + b"</a>" * (MAX_DEPTH + 1)) is None


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("SignatureDoesNotMatch", 403, AuthenticationError),
        ("RequestTimeTooSkewed", 403, AuthenticationError),
        ("RequestIsExpired", 403, AuthenticationError),
        ("InvalidAccessKeyId", 403, AuthenticationError),
        ("NoSuchBucket", 404, EndpointError),
        ("NoSuchKey", 404, ImageUnreadableError),
        ("AccessDenied", 403, ImageUnreadableError),
        ("ImageDecodeFailed", 400, ImageDecodeError),
        ("SlowDown", 503, ThrottledError),
        ("WhatIsThis", 503, ServiceUnavailableError),
        ("WhatIsThis", 429, ThrottledError),
        ("InternalError", 500, ServiceUnavailableError),
    ],
)
def test_codes(code, status, error):
    """Each code has its class, and is kept with the id of the call and the service's words."""
    with pytest.raises(ImageTagError, match="said") as caught:
        read(refusal(code, status))
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.status) == (code, status)
    assert caught.value.request_id == "r-2"
    assert caught.value.billing is Billing.REFUSED


@pytest.mark.parametrize("code", ["AccessDenied", "ServiceNotOpened"])
def test_a_fault_that_many_images_may_share(code):
    """A refusal, and a code of no document, names its cause, so that it can end the run."""
    with pytest.raises(ImageUnreadableError) as caught:
        read(refusal(code, 403))
    assert caught.value.cause == f"bucket {BUCKET}: {code}"
    assert not caught.value.is_final


def test_a_missing_object_is_its_own_fault():
    """Any number of objects may be deleted after they were listed."""
    with pytest.raises(ImageUnreadableError) as caught:
        read(refusal("NoSuchKey", 404))
    assert caught.value.cause is None


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, AuthenticationError), (404, EndpointError), (414, ParameterTooLongError)],
)
def test_a_status_without_xml(status, error):
    """A gateway answers without a code."""
    with pytest.raises(error):
        read(HttpResponse(status, {}, b"<html>"))


def test_an_object_and_a_url():
    """An object is named by the path; a URL is a parameter of the bucket itself."""
    service = CiDetectLabel(TWO_SCENES)
    assert service.build(Payload(object_key="a/b c.jpg")).url == (
        f"{ACCOUNT.endpoint}/a/b%20c.jpg?ci-process=detect-label&scenes=web%2Cnews"
    )
    assert service.build(Payload(url="https://a/b?c=d")).url == (
        f"{ACCOUNT.endpoint}/?ci-process=detect-label&scenes=web%2Cnews"
        "&detect-url=https%3A%2F%2Fa%2Fb%3Fc%3Dd"
    )
    assert service.calls_per_image == 2
    assert CiDetectLabel(ACCOUNT).calls_per_image == 1


@pytest.mark.parametrize("payload", [Payload(content=b"x"), Payload()])
def test_bytes_are_not_taken(payload):
    """The message says where the image must be."""
    with pytest.raises(InvalidImageError, match=f"cos://{BUCKET}/"):
        CiDetectLabel(ACCOUNT).build(payload)


@pytest.mark.parametrize(
    "uri", [f"cos://{BUCKET}/a/b.jpg", f"s3://my@{BUCKET}/a/b.jpg", f"COSN://x@{BUCKET}/a/b.jpg"]
)
def test_objects_of_the_bucket(uri):
    """They have one name under each scheme that COS has."""
    assert CiDetectLabel(ACCOUNT).object_key(uri) == "a/b.jpg"


def test_a_url_is_no_object():
    """The service fetches it."""
    assert CiDetectLabel(ACCOUNT).object_key("https://a/b.jpg") is None


@pytest.mark.parametrize(
    "uri",
    ["cos://other-1250000001/a.jpg", f"gs://{BUCKET}/a.jpg", f"cos://{BUCKET}/", "/data/a.jpg"],
)
def test_images_elsewhere(uri):
    """They wait: another connection may label them."""
    with pytest.raises(ImageNotAllowedError, match=BUCKET):
        CiDetectLabel(ACCOUNT).object_key(uri)


def test_a_page_of_a_listing():
    """Names come encoded, and the last one is the marker where the answer gives none."""
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
        f'<ETag>"e"</ETag><Size>3</Size></Contents>'
        for key in ("a%0A%20b.jpg", "c%26.jpg")
    )
    body = f"<ListBucketResult><IsTruncated>true</IsTruncated>{contents}</ListBucketResult>"
    page = read_page(answer(body), BUCKET)
    assert [(each.key, each.size, each.etag) for each in page.objects] == [
        ("a\n b.jpg", 3, "e"),
        ("c&.jpg", 3, "e"),
    ]
    assert page.objects[0].modified is not None
    assert page.objects[0].modified.isoformat() == "2026-01-02T03:04:05+00:00"
    assert page.next_marker == "c&.jpg"
    assert read_page(answer("<ListBucketResult/>"), BUCKET).next_marker is None
    with pytest.raises(MalformedAnswerError):
        read_page(answer("<ListBucketResult><Contents/></ListBucketResult>"), BUCKET)
    with pytest.raises(EndpointError):
        read_page(refusal("NoSuchBucket", 404), BUCKET)
