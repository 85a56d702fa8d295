"""The connection form of Airflow 2.11, built from the provider information for Airflow 3.

Airflow 3 builds its form from ``conn-fields``; Airflow 2.11 asks the hook class for widgets. Both
come from :mod:`airflow_imagetag.get_provider_info`, so the two forms cannot differ.
"""

from __future__ import annotations

from typing import Any


def connection_form_widgets() -> dict[str, Any]:
    """Return the form fields of the connection's extra, for Flask-AppBuilder.

    The form's libraries are imported late: only a webserver needs them.
    """
    fields: dict[str, dict[str, Any]] = _connection_type()["conn-fields"]
    return {name: _widget(field) for name, field in fields.items()}


def ui_field_behaviour() -> dict[str, Any]:
    """Return labels and placeholders of the standard fields, with the key names of Airflow 2.11."""
    behaviour = _connection_type()["ui-field-behaviour"]
    return {
        "hidden_fields": list(behaviour["hidden-fields"]),
        "relabeling": dict(behaviour["relabeling"]),
        "placeholders": dict(behaviour["placeholders"]),
    }


def _connection_type() -> dict[str, Any]:
    from airflow_imagetag.get_provider_info import get_provider_info

    declared: dict[str, Any] = get_provider_info()["connection-types"][0]
    return declared


def _widget(field: dict[str, Any]) -> Any:
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import IntegerField, PasswordField, StringField

    schema = field["schema"]
    secret = schema.get("format") == "password"
    # Airflow 2.11 accepts no other field classes, so a number with a fraction is a text.
    field_class = StringField
    if secret:
        field_class = PasswordField
    elif "integer" in schema["type"]:
        field_class = IntegerField
    default = schema.get("default")
    return field_class(
        lazy_gettext(field["label"]),
        widget=BS3PasswordFieldWidget() if secret else BS3TextFieldWidget(),
        description=field["description"],
        validators=_validators(schema),
        default=default if default is None or field_class is IntegerField else str(default),
    )


def _validators(schema: dict[str, Any]) -> list[Any]:
    from wtforms.validators import NumberRange, Optional, Regexp, any_of

    checks: list[Any] = [Optional()]
    if "enum" in schema:
        checks.append(any_of(schema["enum"]))
    if "integer" in schema["type"]:
        checks.append(NumberRange(min=schema.get("minimum")))
    elif "number" in schema["type"]:
        checks.append(Regexp(r"\s*[0-9]*\.?[0-9]+\s*$", message="A number such as 20 or 0.5."))
    return checks
