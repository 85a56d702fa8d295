"""Read responses: JSON, HTTP statuses, labels, and errors with the details of a response.

Source: the vendor's interface document of ``picture_classify``, section on HTTP codes. The statuses
408, 421, 425, 429 and redirects are not in it; any HTTP server or gateway may answer with them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from typing import Any

from airflow_imagetag.errors import (
    AuthenticationError,
    Billing,
    EndpointError,
    ImageTagError,
    ImageTooLargeError,
    InvalidRequestError,
    MalformedAnswerError,
    RequestRefusedError,
    ServiceUnavailableError,
    ThrottledError,
)
from airflow_imagetag.models import Label
from airflow_imagetag.safety.redaction import redact_text
from airflow_imagetag.services.messages import HttpResponse

__all__ = [
    "ErrorMeaning",
    "error",
    "json_object",
    "label",
    "label_name",
    "malformed",
    "probability",
    "status_error",
    "text",
]

ROUNDING = 1e-6
"""Maximum excess of a probability over certainty, as a sum of floats may have it."""

SUCCESS = "0"
"""Code of an error that stands for a response of success."""

_MAX_QUOTED_CHARACTERS = 200

_MAX_SHOWN_DIGITS = 20

MAX_TEXT_CHARACTERS = 1_000
"""Maximum length of a label's name and categories: every store holds it."""

_NAME = "a label's name"

_NUMBERS = (float, int)
"""Exact types of JSON's numbers; a boolean is none."""


@dataclass(frozen=True, slots=True)
class ErrorMeaning:
    """The meaning of a status or a code.

    :param error: the class of the error.
    :param advice: a sentence with the next step for the reader, without its capital and full stop.
    """

    error: type[ImageTagError]
    advice: str


HTTP_STATUSES: Mapping[int, ErrorMeaning] = {
    400: ErrorMeaning(InvalidRequestError, "the service does not accept the request's form"),
    401: ErrorMeaning(
        AuthenticationError,
        "the key has no permission: check login (SecretId), password (SecretKey) and app_id",
    ),
    403: ErrorMeaning(
        AuthenticationError,
        "the signature is refused: check login (SecretId), password (SecretKey), app_id and "
        "bucket, and that the worker's clock is right",
    ),
    404: ErrorMeaning(EndpointError, "no such interface: check host and api in the connection"),
    407: ErrorMeaning(AuthenticationError, "the proxy wants credentials: check proxy"),
    408: ErrorMeaning(ServiceUnavailableError, "the service waited too long for the request"),
    411: ErrorMeaning(
        InvalidRequestError, "the request arrived without its length: check the proxy"
    ),
    413: ErrorMeaning(ImageTooLargeError, "the request is larger than the service takes (6 MB)"),
    424: ErrorMeaning(EndpointError, "the service has no such method: check host and api"),
    425: ErrorMeaning(ServiceUnavailableError, "the service is not ready for the request"),
    429: ErrorMeaning(ThrottledError, "more requests than the quota allows"),
    500: ErrorMeaning(ServiceUnavailableError, "the service failed"),
    502: ErrorMeaning(ServiceUnavailableError, "the service's gateway has no working backend"),
    503: ErrorMeaning(ServiceUnavailableError, "the service is not available"),
    504: ErrorMeaning(ServiceUnavailableError, "the service's backend took too long"),
}
"""Every HTTP status of the document, and those that a gateway may add."""


def malformed(response: HttpResponse, why: str) -> MalformedAnswerError:
    """Return the error for a whole response that the vendor's document does not describe.

    Its code is 0 where the service says that it succeeded, else the HTTP status.

    :param why: completes the sentence "The answer of the service cannot be understood: ...".
    """
    document = json_object(response) or {}
    is_success = response.status == 200 and _says_success(document)
    return MalformedAnswerError(
        f"The answer of the service cannot be understood: {why}. It begins: "
        f"{_quote(response.body)}",
        code=SUCCESS if is_success else str(response.status),
        status=response.status,
        request_id=request_id_of(document.get("Response")),
        billing=Billing.UNKNOWN,
    )


def request_id_of(envelope: Any) -> str | None:
    """Return the service's id of the call; None from a service that gives none.

    :param envelope: the value of ``Response`` in a response of TIIA.
    """
    found = envelope.get("RequestId") if isinstance(envelope, dict) else None
    return found if isinstance(found, str) else None


