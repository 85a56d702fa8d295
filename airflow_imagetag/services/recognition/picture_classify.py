"""Version 2 of the label API: ``picture_classify``.

Source: the vendor's interface document. It contradicts itself in two places, and both forms are
read: ``data`` is a list of objects in its example and one object in its table, and the name of a
label is ``label_name`` in the example and ``level_name`` in the table.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from airflow_imagetag.models import Label
from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.base import Limits
from airflow_imagetag.services.messages import (
    HttpResponse,
    ParsedLabels,
    Request,
    most_probable_first,
)
from airflow_imagetag.services.multipart import Form
from airflow_imagetag.services.recognition import envelope
from airflow_imagetag.services.recognition.base import MAX_BODY_BYTES, Recognition, check_size

MULTIPART_OVERHEAD_BYTES = 1024
"""Maximum size of the boundaries, part headers and app_id that multipart/form-data adds."""


class PictureClassify(Recognition):
    """Builds requests of ``picture_classify`` and reads their responses.

    A URL goes in JSON. Bytes go as the account's ``image_encoding`` says: multipart carries them as
    they are, base64 in JSON needs a third more of the same limit.
    """

    api = "picture_classify"
    path = "/imagetag/picture_classify"
    app_id_name = "app_id"
    in_base64 = " in base64; multipart carries more"

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(account, clock=clock)
        self._form = Form(self._fields(), "image")
        self._is_base64 = account.image_encoding == "base64"

    @property
    def limits(self) -> Limits:
        """The whole body may have 6 MB, however the image is sent."""
        if self._is_base64:
            return super().limits
        return Limits(MAX_BODY_BYTES - MULTIPART_OVERHEAD_BYTES)

    def read(self, response: HttpResponse) -> ParsedLabels:
        """Return the labels of a response in either form of the document.

        :raises ImageTagError: the class that the code or the status stands for;
            ``MalformedAnswerError`` for a form that the document does not describe.
        """
        document = envelope.decode(response)
        labels = [_label(response, item) for item in _items(response, document.get("data"))]
        return ParsedLabels(most_probable_first(labels))

    def _content(self, content: bytes) -> Request:
        if self._is_base64:
            return super()._content(content)
        check_size(len(content) + MULTIPART_OVERHEAD_BYTES)
        return self._request(*self._form.fill(content))


def _items(response: HttpResponse, data: Any) -> list[Any]:
    groups = data if isinstance(data, list) else [data]
    if len(groups) == 1:
        return _group_items(response, groups[0])
    if not groups:
        raise response_parsing.malformed(response, "'data' is empty")
    return [item for group in groups for item in _group_items(response, group)]


def _group_items(response: HttpResponse, group: Any) -> list[Any]:
    items = group.get("items") if isinstance(group, dict) else None
    if not isinstance(items, list):
        raise response_parsing.malformed(response, "'data' has no list 'items'")
    return items


def _label(response: HttpResponse, item: Any) -> Label:
    if not isinstance(item, dict):
        raise response_parsing.malformed(response, "a label is not an object")
    name = item["label_name"] if "label_name" in item else item.get("level_name")
    return response_parsing.label(response, name, item.get("probability"))
