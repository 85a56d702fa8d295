"""Spoiling a good answer in the ways that services and gateways do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from airflow_imagetag.testing.tiia_labels import SCENES

if TYPE_CHECKING:
    from airflow_imagetag.testing.faults import Garbage

_GATEWAY_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body></body></html>"
_TIIA_FIELDS: Final = tuple(scene.field for scene in SCENES.values())
_IMPOSSIBLE: Final = {"probability": 17.5, "tag_confidence": 1750, "Confidence": 1750}


def spoil(kind: Garbage, answer: dict[str, Any]) -> tuple[bytes, str]:
    """Return the body and the content type to send in place of a good answer.

    :param kind: how to spoil it.
    :param answer: the JSON object of the good answer; it is changed.
    """
    if kind == "html":
        return _GATEWAY_PAGE, "text/html"
    if kind == "empty":
        return b"", "application/json"
    if kind == "not_json":
        return b"internal error, please retry", "application/json"
    if kind == "missing_data":
        _empty(answer)
    elif kind == "bad_probability":
        _make_impossible(answer)
    body = json.dumps(answer).encode()
    return (body[: len(body) // 2] if kind == "truncated" else body), "application/json"


def _empty(answer: dict[str, Any]) -> None:
    """Take out the labels and whatever says that there are none."""
    response = answer.get("Response", answer)
    for name in ("data", "tags", *_TIIA_FIELDS):
        response.pop(name, None)


def _make_impossible(answer: dict[str, Any]) -> None:
    """Set every probability to a number that no probability can be."""
    for item in _items(answer):
        for name in item.keys() & _IMPOSSIBLE.keys():
            item[name] = _IMPOSSIBLE[name]


def _items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    if "Response" in answer:
        found = (answer["Response"].get(name) for name in _TIIA_FIELDS)
        return [item for items in found for item in items or ()]
    if "tags" in answer:
        return list(answer["tags"])
    data = answer["data"]
    return list((data[0] if isinstance(data, list) else data)["items"])
