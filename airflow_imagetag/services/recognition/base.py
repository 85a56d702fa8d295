"""The common parts of both versions of the recognition service: signature, limit, probe."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar
from urllib.parse import urlsplit

from airflow_imagetag.errors import ImageDecodeError, ImageEmptyError, ImageTooLargeError
from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.account import DEFAULT_HOST, Account
from airflow_imagetag.services.base import Limits, Service
from airflow_imagetag.services.json_body import JsonForm, base64_bytes, content_of
from airflow_imagetag.services.messages import HttpResponse, Payload, Request
from airflow_imagetag.services.recognition.signature import ReusableSignature

MAX_BODY_BYTES = 6 * 1024 * 1024
"""Maximum size of the whole body of a request; the vendor's document says 6 MB."""

BASE64_OVERHEAD_BYTES = 1024
"""Maximum size of the JSON around the image."""


class Recognition(Service):
    """One version of the recognition service; builds requests that are signed and not yet sent."""

    host = DEFAULT_HOST
    required = ("login", "password", "app_id")
    path: ClassVar[str]
    app_id_name: ClassVar[str]
    # Neither multipart nor base64 takes as long as a thread needs to take over.
    max_inline_bytes = sys.maxsize
    in_base64: ClassVar[str] = " in base64"
    """Encoding of the image, for the message about one that is too large."""

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(account, clock=clock)
        self._json_form = JsonForm(self._fields(), "image")
        self._signature = ReusableSignature(
            account.app_id, account.secret_id, account.secret_key, account.bucket, clock=clock
        )
        self._url = account.endpoint + self.path

    @classmethod
    def validation_errors(cls, account: Account) -> Iterator[str]:
        """Yield a reason for each field that is missing, or has no use here."""
        yield from super().validation_errors(account)
        if (urlsplit(account.endpoint).hostname or "").endswith("tencentcloudapi.com"):
            yield f"host is not that of {cls.api}. Leave it empty"
        yield from cls.unused(account, "token", "credentials", "role", "sign_payload")

    @property
    def limits(self) -> Limits:
        """The whole body may have 6 MB, and base64 takes a third more than the image."""
        return Limits((MAX_BODY_BYTES - BASE64_OVERHEAD_BYTES) // 4 * 3)

    def build(self, payload: Payload) -> Request:
        """Return the request for one image: a URL or base64, in JSON.

        :raises ImageEmptyError: the image has no bytes.
        :raises ImageTooLargeError: the body would be over 6 MB.
        :raises InvalidImageError: neither URL nor bytes.
        """
        if payload.url is not None:
            return self._json({**self._fields(), "url": payload.url})
        return self._content(content_of(payload))

    def build_probe(self) -> Request:
        """Return a request with an empty image, which the service refuses after the signature."""
        return self._json({**self._fields(), "image": ""})

    def check_probe(self, response: HttpResponse) -> None:
        """Check that the service refused the probe for its image and nothing else.

        :raises ImageTagError: its class and message name the fault of the connection.
        """
        try:
            self.read(response)
        except (ImageEmptyError, ImageDecodeError):
            return
        raise response_parsing.malformed(response, "an empty image was labelled")

    def _fields(self) -> dict[str, str]:
        """Return the fields that each request has beside its image."""
        return {self.app_id_name: self.account.app_id}

    def _content(self, content: bytes) -> Request:
        # Checked before encoding, so that a huge image costs no memory.
        check_size(base64_bytes(content) + BASE64_OVERHEAD_BYTES, self.in_base64)
        return self._request("application/json", self._json_form.fill(content))

    def _json(self, document: Mapping[str, str]) -> Request:
        return self._request("application/json", json.dumps(document).encode())

    def _request(self, content_type: str, body: bytes | tuple[bytes, ...]) -> Request:
        headers = {"Authorization": self._signature.value(), "Content-Type": content_type}
        return Request(self._url, headers, body)


def check_size(body_bytes: int, encoding: str = "") -> None:
    """Check the size of a request against the limit of 6 MB.

    :param body_bytes: size of the body.
    :param encoding: the encoding of the image, for the message.
    :raises ImageTooLargeError: the body is over the limit.
    """
    if body_bytes > MAX_BODY_BYTES:
        raise ImageTooLargeError(
            f"The image makes a request of {body_bytes / 1024 / 1024:.1f} MB{encoding}, and the "
            "service takes 6 MB. Make the image smaller, or use oversize='downscale'."
        )
