"""Reading the answers of TIIA: the envelope, and what every error code means.

Source: ``tencentcloud.tiia.v20190529.errorcodes`` of the vendor's SDK, and the vendor's page on
the codes that all its interfaces share. Codes of other actions of TIIA, such as those of image
groups, are here too: an answer with one of them says that the request was not what we meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_imagetag.errors import (
    AuthenticationError,
    EndpointError,
    ImageDecodeError,
    ImageDownloadError,
    ImageEmptyError,
    ImageFormatError,
    ImageRefusedError,
    ImageTagError,
    ImageTooLargeError,
    InvalidRequestError,
    ParameterTooLongError,
    ServiceUnavailableError,
    ThrottledError,
    UnknownCodeError,
)
from airflow_imagetag.service import answers
from airflow_imagetag.service.answers import Meaning
from airflow_imagetag.service.base import Answer

_SIGNATURE = Meaning(
    AuthenticationError,
    "the signature is refused: check login (SecretId), password (SecretKey), token and region, and "
    "that the worker's clock is right",
)
_PERMISSION = Meaning(
    AuthenticationError, "the key has no permission for this interface: check its policies"
)
_ACCOUNT = Meaning(
    AuthenticationError,
    "the account cannot be billed or has not opened the service: check it in the console",
)
_FAILED = Meaning(ServiceUnavailableError, "the service failed")
_REQUEST = Meaning(InvalidRequestError, "the service does not accept the request's form")
_OTHER_ACTION = Meaning(
    InvalidRequestError, "the answer is that of another action: check host and api"
)
_DECODE = Meaning(ImageDecodeError, "the service cannot decode the image")
_EMPTY = Meaning(ImageEmptyError, "the service found no image in the request")
_FORMAT = Meaning(ImageFormatError, "the service does not take images of this format")
_TOO_LARGE = Meaning(ImageTooLargeError, "the image is larger than the service takes")
_DOWNLOAD = Meaning(ImageDownloadError, "the service cannot download the image from its URL")
_URL = Meaning(ImageRefusedError, "the service does not accept the image's URL")
_CONTENT = Meaning(ImageRefusedError, "the service cannot label what the image shows")

_NOTHING_SENT = {"FailedOperation.ParameterEmpty", "MissingParameter.ErrorParameterEmpty"}
"""Codes of a request without an image."""

CODES: Mapping[str, Meaning] = {
    "AuthFailure.InvalidAuthorization": _SIGNATURE,
    "FailedOperation.BalanceInsufficient": _ACCOUNT,
    "FailedOperation.DownLoadError": _DOWNLOAD,
    "FailedOperation.EmptyImageError": _EMPTY,
    "FailedOperation.GroupCountExceeded": _OTHER_ACTION,
    "FailedOperation.ImageDecodeFailed": _DECODE,
    "FailedOperation.ImageDeleteFailed": _OTHER_ACTION,
    "FailedOperation.ImageDownloadError": _DOWNLOAD,
    "FailedOperation.ImageEntityCountExceed": _OTHER_ACTION,
    "FailedOperation.ImageGroupChargeStatusClose": _OTHER_ACTION,
    "FailedOperation.ImageGroupEmpty": _OTHER_ACTION,
    "FailedOperation.ImageNotFoundInfo": _OTHER_ACTION,
    "FailedOperation.ImageNotSupported": _FORMAT,
    "FailedOperation.ImageNumExceed": _OTHER_ACTION,
    "FailedOperation.ImageResolutionExceed": Meaning(
        ImageTooLargeError, "the image has more pixels than the service takes"
    ),
    "FailedOperation.ImageResolutionInsufficient": Meaning(
        ImageRefusedError, "the image has fewer pixels than the service takes"
    ),
    "FailedOperation.ImageSearchInvalid": _OTHER_ACTION,
    "FailedOperation.ImageSizeExceed": _TOO_LARGE,
    "FailedOperation.ImageUnQualified": _CONTENT,
    "FailedOperation.ImageUrlInvalid": _URL,
    "FailedOperation.InnerError": _FAILED,
    "FailedOperation.InvokeChargeError": _ACCOUNT,
    "FailedOperation.NoBodyInPhoto": _CONTENT,
    "FailedOperation.NoObjectDetected": _CONTENT,
    "FailedOperation.ParameterEmpty": _REQUEST,
    "FailedOperation.RecognizeFailded": _CONTENT,
    "FailedOperation.RequestError": _FAILED,
    "FailedOperation.RequestTimeout": _FAILED,
    "FailedOperation.RpcFail": _FAILED,
    "FailedOperation.ServerError": _FAILED,
    "FailedOperation.TooLargeFileError": _TOO_LARGE,
    "FailedOperation.UnKnowError": _FAILED,
    "FailedOperation.UnOpenError": _ACCOUNT,
    "FailedOperation.Unknown": _FAILED,
    "InternalError": _FAILED,
    "InvalidParameter.ImageFormatNotSupport": _FORMAT,
    "InvalidParameter.InvalidParameter": _REQUEST,
    "InvalidParameter.PictureSolidColorError": _CONTENT,
    "InvalidParameterValue.BriefTooLong": _OTHER_ACTION,
    "InvalidParameterValue.CustomContentTooLong": _OTHER_ACTION,
    "InvalidParameterValue.EntityIdEmpty": _OTHER_ACTION,
    "InvalidParameterValue.EntityIdTooLong": _OTHER_ACTION,
    "InvalidParameterValue.FilterInvalid": _OTHER_ACTION,
    "InvalidParameterValue.FilterSizeExceed": _OTHER_ACTION,
    "InvalidParameterValue.ImageEmpty": _EMPTY,
    "InvalidParameterValue.ImageGroupIdAlreadyExist": _OTHER_ACTION,
    "InvalidParameterValue.ImageGroupIdIllegal": _OTHER_ACTION,
    "InvalidParameterValue.ImageGroupIdNotExist": _OTHER_ACTION,
    "InvalidParameterValue.ImageGroupIdTooLong": _OTHER_ACTION,
    "InvalidParameterValue.ImageGroupNameEmpty": _OTHER_ACTION,
    "InvalidParameterValue.ImageGroupNameTooLong": _OTHER_ACTION,
    "InvalidParameterValue.InvalidParameterValueLimit": _REQUEST,
    "InvalidParameterValue.LimitExceed": _OTHER_ACTION,
    "InvalidParameterValue.PicNameAlreadyExist": _OTHER_ACTION,
    "InvalidParameterValue.PicNameEmpty": _OTHER_ACTION,
    "InvalidParameterValue.PicNameInvalid": _OTHER_ACTION,
    "InvalidParameterValue.PicNameTooLong": _OTHER_ACTION,
    "InvalidParameterValue.TagsKeysExceed": _OTHER_ACTION,
    "InvalidParameterValue.TagsValueIllegal": _OTHER_ACTION,
    "InvalidParameterValue.TagsValueSizeExceed": _OTHER_ACTION,
    "InvalidParameterValue.UrlIllegal": _URL,
    "LimitExceeded.TooLargeFileError": _TOO_LARGE,
    "MissingParameter.ErrorParameterEmpty": _REQUEST,
    "RequestLimitExceeded": Meaning(ThrottledError, "more requests than the quota allows"),
    "RequestSizeLimitExceeded": _TOO_LARGE,
    "ResourceUnavailable.InArrears": _ACCOUNT,
    "ResourceUnavailable.IsOpening": _ACCOUNT,
    "ResourceUnavailable.NotExist": _ACCOUNT,
    "ResourceUnavailable.StopUsing": _ACCOUNT,
    "ResourcesSoldOut.ChargeStatusException": _ACCOUNT,
    "UnsupportedRegion": Meaning(
        EndpointError, "the service is not in this region: check region in the connection"
    ),
    "URLTooLong": Meaning(ParameterTooLongError, "the image's URL is too long: shorten it"),
}
"""Every code of the SDK, and those of all the vendor's interfaces that need words of their own."""