def probability(response: HttpResponse, value: Any, scale: float = 1.0) -> float:
    """Return a probability from 0 to 1.

    :param scale: the number that means certainty.
    :raises MalformedAnswerError: the value is no number, or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise malformed(response, "a label's probability is not a number")
    # A rounding error is no reason to throw a paid response away.
    if not 0 <= value <= scale * (1 + ROUNDING):
        shown = repr(value)[:_MAX_SHOWN_DIGITS]
        raise malformed(response, f"a label's probability is {shown}, not from 0 to {scale:g}")
    return min(float(value) / scale, 1.0)


def label(
    response: HttpResponse,
    name: Any,
    value: Any,
    scale: float = 1.0,
    *,
    category: Any = None,
    subcategory: Any = None,
    scene: str | None = None,
) -> Label:
    """Return a label, with the values that a response holds for it.

    :param name: its name.
    :param value: its probability.
    :param scale: the number that means certainty.
    :param category: first-level category; null or a blank text for none.
    :param subcategory: second-level category, likewise.
    :param scene: the scene that it was asked for.
    :raises MalformedAnswerError: a value is missing, or of no use.
    """
    try:
        texts = _cached_label_texts(name, category, subcategory)
    except (TypeError, ValueError):
        # A list or an object is no key of a cache; and errors are not kept.
        texts = _label_texts(response, name, category, subcategory)
    if type(value) in _NUMBERS and 0 <= value <= scale:
        return Label(texts[0], value / scale, texts[1], texts[2], scene)
    return Label(texts[0], probability(response, value, scale), texts[1], texts[2], scene)


def label_name(response: HttpResponse, value: Any) -> str:
    """Return a label's name.

    :raises MalformedAnswerError: the value is no text, or blank.
    """
    return text(response, value, _NAME)


def text(response: HttpResponse, value: Any, name: str) -> str:
    """Return a text that is not blank.

    :param name: names the text in the message.
    :raises MalformedAnswerError: the value is no text, or blank.
    """
    try:
        return _checked_text(value, name)
    except ValueError as error:
        raise malformed(response, str(error)) from None


def _label_texts(response: HttpResponse, *values: Any) -> tuple[str, str | None, str | None]:
    """Return name, category and subcategory of a label.

    :raises MalformedAnswerError: one of them is of no use.
    """
    try:
        return _checked_label_texts(*values)
    except ValueError as error:
        raise malformed(response, str(error)) from None


def _checked_label_texts(
    name: Any, category: Any, subcategory: Any
) -> tuple[str, str | None, str | None]:
    return _checked_text(name, _NAME), _checked_category(category), _checked_category(subcategory)


# A service has some thousand labels, and names the same ones again and again.
_cached_label_texts = lru_cache(maxsize=4096)(_checked_label_texts)


def _checked_category(value: Any) -> str | None:
    if not value or (isinstance(value, str) and value.isspace()):
        return None
    return _checked_text(value, "a label's category")


def _checked_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is missing")
    if len(value) > MAX_TEXT_CHARACTERS:
        raise ValueError(f"{name} is longer than a name")
    if not value.strip():
        raise ValueError(f"{name} is missing")
    if "\0" in value:
        raise ValueError(f"{name} holds a zero byte")
    try:
        value.encode()
    except UnicodeEncodeError:
        # JSON may hold half of a character, which no table and no file can store.
        raise ValueError(f"{name} is not a text") from None
    return value


def json_object(response: HttpResponse) -> Mapping[str, Any] | None:
    """Return the JSON object of a response; None where the body is something else."""
    try:
        document = _decoder()(response.body)
    except Exception:
        # What msgspec refuses may still be JSON: half of a character, an infinite number.
        try:
            document = json.loads(response.body)
        except (ValueError, RecursionError):
            return None
    return document if isinstance(document, dict) else None


@cache
def _decoder() -> Callable[[bytes], Any]:
    """Return the decoder of msgspec, which Airflow 3 depends on; without it, that of Python.

    Both return the same; that of msgspec takes a quarter of the time.
    """
    try:
        from msgspec.json import Decoder
    except ImportError:
        return json.loads
    return Decoder().decode


def status_error(response: HttpResponse, document: Mapping[str, Any] | None) -> ImageTagError:
    """Return the error that an HTTP status stands for.

    :param document: the response's JSON object, where it has one.
    """
    status = response.status
    if status in HTTP_STATUSES:
        meaning = HTTP_STATUSES[status]
    elif 500 <= status < 600:
        meaning = ErrorMeaning(ServiceUnavailableError, "the service failed")
    elif 300 <= status < 400:
        meaning = ErrorMeaning(EndpointError, "it answers with a redirect: check host and schema")
    elif 200 <= status < 300:
        meaning = ErrorMeaning(MalformedAnswerError, "the status is a success the document lacks")
    elif 400 <= status < 500:
        meaning = ErrorMeaning(RequestRefusedError, "the service refuses the request")
    else:
        meaning = ErrorMeaning(MalformedAnswerError, "the answer has no status of HTTP")
    message = document.get("message") if document else None
    return error(meaning, response, str(status), message)


def error(
    meaning: ErrorMeaning,
    response: HttpResponse,
    code: str,
    message: Any,
    request_id: str | None = None,
) -> ImageTagError:
    """Return an error of the class that a code means, with the details that the response holds.

    :param meaning: class of the error, and advice.
    :param code: the service's own code, or the HTTP status.
    :param message: the service's own message; anything but a text is left out.
    :param request_id: the service's id of the call, where it gives one.
    """
    quoted = f" It says: {_quote(message)}" if isinstance(message, str) and message else ""
    where = f"HTTP {response.status}" if code == str(response.status) else f"code {code}"
    # A backend that took too long, or a success that is not understood, may have done the work.
    is_unclear = response.status == 504 or meaning.error is MalformedAnswerError
    return meaning.error(
        f"{meaning.advice[0].upper()}{meaning.advice[1:]} ({where}).{quoted}",
        code=code,
        status=response.status,
        request_id=request_id,
        billing=Billing.UNKNOWN if is_unclear else Billing.REFUSED,
        retry_after_seconds=_retry_after_seconds(response.headers),
    )


def _says_success(document: Mapping[str, Any]) -> bool:
    """Tell whether the document, of either product, says that the image is labelled."""
    envelope = document.get("Response")
    return document.get("code") == 0 or (
        isinstance(envelope, dict) and envelope.get("Error") is None
    )


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
    shown = redact_text(text.replace("\\/", "/"))
    return repr(" ".join(shown.split())[:_MAX_QUOTED_CHARACTERS])
