"""Read responses of the recognition service: its envelope and its business codes.

Source: the vendor's interface document of ``picture_classify``, section on error codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_imagetag.errors import (
    ImageDecodeError,
    ImageEmptyError,
    ImageTagError,
    InvalidRequestError,
    ParameterTooLongError,
    UnknownCodeError,
)
from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.messages import HttpResponse
from airflow_imagetag.services.response_parsing import ErrorMeaning

IMAGE_DECODE_FAILED = -1102
IMAGE_EMPTY = -1300
PARAMETER_EMPTY = -1301
PARAMETER_TOO_LONG = -1304

BUSINESS_CODES: Mapping[int, ErrorMeaning] = {
    IMAGE_DECODE_FAILED: ErrorMeaning(ImageDecodeError, "the service cannot decode the image"),
    IMAGE_EMPTY: ErrorMeaning(ImageEmptyError, "the service found no image in the request"),
    PARAMETER_EMPTY: ErrorMeaning(
        InvalidRequestError, "a parameter is empty: check app_id in the connection's extra"
    ),
    PARAMETER_TOO_LONG: ErrorMeaning(
        ParameterTooLongError, "a parameter is too long: shorten the image's URL"
    ),
}
"""Every business code of the document except 0, success."""

_UNKNOWN = ErrorMeaning(UnknownCodeError, "the service answered with a code of no document")


def decode(response: HttpResponse) -> Mapping[str, Any]:
    """Return the JSON object of a successful response.

    A business code tells more than a status, except where the status is the gateway's own word on
    the account, the quota or an outage.

    :raises ImageTagError: the class that the status or the code stands for.
    """
    document = response_parsing.json_object(response)
    code = None if document is None else document.get("code")
    if document is not None and response.status == 200 and code == 0 and type(code) is int:
        return document
    if response.status in (401, 403, 407, 429) or response.status >= 500:
        raise response_parsing.status_error(response, document)
    if isinstance(code, int) and not isinstance(code, bool) and code in BUSINESS_CODES:
        raise _code_error(response, code, document)
    if response.status != 200:
        raise response_parsing.status_error(response, document)
    if document is None:
        raise response_parsing.malformed(response, "it is not a JSON object")
    if isinstance(code, bool) or not isinstance(code, int):
        raise response_parsing.malformed(response, "it has no whole number 'code'")
    raise _code_error(response, code, document)


def _code_error(
    response: HttpResponse, code: int, document: Mapping[str, Any] | None
) -> ImageTagError:
    meaning = BUSINESS_CODES.get(code, _UNKNOWN)
    message = document.get("message") if document else None
    return response_parsing.error(meaning, response, str(code), message)
