"""Sources and stores as Airflow shows them: plain values, stable, without secrets."""

from __future__ import annotations

import dataclasses
from typing import Any

from airflow_imagetag.safety.redaction import redact

_TEMPLATE_MARKS = ("{{", "{%", "{#")


def is_template(text: str) -> bool:
    """Tell whether a text holds a Jinja template."""
    return any(mark in text for mark in _TEMPLATE_MARKS)


def described(item: Any) -> dict[str, Any]:
    """Return class and set fields of a description, a dataclass, as plain values.

    Of what is no dataclass, nobody knows which attributes are a part of the description.
    """
    if not dataclasses.is_dataclass(item):
        return {"type": type(item).__name__}
    values = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return {"type": type(item).__name__} | {
        name: redact(value) if isinstance(value, str) and "://" in value else value
        for name, value in values.items()
        if value is not None
    }


def as_text(item: Any) -> str:
    """Return what ``serialize`` tells as a line, such as ``SqlImages(conn_id='warehouse')``."""
    fields = [f"{name}={value!r}" for name, value in item.serialize().items() if name != "type"]
    return f"{type(item).__name__}({', '.join(fields)})"
