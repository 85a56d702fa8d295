"""Where images are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_imagetag.sources.object_storage import ObjectStorageImages
    from airflow_imagetag.sources.sql import SqlImages

__all__ = ["ObjectStorageImages", "SqlImages"]


def __getattr__(name: str) -> Any:
    # Parsing a DAG file loads the sources that it uses, and no other.
    if name == "ObjectStorageImages":
        from airflow_imagetag.sources.object_storage import ObjectStorageImages

        return ObjectStorageImages
    if name == "SqlImages":
        from airflow_imagetag.sources.sql import SqlImages

        return SqlImages
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
