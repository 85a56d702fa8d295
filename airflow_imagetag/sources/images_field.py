"""Private: the field ``images`` of operator and sensor: checked, wrapped and rendered."""

from __future__ import annotations

from typing import Any

from airflow_imagetag.adapters.descriptions import Description
from airflow_imagetag.adapters.templating import (
    IsData,
    Render,
    TemplatedFields,
    is_resolved_by_airflow,
)
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.sources.base import ImageSource


class ImagesField(TemplatedFields):
    """A task with the template field ``images``."""

    images: Any

    def render_field(self, content: Any, render: Render, is_data: IsData) -> Any:
        """Return a field rendered; of the images, only the values that hold a template are."""
        rendered = super().render_field(content, render, is_data)
        is_images = content is self.images and not isinstance(content, ImageSource)
        return wrap_images(rendered, literal=False) if is_images else rendered


def wrap_images(images: Any, *, literal: bool = True) -> Any:
    """Return the parameter ``images`` in a form that Airflow does not render text by text.

    :param literal: the value stands in the DAG file.
    :raises ConfigurationError: the value is a store.
    """
    if isinstance(images, ImageSource):
        return images
    if isinstance(images, Description):
        raise ConfigurationError("images is a store; give it as store=.")
    if is_resolved_by_airflow(images):
        return images
    return _values(images, literal=literal)


def known_source(images: Any, parameter: str) -> ImageSource:
    """Return the source of a parameter ``images`` that has not been rendered yet.

    :param parameter: the parameter that needs it, for the message.
    :raises ConfigurationError: the images are the output of another task.
    """
    if isinstance(images, ImageSource):
        return images
    raise ConfigurationError(
        f"{parameter} needs a source or a list of images: the output of another task is not known "
        "before a worker runs."
    )


def as_source(images: Any) -> ImageSource:
    """Return the rendered parameter ``images`` as a source."""
    return images if isinstance(images, ImageSource) else _values(images, literal=False)


def _values(images: Any, *, literal: bool) -> ImageSource:
    from airflow_imagetag.sources.values import ValueImages

    return ValueImages(images, literal=literal)