FAMILIES: Mapping[str, Meaning] = {
    "AuthFailure": _SIGNATURE,
    "UnauthorizedOperation": _PERMISSION,
    "OperationDenied": _PERMISSION,
    "InternalError": _FAILED,
    "ServiceUnavailable": _FAILED,
    "RequestLimitExceeded": CODES["RequestLimitExceeded"],
    "ActionOffline": Meaning(EndpointError, "the vendor has ended this interface: change api"),
    "InvalidAction": Meaning(EndpointError, "no such interface: check host and api"),
    "NoSuchProduct": Meaning(EndpointError, "this host has no label service: check host"),
    "NoSuchVersion": Meaning(EndpointError, "no such interface: check host and api"),
    "ResourceUnavailable": _ACCOUNT,
    "ResourcesSoldOut": _ACCOUNT,
    "ResourceInsufficient": _ACCOUNT,
    "IpInBlacklist": _PERMISSION,
    "IpNotInWhitelist": _PERMISSION,
    "InvalidParameter": _REQUEST,
    "InvalidParameterValue": _REQUEST,
    "MissingParameter": _REQUEST,
    "UnknownParameter": _REQUEST,
    "InvalidRequest": _REQUEST,
    "UnsupportedOperation": _REQUEST,
    "UnsupportedProtocol": _REQUEST,
}
"""What a code means by its first part, for those that the table above does not have."""

_UNKNOWN = Meaning(UnknownCodeError, "the service answered with a code of no document")


def meaning_of(code: str) -> Meaning:
    """Return what an error code means."""
    return CODES.get(code) or FAMILIES.get(code.partition(".")[0], _UNKNOWN)


def decode(answer: Answer) -> Mapping[str, Any]:
    """Return the object ``Response`` of a successful answer.

    :raises ImageTagError: the class that the code or the status stands for.
    """
    document = answers.json_object(answer)
    response = document.get("Response") if document else None
    if isinstance(response, dict) and "Error" in response:
        raise _error(answer, response)
    if answer.status != 200:
        raise answers.status_error(answer, document)
    if not isinstance(response, dict):
        raise answers.malformed(answer, "it has no object 'Response'")
    return response


def request_id(response: Mapping[str, Any]) -> str | None:
    """Return the service's id of the call."""
    found = response.get("RequestId")
    return found if isinstance(found, str) else None


def asks_for_image(error: Exception) -> bool:
    """Tell whether the service accepted all of a request but that it has no image."""
    return isinstance(error, ImageTagError) and error.code in _NOTHING_SENT


def _error(answer: Answer, response: Mapping[str, Any]) -> ImageTagError:
    said = response["Error"]
    code = said.get("Code") if isinstance(said, dict) else None
    if not isinstance(code, str) or not code:
        return answers.malformed(answer, "its error has no code")
    error = answers.error(meaning_of(code), answer, code, said.get("Message"))
    error.request_id = request_id(response)
    return error
