"""The operator that marks or deletes the labels of images that have left their source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_imagetag.adapters.final_errors import certain_errors_are_final
from airflow_imagetag.backends.configuration import DEFAULT_CONN_ID
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.operators.lineage_methods import LineageMethods
from airflow_imagetag.sources.base import DEFAULT_KEY_COLUMN, DEFAULT_URI_COLUMN
from airflow_imagetag.sources.images_field import ImagesField, as_source, wrap_images
from airflow_imagetag.stores.base import LabelStore, as_store

if TYPE_CHECKING:
    from airflow_imagetag.adapters.airflow_sdk import Context
    from airflow_imagetag.operators.options import Number

__all__ = ["ImageTagSyncOperator"]


class ImageTagSyncOperator(LineageMethods, ImagesField):
    """Marks or deletes the labels and rows of images that have left their source.

    The whole source is compared with the whole store, on disk, so both may be larger than memory.
    Nothing is labelled and nothing is paid. A marked image keeps its labels and gets the time in
    the column ``missing_since``; the mark goes when the source has the image again. The store is
    changed only after the source was read to its end, and not at all if the source is empty or
    lacks more images than ``max_missing_ratio`` allows.

    Images whose keys cannot be of the source, such as objects outside of its path, are left alone.
    Several tables or queries that share one store must not be compared one by one: each would lack
    the images of the others.

    The return value, and the XCom ``summary``, is a dict of counts.

    :param images: the source, as ``ImageTagOperator`` takes it: all of the images, not only the new
        ones. (templated)
    :param store: where the labels are kept. (templated)
    :param on_missing: ``mark`` sets ``missing_since``; ``delete`` deletes images and labels, those
        that were marked before included. (templated)
    :param max_missing_ratio: the task fails, and changes nothing, when a larger share of the images
        has left the source since the last comparison, from 0 to 1. (templated)
    :param api: only images that this interface has labelled; ``all`` for those of every one. None
        takes the only one that the store holds images of, else that of ``imagetag_conn_id``.
        (templated)
    :param imagetag_conn_id: id of the connection that names the interface; it is read only if the
        store holds images of several. (templated)
    :param key_column: column or dict key that names an image, where ``images`` is a list or a
        DataFrame. (templated)
    :param uri_column: column or dict key of the URI, likewise. (templated)
    :raises ConfigurationError: a parameter is wrong, or the store cannot mark or delete images.
    :raises TooManyMissingError: the source is empty, or lacks too many images; nothing was changed.
    :raises StorageError: the source cannot be read; nothing was changed.
    :raises StoreError: the store failed. A later try goes on from there.
    """

    template_fields: Sequence[str] = (
        "images",
        "store",
        "on_missing",
        "max_missing_ratio",
        "api",
        "imagetag_conn_id",
        "key_column",
        "uri_column",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"images": "json"}
    ui_color = "#e8f0d8"

    def __init__(
        self,
        *,
        images: Any,
        store: LabelStore,
        on_missing: str = "mark",
        max_missing_ratio: float | str = 0.2,
        api: str | None = None,
        imagetag_conn_id: str = DEFAULT_CONN_ID,
        key_column: str = DEFAULT_KEY_COLUMN,
        uri_column: str = DEFAULT_URI_COLUMN,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = wrap_images(images)
        self.store = as_store(store)
        self.on_missing = on_missing
        self.max_missing_ratio: Number = max_missing_ratio
        self.api = api
        self.imagetag_conn_id = imagetag_conn_id
        self.key_column = key_column
        self.uri_column = uri_column

    def execute(self, context: Context) -> dict[str, Any]:
        """Compare source and store, change the store, and push ``summary``.

        :return: the summary.
        """
        from airflow_imagetag.lineage.reports import TaskReport

        with certain_errors_are_final():
            summary = self._synchronize()
        self._report = TaskReport(summary["api"], summary)
        task_instance = context.get("ti")
        if task_instance is not None:
            task_instance.xcom_push(key="summary", value=summary)
        return summary

    def _synchronize(self) -> dict[str, Any]:
        from airflow_imagetag.operators.options import SHARE
        from airflow_imagetag.operators.synchronization import Synchronization, parse_on_missing

        store = self.store
        if store is None:
            raise ConfigurationError("store is None. Give the store that holds the labels.")
        source = as_source(self.images).with_columns(self.key_column, self.uri_column)
        return Synchronization(
            source,
            store,
            on_missing=parse_on_missing(self.on_missing),
            max_missing_ratio=SHARE.require("max_missing_ratio", self.max_missing_ratio),
            api=self.api or None,
            imagetag_conn_id=self.imagetag_conn_id,
            task_tags={"dag_id": str(self.dag_id), "task_id": self.task_id},
        ).run()
