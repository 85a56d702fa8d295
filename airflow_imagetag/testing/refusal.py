"""The one exception by which a request is answered with an error."""

from __future__ import annotations

import enum
from typing import Final

OWN_CODE: Final = -1
"""``code`` in the body of an answer whose HTTP status already says what is wrong.

The vendor publishes no codes for those answers, so this number is the emulator's own.
"""


class BusinessCode(enum.IntEnum):
    """The codes that the vendor documents for answers of V1 and V2 with HTTP status 200."""

    OK = 0
    UNDECODABLE = -1102
    IMAGE_EMPTY = -1300
    PARAMETER_MISSING = -1301
    PARAMETER_TOO_LONG = -1304


class RefusalError(Exception):
    """The request gets an error for an answer.

    :param status: HTTP status of the answer.
    :param code: code in its JSON body; a text for TIIA.
    :param message: message in its JSON body.
    """

    def __init__(self, status: int, code: int | str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def http_refusal(status: int, message: str) -> RefusalError:
    """Return a refusal that the HTTP status explains."""
    return RefusalError(status, OWN_CODE, message)


def business_refusal(code: BusinessCode, message: str) -> RefusalError:
    """Return a refusal by business code, which the service answers with status 200."""
    return RefusalError(200, int(code), message)


def tiia_refusal(code: str, message: str) -> RefusalError:
    """Return a refusal of TIIA, which has status 200 whatever is wrong."""
    return RefusalError(200, code, message)
