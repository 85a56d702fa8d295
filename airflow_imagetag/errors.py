"""Every error of this package, in one tree.

The class tells a caller how to react, and the fields carry the service's answer::

    ImageTagError
    |-- ConfigurationError         STOP    a connection, parameter or setting is wrong
    |   |-- StorageAccessError             the worker cannot use a storage
    |   `-- UnknownConnectionError         Airflow knows no connection of this id
    |-- ImageError                 RECORD  this image's fault: record it, go on with the next
    |   |-- InvalidImageError              the entry names no image
    |   |-- DuplicateKeyError              another image of this run has the same key
    |   |-- ImageNotAllowedError           the trust rules forbid reading it
    |   |-- ImageUnreadableError           the storage has no such object, or refuses it
    |   |   `-- ImageStorageError          the worker cannot use the storage that data names
    |   |-- ImageTooLargeError             over the size limit of the protocol
    |   |-- ImageEmptyError                zero bytes
    |   |-- ImageDecodeError               it cannot be decoded
    |   |-- ImageFormatError               the service does not take its format
    |   |-- ImageRefusedError              the service does not label such an image
    |   |-- ImageDownloadError     RETRY   the service cannot download it: it may later
    |   |-- ParameterTooLongError          its URL is longer than the service takes
    |   `-- UnknownCodeError               a code that no document lists for the interface
    |-- RequestRefusedError        STOP    the account's or the request's fault
    |   |-- AuthenticationError            signature, key or account refused
    |   |-- InvalidRequestError            the service does not accept the request's form
    |   `-- EndpointError                  host or path is not this service
    |-- TransientError             RETRY   the service's or the network's fault
    |   |-- ThrottledError                 over the quota
    |   |-- ServiceUnavailableError        the service failed
    |   |-- MalformedAnswerError           an answer came and cannot be understood
    |   |-- ConnectionFailedError          no connection: nothing was sent
    |   |-- AnswerLostError                sent, and no answer came: may have been billed
    |   |-- OutageError            STOP    no answer for too long: the run ends
    |   `-- StorageError                   the storage failed while an image was read
    `-- RunError                   STOP    the run as a whole
        |-- BudgetUsedUpError              it may make no more calls
        |-- TooManyFailuresError           more failed images than the task allows
        |-- TooManyMissingError            more images have left the source than the task allows
        |-- StoreError                     the store failed to take finished images
        |-- ResultTooLargeError            more labels than an XCom should hold
        |-- QuotaUnavailableError          the quota that workers share cannot be asked
        `-- RunInterruptedError            the run was asked to end before its last image
"""

from __future__ import annotations

import enum
from typing import Any, ClassVar

__all__ = [
    "AnswerLostError",
    "AuthenticationError",
    "Billing",
    "BudgetUsedUpError",
    "ConfigurationError",
    "ConnectionFailedError",
    "Decision",
    "DuplicateKeyError",
    "EndpointError",
    "ImageDecodeError",
    "ImageDownloadError",
    "ImageEmptyError",
    "ImageError",
    "ImageFormatError",
    "ImageNotAllowedError",
    "ImageRefusedError",
    "ImageStorageError",
    "ImageTagError",
    "ImageTooLargeError",
    "ImageUnreadableError",
    "InvalidImageError",
    "InvalidRequestError",
    "MalformedAnswerError",
    "OutageError",
    "ParameterTooLongError",
    "QuotaUnavailableError",
    "RequestRefusedError",
    "ResultTooLargeError",
    "RunError",
    "RunInterruptedError",
    "ServiceUnavailableError",
    "StorageAccessError",
    "StorageError",
    "StoreError",
    "ThrottledError",
    "TooManyFailuresError",
    "TooManyMissingError",
    "TransientError",
    "UnknownCodeError",
    "UnknownConnectionError",
    "error_named",
]


class Decision(enum.Enum):
    """The reaction of a run to an error."""

    RECORD = "record"
    """Write the image to the failures and go on."""
    STOP = "stop"
    """Send nothing more and fail the task."""
    RETRY = "retry"
    """Try the same image again, later and slower."""


class Billing(enum.Enum):
    """The known cost of a failed call."""

    NOT_SENT = "nothing was sent"
    REFUSED = "the service answered with an error"
    UNKNOWN = "it was sent and may have been billed"


