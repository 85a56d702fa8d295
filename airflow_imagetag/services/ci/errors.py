"""Read error answers of Cloud Object Storage and Cloud Infinite.

Source: the vendor's list of codes, https://cloud.tencent.com/document/product/436/7730. Its page on
Cloud Infinite lists numbers of another interface, and no codes of the labels; a code that is not
here is kept and shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from airflow_imagetag.errors import (
    AuthenticationError,
    EndpointError,
    ImageEmptyError,
    ImageTagError,
    ImageUnreadableError,
    InvalidRequestError,
    ParameterTooLongError,
)
from airflow_imagetag.services import meanings, response_parsing
from airflow_imagetag.services.ci.xml_tree import Element
from airflow_imagetag.services.messages import HttpResponse
from airflow_imagetag.services.response_parsing import ErrorMeaning

URI_TOO_LONG = 414

_SIGNATURE = ErrorMeaning(
    AuthenticationError,
    "the signature is refused: check login (SecretId), password (SecretKey) and token, and that "
    "the worker's clock is right",
)
_ACCOUNT = ErrorMeaning(
    AuthenticationError, "the account cannot be billed or is closed: check it in the console"
)
_BUCKET = ErrorMeaning(EndpointError, "there is no such bucket: check bucket and region")
_MISSING = ErrorMeaning(ImageUnreadableError, "the bucket has no such object")
_REFUSED = ErrorMeaning(
    ImageUnreadableError,
    "the service may not label the object: give the key the permission ci:CreateDetectLabelJob, "
    "and bind Cloud Infinite to the bucket",
)
_ARCHIVED = ErrorMeaning(
    ImageUnreadableError, "the object is in an archive: restore it, and it is labelled"
)
_EMPTY = ErrorMeaning(ImageEmptyError, "the object is empty")
_TOO_LONG = ErrorMeaning(
    ParameterTooLongError, "the request's URL is too long: shorten the image's URL"
)
_UNKNOWN = ErrorMeaning(
    ImageUnreadableError,
    "the service answered with a code of no document: perhaps Cloud Infinite is not switched on, "
    "or not bound to the bucket",
)

CODES: Mapping[str, ErrorMeaning] = {
    "AccessDenied": _REFUSED,
    "ExpiredToken": _SIGNATURE,
    "ImageDecodeFailed": meanings.DECODE,
    "ImageDownloadError": meanings.DOWNLOAD,
    "ImageEmpty": _EMPTY,
    "ImageFormatNotSupport": meanings.FORMAT,
    "ImageTooLarge": meanings.TOO_LARGE,
    "InternalError": meanings.FAILED,
    "InvalidAccessKeyId": _SIGNATURE,
    "InvalidBucketName": _BUCKET,
    "InvalidObjectState": _ARCHIVED,
    "InvalidRegionName": _BUCKET,
    "InvalidSecurity": _SIGNATURE,
    "InvalidToken": _SIGNATURE,
    "NoSuchBucket": _BUCKET,
    "NoSuchKey": _MISSING,
    "PermanentRedirect": _BUCKET,
    "RequestIsExpired": _SIGNATURE,
    "RequestLimitExceeded": meanings.THROTTLED,
    "RequestTimeTooSkewed": _SIGNATURE,
    "RequestTimeout": meanings.FAILED,
    "ServiceUnavailable": meanings.FAILED,
    "SignatureDoesNotMatch": _SIGNATURE,
    "SlowDown": meanings.THROTTLED,
    "TooManyRequests": meanings.THROTTLED,
    "URITooLong": _TOO_LONG,
    "UserCnameInvalid": _BUCKET,
    "UserNetworkTooSlow": meanings.FAILED,
    "UserInArrears": _ACCOUNT,
    "MalformedAuthorization": ErrorMeaning(
        InvalidRequestError, "the service does not accept the form of the signature"
    ),
}
"""Codes whose meaning is known. Some of those about an image are the names that TIIA gives them."""

_CODE = re.compile(r"[A-Za-z0-9_.\-]{1,128}")


def error_of(response: HttpResponse, root: Element | None, bucket: str) -> ImageTagError | None:
    """Return the error that an answer stands for; None for one that reports no error.

    :param root: the root of its XML document; None where the body is no such document.
    :param bucket: names the bucket in the cause that images share.
    """
    if root is not None and root.name == "Error":
        return _coded(response, root, bucket)
    if response.status == URI_TOO_LONG:
        return response_parsing.error(_TOO_LONG, response, str(URI_TOO_LONG), None)
    if response.status != 200:
        return response_parsing.status_error(response, None)
    return None


def request_id_of(response: HttpResponse, root: Element | None = None) -> str | None:
    """Return the service's id of the call."""
    named = root.text_of("RequestId") if root is not None else None
    return response.headers.get("x-cos-request-id") or named or None


def _coded(response: HttpResponse, root: Element, bucket: str) -> ImageTagError:
    code = root.text_of("Code")
    if code is None or not _CODE.fullmatch(code):
        return response_parsing.malformed(response, "its error has no code")
    error = response_parsing.error(
        _meaning_of(code, response.status),
        response,
        code,
        root.text_of("Message"),
        request_id_of(response, root),
    )
    if isinstance(error, ImageUnreadableError) and code != "NoSuchKey":
        # Many images may share it, and then the run ends.
        error.cause = f"bucket {bucket}: {code}"
    return error


def _meaning_of(code: str, status: int) -> ErrorMeaning:
    if code in CODES:
        return CODES[code]
    if status >= 500:
        return meanings.FAILED
    return meanings.THROTTLED if status == 429 else _UNKNOWN
