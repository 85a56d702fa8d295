"""The meaning of each error code of TIIA for a run."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tencentcloud.tiia.v20190529 import errorcodes

from airflow_imagetag.engine.flow.retry_policy import RetryPolicy, retry
from airflow_imagetag.errors import (
    AuthenticationError,
    Billing,
    Decision,
    EndpointError,
    ImageDownloadError,
    ImageFormatError,
    ImageTagError,
    InvalidRequestError,
    MalformedAnswerError,
    ServiceUnavailableError,
    ThrottledError,
    UnknownCodeError,
)
from airflow_imagetag.services.messages import HttpResponse
from airflow_imagetag.services.response_parsing import ErrorMeaning
from airflow_imagetag.services.tiia.envelope import (
    CODES,
    FAMILIES,
    OTHER_ACTIONS,
    decode,
    meaning_of,
)

SDK_CODES = {value for name, value in vars(errorcodes).items() if name.isupper()}
SHARED_CODES = {
    "AuthFailure.UnauthorizedOperation",
    "RequestSizeLimitExceeded",
    "URLTooLong",
    "UnsupportedRegion",
}
"""Codes of all the vendor's interfaces, which the SDK does not list for TIIA."""

RETRIED = [
    "RequestLimitExceeded",
    "FailedOperation.RequestTimeout",
    "FailedOperation.RpcFail",
    "FailedOperation.ServerError",
    "FailedOperation.InnerError",
    "FailedOperation.UnKnowError",
    "FailedOperation.Unknown",
    "FailedOperation.RequestError",
    "FailedOperation.DownLoadError",
    "FailedOperation.ImageDownloadError",
    "ResourceUnavailable.IsOpening",
]
STOPPED = [
    "AuthFailure.InvalidAuthorization",
    "FailedOperation.BalanceInsufficient",
    "FailedOperation.InvokeChargeError",
    "FailedOperation.UnOpenError",
    "ResourceUnavailable.InArrears",
    "ResourceUnavailable.NotExist",
    "ResourceUnavailable.StopUsing",
    "ResourcesSoldOut.ChargeStatusException",
    "FailedOperation.ImageGroupChargeStatusClose",
    "FailedOperation.ParameterEmpty",
    "MissingParameter.ErrorParameterEmpty",
]


def answer(code: str, status: int = 200, **headers: str) -> HttpResponse:
    """Return an answer with an error."""
    said = {"Error": {"Code": code, "Message": "so it is"}, "RequestId": "r-1"}
    return HttpResponse(status, headers, json.dumps({"Response": said}).encode())


def error_of(given: HttpResponse) -> ImageTagError:
    """Return the error that an answer is."""
    with pytest.raises(ImageTagError) as caught:
        decode(given)
    return caught.value


def test_the_tables_hold_every_code_of_the_sdk_and_no_other():
    """A code that the vendor adds or drops fails this test until its meaning is decided."""
    listed = {*CODES, *OTHER_ACTIONS} - SHARED_CODES
    by_family = SDK_CODES - listed
    assert by_family == {"RequestLimitExceeded"}
    assert listed <= SDK_CODES
    assert not OTHER_ACTIONS & set(CODES)


@pytest.mark.parametrize("code", sorted(SDK_CODES))
def test_every_code_of_the_sdk_has_a_decision(code):
    """Trouble of the service is retried, of the account stops the run, all else is the image's."""
    wanted = Decision.RECORD
    if code in RETRIED:
        wanted = Decision.RETRY
    elif code in STOPPED:
        wanted = Decision.STOP
    error = error_of(answer(code))
    assert error.decision is wanted
    assert isinstance(error, UnknownCodeError) is (code in OTHER_ACTIONS)
    assert (error.code, error.status, error.request_id) == (code, 200, "r-1")
    assert error.billing is Billing.REFUSED
    assert code in error.message
    assert "so it is" in error.message


@pytest.mark.parametrize(
    ("code", "expected", "word"),
    [
        ("AuthFailure", AuthenticationError, "SecretKey"),
        ("AuthFailure.SecretIdNotFound", AuthenticationError, "SecretId"),
        ("AuthFailure.SignatureExpire", AuthenticationError, "clock"),
        ("AuthFailure.TokenFailure", AuthenticationError, "token"),
        ("AuthFailure.UnauthorizedOperation", AuthenticationError, "policies"),
        ("UnauthorizedOperation.CamNoAuth", AuthenticationError, "policies"),
        ("UnsupportedRegion", EndpointError, "region"),
        ("ActionOffline", EndpointError, "api"),
        ("InvalidAction", EndpointError, "api"),
        ("NoSuchProduct", EndpointError, "host"),
        ("NoSuchVersion", EndpointError, "host"),
        ("InternalError", ServiceUnavailableError, "failed"),
        ("InternalError.DbError", ServiceUnavailableError, "failed"),
        ("ServiceUnavailable", ServiceUnavailableError, "failed"),
        ("RequestLimitExceeded.UinLimitExceeded", ThrottledError, "quota"),
        ("RequestLimitExceeded.IPLimitExceeded", ThrottledError, "quota"),
        ("ResourceUnavailable.Anew", AuthenticationError, "console"),
        ("ResourcesSoldOut.Anew", AuthenticationError, "console"),
        ("MissingParameter", InvalidRequestError, "form"),
        ("UnknownParameter", InvalidRequestError, "form"),
        ("InvalidParameter.ImageFormatNotSupport", ImageFormatError, "format"),
        ("FailedOperation.Anew", UnknownCodeError, "no document"),
        ("LimitExceeded", UnknownCodeError, "no document"),
        ("Anew", UnknownCodeError, "no document"),
    ],
)
def test_a_code_that_is_not_listed_goes_by_its_first_part(code, expected, word):
    """Codes that all the vendor's interfaces share, and those of tomorrow; the message helps."""
    error = error_of(answer(code))
    assert type(error) is expected
    assert word in error.message


