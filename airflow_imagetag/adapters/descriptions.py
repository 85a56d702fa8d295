"""Sources and stores as Airflow shows and keeps them: plain values, stable, without secrets."""

from __future__ import annotations

import dataclasses
from abc import ABC
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.safety.uris import scheme_of

Packed = dict[str, Any]
"""Plain values, with the path of the class under ``type``."""

_TEMPLATE_MARKS = ("{{", "{%", "{#")


def is_template(text: str) -> bool:
    """Tell whether a text holds a Jinja template."""
    return any(mark in text for mark in _TEMPLATE_MARKS)


class Description(ABC):
    """An object in a template field that describes a place and connects to nothing.

    A subclass is a dataclass of plain values. Airflow renders the fields that ``template_fields``
    names, and shows the values that ``serialize`` returns; both must be the same at each parse of
    the DAG file, or each parse makes a new version of the DAG.
    """

    template_fields: ClassVar[Sequence[str]]

    def serialize(self) -> Any:
        """Return the class and its fields as Airflow shows them, without secrets.

        Fields are shown only of a dataclass: of any other class, the attributes that belong to the
        description are not known.
        """
        shown = {
            name: _shown(value) if isinstance(value, str) else value
            for name, value in _fields_of(self).items()
        }
        return {"type": type(self).__name__} | shown

    def pack(self) -> Packed:
        """Return the object as plain values for a trigger; equal objects give equal values.

        :raises ConfigurationError: the class is not a dataclass.
        """
        item: Any = self
        if not dataclasses.is_dataclass(item):
            raise ConfigurationError(
                f"{type(self).__name__} cannot be handed to a trigger: make it a dataclass of "
                "plain values."
            )
        return {"type": class_path(type(self))} | _fields_of(self)

    @property
    def is_template(self) -> bool:
        """Whether a field holds a template that is not rendered yet."""
        return any(is_template(str(getattr(self, name))) for name in self.template_fields)

    @property
    def server_name(self) -> str:
        """Name of the server that answers queries, such as the id of its connection.

        A triggerer bounds the queries that run at a time at one server, so that one that hangs does
        not delay those of others. By default all places of a class count as one server.
        """
        return class_path(type(self))

    def __repr__(self) -> str:
        # Airflow 2 keeps this text where Airflow 3 keeps the result of serialize().
        shown = self.serialize()
        fields = [f"{name}={value!r}" for name, value in shown.items() if name != "type"]
        return f"{type(self).__name__}({', '.join(fields)})"


def class_path(kind: type) -> str:
    """Return the import path of a class, as ``unpack`` takes it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def unpack(packed: Mapping[str, Any], kind: type) -> Any:
    """Return the object that ``Description.pack`` turned into plain values.

    :param kind: the object must be an instance of it.
    :raises ConfigurationError: the class cannot be imported, is another one, or does not take the
        values.
    """
    values = dict(packed)
    path = str(values.pop("type", ""))
    found = _imported_class(path, kind)
    try:
        return found(**(_unset_fields(found, values) | values))
    except TypeError as error:
        raise ConfigurationError(f"{path} cannot be made from its kept values: {error}") from None


def _imported_class(path: str, kind: type) -> Any:
    """Return the class with an import path, which must be of a kind."""
    expected = f"Expected an object of class {kind.__name__}, got"
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"{expected} {path!r}, which cannot be imported: {error}. It must be in a module that "
            "the triggerer can import."
        ) from None
    if not isinstance(found, type):
        raise ConfigurationError(f"{expected} {path!r}, which is not a class.")
    if not issubclass(found, kind):
        raise ConfigurationError(f"{expected} one of class {path}.")
    return found


def _shown(text: str) -> str:
    from airflow_imagetag.safety.redaction import redact, redact_text

    # A statement of SQL may hold URIs.
    return redact(text) if scheme_of(text) else redact_text(text)


def _fields_of(item: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(item):
        return {}
    values = {field.name: getattr(item, field.name) for field in dataclasses.fields(item)}
    return {name: value for name, value in values.items() if value is not None}


def _unset_fields(kind: Any, values: Mapping[str, Any]) -> dict[str, None]:
    """Return the fields that were None and so were not packed, unless None is their default."""
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    defaults = (None, dataclasses.MISSING)
    return {
        field.name: None
        for field in fields
        if field.name not in values and field.default not in defaults
    }
