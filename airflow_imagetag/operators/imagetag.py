"""The operator: labels many images within the account's quota."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator, XComArg

from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.operators.options import Number, parse_options
from airflow_imagetag.sources.items import DEFAULT_KEY_COLUMN, DEFAULT_URI_COLUMN
from airflow_imagetag.sources.values import ValueImages

if TYPE_CHECKING:
    import jinja2
    import pandas as pd
    from airflow.providers.common.compat.sdk import Context

    from airflow_imagetag.operators.run import LabelRun, Outputs


class ImageTagOperator(BaseOperator):
    """Labels images and returns a DataFrame with one row for each image and label.

    The images are labelled concurrently, at the rate that the account's quota allows. An image
    that cannot be labelled becomes a row of the failures and does not stop the others; a fault of
    the account or the connection stops the task at once. XComs: ``return_value`` is the labels
    frame, ``failures`` the failures frame and ``summary`` a dict of counts; they are there when the
    task fails, too.

    :param images: a list of URIs, dicts with ``key_column`` and ``uri_column`` (or ``content``),
        ``Image`` objects or bytes; a DataFrame with the two columns; or the output of an upstream
        task that returns one of these. A URI is an http(s) URL, an object-storage URI such as
        ``s3://aws_default@bucket/key``, or a local path that stands in the DAG file or lies inside
        ``[imagetag] allowed_local_paths``. (templated)
    :param imagetag_conn_id: id of the connection. (templated)
    :param key_column: column or dict key that names an image in the outputs. (templated)
    :param uri_column: column or dict key of the URI. (templated)
    :param min_probability: labels below it are left out, from 0 to 1. (templated)
    :param top_k: labels of each image at most; None for all. (templated)
    :param max_images: images of this run at most; None for all. (templated)
    :param max_failure_ratio: the task fails when a larger share of the images failed, from 0 to 1,
        after all outputs are written. (templated)
    :param max_in_flight: images handled at the same time; None takes the connection's
        ``max_in_flight``, else 32. (templated)
    :param requests_per_second: pace of this task; None takes the connection's quota. (templated)
    :raises ConfigurationError: the connection or a parameter is wrong; nothing was sent.
    :raises RequestRefusedError: the account or the key is refused.
    :raises TransientError: the service is down.
    :raises TooManyFailuresError: more images failed than ``max_failure_ratio`` allows.
    """

    template_fields: Sequence[str] = (
        "images",
        "imagetag_conn_id",
        "key_column",
        "uri_column",
        "min_probability",
        "top_k",
        "max_images",
        "max_failure_ratio",
        "max_in_flight",
        "requests_per_second",
    )
    template_fields_renderers = {"images": "json"}  # noqa: RUF012 (Airflow's own declaration)
    ui_color = "#e8f0d8"

    def __init__(
        self,
        *,
        images: Any,
        imagetag_conn_id: str = ImageTagHook.default_conn_name,
        key_column: str = DEFAULT_KEY_COLUMN,
        uri_column: str = DEFAULT_URI_COLUMN,
        min_probability: float | str = 0.0,
        top_k: int | str | None = None,
        max_images: int | str | None = None,
        max_failure_ratio: float | str = 0.1,
        max_in_flight: int | str | None = None,
        requests_per_second: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = images if _is_for_airflow(images) else ValueImages(images, literal=True)
        self.imagetag_conn_id = imagetag_conn_id
        self.key_column = key_column
        self.uri_column = uri_column
        self.min_probability: Number = min_probability
        self.top_k: Number = top_k
        self.max_images: Number = max_images
        self.max_failure_ratio: Number = max_failure_ratio
        self.max_in_flight: Number = max_in_flight
        self.requests_per_second: Number = requests_per_second
        self._run: LabelRun | None = None

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render a field; of the images, only the values that hold a template."""
        render = super().render_template
        if isinstance(content, ValueImages):
            # Values that dynamic mapping took from an XCom are data: to render them would run
            # whatever an upstream system wrote there.
            if id(content.value) in (seen_oids or ()):
                return content.from_upstream()
            return content.rendered(lambda text: render(text, context, jinja_env, seen_oids))
        rendered = render(content, context, jinja_env, seen_oids)
        if content is self.images and not _is_for_airflow(rendered):
            return ValueImages(rendered)
        return rendered

    def execute(self, context: Context) -> pd.DataFrame:
        """Label the images; push ``failures`` and ``summary``; return the labels frame."""
        from airflow_imagetag.operators.run import LabelRun

        options = parse_options(
            min_probability=self.min_probability,
            top_k=self.top_k,
            max_images=self.max_images,
            max_failure_ratio=self.max_failure_ratio,
            max_in_flight=self.max_in_flight,
            requests_per_second=self.requests_per_second,
        )
        images = self.images if isinstance(self.images, ValueImages) else ValueImages(self.images)
        self._run = LabelRun(
            ImageTagHook(self.imagetag_conn_id),
            images.entries(key_column=self.key_column, uri_column=self.uri_column),
            options,
            total=len(images),
            literal_paths=images.literal_paths(),
        )
        try:
            self._run.run()
        except BaseException:
            # Whatever ended the run, a kill included: what it paid for goes to the outputs first.
            self._push_all(context, self._run.outputs())
            raise
        outputs = self._run.outputs()
        _push(context, "failures", outputs.failures)
        _push(context, "summary", outputs.summary)
        return outputs.labels

    def on_kill(self) -> None:
        """End the run: nothing more is sent, and what is finished is kept."""
        if self._run is not None:
            self._run.stop()

    def _push_all(self, context: Context, outputs: Outputs) -> None:
        try:
            _push(context, "failures", outputs.failures)
            _push(context, "summary", outputs.summary)
            if self.do_xcom_push:
                _push(context, "return_value", outputs.labels)
        except Exception:  # the error that ended the run is on its way and says more
            self.log.exception("The outputs of the unfinished run could not be kept")


def _push(context: Context, key: str, value: Any) -> None:
    task_instance = context.get("ti")
    if task_instance is not None:
        task_instance.xcom_push(key=key, value=value)


def _is_for_airflow(images: Any) -> bool:
    """Tell whether Airflow has to turn the value into images first: an XComArg, a callable."""
    if isinstance(images, os.PathLike):
        return False
    if callable(images) or callable(getattr(images, "resolve", None)):
        return True
    return next(iter(XComArg.iter_xcom_references(images)), None) is not None
