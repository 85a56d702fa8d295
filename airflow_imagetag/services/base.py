"""What a service is to the rest of the package: it builds requests and reads answers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, ParsedLabels, Payload, Request

MAX_API_LENGTH = 64
"""Stores keep the name of the interface with each result, in a column of this length."""

LABELS_OF_FIELDS: Mapping[str, str] = {
    "login": "login (the SecretId)",
    "password": "password (the SecretKey)",
    "app_id": "app_id in extra",
}
"""Names of the account's fields in messages."""

_DEFAULTS = {member.name: member.default for member in fields(Account)}


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
    """Fields of the connection without which it is refused."""

    max_inline_bytes: int = 128 * 1024
    """Maximum size of an image's bytes for which ``build`` takes less time than a hand-over to a
    thread. The default is that of base64; a service that sends bytes as they are can set
    ``sys.maxsize``."""

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
                yield f"{LABELS_OF_FIELDS[name]} is missing. Set it in the connection"

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

    @property
    def needs_io(self) -> bool:
        """Whether the next ``build`` waits for something, such as keys that another server gives.

        It then runs in a thread, whatever the image's size.
        """
        return False

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
