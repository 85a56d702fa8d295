"""Where labels are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_imagetag.stores.parquet import ParquetLabelStore
    from airflow_imagetag.stores.sql import SqlLabelStore

__all__ = ["ParquetLabelStore", "SqlLabelStore"]


def __getattr__(name: str) -> Any:
    # Parsing a DAG file loads the stores that it uses, and no other.
    if name == "ParquetLabelStore":
        from airflow_imagetag.stores.parquet import ParquetLabelStore

        return ParquetLabelStore
    if name == "SqlLabelStore":
        from airflow_imagetag.stores.sql import SqlLabelStore

        return SqlLabelStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
