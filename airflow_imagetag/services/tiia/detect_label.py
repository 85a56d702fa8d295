"""The interfaces of the vendor's current product, TIIA: ``DetectLabelPro`` and ``DetectLabel``.

Source: the request and response models of the vendor's SDK, ``tencentcloud-sdk-python-tiia``, and
their descriptions. Both take one image a call, as a URL or as base64 of at most 4 MB.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_imagetag.errors import ImageError, ImageTagError, ImageTooLargeError, UnknownCodeError
from airflow_imagetag.models import Label
from airflow_imagetag.safety.addresses import names_private_host
from airflow_imagetag.services import response_parsing
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.base import Limits, Service
from airflow_imagetag.services.json_body import JsonForm, base64_bytes, content_of
from airflow_imagetag.services.messages import (
    HttpResponse,
    ParsedLabels,
    Payload,
    Request,
    most_probable_first,
)
from airflow_imagetag.services.scenes import SceneService
from airflow_imagetag.services.tiia import envelope
from airflow_imagetag.services.tiia.role_keys import NEEDS_SDK, is_sdk_installed
from airflow_imagetag.services.tiia.signing import Signer

MAX_BASE64_BYTES = 4 * 1024 * 1024
"""Maximum size of the image in base64."""

CERTAIN = 100.0
"""Confidence that means certainty; it is a whole number."""

SCENES: Mapping[str, str] = {
    "WEB": "Labels",
    "CAMERA": "CameraLabels",
    "ALBUM": "AlbumLabels",
    "NEWS": "NewsLabels",
}
"""Scenes of ``DetectLabel``, each with the field of the response that has its labels."""

DEFAULT_SCENE = "WEB"

_LIMITS = Limits(
    MAX_BASE64_BYTES // 4 * 3,
    formats=frozenset({"PNG", "JPEG", "BMP"}),
    advised_min_pixels=50,
    advised_max_aspect=5.0,
)


class DetectLabelPro(Service):
    """Builds requests of ``DetectLabelPro``, which the vendor recommends, and reads responses.

    Keys of a role come from the vendor's SDK (extra ``roles``).
    """

    api = "DetectLabelPro"
    host = "tiia.tencentcloudapi.com"

    def __init__(self, account: Account, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(account, clock=clock)
        self._form = JsonForm(self._fields(), "ImageBase64")
        self._signer = Signer(account, self.api, clock=clock)
        if not account.sign_payload:
            # Base64 takes less time than a thread needs to take over, for an image of any size.
            self.max_inline_bytes = sys.maxsize

    @classmethod
    def validation_errors(cls, account: Account) -> Iterator[str]:
        """Yield a reason for each field that is missing, wrong, or has no use here."""
        yield from _endpoint_errors(cls.api, account)
        if account.credentials in ("keys", "assume_role"):
            yield from super().validation_errors(account)
        yield from _role_errors(account)
        if account.credentials != "keys" and not is_sdk_installed():
            yield NEEDS_SDK.format(account.credentials)

    @property
    def limits(self) -> Limits:
        """The vendor's limits on images, and its advice."""
        return _LIMITS

    @property
    def needs_io(self) -> bool:
        """Whether the next ``build`` asks for a role's keys."""
        return self._signer.needs_io

    def build(self, payload: Payload) -> Request:
        """Return the request for one image.

        :raises ImageEmptyError: the image has no bytes.
        :raises ImageTooLargeError: over 4 MB in base64.
        :raises InvalidImageError: neither URL nor bytes.
        :raises ConfigurationError: keys of a role are asked for and the SDK is not installed.
        :raises AuthenticationError: the role gives no keys.
        :raises ConnectionFailedError: the source of the role's keys does not answer.
        """
        if payload.url is not None:
            return self._json({"ImageUrl": payload.url})
        return self._content(content_of(payload))

    def read(self, response: HttpResponse) -> ParsedLabels:
        """Return the labels of a response.

        :raises ImageTagError: the class that the code or the status stands for;
            ``MalformedAnswerError`` for a form that the vendor's models do not describe.
        """
        document = envelope.decode(response)
        labels = most_probable_first(self._labels(response, document))
        return ParsedLabels(labels, response_parsing.request_id_of(document))

    def build_probe(self) -> Request:
        """Return a request with an empty image, which the service refuses after the signature."""
        return self._json({"ImageBase64": ""})

    def check_probe(self, response: HttpResponse) -> None:
        """Check that the service refused the probe for its image and nothing else.

        :raises ImageTagError: its class and message name the fault of the connection.
        """
        try:
            self.read(response)
        except ImageTagError as error:
            # An unknown code may as well be about the account.
            about_image = isinstance(error, ImageError) and not isinstance(error, UnknownCodeError)
            if about_image or error.code in envelope.NO_IMAGE_CODES:
                return
            raise
        raise response_parsing.malformed(response, "an empty image was labelled")

    def _fields(self) -> dict[str, Any]:
        """Return the fields that each request has beside its image."""
        return {}

    def _labels(self, response: HttpResponse, document: Mapping[str, Any]) -> list[Label]:
        if "Labels" not in document:
            raise response_parsing.malformed(response, "it has no labels")
        return _labels(response, document["Labels"])

    def _content(self, content: bytes) -> Request:
        # Checked before encoding, so that a huge image costs no memory.
        if (size := base64_bytes(content)) > MAX_BASE64_BYTES:
            raise ImageTooLargeError(
                f"The image has {size / 1024 / 1024:.1f} MB in base64, and {self.api} takes 4 MB, "
                "3 MB as a file. Make the image smaller, or use oversize='downscale'."
            )
        return self._signer.sign(self._form.fill(content))

    def _json(self, fields: Mapping[str, Any]) -> Request:
        return self._signer.sign(json.dumps({**fields, **self._fields()}).encode())


