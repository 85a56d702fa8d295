"""Version 1 of the label API: ``imagetag_detect``, the older sibling of ``picture_classify``.

Source: the vendor's own client for it, ``qcloud_image`` 1.0.0. Bytes go as base64 in JSON, and a
label's confidence is a whole number from 0 to 100.
"""

from __future__ import annotations

from typing import Any

from airflow_imagetag.models import Label
from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.messages import HttpResponse, ParsedLabels, most_probable_first
from airflow_imagetag.services.recognition import envelope
from airflow_imagetag.services.recognition.base import Recognition

CERTAIN = 100.0
"""Confidence that means certainty."""


class ImagetagDetect(Recognition):
    """Builds requests of ``imagetag_detect`` and reads their responses."""

    api = "imagetag_detect"
    path = "/v1/detection/imagetag_detect"
    app_id_name = "appid"

    def read(self, response: HttpResponse) -> ParsedLabels:
        """Return the labels of a response, their confidence as a probability.

        :raises ImageTagError: the class that the code or the status stands for;
            ``MalformedAnswerError`` for a form that the vendor's client does not expect.
        """
        tags = envelope.decode(response).get("tags")
        if not isinstance(tags, list):
            raise response_parsing.malformed(response, "it has no list 'tags'")
        return ParsedLabels(most_probable_first([_label(response, tag) for tag in tags]))

    def _fields(self) -> dict[str, str]:
        bucket = self.account.bucket
        return super()._fields() | ({"bucket": bucket} if bucket else {})


def _label(response: HttpResponse, tag: Any) -> Label:
    if not isinstance(tag, dict):
        raise response_parsing.malformed(response, "a label is not an object")
    name, confidence = tag.get("tag_name"), tag.get("tag_confidence")
    return response_parsing.label(response, name, confidence, CERTAIN)
