"""The contract of a service: it builds requests and reads responses, and does no I/O."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from airflow_imagetag.services.account import Account
from airflow_imagetag.services.messages import HttpResponse, ParsedLabels, Payload, Request

MAX_API_LENGTH = 64
"""Maximum length of an interface's name: stores keep it in a column with each result."""

LABELS_OF_FIELDS: Mapping[str, str] = {
    "login": "login (the SecretId)",
    "password": "password (the SecretKey)",
    "app_id": "app_id in extra",
}
"""Names of the account's fields in messages."""

_DEFAULTS = {member.name: member.default for member in fields(Account)}

_VALIDATION_NAMES = ("validation_errors", "complaints")
"""Names of one method; the second is that of version 0.1.0."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an interface on its images, checked before anything is sent.

    :param max_content_bytes: maximum size of the image's bytes, before any encoding.
    :param formats: formats that are taken, as Pillow names them, such as ``JPEG``; None for any
        format that can be decoded.
    :param advised_min_pixels: the vendor advises against sides below this many pixels; 0 for no
        advice.
    :param advised_max_aspect: the vendor advises against a longer side of more than this many times
        the shorter one; None for no advice.
    """

    max_content_bytes: int
    formats: frozenset[str] | None = None
    advised_min_pixels: int = 0
    advised_max_aspect: float | None = None


class Service(ABC):
    """One interface of a label service, for one account.

    :param account: the fields of the connection.
    :param clock: wall clock, in Unix seconds.
    """

    api: ClassVar[str]
    """Name of the interface in the connection and in every result, up to 64 characters."""

    host: ClassVar[str]
    """Host of the endpoint where the connection names none; ``{bucket}`` and ``{region}`` in it
    stand for those fields of the connection."""

    required: ClassVar[tuple[str, ...]] = ("login", "password")
    """Fields of the connection without which it is refused."""

    takes_bytes: ClassVar[bool] = True
    """Whether ``build`` takes bytes. A service that reads images where they lie need not."""

    max_inline_bytes: int = 128 * 1024
    """Maximum size of the image's bytes for which ``build`` takes less time than a hand-over to a
    thread. The default is right for a digest of them; for bytes that are sent as they are, it is
    ``sys.maxsize``."""

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        self.account = account
        self.clock = clock

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give the method ``validation_errors`` both of its names, whichever a class defines."""
        super().__init_subclass__(**kwargs)
        for base in cls.__mro__:
            defined = [name for name in _VALIDATION_NAMES if name in vars(base)]
            if len(defined) == 1:
                for name in _VALIDATION_NAMES:
                    setattr(cls, name, vars(base)[defined[0]])
            if defined:
                return

    @classmethod
    def validation_errors(cls, account: Account) -> Iterator[str]:
        """Yield each reason to refuse an account for this interface.

        A reason is a text that follows ``Connection 'id':`` and has no full stop at its end. The
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

    # Services of other packages override and call it by the name of version 0.1.0, too.
    complaints = validation_errors

    @classmethod
    def unused(cls, account: Account, *names: str) -> Iterator[str]:
        """Yield a reason for each of these fields of the extra that is set, and has no use."""
        for name in names:
            if getattr(account, name) != _DEFAULTS[name]:
                yield (
                    f"{name} in extra has no use with api {cls.api!r}. Leave it empty, or use "
                    "another api"
                )

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """Limits that an image is checked against before it is sent."""

    @property
    def calls_per_image(self) -> int:
        """Number of calls that the vendor bills for one request."""
        return 1

    @property
    def needs_io(self) -> bool:
        """Whether the next ``build`` waits for I/O, such as another server that gives keys.

        It then runs in a thread, for an image of any size.
        """
        return False

    def object_key(self, uri: str) -> str | None:
        """Return the name under which the service itself reads the image behind a URI.

        The worker then does not read it, and ``build`` gets the name as ``object_key``. The default
        returns None: the image is sent as a URL or as bytes.

        :param uri: URI of an image that has no bytes.
        :raises ImageError: the service labels no image of this URI.
        """
        del uri
        return None

    @abstractmethod
    def build(self, payload: Payload, /) -> Request:
        """Return the signed request for one image.

        :raises ImageError: the image cannot be sent, such as over the size limit.
        """

    @abstractmethod
    def read(self, response: HttpResponse, /) -> ParsedLabels:
        """Return the labels of a response.

        :raises ImageTagError: the response is an error, or the vendor's document does not describe
            it.
        """

    @abstractmethod
    def build_probe(self) -> Request:
        """Return a request that proves endpoint and signature and is not billed."""

    @abstractmethod
    def check_probe(self, response: HttpResponse, /) -> None:
        """Check that the response to the probe proves endpoint and signature.

        :raises ImageTagError: its class and message name the fault of the connection.
        """
