"""The APIs ``picture_classify`` (V2) and ``imagetag_detect`` (V1)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from airflow_imagetag.testing._api import (
    AnswerForm,
    ApiName,
    BusinessCode,
    EmulatorAccount,
    ImageProblem,
    ImageRequest,
    Labels,
    RefusalError,
    RequestHead,
    UnusableImageError,
    business_refusal,
    http_refusal,
)
from airflow_imagetag.testing._recognition_signature import verify

MAX_BODY_BYTES: Final = 6 * 1024 * 1024
"""Maximum size of a whole body, the vendor's limit of 6 MB."""

MAX_URL_CHARACTERS: Final = 1024
"""Maximum length of a URL before -1304. The vendor documents the code and no length."""


@dataclass(frozen=True, slots=True)
class RecognitionApi:
    """V1 or V2.

    :param name: its name in the counts.
    :param path: path that requests are posted to.
    :param app_id_names: accepted names of the AppID.
    :param multipart: whether a form with a file is accepted in addition to JSON.
    :param content_type_required: whether JSON needs a Content-Type.
    :param shape: builds the JSON object of an answer from labels.
    """

    name: ApiName
    path: str
    app_id_names: tuple[str, ...]
    multipart: bool
    content_type_required: bool
    shape: Callable[[Labels, AnswerForm], dict[str, Any]]
    content_type = "application/json"
    max_image_bytes = MAX_BODY_BYTES

    def admit(self, head: RequestHead) -> None:
        """Check path, method and length, in the order of the documented statuses."""
        if head.path != self.path:
            raise http_refusal(404, f"no such path: {head.path}")
        if head.method != "POST":
            raise http_refusal(424, f"method not found: {head.method}")
        if head.content_length is None:
            raise http_refusal(411, "the request has no Content-Length")
        if head.content_length > MAX_BODY_BYTES:
            raise http_refusal(413, f"the body is over {MAX_BODY_BYTES} bytes")

    def authenticate(
        self, head: RequestHead, body: bytes, account: EmulatorAccount, now: float
    ) -> None:
        """Check the Authorization header, which does not sign the body."""
        verify(head.headers.get("Authorization"), account, now=now)

    def read(self, head: RequestHead, body: bytes, account: EmulatorAccount) -> ImageRequest:
        """Parse the request, which must name the account's AppID."""
        content_type = head.headers.get("Content-Type", "")
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
        self._check_app_id(texts, account.app_id)
        return _choose_image(texts.get("url"), image)

    def _check_app_id(self, texts: Mapping[str, str], app_id: str) -> None:
        given = next((texts[name] for name in self.app_id_names if texts.get(name)), None)
        if given is None:
            raise business_refusal(
                BusinessCode.PARAMETER_MISSING, f"{self.app_id_names[0]} is missing"
            )
        if given != app_id:
            raise http_refusal(403, f"{self.app_id_names[0]} is not that of the signature")

    def check_image(self, image: bytes) -> None:
        """Accept every format; the decoder decides."""

    def success(
        self,
        labels: Labels,
        wanted: ImageRequest,
        form: AnswerForm,
    ) -> dict[str, Any]:
        """Return the answer's JSON object."""
        return self.shape(labels, form)

    def refuse(self, error: UnusableImageError) -> RefusalError:
        """Return the refusal of an image.

        The vendor documents no code for a failed download. The emulator answers -1300, "the image
        is empty", since no image arrived; the message gives the reason.
        """
        undecodable = error.problem is ImageProblem.UNDECODABLE
        code = BusinessCode.UNDECODABLE if undecodable else BusinessCode.IMAGE_EMPTY
        return business_refusal(code, error.message)

    def throttle(self, status: int) -> RefusalError:
        """Return the refusal of a request over the quota."""
        return http_refusal(status, "over the quota of requests")

    def fault(self, code: str, message: str) -> None:
        """Have no codes of text."""

    def error_answer(self, refusal: RefusalError) -> dict[str, Any]:
        """Return the JSON object of a refusal."""
        return {"code": refusal.code, "message": refusal.message}

    def encode(self, answer: dict[str, Any]) -> bytes:
        """Return the JSON of an answer."""
        return json.dumps(answer).encode()


def _read_json(body: bytes, names: tuple[str, ...]) -> tuple[dict[str, str], str | None]:
    """Return the named text parameters and the image in Base64."""
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
    # An empty url does not hide an image beside it.
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


def _v2_answer(labels: Labels, form: AnswerForm) -> dict[str, Any]:
    name_field = "label_name" if form == "example" else "level_name"
    items = [{name_field: name, "probability": probability} for name, probability in labels]
    data = [{"items": items}] if form == "example" else {"items": items}
    return {"code": int(BusinessCode.OK), "message": "ok", "data": data}


def _v1_answer(labels: Labels, _form: AnswerForm) -> dict[str, Any]:
    tags = [
        {"tag_name": name, "tag_confidence": round(probability * 100)}
        for name, probability in labels
    ]
    return {"code": int(BusinessCode.OK), "message": "success", "tags": tags}


V2: Final = RecognitionApi(
    name="picture_classify",
    path="/imagetag/picture_classify",
    app_id_names=("app_id",),
    multipart=True,
    content_type_required=True,
    shape=_v2_answer,
)

V1: Final = RecognitionApi(
    name="imagetag_detect",
    path="/v1/detection/imagetag_detect",
    app_id_names=("appid", "app_id"),
    multipart=False,
    # The vendor's own client sends no Content-Type with an image in the body.
    content_type_required=False,
    shape=_v1_answer,
)

_BY_PATH: Final = {api.path: api for api in (V2, V1)}


def find(head: RequestHead) -> RecognitionApi | None:
    """Return the API of a request by its path, or None."""
    return _BY_PATH.get(head.path)


_PARAMETER: Final = re.compile(r';\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')


class MultipartError(ValueError):
    """Raised for a body that is not multipart/form-data."""


@dataclass(frozen=True, slots=True)
class FormPart:
    """One field of the form.

    :param is_file: whether the part has a filename.
    """

    content: bytes
    is_file: bool


def read_form(content_type: str, body: bytes) -> dict[str, FormPart]:
    """Return the fields of a form by name; the last one of a repeated name.

    :param content_type: value of the Content-Type header, with the boundary.
    :param body: the whole body.
    :raises MultipartError: the boundary is missing, or the body does not match it.
    """
    boundary = _parameters(content_type).get("boundary", "")
    if not boundary:
        raise MultipartError("Content-Type names no boundary")
    delimiter = b"\r\n--" + boundary.encode()
    # A line break in front makes the first delimiter like the others.
    _preamble, *sections = (b"\r\n" + body).split(delimiter)
    if not sections or not sections.pop().startswith(b"--"):
        raise MultipartError("the closing boundary is missing")
    return dict(_read_part(section) for section in sections)


def _read_part(section: bytes) -> tuple[str, FormPart]:
    head, separator, content = section.partition(b"\r\n\r\n")
    if not separator:
        raise MultipartError("a part has no end of headers")
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            parameters = _parameters(value)
            if "name" not in parameters:
                raise MultipartError("a part has no name")
            return parameters["name"], FormPart(content, "filename" in parameters)
    raise MultipartError("a part has no Content-Disposition")


def _parameters(value: str) -> dict[str, str]:
    return {
        match[1].lower(): match[2] if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(value)
    }
