"""The messages between this package and a service: payload, request, response, labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter

from airflow_imagetag.models import Label
from airflow_imagetag.runtime.digests import Digest

_PROBABILITY = attrgetter("probability")


# Each image makes one of each of the next four; a frozen dataclass takes five times as long.
@dataclass(slots=True)
class Payload:
    """One image as a service gets it: its URL, its bytes, or its name in the service's bucket.

    :param url: an http(s) URL that the service fetches itself.
    :param content: the bytes.
    :param digest: tells equal bytes from others: their SHA-256 in hex, or a digest that is valid in
        this run only; None without bytes.
    :param object_key: name of an object that the service reads where it lies.
    """

    url: str | None = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)
    digest: Digest | None = None
    object_key: str | None = field(default=None, repr=False)

    @property
    def sha256(self) -> str | None:
        """The SHA-256 of the bytes, in hex; None where the run has no use for it."""
        return self.digest if isinstance(self.digest, str) else None


@dataclass(slots=True)
class Request:
    """A request, ready for any HTTP client.

    Header values and bodies hold secrets and images, so the repr leaves them out.

    :param url: the address with path and query, percent-encoded where that is needed.
    :param headers: names and values.
    :param body: the bytes, or pieces that follow each other: a large image need not be copied.
    :param method: ``POST``, or ``GET`` for a request without a body.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | tuple[bytes, ...] = field(repr=False)
    method: str = "POST"

    def joined(self) -> bytes:
        """Return the body in one piece."""
        return self.body if isinstance(self.body, bytes) else b"".join(self.body)


@dataclass(slots=True)
class HttpResponse:
    """An HTTP response as it came.

    :param status: HTTP status.
    :param headers: the headers, found by names in lower case.
    :param body: the undecoded body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class ParsedLabels:
    """The labels of a response, the most probable first, and the service's id of the call."""

    labels: tuple[Label, ...]
    request_id: str | None = None


def most_probable_first(labels: Iterable[Label]) -> tuple[Label, ...]:
    """Return labels in the order of ``ParsedLabels``; equally probable ones keep their order."""
    return tuple(sorted(labels, key=_PROBABILITY, reverse=True))
