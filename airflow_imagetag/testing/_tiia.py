"""TIIA, the newer product: the actions ``DetectLabelPro`` and ``DetectLabel``.

The vendor lists the codes for these actions and for every action of its cloud, without their
causes; where several codes fit, the choice is the emulator's own. So are the categories, and the
differences between scenes: the vendor's fit what its service recognises.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from dataclasses import dataclass
from typing import Any, Final

from airflow_imagetag.testing import _tc3
from airflow_imagetag.testing._api import (
    AnswerForm,
    EmulatorAccount,
    ImageProblem,
    ImageRequest,
    Labels,
    RefusalError,
    RequestHead,
    UnusableImageError,
    http_refusal,
    tiia_refusal,
)

_NAMES: Final = {
    ("Colour", "Hue"): ("Red", "Orange", "Yellow", "Green", "Blue", "Purple", "Pink", "Brown"),
    ("Colour", "Neutral"): ("Black", "Gray", "White"),
    ("Colour", "Impression"): ("Colorful", "Monochrome", "Warm", "Cool"),
    ("Light", "Brightness"): ("Bright", "Dark"),
    ("Light", "Contrast"): ("High contrast", "Low contrast"),
    ("Composition", "Shape"): ("Landscape orientation", "Portrait orientation", "Square"),
    ("Composition", "Detail"): ("Detailed", "Plain"),
    ("Composition", "Focus"): ("Sharp", "Blurry"),
}

CATEGORIES: Final = {name: pair for pair, names in _NAMES.items() for name in names}
"""First and second category of every label that the emulator can measure."""

MODEL_CATEGORIES: Final = ("Object", "Object")
"""Categories of the labels of a model, which has none."""


def categories_of(name: str) -> tuple[str, str]:
    """Return first and second category of a label."""
    return CATEGORIES.get(name, MODEL_CATEGORIES)


@dataclass(frozen=True, slots=True)
class Scene:
    """Labels of a scene: their differences from the labels of V2.

    :param field: field of the labels in an answer of DetectLabel.
    :param ignored: second category that the scene leaves out.
    :param certainty: factor of the probabilities.
    :param has_categories: whether the labels have categories.
    """

    field: str
    ignored: str | None = None
    certainty: float = 1.0
    has_categories: bool = True


WEB: Final = Scene("Labels")

SCENES: Final = {
    "WEB": WEB,
    "CAMERA": Scene("CameraLabels", ignored="Shape", certainty=0.95),
    "ALBUM": Scene("AlbumLabels", ignored="Contrast", certainty=0.9),
    # The vendor's model for news gives no categories yet.
    "NEWS": Scene("NewsLabels", ignored="Impression", certainty=0.85, has_categories=False),
}


def items(labels: Labels, scene: Scene = WEB) -> list[dict[str, Any]]:
    """Return the labels of a scene in the form of an answer."""
    kept = [label for label in labels if categories_of(label[0])[1] != scene.ignored]
    return [_item(name, probability, scene) for name, probability in kept or labels]


def _item(name: str, probability: float, scene: Scene) -> dict[str, Any]:
    first, second = categories_of(name) if scene.has_categories else ("", "")
    return {
        "Name": name,
        "Confidence": round(100 * scene.certainty * probability),
        "FirstCategory": first,
        "SecondCategory": second,
    }


VERSION: Final = "2019-05-29"

MAX_BASE64_CHARACTERS: Final = 4 * 1024 * 1024
"""Maximum length of an image in Base64, the vendor's limit of 4 MB; also for one behind a URL."""

MAX_BODY_BYTES: Final = 10 * 1024 * 1024
"""Maximum size of a body, the vendor's limit of 10 MB for TC3-HMAC-SHA256."""

_REQUIRED_HEADERS: Final = ("X-TC-Action", "X-TC-Timestamp", "X-TC-Version", "X-TC-Region")

