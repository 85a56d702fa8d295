"""Put an image into JSON as base64."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from airflow_imagetag.errors import ImageEmptyError, InvalidImageError
from airflow_imagetag.services.messages import Payload


def load_encoder() -> None:
    """Load the library that encodes: the first image must not wait for it."""
    import_module("pybase64")


def content_of(payload: Payload) -> bytes:
    """Return the bytes of a payload that has no URL.

    :raises ImageEmptyError: the image has zero bytes.
    :raises InvalidImageError: the payload has neither a URL nor bytes.
    """
    if payload.content is None:
        raise InvalidImageError("The image has neither a URL nor bytes.")
    if not payload.content:
        raise ImageEmptyError("The image is empty: it has zero bytes.")
    return payload.content


def base64_bytes(content: bytes) -> int:
    """Return the size of an image in base64."""
    return -(-len(content) // 3) * 4


def json_with_image(
    fields: Mapping[str, Any], name: str, content: bytes
) -> tuple[bytes, bytes, bytes]:
    """Return a JSON object of these fields and an image in base64, in pieces.

    :param fields: the other fields of the object.
    :param name: name of the image's field.
    :param content: the image's bytes.
    """
    # Fifty times as fast as the standard library's.
    from pybase64 import b64encode

    # Base64 needs no escaping; json.dumps would scan all of it for characters that do.
    head = f'{{"{name}": "'.encode()
    tail = f'"{", " if fields else ""}{json.dumps(fields)[1:]}'.encode()
    return head, b64encode(content), tail
