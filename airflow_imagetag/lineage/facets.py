"""Private: datasets and facets of OpenLineage; loaded only where its provider asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attr
from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import InputDataset, OutputDataset
from openlineage.client.facet_v2 import (
    RunFacet,
    column_lineage_dataset,
    output_statistics_output_dataset,
    schema_dataset,
)

from airflow_imagetag.adapters.dataset_refs import (
    CONTENT,
    IMAGES,
    KEY,
    LABELS,
    URI,
    VERSION,
    DatasetRef,
    TableRef,
)
from airflow_imagetag.frames import LABEL_COLUMNS, ORIGINAL_LABEL
from airflow_imagetag.lineage.datasets import DatasetName, names_of
from airflow_imagetag.lineage.reports import TaskReport

IMAGE_COLUMNS: Mapping[str, str] = {
    "api": "string",
    "key_sha256": "string",
    "image_key": "string",
    "image_uri": "string",
    "version": "string",
    "status": "string",
    "content_sha256": "string",
    "labels_count": "int64",
    "error": "string",
    "code": "string",
    "message": "string",
    "attempts": "int64",
    "tagged_at": "timestamp",
    "tries": "int64",
    "first_failed_at": "timestamp",
    "next_try_at": "timestamp",
    "missing_since": "timestamp",
}
"""Columns and types of the images that a store keeps."""

COLUMNS: Mapping[str, Mapping[str, str]] = {
    LABELS: {
        **{
            name: "timestamp" if dtype.startswith("datetime") else dtype
            for name, dtype in LABEL_COLUMNS.items()
        },
        "key_sha256": "string",
        ORIGINAL_LABEL: "string",
    },
    IMAGES: IMAGE_COLUMNS,
}

COPIED = {"image_key": KEY, "image_uri": URI, "version": VERSION}
"""Columns of a store that hold a column of the source."""

LABELLED = (
    "label",
    "probability",
    "category",
    "subcategory",
    "scene",
    ORIGINAL_LABEL,
    "labels_count",
)
"""Columns of a store that the service makes of an image."""


@attr.define
class ImageTagRunFacet(RunFacet):
    """The counts and the cost of a run."""

    counts: dict[str, int]
    api: str | None = None
    elapsedSeconds: float | None = None
    pricePerThousand: float | None = None
    estimatedCost: float | None = None


def lineage_of(
    inputs: Iterable[DatasetRef], outputs: Mapping[str, DatasetRef], report: TaskReport | None
) -> OperatorLineage[Any, Any]:
    """Return the lineage of a task.

    :param inputs: places of the source.
    :param outputs: places of the store, by ``labels`` and ``images``.
    :param report: the end of the task; None before it.
    """
    named = [(ref, name) for ref in inputs for name in names_of(ref)]
    return OperatorLineage(
        inputs=[_input(ref, name) for ref, name in named],
        outputs=list(_outputs(outputs, named, report)),
        run_facets={} if report is None else {"imagetag": _run_facet(report)},
    )


def _input(ref: DatasetRef, name: DatasetName) -> InputDataset:
    facets: dict[str, Any] = {}
    if isinstance(ref, TableRef):
        fields = [schema_dataset.SchemaDatasetFacetFields(name=one) for one in ref.columns.values()]
        facets["schema"] = schema_dataset.SchemaDatasetFacet(fields=fields)
    return InputDataset(namespace=name.namespace, name=name.name, facets=facets)


def _outputs(
    refs: Mapping[str, DatasetRef],
    inputs: Sequence[tuple[DatasetRef, DatasetName]],
    report: TaskReport | None,
) -> Iterator[OutputDataset]:
    rows = {} if report is None else report.written_rows
    for kind, ref in refs.items():
        columns = COLUMNS.get(kind, {})
        fields = [
            schema_dataset.SchemaDatasetFacetFields(name=name, type=dtype)
            for name, dtype in columns.items()
        ]
        facets: dict[str, Any] = {"schema": schema_dataset.SchemaDatasetFacet(fields=fields)}
        if origins := _column_lineage(columns, inputs, None if report is None else report.api):
            facets["columnLineage"] = origins
        statistics: dict[str, Any] = {}
        if kind in rows:
            statistics["outputStatistics"] = (
                output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
                    rowCount=rows[kind]
                )
            )
        for namespace, name in names_of(ref):
            yield OutputDataset(
                namespace=namespace, name=name, facets=facets, outputFacets=statistics
            )


def _column_lineage(
    columns: Mapping[str, str], inputs: Sequence[tuple[DatasetRef, DatasetName]], api: str | None
) -> Any:
    """Return the columns of the source that each column of a store is made of.

    The objects of a storage and the columns of a query are not told apart.
    """
    fields: dict[str, Any] = {}
    for column in columns:
        found = [
            column_lineage_dataset.InputField(
                namespace=name.namespace,
                name=name.name,
                field=origin,
                transformations=[_transformation(column, api)],
            )
            for ref, name in inputs
            if isinstance(ref, TableRef)
            for origin in _origins(column, ref.columns)
        ]
        if found:
            fields[column] = column_lineage_dataset.Fields(inputFields=found)
    return column_lineage_dataset.ColumnLineageDatasetFacet(fields=fields) if fields else None


def _origins(column: str, source: Mapping[str, str]) -> list[str]:
    if column in COPIED:
        return [source[COPIED[column]]] if COPIED[column] in source else []
    if column == "key_sha256":
        return [source[KEY]] if KEY in source else []
    if column in (*LABELLED, "content_sha256"):
        return [source[one] for one in (CONTENT, URI) if one in source]
    return []


def _transformation(column: str, api: str | None) -> Any:
    if column in COPIED:
        return column_lineage_dataset.Transformation(type="DIRECT", subtype="IDENTITY")
    by = "" if api is None else f" by {api}"
    description = f"labelled{by}" if column in LABELLED else "digest"
    return column_lineage_dataset.Transformation(
        type="DIRECT", subtype="TRANSFORMATION", description=description
    )


def _run_facet(report: TaskReport) -> ImageTagRunFacet:
    summary = report.summary
    counts = {
        name: value
        for name, value in summary.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }
    return ImageTagRunFacet(
        counts=counts,
        api=report.api,
        elapsedSeconds=summary.get("elapsed_seconds"),
        pricePerThousand=report.price_per_thousand,
        estimatedCost=summary.get("estimated_cost"),
    )
