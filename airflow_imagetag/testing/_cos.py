"""Cloud Object Storage and Cloud Infinite: a bucket, and the labels of its objects.

One bucket answers under every name: the emulator has one address, and a client that is given it as
the domain names no bucket. The vendor lists no codes for images that cannot be labelled; those are
the emulator's own, and so is the form of an answer: with scenes, it has a section for each.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape

from airflow_imagetag.testing import _cos_signature, _tiia
from airflow_imagetag.testing._api import (
    ImageProblem,
    ImageRequest,
    RefusalError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_imagetag.testing._api import (
        AnswerForm,
        EmulatorAccount,
        Labels,
        RequestHead,
        UnusableImageError,
    )

MAX_IMAGE_BYTES: Final = 32 * 1024 * 1024
"""Maximum size of an image, the vendor's limit for all that Cloud Infinite processes."""

MAX_KEYS: Final = 1000
"""Maximum number of objects in one page of a listing."""

SECTIONS: Final = {
    "web": ("WebLabels", "WEB"),
    "camera": ("CameraLabels", "CAMERA"),
    "album": ("AlbumLabels", "ALBUM"),
    "news": ("NewsLabels", "NEWS"),
}
"""Scenes, each with its section of an answer and the scene of TIIA whose labels it has."""

_PROBLEM_CODES: Final = {
    ImageProblem.UNDECODABLE: "ImageDecodeFailed",
    ImageProblem.EMPTY: "ImageEmpty",
    ImageProblem.TOO_LARGE: "ImageTooLarge",
    ImageProblem.URL_INVALID: "InvalidArgument",
    ImageProblem.NOT_DOWNLOADED: "ImageDownloadError",
}

_STATUSES: Final = {"SlowDown": 503, "ServiceUnavailable": 503, "InternalError": 500}
"""HTTP statuses of codes that a fault may name; all others have 400."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object of the bucket."""

    content: bytes
    etag: str
    modified: datetime


