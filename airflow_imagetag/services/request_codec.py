"""An account and its interface: all of a call except sending it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from airflow_imagetag.errors import ImageTagError, MalformedAnswerError
from airflow_imagetag.models import Image, Label, TagResult
from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.base import Limits
from airflow_imagetag.services.messages import HttpResponse, ParsedLabels, Payload, Request
from airflow_imagetag.services.registry import BUILT_IN, find_service


class RequestCodec:
    """Builds the requests of one account and turns their answers into results.

    :param account: what the connection says.
    :param clock: wall clock, in Unix seconds.
    """

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        self._service = find_service(account.api)(account, clock=clock)
        self._is_built_in = account.api in BUILT_IN
        self._clock = clock

    @property
    def limits(self) -> Limits:
        """What of an image is checked before it is sent."""
        return self._service.limits

    @property
    def calls_per_image(self) -> int:
        """How many calls the vendor bills for one request."""
        return self._service.calls_per_image

    @property
    def max_inline_bytes(self) -> int:
        """Maximum size of an image for which ``request`` needs no thread."""
        return self._service.max_inline_bytes

    @property
    def needs_io(self) -> bool:
        """Whether the next ``request`` waits for I/O and so needs a thread for any image."""
        return self._service.needs_io

    def request(self, payload: Payload) -> Request:
        """Return the signed request for one image.

        :raises ImageError: the image cannot be sent.
        """
        return self._service.build(payload)

    def result(self, image: Image, answer: HttpResponse, digest: str | None = None) -> TagResult:
        """Return the labels that the answer holds for the image.

        :param digest: SHA-256 of the bytes that were sent; None for a URL.
        :raises ImageTagError: the answer is an error, or not what the document describes.
        """
        reading = self._read(answer)
        return TagResult(
            image_key=image.key,
            image_uri=image.display_uri,
            labels=reading.labels,
            api=self._service.api,
            tagged_at=datetime.fromtimestamp(self._clock(), UTC),
            request_id=reading.request_id,
            version=image.version,
            content_sha256=digest,
        )

    def _read(self, answer: HttpResponse) -> ParsedLabels:
        try:
            reading = self._service.read(answer)
            if not self._is_built_in:
                for label in reading.labels:
                    _check_storable(label)
            return reading
        except MalformedAnswerError as error:
            if self._is_built_in:
                raise
            # In its answers, nothing is known to say that the call was a success.
            raise _perhaps_billed(error, answer) from None
        except ImageTagError:
            raise
        # A service of another package may have met an answer that its author did not think of.
        except Exception as error:
            why = f"{self._service.api} cannot read it ({type(error).__name__})"
            raise _perhaps_billed(response_parsing.malformed(answer, why), answer) from error

    def probe(self) -> Request:
        """Return a signed request that is not billed."""
        return self._service.build_probe()

    def check_probe(self, answer: HttpResponse) -> None:
        """Return when the answer to the probe proves endpoint and signature.

        :raises ImageTagError: what is wrong with the connection.
        """
        self._service.check_probe(answer)


def _perhaps_billed(error: MalformedAnswerError, answer: HttpResponse) -> MalformedAnswerError:
    """Return the error with the code of a success, where the service may have billed the call.

    So it is not made again and again: the answer is hardly another one the next time.
    """
    if answer.status == 200:
        error.code = response_parsing.SUCCESS
    return error


def _check_storable(label: Label) -> None:
    """Raise what it may where no table could hold the label: one would spoil a whole batch."""
    for text in (label.name, label.category or "", label.subcategory or "", label.scene or ""):
        text.encode()
    if not 0 <= label.probability <= 1:
        raise ValueError(label.probability)
