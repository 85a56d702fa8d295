"""Requests and answers of ``DetectLabelPro`` and ``DetectLabel``."""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from typing import Any

import pytest
from tencentcloud.tiia.v20190529 import models

from airflow_imagetag.engine.flow.retry_policy import is_unreadable_success
from airflow_imagetag.errors import (
    AuthenticationError,
    Billing,
    EndpointError,
    ImageEmptyError,
    ImageTagError,
    ImageTooLargeError,
    InvalidImageError,
    MalformedAnswerError,
    ServiceUnavailableError,
    UnknownCodeError,
)
from airflow_imagetag.models import Label
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, ParsedLabels, Payload
from airflow_imagetag.services.tiia.detect_label import DetectLabel, DetectLabelPro

ACCOUNT = Account("", "AKIDlogin", "5ecre7", "http://gateway:8080", api="DetectLabelPro")
ALL_SCENES = dataclasses.replace(ACCOUNT, scenes=("WEB", "CAMERA", "ALBUM", "NEWS"))
BOTH = pytest.mark.parametrize("service", [DetectLabelPro, DetectLabel])


def success(**content: Any) -> HttpResponse:
    """Return a successful answer."""
    document = {"Response": {**content, "RequestId": "r-1"}}
    return HttpResponse(200, {}, json.dumps(document).encode())


def failure(code: str, status: int = 200) -> HttpResponse:
    """Return an answer with an error."""
    return dataclasses.replace(success(Error={"Code": code, "Message": ""}), status=status)


def item(name: Any = "cat", confidence: Any = 90, **more: Any) -> dict[str, Any]:
    """Return a label as the service writes it."""
    return {"Name": name, "Confidence": confidence, **more}


def read(
    answer: HttpResponse, service: Any = DetectLabelPro, account: Account = ACCOUNT
) -> ParsedLabels:
    """Return the labels of a response."""
    return service(account).read(answer)


def test_labels_with_their_categories():
    """Confidence becomes a probability; the most probable is first; the call's id is kept."""
    reading = read(
        success(
            Labels=[
                item("cat", 7, FirstCategory="animal", SecondCategory="pet"),
                item("沙发", 100, FirstCategory="", SecondCategory=None),
                item("zero", 0),
                item("half", 49.5),
            ]
        )
    )
    assert reading == ParsedLabels(
        (
            Label("沙发", 1.0),
            Label("half", 0.495),
            Label("cat", 0.07, "animal", "pet"),
            Label("zero", 0.0),
        ),
        "r-1",
    )


@BOTH
@pytest.mark.parametrize("content", [{"Labels": None}, {"Labels": []}])
@pytest.mark.parametrize("error", [{}, {"Error": None}])
def test_an_image_without_labels(service, content, error):
    """The service writes null for a list without any, and may do so for an error that is none."""
    assert read(success(**content, **error), service) == ParsedLabels((), "r-1")


@BOTH
def test_an_answer_that_says_nothing_of_labels(service):
    """It would be kept as an image without labels for good, so it is none that can be read."""
    with pytest.raises(MalformedAnswerError, match="no labels") as caught:
        read(success(), service)
    assert caught.value.code == "0"


@pytest.mark.parametrize("blank", ["", " ", None])
def test_a_category_that_is_blank(blank):
    """It is none, and the label counts all the same."""
    answer = success(Labels=[item("cat", 50, FirstCategory=blank, SecondCategory="pet")])
    assert read(answer).labels == (Label("cat", 0.5, None, "pet"),)


def test_the_scenes_of_a_label():
    """Each list of the answer is one scene's; one that was not asked for comes as null."""
    answer = success(
        Labels=[item("web", 10)],
        CameraLabels=[item("camera", 40, FirstCategory="a")],
        AlbumLabels=None,
        NewsLabels=[item("news", 30)],
    )
    assert read(answer, DetectLabel, ALL_SCENES).labels == (
        Label("camera", 0.4, "a", None, "CAMERA"),
        Label("news", 0.3, None, None, "NEWS"),
        Label("web", 0.1, None, None, "WEB"),
    )


