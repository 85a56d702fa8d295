"""What an API of the service is to the emulator: checks, a reader and forms of answers."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

if TYPE_CHECKING:
    from airflow_imagetag.testing.account import Account
    from airflow_imagetag.testing.refusal import RefusalError

ApiName = Literal["picture_classify", "imagetag_detect", "DetectLabelPro", "DetectLabel"]

API_NAMES: Final[tuple[ApiName, ...]] = get_args(ApiName)

TIIA_NAMES: Final[tuple[ApiName, ...]] = ("DetectLabelPro", "DetectLabel")

AnswerForm = Literal["example", "table"]
"""The V2 document shows the answer twice, differently: in its example and in its table."""

Labels = Sequence[tuple[str, float]]
"""Names with probabilities between 0 and 1, most probable first."""


class Problem(enum.Enum):
    """What can be wrong with the image of a well-formed request."""

    UNDECODABLE = enum.auto()
    EMPTY = enum.auto()
    TOO_LARGE = enum.auto()
    URL_INVALID = enum.auto()
    NOT_DOWNLOADED = enum.auto()


class ImageError(Exception):
    """The image of a request cannot be labelled; each API has its own code for the problem."""

    def __init__(self, problem: Problem, message: str) -> None:
        super().__init__(message)
        self.problem = problem
        self.message = message


@dataclass(frozen=True, slots=True)
class Head:
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

    def admit(self, head: Head) -> None:
        """Check all that can be told before the body is read."""

    def authenticate(self, head: Head, body: bytes, account: Account, now: float) -> None:
        """Check the signature; ``now`` is the wall-clock time in Unix seconds."""

    def read(self, head: Head, body: bytes, account: Account) -> ImageRequest:
        """Return what the request asks for."""

    def check_image(self, image: bytes) -> None:
        """Check what can be told of an image file before it is decoded."""

    def success(self, labels: Labels, wanted: ImageRequest, form: AnswerForm) -> dict[str, Any]:
        """Return the answer's JSON object."""

    def refuse(self, error: ImageError) -> RefusalError:
        """Return the refusal of an image."""

    def throttle(self, status: int) -> RefusalError:
        """Return the refusal of a request over the quota.

        :param status: the HTTP status of it, where the API tells it by one.
        """
