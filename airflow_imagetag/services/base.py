"""What a service is to the rest of the package: it builds requests and reads answers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import ClassVar

from airflow_imagetag.models import Label
from airflow_imagetag.runtime.digests import Digest
from airflow_imagetag.services.account import FIELDS, Account

MAX_API_LENGTH = 64
"""Stores keep the name of the interface with each result, in a column of this length."""

_PROBABILITY = attrgetter("probability")

_DEFAULTS = {member.name: member.default for member in fields(Account)}


# One of each of the next four is made for every image; frozen, they would take five times as long.
@dataclass(slots=True)
class Payload:
    """What a service is given of one image: its URL, or its bytes.

    :param url: an http(s) URL that the service fetches itself.
    :param content: the bytes.
    :param digest: tells equal bytes from others: their SHA-256 in hex, or bytes that mean something
        in this run only; None with a URL.
    """

    url: str | None = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)
    digest: Digest | None = None

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of the bytes, in hex; None where the run has no use for it."""
        return self.digest if isinstance(self.digest, str) else None


@dataclass(slots=True)
class Request:
    """A POST request, ready for any HTTP client.

    Header values and bodies hold secrets and images, so they are not shown.

    :param url: where it goes.
    :param headers: names and values.
    :param body: the bytes, or pieces that follow each other: a large image need not be copied.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | tuple[bytes, ...] = field(repr=False)

    def joined(self) -> bytes:
        """Return the body in one piece."""
        return self.body if isinstance(self.body, bytes) else b"".join(self.body)


@dataclass(slots=True)
class HttpResponse:
    """An HTTP answer as it came.

    :param status: HTTP status.
    :param headers: found by names in lower case.
    :param body: the undecoded body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class ParsedLabels:
    """What an answer says: labels, the most probable first, and the service's id of the call."""

    labels: tuple[Label, ...]
    request_id: str | None = None


def most_probable_first(labels: Iterable[Label]) -> tuple[Label, ...]:
    """Return labels in the order in which a ``Reading`` has them; equal ones stay as they are."""
    return tuple(sorted(labels, key=_PROBABILITY, reverse=True))


@dataclass(frozen=True, slots=True)
class Limits:
    """What an interface says of the images it takes; known before anything is sent.

    :param max_content_bytes: size of the image's bytes, before any encoding.
    :param formats: formats that are taken, as Pillow names them, such as ``JPEG``; None for
        whatever can be decoded.
    :param advised_min_pixels: a side below this many pixels is labelled badly; 0 for no advice.
    :param advised_max_aspect: a longer side of more than so many times the shorter one is labelled
        badly; None for no advice.
    """

    max_content_bytes: int
    formats: frozenset[str] | None = None
    advised_min_pixels: int = 0
    advised_max_aspect: float | None = None


class Service(ABC):
    """One interface of a label service, for one account.

    :param account: what the connection says.
    :param clock: wall clock, in Unix seconds.
    """

    api: ClassVar[str]
    """Names the interface in the connection and in every result, up to 64 characters."""

    host: ClassVar[str]
    """Where it is, unless the connection says otherwise."""

    required: ClassVar[tuple[str, ...]] = ("login", "password")
    """Fields of the connection that it cannot do without."""

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        self.account = account
        self.clock = clock

    @classmethod
    def validation_errors(cls, account: Account) -> Iterator[str]:
        """Yield what is wrong with an account for this interface.

        Each is a text that goes on after ``Connection 'id':`` and has no full stop at its end. The
        first one stops the task, before anything is sent.
        """
        given = {
            "login": account.secret_id,
            "password": account.secret_key,
            "app_id": account.app_id,
        }
        for name in cls.required:
            if not given[name]:
                yield f"{FIELDS[name]} is missing. Set it in the connection"

    @classmethod
    def unused(cls, account: Account, *names: str) -> Iterator[str]:
        """Yield a complaint for each of these fields of the extra that is set, and has no use."""
        for name in names:
            if getattr(account, name) != _DEFAULTS[name]:
                yield (
                    f"{name} in extra has no use with api {cls.api!r}. Leave it empty, or use "
                    "another api"
                )

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """What of an image is checked before it is sent."""

    @property
    def calls_per_image(self) -> int:
        """How many calls the vendor bills for one request."""
        return 1

    def is_quick(self, payload: Payload) -> bool:
        """Tell whether ``build`` takes next to no time, so that it needs no thread."""
        del payload
        return True

    @abstractmethod
    def build(self, payload: Payload) -> Request:
        """Return the signed request for one image.

        :raises ImageError: the image can not be sent, such as over the size limit.
        """

    @abstractmethod
    def read(self, answer: HttpResponse) -> ParsedLabels:
        """Return what the answer says.

        :raises ImageTagError: the answer is an error, or not what the document describes.
        """

    @abstractmethod
    def build_probe(self) -> Request:
        """Return a request that proves endpoint and signature and is not billed."""

    @abstractmethod
    def check_probe(self, answer: HttpResponse) -> None:
        """Return when the answer to the probe proves endpoint and signature.

        :raises ImageTagError: what is wrong with the connection.
        """
