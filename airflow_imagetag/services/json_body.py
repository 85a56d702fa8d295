"""Puts an image into JSON as base64."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from airflow_imagetag.errors import ImageEmptyError, InvalidImageError
from airflow_imagetag.services.messages import Payload


def content_of(payload: Payload) -> bytes:
    """Return the bytes of a payload that has no URL.

    :raises ImageEmptyError: there are none.
    :raises InvalidImageError: there is nothing that could hold any.
    """
    if payload.content is None:
        raise InvalidImageError("The image has neither a URL nor bytes.")
    if not payload.content:
        raise ImageEmptyError("The image is empty: it has zero bytes.")
    return payload.content


def base64_bytes(content: bytes) -> int:
    """Return how many bytes an image has in base64."""
    return -(-len(content) // 3) * 4


def json_with_image(fields: Mapping[str, Any], name: str, content: bytes) -> bytes:
    """Return a JSON object of these fields and an image in base64.

    :param fields: what stands beside the image.
    :param name: name of the image's field.
    :param content: the image's bytes.
    """
    # Base64 needs no escaping, so it is put beside the rest: json.dumps would scan it all.
    head = f'{{"{name}": "'.encode()
    tail = f'"{", " if fields else ""}{json.dumps(fields)[1:]}'.encode()
    return b"".join((head, base64.b64encode(content), tail))