def test_only_the_scenes_that_were_asked_for_are_read():
    """A list of a scene that was not asked for is ignored."""
    answer = success(Labels=[item("web", 10)], NewsLabels=[item("news", 30)])
    assert read(answer, DetectLabel).labels == (Label("web", 0.1, None, None, "WEB"),)


def test_each_scene_is_a_call():
    """The vendor bills each scene; without any, it is one."""
    assert DetectLabelPro(ACCOUNT).calls_per_image == 1
    assert DetectLabel(ACCOUNT).calls_per_image == 1
    assert DetectLabel(ALL_SCENES).calls_per_image == 4


@BOTH
@pytest.mark.parametrize(
    ("labels", "word"),
    [
        ("cat", "list"),
        ({"Name": "cat"}, "list"),
        (["cat"], "object"),
        ([None], "object"),
        ([item(None)], "name"),
        ([item("")], "name"),
        ([item(" ")], "name"),
        ([item(5)], "name"),
        ([item("half \ud83d")], "not a text"),
        ([item(confidence=None)], "not a number"),
        ([item(confidence="90")], "not a number"),
        ([item(confidence=True)], "not a number"),
        ([item(confidence=-1)], "0 to 100"),
        ([item(confidence=101)], "0 to 100"),
        ([item(confidence=float("nan"))], "0 to 100"),
        ([item(confidence=float("inf"))], "0 to 100"),
        ([item(FirstCategory=7)], "category"),
        ([item(SecondCategory=["pet"])], "category"),
        ([item(FirstCategory="half \udc00")], "category"),
    ],
)
def test_labels_that_cannot_be_understood(service, labels, word):
    """It is an error that may have been billed, and that the engine does not try six times."""
    with pytest.raises(MalformedAnswerError) as caught:
        read(success(Labels=labels), service)
    assert word in caught.value.message
    assert is_unreadable_success(caught.value)
    assert caught.value.billing is Billing.UNKNOWN
    assert caught.value.request_id == "r-1"


@BOTH
def test_a_url_goes_as_it_is(service):
    """Any character is kept; bytes beside it are not sent."""
    url = 'https://host/été "1".jpg?X-Amz-Signature=a&b=\u20ac'
    request = service(ACCOUNT).build(Payload(url=url, content=b"ignored"))
    assert request.url == "http://gateway:8080/"
    document = json.loads(request.joined())
    assert document.pop("ImageUrl") == url
    assert document == ({} if service is DetectLabelPro else {"Scenes": ["WEB"]})


@pytest.mark.parametrize("content", [b"\x00", b"\xff\xd8\xff", bytes(range(256)) * 100])
def test_the_body_is_what_the_sdk_would_send(content):
    """The pasted JSON holds the same as the SDK's own models of the two requests."""
    given = base64.b64encode(content).decode()
    pro = models.DetectLabelProRequest()
    pro.ImageBase64 = given
    assert sent(DetectLabelPro(ACCOUNT), content) == without_nulls(pro)
    old = models.DetectLabelRequest()
    old.ImageBase64 = given
    old.Scenes = ["WEB", "CAMERA", "ALBUM", "NEWS"]
    assert sent(DetectLabel(ALL_SCENES), content) == without_nulls(old)


def sent(service: Any, content: bytes) -> Any:
    """Return the JSON that a service sends for bytes."""
    return json.loads(service.build(Payload(content=content)).joined())


def without_nulls(model: Any) -> dict[str, Any]:
    """Return a model of the SDK as JSON, without the fields that were not set."""
    return {k: v for k, v in json.loads(model.to_json_string()).items() if v is not None}


@BOTH
def test_the_limit_of_four_megabytes(service):
    """The largest image has exactly 4 MB in base64; one byte more is an error that says so."""
    one = service(ACCOUNT)
    largest = one.limits.max_content_bytes
    body = json.loads(one.build(Payload(content=b"x" * largest)).joined())
    assert len(body["ImageBase64"]) == 4 * 1024 * 1024
    with pytest.raises(ImageTooLargeError, match="4 MB"):
        one.build(Payload(content=b"x" * (largest + 1)))


