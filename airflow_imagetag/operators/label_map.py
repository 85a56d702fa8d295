"""Private: the field ``label_map``: its values, and how Airflow renders and shows them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from airflow_imagetag.adapters.templating import (
    IsData,
    LiteralValue,
    Render,
    is_resolved_by_airflow,
)
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.sources.images_field import ImagesField

_SHOWN_ENTRIES = 10
_SHOWN_CHARACTERS = 500


class LabelMap(LiteralValue):
    """Other names for labels as a dict, the text of a JSON object, or a path; None for none.

    Wrapping keeps Airflow from rendering each name of a dict as a template, and keeps the rendered
    fields and the serialized DAG small.
    """

    def serialize(self) -> Any:
        """Return the map as Airflow shows it: of a long dict only the beginning.

        The digest changes when any entry does.
        """
        if isinstance(self.value, str):
            from airflow_imagetag.safety.redaction import redact

            return redact(self.value)[:_SHOWN_CHARACTERS]
        if not isinstance(self.value, Mapping):
            return None if self.value is None else f"<{type(self.value).__name__}>"
        # Sorted: a dict made of a set would differ between processes.
        shown = ((str(label), _shown(name)) for label, name in self.value.items())
        entries = sorted(shown, key=lambda entry: (entry[0], entry[1] or ""))
        if len(entries) <= _SHOWN_ENTRIES:
            return dict(entries)
        digest = hashlib.sha256(json.dumps(entries).encode()).hexdigest()
        first = dict(entries[:_SHOWN_ENTRIES])
        return {"count": len(entries), "sha256": digest, "first": first}


class LabelMapField(ImagesField):
    """A task with the template field ``label_map`` besides ``images``."""

    label_map: Any

    def render_field(self, content: Any, render: Render, is_data: IsData) -> Any:
        """Return a field rendered; a map that Airflow resolved is data."""
        rendered = super().render_field(content, render, is_data)
        is_map = content is not None and content is self.label_map
        return LabelMap(rendered) if is_map and not isinstance(content, LabelMap) else rendered


def wrap_label_map(value: Any) -> Any:
    """Return the parameter ``label_map`` so that Airflow does not render each of its names.

    :raises ConfigurationError: it is neither a dict nor a path.
    """
    if value is None or is_resolved_by_airflow(value):
        return value
    if not isinstance(value, str | Mapping):
        raise ConfigurationError(
            "label_map must be a dict of labels and names, or the path of a .csv or .json file as "
            f"text, not a {type(value).__name__}."
        )
    return LabelMap(value, literal=True)


def _shown(name: Any) -> str | None:
    return name if isinstance(name, str | None) else f"<{type(name).__name__}>"
