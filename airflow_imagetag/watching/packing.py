"""Sources and stores as plain values, which a trigger keeps in Airflow's database, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Set
from importlib import import_module
from typing import Any

from airflow_imagetag.adapters.descriptions import is_template
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Image
from airflow_imagetag.safety.uris import is_http
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores.base import LabelStore

Packed = dict[str, Any]
"""Plain values, with the class under ``type``."""


def pack(item: ImageSource | LabelStore) -> Packed:
    """Return the item as plain values; the same for equal items.

    :raises ConfigurationError: it holds bytes, or is of a class that cannot be packed.
    """
    packed: Packed = {"type": f"{type(item).__module__}.{type(item).__qualname__}"}
    if isinstance(item, ValueImages):
        if isinstance(item.value, str) and is_template(item.value):
            # It may become the text of a list, which is read when it is known.
            return packed | {"value": item.value}
        images = [entry for entry in item.entries() if isinstance(entry, Image)]
        if isinstance(item.value, Set):
            # Its order differs between processes, and each would make a new DAG version.
            images.sort(key=lambda image: image.key)
        if any(image.uri is None for image in images):
            raise ConfigurationError(
                "Images that are given as bytes cannot be handed to a trigger. Give their URIs, or "
                "a source."
            )
        # With signatures: Airflow encrypts what the trigger of a task keeps.
        return packed | {"value": [_plain(image) for image in images]}
    kind: Any = type(item)
    if not dataclasses.is_dataclass(kind):
        raise ConfigurationError(
            f"{type(item).__name__} cannot be handed to a trigger: make it a dataclass of plain "
            "values."
        )
    values = {field.name: getattr(item, field.name) for field in dataclasses.fields(kind)}
    return packed | {name: value for name, value in values.items() if value is not None}


def unpack_source(packed: Mapping[str, Any]) -> ImageSource:
    """Return the source that plain values describe; as ``pack`` made them.

    :raises ConfigurationError: they describe none.
    """
    source: ImageSource = _unpack(packed, ImageSource)
    return source


def unpack_store(packed: Mapping[str, Any]) -> LabelStore:
    """Return the store that plain values describe; as ``pack`` made them.

    :raises ConfigurationError: they describe none.
    """
    store: LabelStore = _unpack(packed, LabelStore)
    return store


def _unpack(packed: Mapping[str, Any], kind: type) -> Any:
    values = dict(packed)
    path = str(values.pop("type", ""))
    module, _, name = path.rpartition(".")
    try:
        found: Any = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        found = None
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ConfigurationError(f"{path!r} is no {kind.__name__}: its class cannot be imported.")
    # What is not there was None, which need not be the class's own default.
    maker: Any = found
    for field in dataclasses.fields(maker) if dataclasses.is_dataclass(maker) else ():
        if field.name not in values and field.default not in (None, dataclasses.MISSING):
            values[field.name] = None
    try:
        return maker(**values)
    except TypeError as error:
        raise ConfigurationError(f"{path} cannot be made of what was kept of it: {error}") from None


def as_list(images: Iterable[Image]) -> list[dict[str, str | None]]:
    """Return the images as the list that the operator takes, without those that it cannot hold.

    No secret and no bytes go into an XCom or an event; without them an image could not be read, and
    would be remembered as failed.
    """
    return [_plain(image) for image in images if not needs_more(image)]


def needs_more(image: Image) -> bool:
    """Tell whether plain values do not suffice to read the image: it has a secret, or is bytes."""
    if image.uri is None:
        return True
    if is_http(image.uri):
        return image.uri != image.display_uri
    # What looks like a query in the name of an object is part of the name.
    authority = image.uri.partition("://")[2].partition("/")[0]
    return ":" in authority.rpartition("@")[0]


def _plain(image: Image) -> dict[str, str | None]:
    return {"image_key": image.key, "image_uri": image.uri, "version": image.version}
