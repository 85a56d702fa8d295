"""Version 2 of the label API: ``picture_classify``.

Source: the vendor's interface document. It contradicts itself in two places, and both forms are
read: ``data`` is a list of objects in its example and one object in its table, and the name of a
label is ``label_name`` in the example and ``level_name`` in the table.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

from airflow_imagetag.errors import (
    ImageDecodeError,
    ImageEmptyError,
    ImageTooLargeError,
    InvalidImageError,
)
from airflow_imagetag.models import Label
from airflow_imagetag.service import answers
from airflow_imagetag.service.account import Account
from airflow_imagetag.service.base import Answer, Payload, Reading, Request
from airflow_imagetag.service.multipart import multipart

MAX_BODY_BYTES = 6 * 1024 * 1024
"""The document limits the whole body of a request to 6 MB."""

MULTIPART_OVERHEAD_BYTES = 1024
"""Room for what multipart/form-data puts around the image: boundaries, part headers, app_id."""


class PictureClassify:
    """Builds and reads requests of ``picture_classify``."""

    api = "picture_classify"
    path = "/imagetag/picture_classify"

    def build(self, account: Account, payload: Payload, authorization: str) -> Request:
        """Return the request for one image.

        A URL goes in JSON. Bytes go as the account's ``image_encoding`` says: multipart carries
        them as they are, base64 in JSON needs a third more of the same limit.

        :raises ImageEmptyError: the image has no bytes.
        :raises ImageTooLargeError: the body would be over 6 MB.
        :raises InvalidImageError: neither URL nor bytes.
        """
        if payload.url is not None:
            body = json.dumps({"app_id": account.app_id, "url": payload.url}).encode()
            return self._json(account, authorization, body)
        if payload.content is None:
            raise InvalidImageError("The image has neither a URL nor bytes.")
        if not payload.content:
            raise ImageEmptyError("The image is empty: it has zero bytes.")
        if account.image_encoding == "base64":
            return self._base64(account, authorization, payload.content)
        return self._multipart(account, authorization, payload.content)

    def read(self, answer: Answer) -> Reading:
        """Return the labels of an answer in either form of the document.

        :raises ImageTagError: the class that the code or the status stands for;
            ``MalformedAnswerError`` for what the document does not describe.
        """
        document = answers.decode(answer)
        labels = [_label(answer, item) for item in _items(answer, document.get("data"))]
        labels.sort(key=lambda label: -label.probability)
        return Reading(tuple(labels))

    def build_probe(self, account: Account, authorization: str) -> Request:
        """Return a request with an empty image, which the service refuses after the signature."""
        body = json.dumps({"app_id": account.app_id, "image": ""}).encode()
        return self._json(account, authorization, body)

    def check_probe(self, answer: Answer) -> None:
        """Return when the service refused the probe for its image and nothing else.

        :raises ImageTagError: what is wrong with the connection.
        """
        try:
            self.read(answer)
        except (ImageEmptyError, ImageDecodeError):
            return
        raise answers.malformed(answer, "an empty image was labelled")

    def _multipart(self, account: Account, authorization: str, content: bytes) -> Request:
        _check_size(len(content) + MULTIPART_OVERHEAD_BYTES, "")
        content_type, body = multipart({"app_id": account.app_id}, "image", content)
        headers = {"Authorization": authorization, "Content-Type": content_type}
        return Request(url=account.endpoint + self.path, headers=headers, body=body)

    def _base64(self, account: Account, authorization: str, content: bytes) -> Request:
        # Checked before encoding, so that a huge image costs no memory.
        _check_size(len(content) * 4 // 3 + 64, " in base64; multipart carries more")
        # Base64 needs no escaping, so the body is pasted together: json.dumps would scan it all.
        head = json.dumps({"app_id": account.app_id})[:-1].encode()
        body = head + b', "image": "' + base64.b64encode(content) + b'"}'
        return self._json(account, authorization, body)

    def _json(self, account: Account, authorization: str, body: bytes) -> Request:
        headers = {"Authorization": authorization, "Content-Type": "application/json"}
        return Request(url=account.endpoint + self.path, headers=headers, body=body)


def _check_size(body_bytes: int, how: str) -> None:
    if body_bytes > MAX_BODY_BYTES:
        raise ImageTooLargeError(
            f"The image makes a request of {body_bytes / 1024 / 1024:.1f} MB{how}, and the service "
            "takes 6 MB. Make the image smaller."
        )


def _items(answer: Answer, data: Any) -> Iterator[Any]:
    groups = data if isinstance(data, list) else [data]
    if not groups:
        raise answers.malformed(answer, "'data' is empty")
    for group in groups:
        items = group.get("items") if isinstance(group, dict) else None
        if not isinstance(items, list):
            raise answers.malformed(answer, "'data' has no list 'items'")
        yield from items


def _label(answer: Answer, item: Any) -> Label:
    if not isinstance(item, dict):
        raise answers.malformed(answer, "a label is not an object")
    name = item["label_name"] if "label_name" in item else item.get("level_name")
    return Label(
        answers.label_name(answer, name),
        answers.probability(answer, item.get("probability")),
    )
