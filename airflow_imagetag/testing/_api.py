"""The contract of an API of the emulator: its account, requests, problems and refusals."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, get_args


@dataclass(frozen=True, slots=True)
class EmulatorAccount:
    """Keys that requests are signed with.

    :param app_id: AppID; V1 and V2 need it, TIIA does not.
    :param bucket: the bucket that a signature of V1 or V2 must name; empty accepts any.
    :param token: what makes the keys temporary ones: requests of TIIA must present it. Empty for
        permanent keys, which have none.
    """

    app_id: str
    secret_id: str
    secret_key: str = field(repr=False)
    bucket: str = ""
    token: str = field(default="", repr=False)


ApiName = Literal["picture_classify", "imagetag_detect", "DetectLabelPro", "DetectLabel"]

API_NAMES: Final[tuple[ApiName, ...]] = get_args(ApiName)

TIIA_NAMES: Final[tuple[ApiName, ...]] = ("DetectLabelPro", "DetectLabel")

AnswerForm = Literal["example", "table"]
"""The V2 document shows the answer twice, differently: in its example and in its table."""

Labels = Sequence[tuple[str, float]]
"""Names with probabilities between 0 and 1, most probable first."""


class ImageProblem(enum.Enum):
    """What can be wrong with the image of a well-formed request."""

    UNDECODABLE = enum.auto()
    EMPTY = enum.auto()
    TOO_LARGE = enum.auto()
    URL_INVALID = enum.auto()
    NOT_DOWNLOADED = enum.auto()


class UnusableImageError(Exception):
    """The image of a request cannot be labelled; each API has its own code for the problem."""

    def __init__(self, problem: ImageProblem, message: str) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message


@dataclass(frozen=True, slots=True)
class RequestHead:
    """All of a request but its body.

    :param headers: names in any case.
    :param content_length: size of the body in bytes; None when it is not told.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    content_length: int | None


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A well-formed request: ``url`` is set, or else ``image`` holds bytes.

    :param scenes: the models that DetectLabel is asked for; each is billed as a call.
    """

    url: str | None
    image: bytes
    scenes: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        """How many calls it is billed as."""
        return max(1, len(self.scenes))


class Api(Protocol):
    """One API of the service. Every method may raise RefusalError."""

    @property
    def name(self) -> str:
        """Its name in the counts; empty when the request names none that there is."""

    @property
    def max_image_bytes(self) -> int:
        """The largest image that it takes from behind a URL."""

    @property
    def has_text_codes(self) -> bool:
        """Whether its errors have codes such as RequestLimitExceeded."""

    def admit(self, head: RequestHead) -> None:
        """Check all that can be told before the body is read."""

    def authenticate(
        self, head: RequestHead, body: bytes, account: EmulatorAccount, now: float
    ) -> None:
        """Check the signature; ``now`` is the wall-clock time in Unix seconds."""

    def read(self, head: RequestHead, body: bytes, account: EmulatorAccount) -> ImageRequest:
        """Return what the request asks for."""

    def check_image(self, image: bytes) -> None:
        """Check what can be told of an image file before it is decoded."""

    def success(self, labels: Labels, wanted: ImageRequest, form: AnswerForm) -> dict[str, Any]:
        """Return the answer's JSON object."""

    def refuse(self, error: UnusableImageError) -> RefusalError:
        """Return the refusal of an image."""

    def throttle(self, status: int) -> RefusalError:
        """Return the refusal of a request over the quota.

        :param status: the HTTP status of it, where the API tells it by one.
        """


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
