"""The operator: labels many images within the account's quota."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.templating import as_images, as_store
from airflow_imagetag.backends.configuration import (
    DEFAULT_CONN_ID,
    allowed_local_folders,
    checkpoint_path,
)
from airflow_imagetag.errors import RunError
from airflow_imagetag.operators.label_map import LabelMapTemplating, as_label_map
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.sources.items import DEFAULT_KEY_COLUMN, DEFAULT_URI_COLUMN
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores.base import LabelStore

if TYPE_CHECKING:
    import pandas as pd
    from airflow.providers.common.compat.sdk import Context

    from airflow_imagetag.operators.options import Number
    from airflow_imagetag.operators.run import OperatorRun
    from airflow_imagetag.stores.parquet import ParquetLabelStore


OUTLET_COUNTS = ("seen", "tagged", "reused", "failed", "skipped", "calls")
"""What of the summary the event of the store's asset holds."""


class ImageTagOperator(LabelMapTemplating):
    """Labels images, and returns a DataFrame of labels or keeps a table of labels up to date.

    Without a store the result is a labels frame, one row for each image and label, and nothing is
    remembered. With a store only images that it does not hold yet are labelled, each batch is
    written when it is finished, and the result is the summary.

    The images are labelled concurrently, at the rate that the account's quota allows. An image
    that cannot be labelled becomes a row of the failures and does not stop the others; a fault of
    the account or the connection stops the task at once. XComs: ``failures`` is the failures
    frame and ``summary`` a dict of counts; they are there when the task fails, too.

    :param images: a list of URIs, dicts with ``key_column`` and ``uri_column`` (or ``content``),
        ``Image`` objects or bytes; a DataFrame with the two columns; or the output of an upstream
        task that returns one of these; or a source, ``SqlImages`` or ``ObjectStorageImages``. A
        URI is an http(s) URL, an object-storage URI such as
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
    :param store: where labels are kept: ``SqlLabelStore`` or ``ParquetLabelStore``. (templated)
    :param retag: with a store, when an image that it holds is labelled again: ``changed``, when its
        version differs; ``never``; ``always``, in every run and at full price. (templated)
    :param retry_failed: with a store, whether images that failed by their own fault are tried
        again. (templated)
    :param batch_size: finished images that are written together. (templated)
    :param flush_seconds: how long a finished image waits at most to be written. (templated)
    :param shard: only this part of the images, one of ``source.shards(n)``. (templated)
    :param fetch: who downloads http(s) URLs: ``service``, or ``worker``, which refuses addresses
        of private networks. (templated)
    :param oversize: what becomes of an image with more bytes than the service takes: ``error``, a
        failure; ``downscale``, a smaller JPEG of it is sent. (templated)
    :param label_map: other names for labels: a dict of labels and names, or the path of such a
        ``.csv`` or ``.json`` file on any storage, such as ``s3://aws_default@bucket/labels.csv``.
        A label whose name is None is left out. (templated, if it is a path)
    :raises ConfigurationError: the connection or a parameter is wrong; nothing was sent.
    :raises RequestRefusedError: the account or the key is refused.
    :raises TransientError: the service is down.
    :raises StoreError: the store failed; what it was not given is in the XCom ``unsaved``.
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
        "store",
        "retag",
        "retry_failed",
        "batch_size",
        "flush_seconds",
        "shard",
        "fetch",
        "oversize",
        "label_map",
    )
    template_fields_renderers = {"images": "json"}  # noqa: RUF012 (Airflow's own declaration)
    ui_color = "#e8f0d8"

    def __init__(
        self,
        *,
        images: Any,
        imagetag_conn_id: str = DEFAULT_CONN_ID,
        key_column: str = DEFAULT_KEY_COLUMN,
        uri_column: str = DEFAULT_URI_COLUMN,
        min_probability: float | str = 0.0,
        top_k: int | str | None = None,
        max_images: int | str | None = None,
        max_failure_ratio: float | str = 0.1,
        max_in_flight: int | str | None = None,
        requests_per_second: float | str | None = None,
        store: LabelStore | None = None,
        retag: str = "changed",
        retry_failed: bool | str = False,
        batch_size: int | str = 200,
        flush_seconds: float | str = 2.0,
        shard: str | None = None,
        fetch: str = "service",
        oversize: str = "error",
        label_map: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = as_images(images)
        self.store = as_store(store)
        # Airflow takes the outlets of a mapped task from partial alone, and refuses an event of any
        # other. It keeps what it was told under this name, and hands it on to nobody.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            self.outlets = _with_store(self.outlets, self.store)
        self.retag = retag
        self.retry_failed = retry_failed
        self.batch_size: Number = batch_size
        self.flush_seconds: Number = flush_seconds
        self.shard = shard
        self.fetch = fetch
        self.oversize = oversize
        self.label_map = as_label_map(label_map)
        self.imagetag_conn_id = imagetag_conn_id
        self.key_column = key_column
        self.uri_column = uri_column
        self.min_probability: Number = min_probability
        self.top_k: Number = top_k
        self.max_images: Number = max_images
        self.max_failure_ratio: Number = max_failure_ratio
        self.max_in_flight: Number = max_in_flight
        self.requests_per_second: Number = requests_per_second
        self._run: OperatorRun | None = None
        self._is_killed = False

    def execute(self, context: Context) -> pd.DataFrame | dict[str, Any]:
        """Label the images and push ``failures`` and ``summary``.

        :return: the labels frame, or with a store the summary.
        """
        from airflow_imagetag.hooks.imagetag import ImageTagHook
        from airflow_imagetag.operators.final_errors import without_retry
        from airflow_imagetag.operators.label_files import read_label_map
        from airflow_imagetag.operators.options import parse_options
        from airflow_imagetag.operators.run import OperatorRun

        options = parse_options(
            min_probability=self.min_probability,
            top_k=self.top_k,
            max_images=self.max_images,
            max_failure_ratio=self.max_failure_ratio,
            max_in_flight=self.max_in_flight,
            batch_size=self.batch_size,
            flush_seconds=self.flush_seconds,
            retag=self.retag,
            retry_failed=self.retry_failed,
            shard=self.shard,
            fetch=self.fetch,
            oversize=self.oversize,
            requests_per_second=self.requests_per_second,
            taxonomy=read_label_map(self.label_map, allowed_local_folders()),
        )
        images = self.images if isinstance(self.images, ImageSource) else ValueImages(self.images)
        if isinstance(images, ValueImages):
            images = images.with_columns(self.key_column, self.uri_column)
        checkpoint = None if self.store is not None else self._checkpoint(context)
        run = self._run = OperatorRun(
            ImageTagHook(self.imagetag_conn_id, oversize=options.oversize),
            images,
            options,
            store=self.store,
            checkpoint=checkpoint,
        )
        if self._is_killed:
            run.stop()
        counts = {"failures": run.failures, "summary": run.summary}
        try:
            run.run()
            return self._result(context, run, counts, checkpoint)
        except BaseException as error:
            # Whatever ended it, a kill included: what was paid for goes to the outputs first.
            self._push_each(context, self._labels(run) | counts)
            if isinstance(error, RunError) and run.is_final(error):
                raise without_retry(error) from None
            raise
        finally:
            # It holds locks, which an operator that is copied must not.
            self._run = None

    def _result(
        self,
        context: Context,
        run: OperatorRun,
        counts: Mapping[str, Callable[[], Any]],
        checkpoint: ParquetLabelStore | None,
    ) -> pd.DataFrame | dict[str, Any]:
        """Push the outputs of a run that is through, and return its result."""
        if errors := self._push_each(context, counts):
            raise errors[0]
        if self.store is not None:
            summary = run.summary()
            self._tell_outlet(context, self.store, summary)
            return summary
        labels = run.labels()
        if checkpoint is not None:
            # Airflow keeps the result after this method; the checkpoint goes when it is kept.
            if self.do_xcom_push:
                _push(context, "return_value", labels)
            checkpoint.remove()
        return labels

    def _checkpoint(self, context: Context) -> ParquetLabelStore | None:
        folder, task_instance = checkpoint_path(), context.get("ti")
        if folder is None or task_instance is None:
            return None
        from airflow_imagetag.operators.checkpoint import checkpoint_store

        return checkpoint_store(folder, task_instance)

    def on_kill(self) -> None:
        """End the run: nothing more is sent, and what is finished is kept."""
        self._is_killed = True
        if self._run is not None:
            self._run.stop()

    def _tell_outlet(self, context: Context, store: LabelStore, summary: Mapping[str, Any]) -> None:
        """Put the counts into the event of the store's asset, if the task has it as an outlet."""
        outlet_events = context.get("outlet_events")
        for outlet in self.outlets:
            if outlet_events is not None and getattr(outlet, "uri", None) == store.asset.uri:
                outlet_events[outlet].extra = {name: summary[name] for name in OUTLET_COUNTS}

    def _labels(self, run: OperatorRun) -> dict[str, Callable[[], Any]]:
        """Return what makes the XCom of the labels that would be lost without it."""
        if self.store is not None:
            return {"unsaved": run.labels} if run.has_unsaved_labels else {}
        return {"return_value": run.labels} if self.do_xcom_push else {}

    def _push_each(
        self, context: Context, outputs: Mapping[str, Callable[[], Any]]
    ) -> list[Exception]:
        """Make and push XComs, each whatever becomes of the others, and return what went wrong."""
        errors: list[Exception] = []
        for key, make in outputs.items():
            try:
                _push(context, key, make())
            except Exception as error:  # raised when the others are kept, or another one is
                self.log.exception("The XCom %r could not be kept", key)
                errors.append(error)
        return errors


def _with_store(outlets: Sequence[Any], store: LabelStore | None) -> list[Any]:
    """Return the outlets with the store's asset among them, where it can be known already."""
    if store is None or store.is_template:
        return list(outlets)
    uris = [getattr(outlet, "uri", None) for outlet in outlets]
    return [*outlets] if store.asset.uri in uris else [*outlets, store.asset]


def _push(context: Context, key: str, value: Any) -> None:
    task_instance = context.get("ti")
    if task_instance is not None:
        task_instance.xcom_push(key=key, value=value)
