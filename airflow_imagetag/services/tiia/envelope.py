"""Read responses of TIIA: the envelope, and the meaning of every error code.

Source: ``tencentcloud.tiia.v20190529.errorcodes`` of the vendor's SDK, which lists the codes of all
actions of TIIA, and the vendor's page on the codes that all its interfaces share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from airflow_imagetag.errors import (
    AuthenticationError,
    EndpointError,
    ImageEmptyError,
    ImageRefusedError,
    ImageTagError,
    ImageTooLargeError,
    InvalidRequestError,
    ParameterTooLongError,
    ServiceUnavailableError,
    UnknownCodeError,
)
from airflow_imagetag.services import meanings, response_parsing
from airflow_imagetag.services.messages import HttpResponse
from airflow_imagetag.services.response_parsing import ErrorMeaning

_SIGNATURE = ErrorMeaning(
    AuthenticationError,
    "the signature is refused: check login (SecretId), password (SecretKey), token and region, and "
    "that the worker's clock is right",
)
_PERMISSION = ErrorMeaning(
    AuthenticationError, "the key has no permission for this interface: check its policies"
)
_ACCOUNT = ErrorMeaning(
    AuthenticationError,
    "the account cannot be billed or has not opened the service: check it in the console",
)
_REQUEST = ErrorMeaning(InvalidRequestError, "the service does not accept the request's form")
_VALUE = ErrorMeaning(ImageRefusedError, "the service does not accept the image or its URL")
_OTHER_ACTION = ErrorMeaning(UnknownCodeError, "the service answered with a code of another action")
_EMPTY = ErrorMeaning(ImageEmptyError, "the service found no image in the request")
_URL = ErrorMeaning(ImageRefusedError, "the service does not accept the image's URL")
_CONTENT = ErrorMeaning(ImageRefusedError, "the service cannot label what the image shows")

NO_IMAGE_CODES = frozenset(
    {
        "FailedOperation.ParameterEmpty",
        "InvalidParameter",
        "MissingParameter",
        "MissingParameter.ErrorParameterEmpty",
    }
)
"""Codes of a request that has all but an image."""

CODES: Mapping[str, ErrorMeaning] = {
    "AuthFailure.InvalidAuthorization": _SIGNATURE,
    "AuthFailure.UnauthorizedOperation": _PERMISSION,
    "FailedOperation.BalanceInsufficient": _ACCOUNT,
    "FailedOperation.DownLoadError": meanings.DOWNLOAD,
    "FailedOperation.EmptyImageError": _EMPTY,
    "FailedOperation.ImageDecodeFailed": meanings.DECODE,
    "FailedOperation.ImageDownloadError": meanings.DOWNLOAD,
    "FailedOperation.ImageGroupChargeStatusClose": _ACCOUNT,
    "FailedOperation.ImageNotSupported": meanings.FORMAT,
    "FailedOperation.ImageResolutionExceed": ErrorMeaning(
        ImageTooLargeError, "the image has more pixels than the service takes"
    ),
    "FailedOperation.ImageResolutionInsufficient": ErrorMeaning(
        ImageRefusedError, "the image has fewer pixels than the service takes"
    ),
    "FailedOperation.ImageSizeExceed": meanings.TOO_LARGE,
    "FailedOperation.ImageUnQualified": _CONTENT,
    "FailedOperation.ImageUrlInvalid": _URL,
    "FailedOperation.InnerError": meanings.FAILED,
    "FailedOperation.InvokeChargeError": _ACCOUNT,
    "FailedOperation.NoBodyInPhoto": _CONTENT,
    "FailedOperation.NoObjectDetected": _CONTENT,
    "FailedOperation.ParameterEmpty": _REQUEST,
    "FailedOperation.RecognizeFailded": _CONTENT,
    "FailedOperation.RequestError": meanings.FAILED,
    "FailedOperation.RequestTimeout": meanings.FAILED,
    "FailedOperation.RpcFail": meanings.FAILED,
    "FailedOperation.ServerError": meanings.FAILED,
    "FailedOperation.TooLargeFileError": meanings.TOO_LARGE,
    "FailedOperation.UnKnowError": meanings.FAILED,
    "FailedOperation.UnOpenError": _ACCOUNT,
    "FailedOperation.Unknown": meanings.FAILED,
    "InvalidParameter.ImageFormatNotSupport": meanings.FORMAT,
    "InvalidParameter.InvalidParameter": _VALUE,
    "InvalidParameter.PictureSolidColorError": _CONTENT,
    "InvalidParameterValue.ImageEmpty": _EMPTY,
    "InvalidParameterValue.InvalidParameterValueLimit": _VALUE,
    "InvalidParameterValue.UrlIllegal": _URL,
    "LimitExceeded.TooLargeFileError": meanings.TOO_LARGE,
    "MissingParameter.ErrorParameterEmpty": _REQUEST,
    "RequestSizeLimitExceeded": meanings.TOO_LARGE,
    "ResourceUnavailable.InArrears": _ACCOUNT,
    "ResourceUnavailable.IsOpening": ErrorMeaning(
        ServiceUnavailableError, "the service is being opened for the account, which takes a while"
    ),
    "ResourceUnavailable.NotExist": _ACCOUNT,
    "ResourceUnavailable.StopUsing": _ACCOUNT,
    "ResourcesSoldOut.ChargeStatusException": _ACCOUNT,
    "UnsupportedRegion": ErrorMeaning(
        EndpointError, "the service is not in this region: check region in the connection"
    ),
    "URLTooLong": ErrorMeaning(ParameterTooLongError, "the image's URL is too long: shorten it"),
}
"""Codes that the vendor lists for TIIA, and some that all its interfaces share.

