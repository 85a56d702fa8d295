"""Where labels are kept: the stores, and the contract for stores of other packages."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_imagetag.adapters.dataset_refs import FolderRef, TableRef
    from airflow_imagetag.selection.missing import HeldImage
    from airflow_imagetag.selection.rules import (
        Condition,
        Need,
        Retag,
        Rule,
        Status,
        StoredState,
    )
    from airflow_imagetag.stores.base import LabelStore, StoreMode
    from airflow_imagetag.stores.delta import DeltaLabelStore
    from airflow_imagetag.stores.open_store import BatchBounds, OpenStore, UnlabelledCounts
    from airflow_imagetag.stores.parquet import ParquetLabelStore
    from airflow_imagetag.stores.rows import holds_answer, merged, outcome_of, rows_of, state_of
    from airflow_imagetag.stores.runs import RunOutcome, RunRecord, Spending, SpendingScope
    from airflow_imagetag.stores.sql import SqlLabelStore

__all__ = [
    "BatchBounds",
    "Condition",
    "DeltaLabelStore",
    "FolderRef",
    "HeldImage",
    "LabelStore",
    "Need",
    "OpenStore",
    "ParquetLabelStore",
    "Retag",
    "Rule",
    "RunOutcome",
    "RunRecord",
    "Spending",
    "SpendingScope",
    "SqlLabelStore",
    "Status",
    "StoreMode",
    "StoredState",
    "TableRef",
    "UnlabelledCounts",
    "holds_answer",
    "merged",
    "outcome_of",
    "rows_of",
    "state_of",
]

_REFS = "airflow_imagetag.adapters.dataset_refs"
_RULES = "airflow_imagetag.selection.rules"
_BASE = "airflow_imagetag.stores.base"
_OPEN = "airflow_imagetag.stores.open_store"

_ROWS = "airflow_imagetag.stores.rows"

_RUNS = "airflow_imagetag.stores.runs"

_MODULES = {
    "Condition": _RULES,
    "DeltaLabelStore": "airflow_imagetag.stores.delta",
    "FolderRef": _REFS,
    "HeldImage": "airflow_imagetag.selection.missing",
    "LabelStore": _BASE,
    "Need": _RULES,
    "OpenStore": _OPEN,
    "ParquetLabelStore": "airflow_imagetag.stores.parquet",
    "Retag": _RULES,
    "Rule": _RULES,
    "RunOutcome": _RUNS,
    "RunRecord": _RUNS,
    "Spending": _RUNS,
    "SpendingScope": _RUNS,
    "SqlLabelStore": "airflow_imagetag.stores.sql",
    "Status": _RULES,
    "StoreMode": _BASE,
    "StoredState": _RULES,
    "TableRef": _REFS,
    "UnlabelledCounts": _OPEN,
    "BatchBounds": _OPEN,
    "holds_answer": _ROWS,
    "merged": _ROWS,
    "outcome_of": _ROWS,
    "rows_of": _ROWS,
    "state_of": _ROWS,
}
"""The module of each name: parsing a DAG file loads only the stores that it uses."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
