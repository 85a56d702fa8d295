"""The operator: labels many images within the account's quota."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_imagetag.adapters.final_errors import certain_errors_are_final
from airflow_imagetag.backends.configuration import DEFAULT_CONN_ID
from airflow_imagetag.links.imagetag import ImageLabelsLink
from airflow_imagetag.operators.label_map import LabelMapField, wrap_label_map
from airflow_imagetag.operators.lineage_methods import LineageMethods
from airflow_imagetag.sources.base import DEFAULT_KEY_COLUMN, DEFAULT_URI_COLUMN
from airflow_imagetag.sources.images_field import wrap_images
from airflow_imagetag.stores.base import LabelStore, as_store

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.adapters.airflow_sdk import Context
    from airflow_imagetag.operators.jobs import Job
    from airflow_imagetag.operators.options import Number, RunTuning

__all__ = ["ImageTagOperator"]


class ImageTagOperator(LineageMethods, LabelMapField):
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
        after all outputs are written. With a store, only images that had not failed before count.
        (templated)
    :param min_failures: fewer failures do not make the task fail, unless all of at least three
        images failed or ``max_failure_ratio`` is 0. (templated)
    :param max_in_flight: images handled at the same time; None takes the connection's
        ``max_in_flight``, else 256, or 64 without a quota. (templated)
    :param requests_per_second: pace of this task; None takes the connection's quota. (templated)
    :param store: where labels are kept: ``SqlLabelStore`` or ``ParquetLabelStore``. (templated)
    :param retag: with a store, when an image that it holds is labelled again: ``changed``, when its
        version differs; ``never``; ``always``, in every run and at full price. (templated)
    :param retry_failed: with a store, whether images that failed by their own fault, or were given
        up, are tried again. (templated)
    :param only_failed: with a store, label only images that failed, wait for another try or were
        given up, whether they are due or not. (templated)
    :param batch_size: finished images that are written together; None for 200, or the 20,000 of a
        warehouse. (templated)
    :param flush_seconds: how long a finished image waits at most to be written; None for 2, or the
        60 of a warehouse. (templated)
    :param shard: only this part of the images, one of ``source.shards(n)``. (templated)
    :param fetch: who downloads http(s) URLs: ``service``, or ``worker``, which refuses addresses
        of private networks. (templated)
    :param storage_conn_id: the only connection that URIs of object storages from data may use;
        those that name none use it, too. None: each names a connection of its storage's type. URIs
        that stand in the DAG file use the one that they name. (templated)
    :param oversize: handling of an image with more bytes than the service takes: ``error``, a
        failure; ``downscale``, a smaller JPEG of it is sent. (templated)
    :param label_map: other names for labels: a dict of labels and names, or the path of such a
        ``.csv`` or ``.json`` file on any storage, such as ``s3://aws_default@bucket/labels.csv``.
        A label whose name is None is left out. (templated, if it is a path)
    :param report: with a store, the path of an HTML file that shows the whole store, as
        ``store.report`` writes it; it is written at the end of a run without an error. None: no
        file. (templated)
    :param dry_run: send and write nothing, and return what the run would do: the images by kind,
        the calls, their price and the seconds that they take at the quota. (templated)
    :param sample: label only this number of the images that are to be labelled, chosen evenly by a
        hash of the key; None for all. (templated)
    :param max_calls: calls that may be billed at most; None for no limit. (templated)
    :param max_cost: price of these calls at most, which needs the connection's
        ``price_per_thousand``; None for no limit. (templated)
    :param budget_period: the runs that share the two limits: ``run``, the tries and mapped tasks of
        this task in one DAG run; ``day`` or ``month``, all runs of the store for the same interface
        that started on this day or in this month, in UTC. (templated)
    :param on_budget: the end of a run that may make no more calls: ``stop``, the task succeeds;
        ``fail``. The images that are left stay new. (templated)
    :raises ConfigurationError: the connection or a parameter is wrong; nothing was sent.
    :raises RequestRefusedError: the account or the key is refused.
    :raises TransientError: the service is down.
    :raises StoreError: the store failed; labels that it did not take are in the XCom ``unsaved``.
    :raises BudgetUsedUpError: ``on_budget="fail"``, and the run may make no more calls.
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
        "min_failures",
        "max_in_flight",
        "requests_per_second",
        "store",
        "retag",
        "retry_failed",
        "only_failed",
        "batch_size",
        "flush_seconds",
        "shard",
        "fetch",
        "storage_conn_id",
        "oversize",
        "label_map",
        "report",
        "is_dry_run",
        "sample",
        "max_calls",
        "max_cost",
        "budget_period",
        "on_budget",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"images": "json"}
    operator_extra_links = (ImageLabelsLink(),)
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
        min_failures: int | str = 10,
        max_in_flight: int | str | None = None,
        requests_per_second: float | str | None = None,
        store: LabelStore | None = None,
        retag: str = "changed",
        retry_failed: bool | str = False,
        only_failed: bool | str = False,
        batch_size: int | str | None = None,
        flush_seconds: float | str | None = None,
        shard: str | None = None,
        fetch: str = "service",
        storage_conn_id: str | None = None,
        oversize: str = "error",
        label_map: Any = None,
        report: str | None = None,
        dry_run: bool | str = False,
        sample: int | str | None = None,
        max_calls: int | str | None = None,
        max_cost: float | str | None = None,
        budget_period: str = "run",
        on_budget: str = "stop",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = wrap_images(images)
        self.store = as_store(store)
        # Airflow takes the outlets of a mapped task from partial() alone, and refuses any other.
        if not self._stands_for_mapped_task():
            self.outlets = _with_store(self.outlets, self.store)
        self.retag = retag
        self.retry_failed = retry_failed
        self.only_failed = only_failed
        self.batch_size: Number = batch_size
        self.flush_seconds: Number = flush_seconds
        self.shard = shard
        self.fetch = fetch
        self.storage_conn_id = storage_conn_id
        self.oversize = oversize
        self.label_map = wrap_label_map(label_map)
        self.report = report
        self.imagetag_conn_id = imagetag_conn_id
        self.key_column = key_column
        self.uri_column = uri_column
        self.min_probability: Number = min_probability
        self.top_k: Number = top_k
        self.max_images: Number = max_images
        self.max_failure_ratio: Number = max_failure_ratio
        self.min_failures: Number = min_failures
        self.max_in_flight: Number = max_in_flight
        self.requests_per_second: Number = requests_per_second
        self.is_dry_run = dry_run
        self.sample: Number = sample
        self.max_calls: Number = max_calls
        self.max_cost: Number = max_cost
        self.budget_period = budget_period
        self.on_budget = on_budget
        self._running: list[Job] = []
        self._is_killed = False

    def _stands_for_mapped_task(self) -> bool:
        """Tell whether Airflow made this operator from a mapped task, which is the DAG's task."""
        has_dag: bool = self.has_dag()  # type: ignore[no-untyped-call]
        return has_dag and self.dag.task_dict.get(self.task_id) is not self

    def execute(self, context: Context) -> pd.DataFrame | dict[str, Any]:
        """Label the images and push ``failures`` and ``summary``.

        :return: the labels frame, or with a store the summary.
        """
        with certain_errors_are_final():
            return self._execute(context)

    def _execute(self, context: Context) -> pd.DataFrame | dict[str, Any]:
        from airflow_imagetag.operators.assembly import job_of

        job = job_of(self, context, self._tuning())
        if job.labelling is None:
            self._forget_outlet()
        self._running.append(job)
        if self._is_killed:
            job.stop()
        try:
            result: pd.DataFrame | dict[str, Any] = job.execute()
        finally:
            # It holds locks, which an operator that is copied must not.
            self._running.clear()
            if job.labelling is not None:
                self._keep_report(job.labelling.report)
        return result

    def _forget_outlet(self) -> None:
        """Drop the asset of the store: its event would start the DAGs that wait for its labels."""
        if self.store is not None:
            uri = self.store.asset_uri
            self.outlets = [one for one in self.outlets if getattr(one, "uri", None) != uri]

    def _tuning(self) -> RunTuning:
        """Return the settings of the run that no parameter sets; a subclass may set some."""
        from airflow_imagetag.operators.options import RunTuning

        return RunTuning()

    def on_kill(self) -> None:
        """End the run: nothing more is sent, and finished images are kept."""
        self._is_killed = True
        for run in self._running:
            run.stop()


def _with_store(outlets: Sequence[Any], store: LabelStore | None) -> list[Any]:
    """Return the outlets with the store's asset among them, where it can be known already."""
    if store is None or store.is_template:
        return list(outlets)
    uris = [getattr(outlet, "uri", None) for outlet in outlets]
    return [*outlets] if store.asset.uri in uris else [*outlets, store.asset]
