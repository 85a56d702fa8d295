"""The interface of Cloud Infinite that labels an object in its bucket: ``ci_detect_label``.

Source: the vendor's page on it, https://cloud.tencent.com/document/product/460/39082, and its
client ``cos-python-sdk-v5``. Two forms of the answer are known: labels right below the root, and
labels in a section for each scene.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import urlsplit

from airflow_imagetag.errors import (
    ImageNotAllowedError,
    ImageTagError,
    InvalidImageError,
    MalformedAnswerError,
)
from airflow_imagetag.models import Label
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_http, split_object
from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.base import Limits
from airflow_imagetag.services.ci.errors import error_of, request_id_of
from airflow_imagetag.services.ci.signing import Signer
from airflow_imagetag.services.ci.xml_tree import Element, parse
from airflow_imagetag.services.messages import (
    HttpResponse,
    ParsedLabels,
    Payload,
    Request,
    most_probable_first,
)
from airflow_imagetag.services.scenes import SceneService

CERTAIN = 100.0
"""Confidence that means certainty; it is a whole number."""

SCENES: Mapping[str, str] = {
    "WEB": "WebLabels",
    "CAMERA": "CameraLabels",
    "ALBUM": "AlbumLabels",
    "NEWS": "NewsLabels",
}
"""Scenes, each with the section of the answer that has its labels."""

DEFAULT_SCENE = "CAMERA"
"""Scene that the service takes where none is asked for."""

OBJECT_SCHEMES = frozenset({"cos", "cosn", "s3", "s3a", "s3n"})
"""Schemes of URIs that may name an object of the bucket; COS has an interface like that of S3."""

# Of the vendor's page. The worker sees no bytes: only names are selected by their format.
_LIMITS = Limits(3 * 1024 * 1024, formats=frozenset({"PNG", "JPEG"}))

_BUCKET = re.compile(r"[a-z0-9][a-z0-9\-]{0,48}-[0-9]{5,20}")

_PROBE_KEY = "airflow-provider-imagetag/connection-test/no-such-object"


class CiDetectLabel(SceneService):
    """Builds requests of ``ci_detect_label`` and reads their answers.

    An image is an object of the connection's bucket, which the service reads where it lies, or an
    http(s) URL. Bytes cannot be sent.
    """

    api = "ci_detect_label"
    known_scenes = SCENES
    default_scene = DEFAULT_SCENE
    host = "{bucket}.cos.{region}.myqcloud.com"
    takes_bytes: ClassVar[bool] = False
    max_inline_bytes = sys.maxsize

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(account, clock=clock)
        self._signer = Signer(account, clock=clock)
        self._params = {"ci-process": "detect-label"}
        if account.scenes:
            self._params["scenes"] = ",".join(account.scenes).lower()

    @classmethod
    def validation_errors(cls, account: Account) -> Iterator[str]:
        """Yield a reason for each field that is missing, wrong, or has no use here."""
        yield from super().validation_errors(account)
        if not account.bucket:
            yield "bucket in extra is missing. Set it to the bucket's name with the AppID"
        elif not _BUCKET.fullmatch(account.bucket):
            yield (
                "bucket in extra must be the bucket's name with the AppID, such as "
                f"photos-1250000001, not {account.bucket!r}"
            )
        host = urlsplit(account.endpoint).hostname or ""
        if host.endswith(("tencentcloudapi.com", "image.myqcloud.com")):
            yield f"host is not that of {cls.api}. Leave it empty"
        yield from cls.scene_errors(account)
        yield from cls.unused(account, "credentials", "role", "sign_payload")

    @property
    def limits(self) -> Limits:
        """The vendor's limits on images. Only the service sees the bytes."""
        return _LIMITS

    def object_key(self, uri: str) -> str | None:
        """Return the name of an object of the bucket; None for an http(s) URL.

        :raises ImageNotAllowedError: the URI names something else.
        """
        if is_http(uri):
            return None
        storage, _, name = split_object(uri)
        scheme, _, place = storage.partition("://")
        if scheme in OBJECT_SCHEMES and place.rpartition("@")[2] == self.account.bucket and name:
            return name
        raise ImageNotAllowedError(
            f"{redact(uri)} is no object of the bucket {self.account.bucket!r} of the connection: "
            f"{self.api} labels objects where they lie. Use a connection with their bucket, or "
            "another api."
        )

    def build(self, payload: Payload) -> Request:
        """Return the request for one object or URL.

        :raises InvalidImageError: the payload has bytes, or nothing.
        """
        if payload.object_key is not None:
            return self._signer.get(payload.object_key, self._params)
        if payload.url is not None:
            return self._signer.get("", {**self._params, "detect-url": payload.url})
        raise InvalidImageError(
            f"{self.api} takes no bytes: give the image as an object of the bucket "
            f"{self.account.bucket!r}, such as cos://{self.account.bucket}/a.jpg, or as an http(s) "
            "URL."
        )

    def read(self, response: HttpResponse) -> ParsedLabels:
        """Return the labels of an answer in either form.

        :raises ImageTagError: the class that the code or the status stands for;
            ``MalformedAnswerError`` for a form that the vendor's page does not describe.
        """
        root = parse(response.body)
        if error := error_of(response, root, self.account.bucket):
            raise error
        if root is None or root.name != "RecognitionResult":
            raise response_parsing.malformed(response, "it is no XML with a RecognitionResult")
        try:
            labels = most_probable_first(self._labels(response, root))
        except MalformedAnswerError as error:
            # The call was a success, and billed: its next answer is most likely the same.
            error.code = response_parsing.SUCCESS
            raise
        return ParsedLabels(labels, request_id_of(response))

    def build_probe(self) -> Request:
        """Return a request for an object that does not exist, which is not billed."""
        return self._signer.get(_PROBE_KEY, self._params)

    def check_probe(self, response: HttpResponse) -> None:
        """Check that the service misses the object and finds no other fault.

        :raises ImageTagError: its class and message name the fault of the connection.
        """
        try:
            self.read(response)
        except ImageTagError as error:
            if error.code == "NoSuchKey":
                return
            raise
        raise response_parsing.malformed(response, "an object that is not there was labelled")

    def _labels(self, response: HttpResponse, root: Element) -> Iterator[Label]:
        scenes = self.scenes
        # Labels right below the root name no scene.
        scene = scenes[0] if len(scenes) == 1 else None
        for item in root.find_all("Labels"):
            yield from _labels_in(response, item, scene)
        for name, section in SCENES.items():
            for item in root.find_all(section):
                yield from _labels_in(response, item, name)


def _labels_in(response: HttpResponse, element: Element, scene: str | None) -> Iterable[Label]:
    """Yield the label that an element is, or those that it has."""
    if element.text_of("Name") is None:
        for item in element.find_all("Labels"):
            yield from _labels_in(response, item, scene)
        return
    yield response_parsing.label(
        response,
        element.text_of("Name"),
        _number(element.text_of("Confidence")),
        CERTAIN,
        category=element.text_of("FirstCategory"),
        subcategory=element.text_of("SecondCategory"),
        scene=scene,
    )


def _number(text: str | None) -> Any:
    """Return the number that a text is; anything else as it is, to be refused."""
    try:
        return float(text or "")
    except ValueError:
        return text