A code about a value is about the image: only the image differs between two requests of a run.
"""

OTHER_ACTIONS: frozenset[str] = frozenset(
    {
        "FailedOperation.GroupCountExceeded",
        "FailedOperation.ImageDeleteFailed",
        "FailedOperation.ImageEntityCountExceed",
        "FailedOperation.ImageGroupEmpty",
        "FailedOperation.ImageNotFoundInfo",
        "FailedOperation.ImageNumExceed",
        "FailedOperation.ImageSearchInvalid",
        "InvalidParameterValue.BriefTooLong",
        "InvalidParameterValue.CustomContentTooLong",
        "InvalidParameterValue.EntityIdEmpty",
        "InvalidParameterValue.EntityIdTooLong",
        "InvalidParameterValue.FilterInvalid",
        "InvalidParameterValue.FilterSizeExceed",
        "InvalidParameterValue.ImageGroupIdAlreadyExist",
        "InvalidParameterValue.ImageGroupIdIllegal",
        "InvalidParameterValue.ImageGroupIdNotExist",
        "InvalidParameterValue.ImageGroupIdTooLong",
        "InvalidParameterValue.ImageGroupNameEmpty",
        "InvalidParameterValue.ImageGroupNameTooLong",
        "InvalidParameterValue.LimitExceed",
        "InvalidParameterValue.PicNameAlreadyExist",
        "InvalidParameterValue.PicNameEmpty",
        "InvalidParameterValue.PicNameInvalid",
        "InvalidParameterValue.PicNameTooLong",
        "InvalidParameterValue.TagsKeysExceed",
        "InvalidParameterValue.TagsValueIllegal",
        "InvalidParameterValue.TagsValueSizeExceed",
    }
)
"""Codes that the vendor lists for TIIA, of its actions that give no labels.

They are not expected. The image is recorded and the run goes on, so that no single image can end
each try of a task.
"""

FAMILIES: Mapping[str, ErrorMeaning] = {
    "AuthFailure": _SIGNATURE,
    "UnauthorizedOperation": _PERMISSION,
    "OperationDenied": _PERMISSION,
    "InternalError": meanings.FAILED,
    "ServiceUnavailable": meanings.FAILED,
    "RequestLimitExceeded": meanings.THROTTLED,
    "ActionOffline": ErrorMeaning(EndpointError, "the vendor has ended this interface: change api"),
    "InvalidAction": ErrorMeaning(EndpointError, "no such interface: check host and api"),
    "NoSuchProduct": ErrorMeaning(EndpointError, "this host has no label service: check host"),
    "NoSuchVersion": ErrorMeaning(EndpointError, "no such interface: check host and api"),
    "ResourceUnavailable": _ACCOUNT,
    "ResourcesSoldOut": _ACCOUNT,
    "ResourceInsufficient": _ACCOUNT,
    "IpInBlacklist": _PERMISSION,
    "IpNotInWhitelist": _PERMISSION,
    "InvalidParameter": _REQUEST,
    "InvalidParameterValue": _VALUE,
    "MissingParameter": _REQUEST,
    "UnknownParameter": _REQUEST,
    "InvalidRequest": _REQUEST,
    "UnsupportedOperation": _REQUEST,
    "UnsupportedProtocol": _REQUEST,
}
"""Meaning of a code by its first part, for codes that are in neither table above."""

_UNKNOWN = ErrorMeaning(UnknownCodeError, "the service answered with a code of no document")

_CODE = re.compile(r"[A-Za-z0-9_.]{1,128}")


def meaning_of(code: str) -> ErrorMeaning:
    """Return the meaning of an error code."""
    if code in OTHER_ACTIONS:
        return _OTHER_ACTION
    return CODES.get(code) or FAMILIES.get(code.partition(".")[0], _UNKNOWN)


def decode(response: HttpResponse) -> Mapping[str, Any]:
    """Return the object ``Response`` of a successful response.

    :raises ImageTagError: the class that the code or the status stands for.
    """
    document = response_parsing.json_object(response)
    envelope = document.get("Response") if document else None
    if isinstance(envelope, dict) and envelope.get("Error") is not None:
        raise _error(response, envelope)
    if response.status != 200:
        raise response_parsing.status_error(response, document)
    if not isinstance(envelope, dict):
        raise response_parsing.malformed(response, "it has no object 'Response'")
    return envelope


def _error(response: HttpResponse, envelope: Mapping[str, Any]) -> ImageTagError:
    found = envelope["Error"]
    code = found.get("Code") if isinstance(found, dict) else None
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return response_parsing.malformed(response, "its error has no code")
    request_id = response_parsing.request_id_of(envelope)
    return response_parsing.error(
        meaning_of(code), response, code, found.get("Message"), request_id
    )
