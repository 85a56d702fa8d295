"""The contract of an API of the emulator: account, requests, image problems, refusals."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, Protocol, get_args
from urllib.parse import parse_qsl, unquote


@dataclass(frozen=True, slots=True)
class EmulatorAccount:
    """Hold the keys that requests are signed with.

    :param app_id: AppID; V1 and V2 need it, TIIA does not.
    :param bucket: the bucket that a signature of V1 or V2 must name; empty accepts any.
    :param token: token of temporary keys, which requests of TIIA and COS must present; empty for
        permanent keys.
    """

    app_id: str
    secret_id: str
    secret_key: str = field(repr=False)
    bucket: str = ""
    token: str = field(default="", repr=False)


ApiName = Literal[
    "picture_classify", "imagetag_detect", "DetectLabelPro", "DetectLabel", "ci_detect_label"
]

API_NAMES: Final[tuple[ApiName, ...]] = get_args(ApiName)

TIIA_NAMES: Final[tuple[ApiName, ...]] = ("DetectLabelPro", "DetectLabel")

AnswerForm = Literal["example", "table"]
"""Form of a V2 answer: the vendor's example and the vendor's table differ."""

Labels = Sequence[tuple[str, float]]
"""Names and probabilities between 0 and 1, most probable first."""


class ImageProblem(enum.Enum):
    """Problems of an image in a well-formed request."""

    UNDECODABLE = enum.auto()
    EMPTY = enum.auto()
    TOO_LARGE = enum.auto()
    URL_INVALID = enum.auto()
    NOT_DOWNLOADED = enum.auto()


class UnusableImageError(Exception):
    """Raised for an image that cannot be labelled; each API has its own code for the problem."""

    def __init__(self, problem: ImageProblem, message: str) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message


@dataclass(frozen=True)
class RequestHead:
    """The request without its body.

    :param headers: mapping that ignores the case of names.
    :param content_length: size of the body in bytes; None without a Content-Length.
    :param target: path and query exactly as they came.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    content_length: int | None
    target: str = ""

    @cached_property
    def object_path(self) -> str:
        """The decoded path; unlike ``path``, it keeps dots and double slashes."""
        return unquote(self.target.partition("?")[0])

    @cached_property
    def params(self) -> Mapping[str, str]:
        """The parameters of the query."""
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A well-formed request with either ``url`` or the bytes of ``image``.

    :param scenes: scenes that must be labelled; each is billed as a call.
    """

    url: str | None
    image: bytes
    scenes: tuple[str, ...] = ()

    @property
    def calls(self) -> int:
        """Number of billed calls."""
        return max(1, len(self.scenes))


class Api(Protocol):
    """One API of the service; every method may raise RefusalError."""

    @property
    def name(self) -> str:
        """Name in the counts; empty for a request that names no known API."""

    @property
    def max_image_bytes(self) -> int:
        """Maximum size of an image behind a URL."""

    @property
    def content_type(self) -> str:
        """Content type of every answer."""

    def admit(self, head: RequestHead) -> None:
        """Check method, path and headers before the body is read."""

    def authenticate(
        self, head: RequestHead, body: bytes, account: EmulatorAccount, now: float
    ) -> None:
        """Check the signature; ``now`` is the wall-clock time in Unix seconds."""

    def read(self, head: RequestHead, body: bytes, account: EmulatorAccount) -> ImageRequest:
        """Parse the request and return its image and scenes."""

    def check_image(self, image: bytes) -> None:
        """Check the format of an image file before it is decoded."""

    def success(self, labels: Labels, wanted: ImageRequest, form: AnswerForm) -> dict[str, Any]:
        """Return the answer as an object."""

    def refuse(self, error: UnusableImageError) -> RefusalError:
        """Return the refusal of an image."""

    def throttle(self, status: int) -> RefusalError:
        """Return the refusal of a request over the quota.

        :param status: HTTP status of the answer; TIIA and COS ignore it.
        """

    def fault(self, code: str, message: str) -> RefusalError | None:
        """Return the refusal that a fault of this code asks for; None for an API without codes."""

    def error_answer(self, refusal: RefusalError) -> dict[str, Any]:
        """Return the answer of a refusal as an object."""

    def encode(self, answer: dict[str, Any]) -> bytes:
        """Return the body of an answer."""


STATS_PATH: Final = "/_stats"
"""Path of the counts as JSON. No API has it, and its requests are not counted."""

OWN_CODE: Final = -1
"""``code`` in the body of an answer with an HTTP error status.

The vendor publishes no codes for these answers; this number is the emulator's own.
"""


class BusinessCode(enum.IntEnum):
    """Codes that the vendor documents for answers of V1 and V2 with HTTP status 200."""

    OK = 0
    UNDECODABLE = -1102
    IMAGE_EMPTY = -1300
    PARAMETER_MISSING = -1301
    PARAMETER_TOO_LONG = -1304


class RefusalError(Exception):
    """Raised to answer the request with an error.

    :param status: HTTP status of the answer.
    :param code: code in its body; text for TIIA and COS.
    :param message: message in its body.

    ``retry_after_seconds`` is the value of Retry-After; None sends none.
    """

    def __init__(self, status: int, code: int | str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_seconds: int | None = None


def http_refusal(status: int, message: str) -> RefusalError:
    """Return a refusal by HTTP status."""
    return RefusalError(status, OWN_CODE, message)


def business_refusal(code: BusinessCode, message: str) -> RefusalError:
    """Return a refusal by business code, with HTTP status 200."""
    return RefusalError(200, int(code), message)


def tiia_refusal(code: str, message: str) -> RefusalError:
    """Return a refusal of TIIA, with HTTP status 200."""
    return RefusalError(200, code, message)
