"""Templates in the fields of a task: Airflow renders texts, and an object may render itself."""

from __future__ import annotations

import copy
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from airflow_imagetag.adapters.airflow_sdk import BaseOperator, XComArg
from airflow_imagetag.adapters.descriptions import Description, is_template

if TYPE_CHECKING:
    import jinja2

    from airflow_imagetag.adapters.airflow_sdk import Context

Render = Callable[[Any], Any]
"""Renders a value as Airflow does."""

IsData = Callable[[Any], bool]
"""Tells whether a value came from an XCom by dynamic mapping: rendering it would run templates
that an upstream system wrote."""


class TemplatedValue(ABC):
    """A value in a template field that decides which of its parts are rendered."""

    @abstractmethod
    def rendered(self, render: Render, is_data: IsData) -> Any:
        """Return the value with its templates rendered.

        :param render: renders one template.
        :param is_data: tells which values must not be rendered.
        """


class LiteralValue(TemplatedValue):
    """Values, or the path of a file that holds them; Airflow renders only a path.

    :param value: the values, or a path.
    :param literal: it stands in the DAG file. A local path is then the author's own word, unless a
        template in it has become data.
    """

    # A path is rendered by ``rendered``; Airflow would render every value.
    template_fields: ClassVar[Sequence[str]] = ()

    def __init__(self, value: Any, *, literal: bool = False) -> None:
        self.value = value
        self.is_literal = literal and not self.is_template

    @property
    def is_template(self) -> bool:
        """Whether it is a text with a template in it."""
        return isinstance(self.value, str) and is_template(self.value)

    def rendered(self, render: Render, is_data: IsData) -> Self:
        """Return the value rendered; a path that is data is no longer the author's own."""
        if is_data(self.value):
            return type(self)(self.value)
        return type(self)(render(self.value)) if self.is_template else self

    @abstractmethod
    def serialize(self) -> Any:
        """Return the value as Airflow shows it."""

    def __repr__(self) -> str:
        # On Airflow 2 the rendered field shows this text.
        shown = self.serialize()
        return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


class TemplatedFields(BaseOperator):
    """A task whose template fields may hold a ``TemplatedValue`` or a ``Description``."""

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render a field, or a part of one, when Airflow asks for it."""
        render = super().render_template
        return self.render_field(
            content,
            lambda value: render(value, context, jinja_env, seen_oids),
            lambda value: id(value) in (seen_oids or ()),
        )

    def render_field(self, content: Any, render: Render, is_data: IsData) -> Any:
        """Return a field rendered."""
        if isinstance(content, TemplatedValue):
            return content.rendered(render, is_data)
        if isinstance(content, Description):
            # Airflow renders the fields in place, and mapped tasks may share the object.
            content = copy.copy(content)
        return render(content)


def is_resolved_by_airflow(value: Any) -> bool:
    """Tell whether the value is known only when the task runs: an XCom, or a function."""
    # A path has a method `resolve`, too.
    if isinstance(value, os.PathLike):
        return False
    if callable(value) or callable(getattr(value, "resolve", None)):
        return True
    return next(iter(XComArg.iter_xcom_references(value)), None) is not None
