"""Templates in the fields of operator and sensor: sources, stores and images."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, XComArg

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores.base import LabelStore

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context


class ImagesTemplating(BaseOperator):
    """A task with the fields ``images`` and ``store``."""

    images: Any
    store: LabelStore | None

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render a field, or a part of one, as Airflow asks for it."""
        render = super().render_template
        return self.render_field(
            content,
            lambda value: render(value, context, jinja_env, seen_oids),
            # Values that dynamic mapping took from an XCom are data: to render them would run
            # whatever an upstream system wrote there.
            is_data=lambda value: id(value) in (seen_oids or ()),
        )

    def render_field(
        self, content: Any, render: Callable[[Any], Any], *, is_data: Callable[[Any], bool]
    ) -> Any:
        """Return a field rendered; of the images, only the values that hold a template are.

        :param render: renders a value as Airflow does.
        :param is_data: tells what must not be rendered.
        """
        if isinstance(content, ValueImages):
            return content.from_upstream() if is_data(content.value) else content.rendered(render)
        if isinstance(content, (ImageSource, LabelStore)):
            # Airflow renders the fields in place, and mapped tasks may share the object.
            content = copy.copy(content)
        rendered = render(content)
        if content is self.images and not is_for_airflow(rendered):
            return ValueImages(rendered)
        return rendered


def as_images(images: Any) -> Any:
    """Return the parameter ``images`` so that Airflow does not render each of its values.

    :raises ConfigurationError: it is a store.
    """
    if isinstance(images, LabelStore):
        raise ConfigurationError("images is a store; give it as store=.")
    return images if is_for_airflow(images) else ValueImages(images, literal=True)


def as_store(store: Any) -> LabelStore | None:
    """Return the parameter ``store``.

    :raises ConfigurationError: it is no store.
    """
    if not isinstance(store, LabelStore | None):
        raise ConfigurationError(
            f"store must be a SqlLabelStore or a ParquetLabelStore, not a {type(store).__name__}."
        )
    return store


def is_for_airflow(images: Any) -> bool:
    """Tell whether Airflow makes the value known, or a source renders itself."""
    if isinstance(images, os.PathLike):
        return False
    if isinstance(images, ImageSource):
        return True
    if callable(images) or callable(getattr(images, "resolve", None)):
        return True
    return next(iter(XComArg.iter_xcom_references(images)), None) is not None
