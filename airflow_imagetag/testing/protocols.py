"""The two protocols: reading a request and shaping the answer of success.

``V2`` is ``picture_classify``, ``V1`` its older sibling ``imagetag_detect``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from airflow_imagetag.testing.multipart import MultipartError, read_form
from airflow_imagetag.testing.refusal import BusinessCode, business_refusal, http_refusal

AnswerForm = Literal["example", "table"]
"""The V2 document shows the answer twice, differently: in its example and in its table."""

MAX_URL_CHARACTERS: Final = 1024
"""Longer URLs get -1304. The vendor documents the code and no length; this one is our choice."""

Labels = Sequence[tuple[str, float]]
"""Names with probabilities between 0 and 1, most probable first."""


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """A well-formed request: ``url`` is set, or else ``image`` holds bytes."""

    url: str | None
    image: bytes


@dataclass(frozen=True, slots=True)
class Protocol:
    """What tells one protocol from another.

    :param path: where requests are posted.
    :param app_id_names: names under which a request may give the AppID.
    :param multipart: whether a form with a file is accepted beside JSON.
    :param content_type_required: whether JSON must be announced in Content-Type.
    :param success: makes the answer's JSON object from labels.
    """

    path: str
    app_id_names: tuple[str, ...]
    multipart: bool
    content_type_required: bool
    success: Callable[[Labels, AnswerForm], dict[str, Any]]

    def read(self, content_type: str, body: bytes, app_id: str) -> ImageRequest:
        """Return what the request asks for.

        :param content_type: value of the Content-Type header, empty when there is none.
        :param body: the whole body.
        :param app_id: the account's AppID, which the request must name.
        :raises RefusalError: when the document does not allow the request.
        """
        texts: dict[str, str]
        image: str | bytes | None
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "multipart/form-data" and self.multipart:
            texts, image = _read_multipart(content_type, body)
        elif kind == "application/json" or (not kind and not self.content_type_required):
            texts, image = _read_json(body, (*self.app_id_names, "url", "image"))
        else:
            allowed = "application/json" + (" or multipart/form-data" if self.multipart else "")
            raise http_refusal(400, f"Content-Type must be {allowed}")
        self._check_app_id(texts, app_id)
        return _choose_image(texts.get("url"), image)

    def _check_app_id(self, texts: Mapping[str, str], app_id: str) -> None:
        given = next((texts[name] for name in self.app_id_names if texts.get(name)), None)
        if given is None:
            raise business_refusal(
                BusinessCode.PARAMETER_MISSING, f"{self.app_id_names[0]} is missing"
            )
        if given != app_id:
            raise http_refusal(403, f"{self.app_id_names[0]} is not the account of the signature")


def _read_json(body: bytes, names: tuple[str, ...]) -> tuple[dict[str, str], str | None]:
    """Return the named text parameters and the image, still in Base64."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise http_refusal(400, "the body is not JSON") from None
    if not isinstance(document, dict):
        raise http_refusal(400, "the body is not a JSON object")
    given = {name: document[name] for name in names if document.get(name) is not None}
    for name, value in given.items():
        if not isinstance(value, str):
            raise http_refusal(400, f"{name} must be a string")
    return given, given.pop("image", None)


def _read_multipart(content_type: str, body: bytes) -> tuple[dict[str, str], bytes | None]:
    """Return the text fields and the bytes of the image."""
    try:
        form = read_form(content_type, body)
    except MultipartError as error:
        raise http_refusal(400, f"the body is not multipart/form-data: {error}") from None
    for name, part in form.items():
        if part.is_file != (name == "image"):
            kind = "file part, with a filename" if name == "image" else "text field"
            raise http_refusal(400, f"{name} must be a {kind}")
    image = form.pop("image", None)
    try:
        texts = {name: part.content.decode() for name, part in form.items()}
    except UnicodeDecodeError:
        raise http_refusal(400, "a text field of the form is not UTF-8") from None
    return texts, image.content if image else None


def _choose_image(url: str | None, image: str | bytes | None) -> ImageRequest:
    # An empty url names no image, so that one beside it still counts.
    if url:
        if len(url) > MAX_URL_CHARACTERS:
            raise business_refusal(
                BusinessCode.PARAMETER_TOO_LONG, f"url is over {MAX_URL_CHARACTERS} characters"
            )
        return ImageRequest(url, b"")
    if image is None:
        raise business_refusal(BusinessCode.PARAMETER_MISSING, "neither url nor image is given")
    if not image:
        raise business_refusal(BusinessCode.IMAGE_EMPTY, "image is empty")
    return ImageRequest(None, image if isinstance(image, bytes) else _decode_base64(image))


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise business_refusal(BusinessCode.UNDECODABLE, "image is not Base64") from None


def _v2_success(labels: Labels, form: AnswerForm) -> dict[str, Any]:
    name_field = "label_name" if form == "example" else "level_name"
    items = [{name_field: name, "probability": probability} for name, probability in labels]
    data = [{"items": items}] if form == "example" else {"items": items}
    return {"code": int(BusinessCode.OK), "message": "ok", "data": data}


def _v1_success(labels: Labels, _form: AnswerForm) -> dict[str, Any]:
    tags = [
        {"tag_name": name, "tag_confidence": round(probability * 100)}
        for name, probability in labels
    ]
    return {"code": int(BusinessCode.OK), "message": "success", "tags": tags}


V2: Final = Protocol(
    path="/imagetag/picture_classify",
    app_id_names=("app_id",),
    multipart=True,
    content_type_required=True,
    success=_v2_success,
)

V1: Final = Protocol(
    path="/v1/detection/imagetag_detect",
    app_id_names=("appid", "app_id"),
    multipart=False,
    # The vendor's own client sends none with an image in the body.
    content_type_required=False,
    success=_v1_success,
)

BY_PATH: Final = {protocol.path: protocol for protocol in (V2, V1)}
