"""Reading answers: JSON, HTTP statuses, and the business codes of the recognition service.

Source: the vendor's interface document of ``picture_classify``, sections on HTTP codes and error
codes. The statuses 408, 421, 425, 429 and redirects are not in it; they are what any HTTP server
or gateway in front of it may say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from airflow_imagetag.errors import (
    AuthenticationError,
    Billing,
    EndpointError,
    ImageDecodeError,
    ImageEmptyError,
    ImageTagError,
    ImageTooLargeError,
    InvalidRequestError,
    MalformedAnswerError,
    ParameterTooLongError,
    RequestRefusedError,
    ServiceUnavailableError,
    ThrottledError,
    UnknownCodeError,
)
from airflow_imagetag.safety.redaction import redact_text
from airflow_imagetag.services.messages import HttpResponse

ROUNDING = 1e-6

SUCCESS = "0"
"""Code of an error that stands for an answer of success."""

IMAGE_DECODE_FAILED = -1102
IMAGE_EMPTY = -1300
PARAMETER_EMPTY = -1301
PARAMETER_TOO_LONG = -1304

_MAX_QUOTED_CHARACTERS = 200

_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Meaning:
    """The class of an error and the sentence that tells a person what to do."""

    error: type[ImageTagError]
    advice: str


BUSINESS_CODES: Mapping[int, Meaning] = {
    IMAGE_DECODE_FAILED: Meaning(ImageDecodeError, "the service cannot decode the image"),
    IMAGE_EMPTY: Meaning(ImageEmptyError, "the service found no image in the request"),
    PARAMETER_EMPTY: Meaning(
        InvalidRequestError, "a parameter is empty: check app_id in the connection's extra"
    ),
    PARAMETER_TOO_LONG: Meaning(
        ParameterTooLongError, "a parameter is too long: shorten the image's URL"
    ),
}
"""Every business code of the document except 0, success."""

HTTP_STATUSES: Mapping[int, Meaning] = {
    400: Meaning(InvalidRequestError, "the service does not accept the request's form"),
    401: Meaning(
        AuthenticationError,
        "the key has no permission: check login (SecretId), password (SecretKey) and app_id",
    ),
    403: Meaning(
        AuthenticationError,
        "the signature is refused: check login (SecretId), password (SecretKey), app_id and "
        "bucket, and that the worker's clock is right",
    ),
    404: Meaning(EndpointError, "no such interface: check host and api in the connection"),
    407: Meaning(AuthenticationError, "the proxy wants credentials: check proxy"),
    408: Meaning(ServiceUnavailableError, "the service waited too long for the request"),
    411: Meaning(InvalidRequestError, "the request arrived without its length: check the proxy"),
    413: Meaning(ImageTooLargeError, "the request is larger than the service takes (6 MB)"),
    424: Meaning(EndpointError, "the service has no such method: check host and api"),
    425: Meaning(ServiceUnavailableError, "the service is not ready for the request"),
    429: Meaning(ThrottledError, "more requests than the quota allows"),
    500: Meaning(ServiceUnavailableError, "the service failed"),
    502: Meaning(ServiceUnavailableError, "the service's gateway has no working backend"),
    503: Meaning(ServiceUnavailableError, "the service is not available"),
    504: Meaning(ServiceUnavailableError, "the service's backend took too long"),
}
"""Every HTTP status of the document, and those that a gateway may add."""


def decode(answer: HttpResponse) -> Mapping[str, Any]:
    """Return the JSON object of a successful answer.

    A business code tells more than a status, except where the status is the gateway's own word on
    the account, the quota or an outage.

    :raises ImageTagError: the class that the status or the code stands for.
    """
    document = json_object(answer)
    code = None if document is None else document.get("code")
    if document is not None and answer.status == 200 and code == 0 and type(code) is int:
        return document
    if answer.status in (401, 403, 407, 429) or answer.status >= 500:
        raise status_error(answer, document)
    if isinstance(code, int) and not isinstance(code, bool) and code in BUSINESS_CODES:
        raise _code_error(answer, code, document)
    if answer.status != 200:
        raise status_error(answer, document)
    if document is None:
        raise malformed(answer, "it is not a JSON object")
    if isinstance(code, bool) or not isinstance(code, int):
        raise malformed(answer, "it has no whole number 'code'")
    raise _code_error(answer, code, document)


def malformed(answer: HttpResponse, why: str) -> MalformedAnswerError:
    """Return the error for an answer that came whole and means nothing.

    Its code is 0 where the service says that it succeeded, else the HTTP status.
    """
    document = json_object(answer) or {}
    is_success = answer.status == 200 and _says_success(document)
    return MalformedAnswerError(
        f"The answer of the service cannot be understood: {why}. It begins: {_quote(answer.body)}",
        code=SUCCESS if is_success else str(answer.status),
        status=answer.status,
        request_id=request_id(document.get("Response")),
        billing=Billing.UNKNOWN,
    )


def request_id(response: Any) -> str | None:
    """Return the service's id of the call; None from a service that gives none.

    :param response: what an answer of TIIA holds as ``Response``.
    """
    found = response.get("RequestId") if isinstance(response, dict) else None
    return found if isinstance(found, str) else None


def probability(answer: HttpResponse, value: Any, scale: float = 1.0) -> float:
    """Return a probability from 0 to 1, or raise what ``malformed`` makes.

    :param scale: what the service writes for certainty.
    """
    if type(value) is float and 0 <= value <= scale:
        return value / scale
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise malformed(answer, "a label's probability is not a number")
    # What a sum of floats may be above certainty is no reason to throw a paid answer away.
    if not 0 <= value <= scale * (1 + ROUNDING):
        raise malformed(answer, f"a label's probability is {value!r}, not from 0 to {scale:g}")
    return min(float(value) / scale, 1.0)


def label_name(answer: HttpResponse, value: Any) -> str:
    """Return a label's name, or raise what ``malformed`` makes."""
    return text(answer, value, "a label's name")