_PROBLEM_CODES: Final = {
    ImageProblem.UNDECODABLE: "FailedOperation.ImageDecodeFailed",
    ImageProblem.EMPTY: "FailedOperation.EmptyImageError",
    ImageProblem.TOO_LARGE: "LimitExceeded.TooLargeFileError",
    ImageProblem.URL_INVALID: "FailedOperation.ImageUrlInvalid",
    ImageProblem.NOT_DOWNLOADED: "FailedOperation.ImageDownloadError",
}

_OTHER_FORMATS: Final = {
    "GIF": (0, (b"GIF8",)),
    "TIFF": (0, (b"II*\0", b"MM\0*")),
    "WebP": (8, (b"WEBP",)),
    "HEIF or AVIF": (4, (b"ftyp",)),
}
"""Formats that TIIA refuses, with the offset and the values of their magic bytes."""


@dataclass(frozen=True, slots=True)
class TiiaApi:
    """An action of TIIA.

    :param name: name of the action; empty for an unknown one.
    :param parameters: accepted names in its JSON object.
    """

    name: str
    parameters: tuple[str, ...] = ()
    content_type = "application/json"
    max_image_bytes = MAX_BASE64_CHARACTERS // 4 * 3

    def admit(self, head: RequestHead) -> None:
        """Check method, length and the headers that every action needs."""
        if head.method != "POST":
            raise tiia_refusal("UnsupportedProtocol", f"no such method here: {head.method}")
        if head.content_length is None:
            raise http_refusal(411, "the request has no Content-Length")
        if head.content_length > MAX_BODY_BYTES:
            message = f"the body is over {MAX_BODY_BYTES} bytes"
            raise tiia_refusal("RequestSizeLimitExceeded", message)
        for name in _REQUIRED_HEADERS:
            if not head.headers.get(name):
                raise tiia_refusal("MissingParameter", f"the header {name} is missing")

    def authenticate(
        self, head: RequestHead, body: bytes, account: EmulatorAccount, now: float
    ) -> None:
        """Check the TC3-HMAC-SHA256 signature."""
        _tc3.verify(head, body, account, service="tiia", now=now)

    def read(self, head: RequestHead, body: bytes, account: EmulatorAccount) -> ImageRequest:
        """Parse the request; its signature has already identified the account."""
        if not self.name:
            raise tiia_refusal("InvalidAction", f"no such action: {head.headers['X-TC-Action']}")
        if head.headers["X-TC-Version"] != VERSION:
            raise tiia_refusal("NoSuchVersion", f"X-TC-Version must be {VERSION}")
        kind = head.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise tiia_refusal("InvalidParameter", "Content-Type must be application/json")
        given = self._parse(body)
        scenes = _scenes(given.get("Scenes")) if "Scenes" in self.parameters else ()
        return _choose_image(given.get("ImageUrl"), given.get("ImageBase64"), scenes)

    def _parse(self, body: bytes) -> dict[str, Any]:
        """Return the given parameters that are not null."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            raise tiia_refusal("InvalidParameter", "the body is not JSON") from None
        if not isinstance(document, dict):
            raise tiia_refusal("InvalidParameter", "the body is not a JSON object")
        unknown = [name for name in document if name not in self.parameters]
        if unknown:
            raise tiia_refusal("UnknownParameter", f"no such parameter: {unknown[0]}")
        given = {name: value for name, value in document.items() if value is not None}
        for name, value in given.items():
            if not isinstance(value, list if name == "Scenes" else str):
                raise tiia_refusal("InvalidParameter", f"the type of {name} is wrong")
        return given

    def check_image(self, image: bytes) -> None:
        """Refuse known formats other than PNG, JPEG and BMP."""
        if kind := refused_format(image):
            message = f"{kind} is not supported; PNG, JPG and BMP are"
            raise tiia_refusal("FailedOperation.ImageNotSupported", message)

    def success(
        self,
        labels: Labels,
        wanted: ImageRequest,
        form: AnswerForm,
    ) -> dict[str, Any]:
        """Return the answer's JSON object."""
        answer: dict[str, Any] = {"Labels": items(labels)}
        if "Scenes" in self.parameters:
            answer = {
                scene.field: items(labels, scene) if name in wanted.scenes else None
                for name, scene in SCENES.items()
            }
        return respond(answer)

    def refuse(self, error: UnusableImageError) -> RefusalError:
        """Return the refusal of an image."""
        return tiia_refusal(_PROBLEM_CODES[error.problem], error.message)

    def throttle(self, status: int) -> RefusalError:
        """Return the refusal of a request over the quota."""
        return tiia_refusal("RequestLimitExceeded", "over the quota of requests")

    def fault(self, code: str, message: str) -> RefusalError:
        """Return the refusal that a fault asks for."""
        return tiia_refusal(code, message)

    def error_answer(self, refusal: RefusalError) -> dict[str, Any]:
        """Return the JSON object of a refusal; one by HTTP status is that of a gateway."""
        if isinstance(refusal.code, str):
            return respond({"Error": {"Code": refusal.code, "Message": refusal.message}})
        return {"code": refusal.code, "message": refusal.message}

    def encode(self, answer: dict[str, Any]) -> bytes:
        """Return the JSON of an answer."""
        return json.dumps(answer).encode()