class Bucket:
    """The objects; any thread may put and read them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, StoredObject] = {}

    def put(self, key: str, content: bytes) -> None:
        """Keep an object, in place of an earlier one of this name."""
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        stored = StoredObject(bytes(content), etag, datetime.now(UTC))
        with self._lock:
            self._objects[key] = stored

    def get(self, key: str) -> StoredObject:
        """Return an object.

        :raises RefusalError: there is none of this name.
        """
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise RefusalError(404, "NoSuchKey", "The specified key does not exist.")
        return found

    def page(
        self, prefix: str, marker: str, max_keys: int
    ) -> tuple[list[tuple[str, StoredObject]], bool]:
        """Return the objects of a page, and whether more follow."""
        with self._lock:
            names = sorted(
                (key for key in self._objects if key.startswith(prefix) and key > marker),
                key=str.encode,
            )
            page = [(key, self._objects[key]) for key in names[:max_keys]]
        return page, len(names) > max_keys


class CosApi:
    """``ci_detect_label``: the labels of an object, or of the image behind a URL.

    :param bucket: the objects.
    """

    name = "ci_detect_label"
    max_image_bytes = MAX_IMAGE_BYTES
    content_type = "application/xml"

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def admit(self, head: RequestHead) -> None:
        """Check the method and the process that is asked for."""
        if head.method != "GET":
            raise RefusalError(405, "MethodNotAllowed", f"no such method here: {head.method}")
        if head.params.get("ci-process") != "detect-label":
            raise RefusalError(400, "InvalidArgument", "ci-process must be detect-label")

    def authenticate(
        self, head: RequestHead, body: bytes, account: EmulatorAccount, now: float
    ) -> None:
        """Check the signature of COS."""
        _cos_signature.verify(head, account, now=now)

    def read(self, head: RequestHead, body: bytes, account: EmulatorAccount) -> ImageRequest:
        """Return the object that the path names, or the URL in its place."""
        scenes = tuple(dict.fromkeys(filter(None, head.params.get("scenes", "").split(","))))
        if unknown := [scene for scene in scenes if scene not in SECTIONS]:
            raise RefusalError(400, "InvalidArgument", f"no such scene: {unknown[0]}")
        if url := head.params.get("detect-url"):
            return ImageRequest(url, b"", scenes)
        content = self._bucket.get(head.object_path[1:]).content
        if not content:
            raise RefusalError(400, _PROBLEM_CODES[ImageProblem.EMPTY], "the object is empty")
        return ImageRequest(None, content, scenes)

    def check_image(self, image: bytes) -> None:
        """Refuse the formats that TIIA refuses."""
        if kind := _tiia.refused_format(image):
            raise RefusalError(400, "ImageFormatNotSupport", f"{kind} is not supported")

    def success(self, labels: Labels, wanted: ImageRequest, form: AnswerForm) -> dict[str, Any]:
        """Return the answer as elements."""
        if not wanted.scenes:
            items = _tiia.items(labels, _tiia.SCENES["CAMERA"])
            return {"RecognitionResult": {"Labels": items}}
        sections = {}
        for scene in wanted.scenes:
            section, name = SECTIONS[scene]
            sections[section] = {"Labels": _tiia.items(labels, _tiia.SCENES[name])}
        return {"RecognitionResult": sections}

    def refuse(self, error: UnusableImageError) -> RefusalError:
        """Return the refusal of an image."""
        return RefusalError(400, _PROBLEM_CODES[error.problem], error.message)

    def throttle(self, status: int) -> RefusalError:
        """Return the refusal of a request over the quota."""
        return RefusalError(503, "SlowDown", "over the quota of requests")

    def fault(self, code: str, message: str) -> RefusalError:
        """Return the refusal that a fault asks for."""
        return RefusalError(_STATUSES.get(code, 400), code, message)

    def error_answer(self, refusal: RefusalError) -> dict[str, Any]:
        """Return the answer of a refusal as elements."""
        code = refusal.code
        if isinstance(code, int):
            code = HTTPStatus(refusal.status).phrase.title().replace(" ", "")
        fields = {"Code": code, "Message": refusal.message, "Resource": "/"}
        return {"Error": fields | {"RequestId": uuid.uuid4().hex, "TraceId": uuid.uuid4().hex}}

    def encode(self, answer: dict[str, Any]) -> bytes:
        """Return the XML of an answer."""
        return encode(answer)


def encode(answer: dict[str, Any]) -> bytes:
    """Return the XML of elements; a list repeats its element."""
    return ('<?xml version="1.0" encoding="utf-8"?>' + "".join(_elements(answer))).encode()


def _elements(value: dict[str, Any]) -> Iterator[str]:
    for name, content in value.items():
        for item in content if isinstance(content, list) else [content]:
            inner = "".join(_elements(item)) if isinstance(item, dict) else escape(str(item))
            yield f"<{name}>{inner}</{name}>"


def listing(bucket: Bucket, head: RequestHead) -> bytes:
    """Return a page of the bucket's objects as XML."""
    params = head.params
    max_keys = min(int(params.get("max-keys") or MAX_KEYS), MAX_KEYS)
    page, is_truncated = bucket.page(params.get("prefix", ""), params.get("marker", ""), max_keys)
    is_encoded = params.get("encoding-type") == "url"

    def shown(key: str) -> str:
        return quote(key) if is_encoded else key

    result: dict[str, Any] = {"IsTruncated": str(is_truncated).lower()}
    if is_truncated:
        result["NextMarker"] = shown(page[-1][0])
    result["Contents"] = [
        {
            "Key": shown(key),
            "LastModified": stored.modified.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "ETag": f'"{stored.etag}"',
            "Size": len(stored.content),
        }
        for key, stored in page
    ]
    return encode({"ListBucketResult": result})


def is_cos(head: RequestHead) -> bool:
    """Tell whether a request is one of COS."""
    signed = head.headers.get("Authorization", "").startswith(_cos_signature.PREFIX)
    return signed or "ci-process" in head.params


def is_for_labels(head: RequestHead) -> bool:
    """Tell whether a request of COS asks for labels, not for an object or a listing."""
    return "ci-process" in head.params
