"""What a service is to the rest of the package: it builds requests and reads answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from airflow_imagetag.models import Label
from airflow_imagetag.service.account import Account


@dataclass(frozen=True, slots=True)
class Payload:
    """What a service is given of one image: its URL, or its bytes.

    :param url: an http(s) URL that the service fetches itself.
    :param content: the bytes.
    :param digest: SHA-256 of the bytes, in hex; None with a URL.
    """

    url: str | None = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A POST request, ready for any HTTP client.

    Header values and bodies hold secrets and images, so they are not shown.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it came.

    :param status: HTTP status.
    :param headers: found by names in lower case.
    :param body: the undecoded body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says: labels, the most probable first, and the service's id of the call."""

    labels: tuple[Label, ...]
    request_id: str | None = None


class Service(Protocol):
    """One interface of a label service."""

    api: str

    def build(self, account: Account, payload: Payload, authorization: str) -> Request:
        """Return the request for one image.

        :raises ImageError: the image can not be sent, such as over the size limit.
        """
        ...

    def read(self, answer: Answer) -> Reading:
        """Return what the answer says.

        :raises ImageTagError: the answer is an error, or not what the document describes.
        """
        ...

    def build_probe(self, account: Account, authorization: str) -> Request:
        """Return a request that proves endpoint and signature and is not billed."""
        ...

    def check_probe(self, answer: Answer) -> None:
        """Return when the answer to the probe proves endpoint and signature.

        :raises ImageTagError: what is wrong with the connection.
        """
        ...
