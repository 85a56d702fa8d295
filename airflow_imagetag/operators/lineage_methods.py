"""Private: the methods by which OpenLineage's provider asks an operator for its datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_imagetag.sources.images_field import as_source

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

    from airflow_imagetag.lineage.reports import TaskReport
    from airflow_imagetag.stores.base import LabelStore


class LineageMethods:
    """An operator with a source and, perhaps, a store."""

    images: Any
    store: LabelStore | None
    key_column: str
    uri_column: str

    _report: TaskReport | None = None
    """The end of the task, once it has ended."""

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Return the datasets of the task; its provider calls it before the task runs."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the datasets of the task, with the rows that it has written, and its counts."""
        del task_instance
        return self._lineage()

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> OperatorLineage[Any, Any]:
        """Return the same for a task that failed: what it wrote before stays written."""
        del task_instance
        return self._lineage()

    def _lineage(self) -> OperatorLineage[Any, Any]:
        from airflow_imagetag.lineage.facets import lineage_of

        source = as_source(self.images).with_columns(self.key_column, self.uri_column)
        outputs = {} if self.store is None else self.store.dataset_refs()
        return lineage_of(source.dataset_refs(), outputs, self._report)
