"""Private: one value that names an image: a URI, a path, bytes, a dict or an ``Image``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from airflow_imagetag.errors import ImageTagError, InvalidImageError
from airflow_imagetag.models import Image
from airflow_imagetag.safety.redaction import output_uri, redact, storable_name
from airflow_imagetag.safety.uris import is_blank, is_data, name_fault
from airflow_imagetag.sources.base import DEFAULT_KEY_COLUMN, DEFAULT_URI_COLUMN

CONTENT_COLUMN = "content"
VERSION_COLUMN = "version"


def as_image(
    item: Any, key_column: str = DEFAULT_KEY_COLUMN, uri_column: str = DEFAULT_URI_COLUMN
) -> Image:
    """Return the image that a value describes.

    Texts are taken exactly as they are. The key of an image without one is its URI without the
    secrets, or the digest of its bytes.

    :param item: an ``Image``, a URI, a path, bytes, or a dict with the two columns below, or
        ``content`` in place of the URI, and optionally ``version``.
    :param key_column: name of the key in a dict.
    :param uri_column: name of the URI in a dict.
    :raises InvalidImageError: the value describes no image.
    """
    try:
        return _image_of(item, key_column, uri_column)
    except ImageTagError:
        raise
    # The methods of a value may raise any error, and one value must not end a run.
    except Exception as error:
        raise InvalidImageError(
            f"A value of type {type(item).__name__} cannot be read: it raises "
            f"{type(error).__name__}."
        ) from None


def _image_of(item: Any, key_column: str, uri_column: str) -> Image:
    if isinstance(item, Image):
        for name, text in (("key", item.key), ("version", item.version or "")):
            if not isinstance(text, str):
                raise InvalidImageError(
                    f"The image's {name} is a {type(text).__name__}, not a text."
                )
        return _checked(item.key, item.uri, item.content, item.version)
    if isinstance(item, Mapping):
        return _from_mapping(item, key_column, uri_column)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return _checked(None, None, bytes(item), None)
    if _is_text(item):
        return _checked(None, item, None, None)
    raise InvalidImageError(
        f"A value of type {type(item).__name__} is no image: give a URI, a dict with "
        f"{uri_column!r}, an Image or bytes."
    )


def name_of(item: Any, key_column: str, uri_column: str, position: int) -> str:
    """Return a name for an item that is not an image: its key, its URI, or its place in the list.

    :param key_column: name of the key in a dict.
    :param uri_column: name of the URI in a dict.
    :param position: place in the list.
    """
    try:
        return _name_of(item, key_column, uri_column) or f"item {position}"
    # As above.
    except Exception:
        return f"item {position}"


def _name_of(item: Any, key_column: str, uri_column: str) -> str | None:
    if isinstance(item, Mapping):
        key = item.get(key_column)
        uri = None if key_column in item else item.get(uri_column)
    else:
        key, uri = getattr(item, "key", None), item
    if not is_missing(key) and str(key):
        return storable_name(str(key))
    if _is_text(uri) and not is_blank(text := _text_of(uri)):
        return storable_name(output_uri(text))
    return None


def is_missing(value: Any) -> bool:
    """Tell whether a value is None, NaN, NaT or pandas' NA, without importing pandas."""
    if value is None:
        return True
    if isinstance(value, (str, bytes)):
        return False
    try:
        return bool(value != value)
    except (TypeError, ValueError):
        # The comparison of pandas' NA is NA again, which has no truth value.
        return type(value).__name__ == "NAType"


def _from_mapping(item: Mapping[Any, Any], key_column: str, uri_column: str) -> Image:
    if key_column in item and is_missing(item[key_column]):
        raise InvalidImageError(f"The image has no key: {key_column!r} is null.")
    if uri_column not in item and CONTENT_COLUMN not in item:
        raise InvalidImageError(
            f"The dict has no {uri_column!r} (uri_column) and no {CONTENT_COLUMN!r}; it has "
            f"{', '.join(map(repr, item)) or 'nothing'}."
        )
    key = item.get(key_column)
    values = [item.get(column) for column in (uri_column, CONTENT_COLUMN, VERSION_COLUMN)]
    uri, content, version = (None if is_missing(value) else value for value in values)
    return _checked(
        None if key is None else _text(key),
        uri,
        content,
        None if version is None else _text(version),
    )


def _text(value: Any) -> str:
    # Pandas turns a column of whole numbers into floats if a single cell is empty.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _checked(key: str | None, uri: Any, content: Any, version: str | None) -> Image:
    if uri is not None and not _is_text(uri):
        raise InvalidImageError(f"The image's URI is a {type(uri).__name__}, not a text.")
    if content is not None and not isinstance(content, (bytes, bytearray, memoryview)):
        raise InvalidImageError(f"The image's content is a {type(content).__name__}, not bytes.")
    text = None if uri is None else _text_of(uri)
    if text is not None and is_blank(text):
        text = None
    if content is None and text is None:
        raise InvalidImageError("The image has no URI: it is null or empty.")
    data = None if content is None else bytes(content)
    if key is None:
        digest = hashlib.sha256(data or b"").hexdigest()
        key = f"sha256:{digest}" if text is None else output_uri(text)
    if not key:
        raise InvalidImageError("The image has no key: it is an empty text.")
    image = Image(key, text, data, version)
    if fault := text_fault(image):
        raise InvalidImageError(fault)
    return image


def text_fault(image: Image) -> str | None:
    """Return the reason why the texts of an image are not allowed; None if they are."""
    if image.content is None and image.uri is not None and is_data(image.uri):
        return f"The URI {redact(image.uri)} holds the bytes themselves. Give them as bytes."
    return name_fault(image.key, image.uri, image.version)


def _is_text(value: Any) -> bool:
    """Tell whether a value is a text or a path; the path of a storage is not path-like."""
    return isinstance(value, (str, os.PathLike)) or hasattr(value, "storage_options")


def _text_of(value: Any) -> str:
    text = str(value)
    if isinstance(value, str) or "://" in text or not isinstance(value, os.PathLike):
        return text
    # The text of an entry of a folder is no path.
    return os.fsdecode(value)
