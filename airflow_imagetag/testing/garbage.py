"""Spoiling a good answer in the ways that services and gateways do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_imagetag.testing.faults import Garbage

_GATEWAY_PAGE: Final = b"<html><head><title>502 Bad Gateway</title></head><body></body></html>"


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
        answer.pop("data", None)
        answer.pop("tags", None)
    elif kind == "bad_probability":
        _make_impossible(answer)
    body = json.dumps(answer).encode()
    return (body[: len(body) // 2] if kind == "truncated" else body), "application/json"


def _make_impossible(answer: dict[str, Any]) -> None:
    """Set every probability to a number that no probability can be."""
    if "tags" in answer:
        for tag in answer["tags"]:
            tag["tag_confidence"] = 1750
        return
    data = answer["data"]
    for item in (data[0] if isinstance(data, list) else data)["items"]:
        item["probability"] = 17.5
