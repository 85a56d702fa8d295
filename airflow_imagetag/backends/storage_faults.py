"""Whose fault the error of a storage is: the object's, the moment's or the worker's."""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airflow_imagetag.errors import StorageAccessError, StorageError
from airflow_imagetag.safety.redaction import redact_text

REFUSALS = frozenset({401, 403})
"""HTTP statuses by which a storage refuses credentials."""


class Fault(enum.Enum):
    """The cause of an error while an object was read."""

    OBJECT = "object"
    """The object is missing, archived or has a name that the storage does not take."""
    REFUSED = "refused"
    """The storage refuses this object: by a rule for it, or because it refuses the worker."""
    MOMENT = "moment"
    """The storage or the network failed: another attempt may succeed."""
    WORKER = "worker"
    """Connection, package, credentials, clock, disk: every object of the storage would fail."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The fault of an error, and the reason in a word.

    :param fault: whose fault it is.
    :param reason: the storage's code, or the name of the error's class.
    """

    fault: Fault
    reason: str


CODES = {
    Fault.OBJECT: frozenset(
        {
            "BlobArchived",
            "BlobNotFound",
            "InvalidObjectState",
            "KeyTooLongError",
            "NoSuchKey",
            "NoSuchVersion",
        }
    ),
    Fault.WORKER: frozenset(
        {
            # S3 and the services that grant its keys.
            "AccountProblem",
            "AllAccessDisabled",
            "AuthFailure",
            "AuthorizationHeaderMalformed",
            "CredentialsNotSupported",
            "ExpiredToken",
            "ExpiredTokenException",
            "IllegalLocationConstraintException",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidIdentityToken",
            "InvalidSecurity",
            "InvalidToken",
            "MissingAuthenticationToken",
            "MissingSecurityHeader",
            "NoSuchBucket",
            "NotSignedUp",
            "PermanentRedirect",
            "RequestExpired",
            "RequestTimeTooSkewed",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
            "UnrecognizedClientException",
            "XAmzContentSHA256Mismatch",
            # Azure.
            "AccountIsDisabled",
            "AuthenticationFailed",
            "ContainerDisabled",
            "ContainerNotFound",
            "FilesystemNotFound",
            "InsufficientAccountPermissions",
            "InvalidAuthenticationInfo",
            "NoAuthenticationInformation",
            # Google Cloud Storage.
            "authError",
            "accountDisabled",
            "userProjectMissing",
        }
    ),
    Fault.REFUSED: frozenset(
        {
            "AccessDenied",
            "AccessDeniedException",
            "AuthorizationFailure",
            "AuthorizationPermissionMismatch",
            "AuthorizationProtocolMismatch",
            "Forbidden",
            "forbidden",
        }
    ),
    Fault.MOMENT: frozenset(
        {
            "BandwidthLimitExceeded",
            "InternalError",
            "InternalServerError",
            "OperationAborted",
            "OperationTimedOut",
            "RequestLimitExceeded",
            "RequestTimeout",
            "RequestTimeoutException",
            "ServerBusy",
            "ServiceUnavailable",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "TooManyRequests",
            "TooManyRequestsException",
            "rateLimitExceeded",
        }
    ),
}
"""Codes of the storages. A code that is not listed is judged by the HTTP status."""

CLASSES = {
    Fault.WORKER: frozenset(
        {
            "airflow.AirflowException",
            "azure.ClientAuthenticationError",
            "azure.CredentialUnavailableError",
            # Settings, credentials, regions, packages.
            "botocore.BotoCoreError",
            "botocore.ProxyConnectionError",
            "botocore.SSLError",
            "builtins.ImportError",
            "google.DefaultCredentialsError",
            "google.GoogleAuthError",
            "google.RefreshError",
            "ssl.SSLCertVerificationError",
        }
    ),
    Fault.MOMENT: frozenset(
        {
            "aiohttp.ClientError",
            "azure.ServiceRequestError",
            "azure.ServiceResponseError",
            "botocore.ChecksumError",
            "botocore.ConnectionClosedError",
            "botocore.ConnectionError",
            "botocore.EndpointConnectionError",
            "botocore.FlexibleChecksumError",
            "botocore.HTTPClientError",
            "botocore.IncompleteReadError",
            "botocore.ResponseStreamingError",
            "builtins.ConnectionError",
            "builtins.EOFError",
            "builtins.TimeoutError",
            "fsspec.FSTimeoutError",
            "gcsfs.ChecksumError",
            "google.TransportError",
            "http.HTTPException",
            "requests.ConnectionError",
            "requests.Timeout",
            "socket.gaierror",
            "urllib3.HTTPError",
        }
    ),
    Fault.OBJECT: frozenset(
        {
            "azure.ResourceNotFoundError",
            "botocore.InvalidDNSNameError",
            "botocore.InvalidHostLabelError",
            "botocore.MissingParametersError",
            "botocore.ParamValidationError",
            "botocore.ValidationError",
            "builtins.FileNotFoundError",
            "builtins.IsADirectoryError",
            "builtins.NotADirectoryError",
            "builtins.ValueError",
        }
    ),
    Fault.REFUSED: frozenset({"builtins.PermissionError"}),
}
"""Classes of errors, as the first part of their module and their name. The nearest base counts."""