class DetectLabel(SceneService, DetectLabelPro):
    """Builds requests of ``DetectLabel``, whose labels depend on the scene, and reads responses."""

    api = "DetectLabel"
    known_scenes = SCENES
    default_scene = DEFAULT_SCENE

    @classmethod
    def validation_errors(cls, account: Account) -> Iterator[str]:
        """Yield a reason for each field that is missing, wrong, or has no use here."""
        yield from super().validation_errors(account)
        yield from cls.scene_errors(account)

    def _fields(self) -> dict[str, Any]:
        return {"Scenes": list(self.scenes)}

    def _labels(self, response: HttpResponse, document: Mapping[str, Any]) -> list[Label]:
        if not any(SCENES[scene] in document for scene in self.scenes):
            raise response_parsing.malformed(response, "it has no labels")
        return [
            label
            for scene in self.scenes
            for label in _labels(response, document.get(SCENES[scene]), scene)
        ]


def _endpoint_errors(api: str, account: Account) -> Iterator[str]:
    host = urlsplit(account.endpoint).hostname or ""
    if host.endswith("myqcloud.com"):
        yield f"host is not that of {api}. Leave it empty"
    if host.endswith("tencentcloudapi.com") and account.endpoint.startswith("http:"):
        yield f"schema must be 'https': {api} takes no other"
    is_plain = account.endpoint.startswith("http:") and not names_private_host(account.endpoint)
    if is_plain and not account.sign_payload:
        yield "sign_payload in extra must be true without https, which would protect the images"


def _role_errors(account: Account) -> Iterator[str]:
    credentials = account.credentials
    if credentials == "assume_role" and not account.role:
        yield "role in extra is missing. Set it to the ARN of the role to assume"
    if account.role and credentials not in ("cvm_role", "assume_role"):
        yield "role in extra goes with credentials 'cvm_role' or 'assume_role'. Set one, or no role"
    if account.token and credentials != "keys":
        yield f"token in extra goes with keys of its own, not with {credentials!r}. Leave it empty"
    if account.quota_conn_id and not account.owner:
        yield "app_id in extra is missing. Without keys, it names the quota that workers share"


def _labels(response: HttpResponse, items: Any, scene: str | None = None) -> list[Label]:
    """Return the labels of one list of a response; null stands for an empty list."""
    if items is None:
        return []
    if not isinstance(items, list):
        raise response_parsing.malformed(response, "the labels are not a list")
    return [_label(response, item, scene) for item in items]


def _label(response: HttpResponse, item: Any, scene: str | None) -> Label:
    if not isinstance(item, dict):
        raise response_parsing.malformed(response, "a label is not an object")
    return response_parsing.label(
        response,
        item.get("Name"),
        item.get("Confidence"),
        CERTAIN,
        category=item.get("FirstCategory"),
        subcategory=item.get("SecondCategory"),
        scene=scene,
    )