def test_a_code_counts_whatever_the_status_is():
    """A gateway may send an error with its status too."""
    error = error_of(answer("AuthFailure.SignatureFailure", 401))
    assert isinstance(error, AuthenticationError)
    assert (error.code, error.status) == ("AuthFailure.SignatureFailure", 401)


def test_retry_after_is_read():
    """Where a gateway asks to be left alone, the error says for how long."""
    given = answer("RequestLimitExceeded", 200, **{"retry-after": "7"})
    assert error_of(given).retry_after_seconds == 7


@pytest.mark.parametrize(
    ("status", "body", "expected", "code"),
    [
        (200, b"", MalformedAnswerError, "200"),
        (200, b"<html>", MalformedAnswerError, "200"),
        (200, b"[]", MalformedAnswerError, "200"),
        (200, b"{}", MalformedAnswerError, "200"),
        (200, b'{"Response": null}', MalformedAnswerError, "200"),
        (200, b'{"Response": []}', MalformedAnswerError, "200"),
        (200, b'{"Response": {"Error": {"Code": "Foo\\ud800"}}}', MalformedAnswerError, "200"),
        (200, b'{"Response": {"Error": {"Code": "a b"}}}', MalformedAnswerError, "200"),
        (
            200,
            b'{"Response": {"Error": {"Code": "%s"}}}' % (b"x" * 129),
            MalformedAnswerError,
            "200",
        ),
        (200, b'{"Response": {"Error": {}}}', MalformedAnswerError, "200"),
        (200, b'{"Response": {"Error": {"Code": 5}}}', MalformedAnswerError, "200"),
        (404, b"<html>", EndpointError, "404"),
        (502, b"", ServiceUnavailableError, "502"),
        (503, b'{"Response": {}}', ServiceUnavailableError, "503"),
        (302, b"", EndpointError, "302"),
        (429, b"", ThrottledError, "429"),
    ],
)
def test_what_is_no_answer_of_tiia(status, body, expected, code):
    """A status other than 200 speaks for itself; without one it cannot be understood."""
    error = error_of(HttpResponse(status, {}, body))
    assert type(error) is expected
    assert error.code == code


def test_the_request_id_of_a_broken_error_is_kept():
    """Support asks for it."""
    body = b'{"Response": {"Error": {}, "RequestId": "r-9"}}'
    assert error_of(HttpResponse(200, {}, body)).request_id == "r-9"


def attempts_at(error: ImageTagError) -> int:
    """Return how many requests the engine makes for an image that always gets this error."""
    made = []

    async def attempt() -> Any:
        made.append(1)
        raise error

    async def no_wait(seconds: float) -> None:
        assert seconds >= 0

    with pytest.raises(type(error)):
        asyncio.run(retry(attempt, RetryPolicy(max_attempts=6, throttled_seconds=0), no_wait))
    return len(made)


@pytest.mark.parametrize(
    ("code", "attempts"),
    [
        ("FailedOperation.ImageDownloadError", 2),
        ("FailedOperation.DownLoadError", 2),
        ("FailedOperation.ServerError", 6),
        ("RequestLimitExceeded", 6),
        ("FailedOperation.ImageDecodeFailed", 1),
        ("FailedOperation.ImageNotFoundInfo", 1),
        ("AuthFailure.SignatureFailure", 1),
    ],
)
def test_how_often_the_engine_tries(code, attempts):
    """A URL that is dead is not asked for six times; an outage is waited out."""
    assert attempts_at(error_of(answer(code))) == attempts


def test_every_meaning_is_a_sentence_and_a_class():
    """The advice begins in the middle of a sentence, and the class is one of the package's."""
    meanings = [*CODES.values(), *FAMILIES.values(), meaning_of("Anew")]
    for meaning in meanings:
        assert isinstance(meaning, ErrorMeaning)
        assert issubclass(meaning.error, ImageTagError)
        assert meaning.advice[0].islower()
        assert not meaning.advice.endswith(".")


def test_a_refused_download_may_pass_later():
    """It is the image's error, and another request for it may succeed."""
    assert meaning_of("FailedOperation.DownLoadError").error is ImageDownloadError