ERRNOS = {
    Fault.WORKER: frozenset(
        {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EROFS}
    ),
    Fault.MOMENT: frozenset(
        {
            errno.EAGAIN,
            errno.EBUSY,
            errno.ECONNABORTED,
            errno.ECONNREFUSED,
            errno.ECONNRESET,
            errno.EHOSTDOWN,
            errno.EHOSTUNREACH,
            errno.EINTR,
            errno.EIO,
            errno.ENETDOWN,
            errno.ENETUNREACH,
            errno.ENOTCONN,
            errno.EPIPE,
            errno.ESTALE,
            errno.ETIMEDOUT,
        }
    ),
    Fault.REFUSED: frozenset({errno.EACCES, errno.EPERM}),
}
"""Error numbers of the system; all others are the object's: no such file, a name too long."""

_MOMENTS = frozenset({408, 425, 429})
_UNAUTHORIZED = 401
_FORBIDDEN = 403
_FORBIDDEN_TEXT = "Forbidden: "


def diagnose(error: BaseException) -> Diagnosis:
    """Return whose fault an error is.

    Libraries translate their errors, so the causes of the error are looked at as well. An error
    without a meaning here is the object's: it must not end a run, and the object is tried later.
    """
    chain = list(_chain(error))
    # The status before the number: s3fs gives its translated errors numbers of its own.
    for judge in (_by_retryable, _by_code, _by_status, _by_errno, _by_class):
        for item in chain:
            if found := judge(item):
                return found
    return Diagnosis(Fault.OBJECT, type(error).__name__)


def all_statuses(error: BaseException) -> set[int]:
    """Return the HTTP statuses that an error and its causes name."""
    return {status for item in _chain(error) for status in _statuses(item)}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, the outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        hidden = None if error.__suppress_context__ else error.__context__
        error = error.__cause__ or hidden


def _by_retryable(error: BaseException) -> Diagnosis | None:
    # Of google-auth, for a server of tokens that fails. It is False for one that refuses the key.
    if type(error).__module__.startswith("google.") and getattr(error, "retryable", None) is True:
        return Diagnosis(Fault.MOMENT, type(error).__name__)
    return None


def _by_code(error: BaseException) -> Diagnosis | None:
    for code in _codes(error):
        for fault, codes in CODES.items():
            if code in codes:
                return Diagnosis(fault, code)
    return None


def _by_status(error: BaseException) -> Diagnosis | None:
    for status in _statuses(error):
        reason = next(filter(None, _codes(error)), f"HTTP {status}")
        if status in _MOMENTS or status >= 500:
            return Diagnosis(Fault.MOMENT, reason)
        if status == _UNAUTHORIZED:
            return Diagnosis(Fault.WORKER, reason)
        if status == _FORBIDDEN:
            return Diagnosis(Fault.REFUSED, reason)
        if status >= 400:
            return Diagnosis(Fault.OBJECT, reason)
    return None


def _by_errno(error: BaseException) -> Diagnosis | None:
    # A storage's library sets no number, or one of its own.
    if type(error).__module__ != "builtins" or not isinstance(error, OSError):
        return None
    for fault, numbers in ERRNOS.items():
        if error.errno in numbers:
            return Diagnosis(fault, errno.errorcode[error.errno])
    return None


def _by_class(error: BaseException) -> Diagnosis | None:
    for base in type(error).__mro__:
        name = f"{base.__module__.partition('.')[0].removeprefix('_')}.{base.__name__}"
        for fault, names in CLASSES.items():
            if name in names:
                return Diagnosis(fault, type(error).__name__)
    return None


def _codes(error: BaseException) -> Iterator[str]:
    """Yield the codes that an error's answer names."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # of botocore
        yield str(response.get("Error", {}).get("Code", ""))
    if type(error).__module__.startswith("aiohttp"):
        return
    for name in ("error_code", "code", "reason"):  # of azure, of gcsfs
        value = getattr(error, name, None)
        value = getattr(value, "value", value)
        if isinstance(value, str):
            yield value


def _statuses(error: BaseException) -> Iterator[int]:
    """Yield the HTTP statuses of an error's answer."""
    response = getattr(error, "response", None)
    names = ["status", "status_code", "code"]
    if type(error).__module__.startswith("aiohttp"):
        # It warns of the others.
        names = ["status"]
    found: list[Any] = [getattr(error, name, None) for name in names]
    if isinstance(response, dict):
        found.append(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        found.append(response.get("Error", {}).get("Code"))
    if type(error) is OSError and str(error).startswith(_FORBIDDEN_TEXT):
        # gcsfs keeps nothing else of the answer.
        found.append(_FORBIDDEN)
    for value in found:
        text = str(value) if isinstance(value, (int, str)) else ""
        if text.isdigit() and 100 <= int(text) < 600:
            yield int(text)


def storage_error(error: Exception, what: str) -> StorageError | StorageAccessError:
    """Return the error of a listing or a store: final if the storage refuses the credentials.

    Missing credentials of AWS may be there later: their service answers each worker on its own.

    :param error: as the storage's library raised it.
    :param what: beginning of the message, which names the failed operation.
    """
    failure = storage_failure(error, what)
    is_refusal = diagnose(error).fault in (Fault.WORKER, Fault.REFUSED)
    library = type(error).__module__.partition(".")[0]
    if is_refusal and (all_statuses(error) & REFUSALS or library in ("azure", "google")):
        return StorageAccessError(f"{failure.message}. Check the storage's connection.")
    return failure


def storage_failure(error: Exception, what: str) -> StorageError:
    """Return the error of a storage that failed, perhaps for a while.

    :param error: as the storage's library raised it.
    :param what: beginning of the message, which names the failed operation.
    """
    return StorageError(f"{what}: {type(error).__name__}: {redact_text(str(error))[:300]}")
