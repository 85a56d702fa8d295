"""Where images are: the sources, and the contract for sources of other packages."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_imagetag.adapters.dataset_refs import FolderRef, QueryRef, TableRef
    from airflow_imagetag.selection.difference import PushDown
    from airflow_imagetag.selection.rules import Condition, Window
    from airflow_imagetag.selection.shards import Shard
    from airflow_imagetag.sources.base import ImageSource, Trust
    from airflow_imagetag.sources.object_storage import ObjectStorageImages
    from airflow_imagetag.sources.sql import SqlImages

__all__ = [
    "Condition",
    "FolderRef",
    "ImageSource",
    "ObjectStorageImages",
    "PushDown",
    "QueryRef",
    "Shard",
    "SqlImages",
    "TableRef",
    "Trust",
    "Window",
]

_REFS = "airflow_imagetag.adapters.dataset_refs"

_MODULES = {
    "Condition": "airflow_imagetag.selection.rules",
    "FolderRef": _REFS,
    "ImageSource": "airflow_imagetag.sources.base",
    "ObjectStorageImages": "airflow_imagetag.sources.object_storage",
    "PushDown": "airflow_imagetag.selection.difference",
    "QueryRef": _REFS,
    "Shard": "airflow_imagetag.selection.shards",
    "SqlImages": "airflow_imagetag.sources.sql",
    "TableRef": _REFS,
    "Trust": "airflow_imagetag.sources.base",
    "Window": "airflow_imagetag.selection.rules",
}
"""The module of each name: parsing a DAG file loads only the sources that it uses."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