def test_what_is_advised_of_an_image():
    """The vendor's words on format, sides and proportions."""
    limits = DetectLabelPro(ACCOUNT).limits
    assert limits.formats == frozenset({"PNG", "JPEG", "BMP"})
    assert (limits.advised_min_pixels, limits.advised_max_aspect) == (50, 5.0)


@BOTH
def test_no_image_is_not_sent(service):
    """Nothing, or no bytes, is an error before anything is sent."""
    with pytest.raises(ImageEmptyError):
        service(ACCOUNT).build(Payload(content=b""))
    with pytest.raises(InvalidImageError):
        service(ACCOUNT).build(Payload())


@BOTH
def test_a_request_that_is_signed_with_keys_needs_no_io(service):
    """Not even the first one; only large images, for their digest, take a thread."""
    one = service(ACCOUNT)
    assert not one.needs_io
    assert one.max_inline_bytes == 128 * 1024
    unsigned = service(dataclasses.replace(ACCOUNT, sign_payload=False))
    assert unsigned.max_inline_bytes == sys.maxsize


@BOTH
def test_a_request_that_is_signed_for_a_role_needs_io(service):
    """Its keys have to be asked for."""
    assert service(dataclasses.replace(ACCOUNT, credentials="cvm_role")).needs_io


@BOTH
def test_the_probe_is_an_empty_image(service):
    """It is complete, and holds nothing that could be labelled and billed."""
    document = json.loads(service(ACCOUNT).build_probe().joined())
    assert document.pop("ImageBase64") == ""
    assert document == ({} if service is DetectLabelPro else {"Scenes": ["WEB"]})


@pytest.mark.parametrize(
    "code",
    [
        "FailedOperation.EmptyImageError",
        "FailedOperation.ImageDecodeFailed",
        "FailedOperation.ParameterEmpty",
        "FailedOperation.DownLoadError",
        "InvalidParameter",
        "InvalidParameter.InvalidParameter",
        "InvalidParameterValue.ImageEmpty",
        "InvalidParameterValue.InvalidParameterValueLimit",
        "MissingParameter",
        "MissingParameter.ErrorParameterEmpty",
    ],
)
def test_a_good_probe(code):
    """A refusal of the image proves that all before it was accepted."""
    DetectLabelPro(ACCOUNT).check_probe(failure(code))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (failure("AuthFailure.SignatureFailure"), AuthenticationError),
        (failure("FailedOperation.UnOpenError"), AuthenticationError),
        (failure("ResourceUnavailable.InArrears"), AuthenticationError),
        (failure("UnsupportedRegion"), EndpointError),
        (failure("FailedOperation.RpcFail"), ServiceUnavailableError),
        (failure("FailedOperation.Anew"), UnknownCodeError),
        (failure("FailedOperation.ImageNotFoundInfo"), UnknownCodeError),
        (HttpResponse(404, {}, b"<html>"), EndpointError),
        (HttpResponse(200, {}, b"<html>"), MalformedAnswerError),
        (success(Labels=[]), MalformedAnswerError),
    ],
)
def test_a_bad_probe(answer, expected):
    """Anything else is the error that the answer stands for; an unknown code proves nothing."""
    with pytest.raises(ImageTagError) as caught:
        DetectLabelPro(ACCOUNT).check_probe(answer)
    assert type(caught.value) is expected


def test_no_repr_shows_a_secret():
    """Key, token and signature stay out of the reprs of all that is involved."""
    account = dataclasses.replace(ACCOUNT, token="7emporary")
    service = DetectLabelPro(account)
    request = service.build(Payload(url="https://host/a?sig=5ecre7"))
    shown = repr((account, service, vars(service), vars(service._signer), request))
    assert "5ecre7" not in shown
    assert "7emporary" not in shown
    assert "AKIDlogin" not in shown
