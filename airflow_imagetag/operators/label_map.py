"""Private: the field ``label_map``: its values, and how Airflow renders and shows them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from airflow_imagetag.adapters.descriptions import is_template
from airflow_imagetag.adapters.templating import (
    IsData,
    Render,
    TemplatedValue,
    is_resolved_by_airflow,
)
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.sources.images_field import ImagesField

_SHOWN_ENTRIES = 10
_SHOWN_CHARACTERS = 500


class LabelMap(TemplatedValue):
    """Other names for labels, or the path of a file that holds them.

    Wrapping keeps Airflow from rendering each name of a dict as a template, and keeps the rendered
    fields and the serialized DAG small.

    :param value: a dict, a path, the text of a JSON object, or None.
    :param literal: it stands in the DAG file. A local path is then the author's own word, unless a
        template in it has become data.
    """

    # The operator renders a path; Airflow would render every name.
    template_fields: ClassVar[Sequence[str]] = ()

    def __init__(self, value: Any, *, literal: bool = False) -> None:
        self.value = value
        self.is_literal = literal and not self.is_template

    @property
    def is_template(self) -> bool:
        """Whether it is a text with a template in it."""
        return isinstance(self.value, str) and is_template(self.value)

    def rendered(self, render: Render, is_data: IsData) -> LabelMap:
        """Return the map rendered; of a map, only a path is."""
        if is_data(self.value):
            # The path is no longer the author's own.
            return LabelMap(self.value)
        return LabelMap(render(self.value)) if self.is_template else self

    def serialize(self) -> Any:
        """Return the map as Airflow shows it: of a long dict only the beginning.

        The digest changes when any entry does.
        """
        if isinstance(self.value, str):
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

    def __repr__(self) -> str:
        # On Airflow 2 the rendered field shows this text.
        shown = self.serialize()
        return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


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