def refused_format(image: bytes) -> str | None:
    """Return the name of a known format other than PNG, JPEG and BMP; else None."""
    found = (
        kind for kind, (start, signs) in _OTHER_FORMATS.items() if image[start:].startswith(signs)
    )
    return next(found, None)


def respond(content: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON object of an answer: its content and a new request id."""
    return {"Response": {**content, "RequestId": str(uuid.uuid4())}}


def _scenes(given: list[Any] | None) -> tuple[str, ...]:
    """Return the distinct scenes of the request."""
    if not all(isinstance(name, str) and name in SCENES for name in given or ()):
        code = "InvalidParameterValue.InvalidParameterValueLimit"
        raise tiia_refusal(code, f"Scenes must be of {', '.join(SCENES)}")
    return tuple(dict.fromkeys(given or ("WEB",)))


def _choose_image(url: str | None, image: str | None, scenes: tuple[str, ...]) -> ImageRequest:
    # An empty ImageUrl does not hide an image beside it.
    if url:
        return ImageRequest(url, b"", scenes)
    if image is None:
        message = "neither ImageUrl nor ImageBase64 is given"
        raise tiia_refusal("MissingParameter.ErrorParameterEmpty", message)
    if not image:
        raise tiia_refusal(_PROBLEM_CODES[ImageProblem.EMPTY], "ImageBase64 is empty")
    if len(image) > MAX_BASE64_CHARACTERS:
        message = f"ImageBase64 is over {MAX_BASE64_CHARACTERS} characters"
        raise tiia_refusal(_PROBLEM_CODES[ImageProblem.TOO_LARGE], message)
    try:
        return ImageRequest(None, base64.b64decode(image, validate=True), scenes)
    except (binascii.Error, ValueError):
        message = "ImageBase64 is not Base64"
        raise tiia_refusal(_PROBLEM_CODES[ImageProblem.UNDECODABLE], message) from None


_UNKNOWN: Final = TiiaApi("")

_BY_ACTION: Final = {
    api.name: api
    for api in (
        TiiaApi("DetectLabelPro", ("ImageUrl", "ImageBase64")),
        TiiaApi("DetectLabel", ("ImageUrl", "ImageBase64", "Scenes")),
    )
}


def find(head: RequestHead) -> TiiaApi | None:
    """Return the action of a request, or None for a request that is not TIIA's."""
    action = head.headers.get("X-TC-Action", "")
    signed = head.headers.get("Authorization", "").startswith(_tc3.ALGORITHM)
    if head.path != "/" or not (action or signed):
        return None
    return _BY_ACTION.get(action, _UNKNOWN)
