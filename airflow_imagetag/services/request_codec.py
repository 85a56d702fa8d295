"""Encode an image for an account's interface and decode the response; sends nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from airflow_imagetag.errors import ImageTagError, MalformedAnswerError
from airflow_imagetag.models import Image, Label, TagResult
from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.base import Limits
from airflow_imagetag.services.messages import HttpResponse, Payload, Request
from airflow_imagetag.services.registry import BUILT_IN, find_service


class RequestCodec:
    """Builds the requests of one account and turns their responses into results.

    :param account: the fields of the connection.
    :param clock: wall clock, in Unix seconds.
    """

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        self._service = find_service(account.api)(account, clock=clock)
        self._is_built_in = account.api in BUILT_IN
        self._clock = clock

    @property
    def limits(self) -> Limits:
        """Limits that an image is checked against before it is sent."""
        return self._service.limits

    @property
    def calls_per_image(self) -> int:
        """Number of calls that the vendor bills for one request."""
        return self._service.calls_per_image

    @property
    def max_inline_bytes(self) -> int:
        """Maximum size of an image for which ``request`` needs no thread."""
        return self._service.max_inline_bytes

    @property
    def needs_io(self) -> bool:
        """Whether the next ``request`` waits for I/O and so needs a thread for any image."""
        return self._service.needs_io

    @property
    def takes_bytes(self) -> bool:
        """Whether the bytes of an image can be sent."""
        return self._service.takes_bytes

    def object_key(self, uri: str) -> str | None:
        """Return the name under which the service itself reads the image; None if it does not.

        :raises ImageError: the service labels no image of this URI.
        """
        return self._service.object_key(uri)

    def request(self, payload: Payload) -> Request:
        """Return the signed request for one image.

        :raises ImageError: the image cannot be sent.
        """
        return self._service.build(payload)

    def result(self, image: Image, response: HttpResponse, digest: str | None = None) -> TagResult:
        """Return the labels that the response holds for the image.

        :param digest: SHA-256 of the bytes that were sent; None for a URL.
        :raises ImageTagError: the response is an error, or the vendor's document does not describe
            it.
        """
        try:
            parsed = self._service.read(response)
            if not self._is_built_in:
                for label in parsed.labels:
                    _check_storable(label)
        except MalformedAnswerError as error:
            if self._is_built_in:
                raise
            # The mark of success in a response of another vendor is not known here.
            raise _perhaps_billed(error, response) from None
        except ImageTagError:
            raise
        # The author of a service of another package may not have foreseen the response.
        except Exception as error:
            why = f"{self._service.api} cannot read it ({type(error).__name__})"
            raise _perhaps_billed(response_parsing.malformed(response, why), response) from error
        # By position: names would take as long again.
        return TagResult(
            image.key,
            image.display_uri,
            parsed.labels,
            self._service.api,
            datetime.fromtimestamp(self._clock(), UTC),
            parsed.request_id,
            False,
            image.version,
            digest,
        )

    def probe(self) -> Request:
        """Return a signed request that is not billed."""
        return self._service.build_probe()

    def check_probe(self, response: HttpResponse) -> None:
        """Check that the response to the probe proves endpoint and signature.

        :raises ImageTagError: its class and message name the fault of the connection.
        """
        self._service.check_probe(response)


def _perhaps_billed(error: MalformedAnswerError, response: HttpResponse) -> MalformedAnswerError:
    """Return the error with the code of a success, where the service may have billed the call.

    The engine does not repeat such a call: the next response is most likely the same.
    """
    if response.status == 200:
        error.code = response_parsing.SUCCESS
    return error


def _check_storable(label: Label) -> None:
    """Raise ValueError for a label that no table can hold: it would spoil a whole batch."""
    for text in (label.name, label.category or "", label.subcategory or "", label.scene or ""):
        text.encode()
    if not 0 <= label.probability <= 1:
        raise ValueError(label.probability)
