"""Private: the methods by which OpenLineage's provider asks an operator for its datasets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_imagetag.sources.images_field import as_source

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_imagetag.lineage.reports import TaskReport
    from airflow_imagetag.stores.base import LabelStore


log = logging.getLogger(__name__)


class LineageMethods:
    """An operator with a source and, perhaps, a store."""

    images: Any
    store: LabelStore | None
    key_column: str
    uri_column: str

    _report: TaskReport | None = None
    """The end of the task, once it has ended."""

    def _keep_report(self, report: Callable[[], TaskReport]) -> None:
        """Keep the end of the run for lineage; a summary that cannot be made hides no error."""
        try:
            self._report = report()
        except Exception:  # raised again where the summary is pushed
            log.exception("The end of the run cannot be told to lineage")

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the datasets of the task; its provider calls it before the task runs."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the datasets of the task, with the rows that it has written, and its counts."""
        del task_instance
        return self._lineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the same for a task that failed: the rows that it wrote before stay written."""
        del task_instance
        return self._lineage()

    def _lineage(self) -> OperatorLineage[Any, Any]:
        from airflow_imagetag.lineage.facets import lineage_of

        source = as_source(self.images).with_columns(self.key_column, self.uri_column)
        outputs = {} if self.store is None else self.store.dataset_refs()
        return lineage_of(source.dataset_refs(), outputs, self._report)