class ImageTagError(Exception):
    """Base of every error that this package raises.

    :param message: the problem and its remedy; holds no secret.
    :param code: the service's own code, as text (``"-1102"``), or the HTTP status of an answer
        without one; None where the service was not asked.
    :param status: HTTP status of the answer, None without an answer.
    :param request_id: the service's id of the call, if it gives one.
    :param billing: the known cost of the call.
    :param retry_after_seconds: pause that the service asks for; None if it asks for none.
    """

    decision: ClassVar[Decision] = Decision.STOP

    is_final: ClassVar[bool] = False
    """Whether the bytes or the form of the image are at fault: a later run would fail alike."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        billing: Billing = Billing.NOT_SENT,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.request_id = request_id
        self.billing = billing
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.message,), self.__dict__


class ConfigurationError(ImageTagError, ValueError):
    """A connection field, parameter or setting is missing or malformed; nothing was sent."""


class StorageAccessError(ConfigurationError):
    """The worker cannot use a storage: its connection, package, credentials or disk."""


class UnknownConnectionError(ConfigurationError):
    """Airflow knows no connection of this id."""


class ImageError(ImageTagError):
    """The image's own fault: the next image may be fine."""

    decision = Decision.RECORD
    is_final = True


class InvalidImageError(ImageError):
    """The entry names no image: no URI, no bytes, or a scheme that cannot be read."""


class DuplicateKeyError(ImageError):
    """Another image of this run has the same key: its labels would be mixed with these."""


class ImageNotAllowedError(ImageError):
    """The trust rules forbid reading this URI on the worker: the rules may change."""

    is_final = False


class ImageUnreadableError(ImageError):
    """The storage has no such object, or refuses to hand it out: it may do so later.

    :param message: the problem and its remedy.
    :param cause: names a cause that many images may share, such as a connection; None for none.
    """

    is_final = False

    def __init__(self, message: str, *, cause: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.cause = cause


class ImageStorageError(ImageUnreadableError):
    """The worker cannot use the storage that data names: its connection, package or credentials."""


class ImageTooLargeError(ImageError):
    """The image is over the size limit of the protocol, or has too many pixels to be reduced."""


class ImageEmptyError(ImageError):
    """The image has no bytes."""


class ImageDecodeError(ImageError):
    """The image cannot be decoded: by the service, or by the worker to make it smaller."""


class ImageFormatError(ImageError):
    """The service does not take images of this format."""


class ImageRefusedError(ImageError):
    """The service does not label such an image: of one colour, of too few pixels, a wrong URL."""


class ImageDownloadError(ImageError):
    """The service cannot download the image from its URL: it may be there later."""

    decision = Decision.RETRY
    is_final = False


class ParameterTooLongError(ImageError):
    """A parameter, in practice the image's URL, is longer than the service takes."""


class UnknownCodeError(ImageError):
    """The service answered with a code that no document lists for this interface."""


class RequestRefusedError(ImageTagError):
    """The account's or the request's fault: every further call would fail the same way."""


class AuthenticationError(RequestRefusedError):
    """The service refuses the signature, the key or the account."""


class InvalidRequestError(RequestRefusedError):
    """The service does not accept the form of the request."""


class EndpointError(RequestRefusedError):
    """The answer does not come from this service, or not from this method of it."""


class TransientError(ImageTagError):
    """The service's or the network's fault: the same call may succeed later."""

    decision = Decision.RETRY


class ThrottledError(TransientError):
    """More requests than the quota allows."""


class ServiceUnavailableError(TransientError):
    """The service failed or is not available."""


class MalformedAnswerError(TransientError):
    """An answer came that does not have the documented form."""


class ConnectionFailedError(TransientError):
    """No connection to the service: nothing was sent."""


class AnswerLostError(TransientError):
    """The request was sent and no whole answer came back: it may have been billed."""


class OutageError(TransientError):
    """The service has not answered for too long, so the run ends; a later one may succeed."""

    decision = Decision.STOP


class StorageError(TransientError):
    """The storage failed while an image was read: nothing was sent to the service."""


class RunError(ImageTagError):
    """The run as a whole failed; its outputs hold the finished images."""


class BudgetUsedUpError(RunError):
    """The run may make no more calls: ``max_calls`` or ``max_cost``; the rest stays new."""


class TooManyFailuresError(RunError):
    """More images failed than ``max_failure_ratio`` allows.

    :param message: the numbers, the causes, and where the failures are.
    :param facts: the numbers and the causes only.
    """

    def __init__(self, message: str, *, facts: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.facts = facts or message


class TooManyMissingError(RunError):
    """More images have left the source than the task allows; nothing was changed."""


class StoreError(RunError):
    """The store failed for too long, so finished images could not be written to it."""


class ResultTooLargeError(RunError):
    """The run has more labels than an XCom should hold: give the task a store."""


class QuotaUnavailableError(RunError):
    """The quota that all workers share cannot be asked: sending without it might exceed it."""


class RunInterruptedError(RunError):
    """The run was asked to end before its last image."""


def error_named(name: str) -> type[ImageTagError]:
    """Return the error class of a name that a store or an event holds; the base if unknown."""
    found = globals().get(name)
    if isinstance(found, type) and issubclass(found, ImageTagError):
        return found
    return ImageTagError