def text(answer: HttpResponse, value: Any, what: str) -> str:
    """Return a text that says something, or raise what ``malformed`` makes.

    :param what: names it in the message.
    """
    if not isinstance(value, str) or not value.strip():
        raise malformed(answer, f"{what} is missing")
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON may hold half of a character, which no table and no file can store.
        raise malformed(answer, f"{what} is not a text") from None
    return value


def json_object(answer: HttpResponse) -> Mapping[str, Any] | None:
    """Return the JSON object of an answer; None where it is something else."""
    try:
        document = _decoded(answer.body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _decoded(body: bytes) -> Any:
    """Do what ``json.loads`` does, in half the time for what nearly every answer is."""
    try:
        text = body.decode()
        document, end = _DECODER.raw_decode(text)
    except ValueError:
        # Not in UTF-8, or no JSON.
        return json.loads(body)
    return document if end == len(text) else json.loads(body)


def _code_error(
    answer: HttpResponse, code: int, document: Mapping[str, Any] | None
) -> ImageTagError:
    meaning = BUSINESS_CODES.get(
        code, Meaning(UnknownCodeError, "the service answered with a code of no document")
    )
    return error(meaning, answer, str(code), _message(document))


def status_error(answer: HttpResponse, document: Mapping[str, Any] | None) -> ImageTagError:
    """Return the error that an HTTP status stands for.

    :param document: the answer's JSON object, where it has one.
    """
    status = answer.status
    if status in HTTP_STATUSES:
        meaning = HTTP_STATUSES[status]
    elif status >= 500:
        meaning = Meaning(ServiceUnavailableError, "the service failed")
    elif 300 <= status < 400:
        meaning = Meaning(EndpointError, "it answers with a redirect: check host and schema")
    elif 200 <= status < 300:
        meaning = Meaning(MalformedAnswerError, "the status is a success the document lacks")
    else:
        meaning = Meaning(RequestRefusedError, "the service refuses the request")
    return error(meaning, answer, str(status), _message(document))


def error(
    meaning: Meaning, answer: HttpResponse, code: str, said: Any, call: str | None = None
) -> ImageTagError:
    """Return an error with what the answer tells beside its code.

    :param code: the service's own code, or the HTTP status.
    :param said: the service's own words, where it has any.
    :param call: the service's id of the call, where it gives one.
    """
    words = f" It says: {_quote(said)}" if isinstance(said, str) and said else ""
    where = f"HTTP {answer.status}" if code == str(answer.status) else f"code {code}"
    # A backend that took too long, or a success that is not understood, may have done the work.
    unclear = answer.status == 504 or meaning.error is MalformedAnswerError
    return meaning.error(
        f"{meaning.advice[0].upper()}{meaning.advice[1:]} ({where}).{words}",
        code=code,
        status=answer.status,
        request_id=call,
        billing=Billing.UNKNOWN if unclear else Billing.REFUSED,
        retry_after_seconds=_retry_after_seconds(answer.headers),
    )


def _says_success(document: Mapping[str, Any]) -> bool:
    """Tell whether an answer of either kind of service says that the image is labelled."""
    response = document.get("Response")
    return document.get("code") == 0 or (
        isinstance(response, dict) and response.get("Error") is None
    )


def _message(document: Mapping[str, Any] | None) -> Any:
    return document.get("message") if document else None


def _retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        # Both moments are by the server's clock, so the worker's own does not matter.
        seconds = (
            parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
        ).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, seconds)


def _quote(text: str | bytes) -> str:
    if isinstance(text, bytes):
        text = text[: 4 * _MAX_QUOTED_CHARACTERS].decode("utf-8", "replace")
    # The service may repeat the URL it was given, with the signature in it; JSON may escape '/'.
    short = redact_text(" ".join(text.split()).replace("\\/", "/"))[:_MAX_QUOTED_CHARACTERS]
    return repr(short)
