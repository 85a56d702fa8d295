"""Private: sources and stores as they are written on a command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from airflow_imagetag.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_imagetag.sources.base import ImageSource
    from airflow_imagetag.stores.base import LabelStore

_TABLE = re.compile(r"(?P<conn_id>[\w.-]+):(?P<table>[^/\\].*)", re.DOTALL)
"""``CONN_ID:TABLE``; a URI has a slash after its colon."""

_NAME = re.compile(r"[\w-]+")
"""A name that may be that of a connection, or of a folder below the current one."""

_FORMATS = {"parquet": "ParquetLabelStore", "delta": "DeltaLabelStore"}


def store_of(text: str) -> LabelStore:
    """Return the store that a text names.

    :param text: ``CONN_ID:TABLE``, the URI of a store's asset, or a folder; ``delta:FOLDER`` for
        Delta tables.
    :raises ConfigurationError: it names none.
    """
    from airflow_imagetag.stores.sql import SqlLabelStore

    if text.startswith("imagetag://"):
        parts = [unquote(part) for part in text.removeprefix("imagetag://").split("/")]
        if len(parts) not in (2, 3) or not all(parts):
            raise ConfigurationError(
                f"{text!r} is not the URI of a store. Write imagetag://CONN_ID/TABLE, or "
                "imagetag://CONN_ID/SCHEMA/TABLE."
            )
        conn_id, *schema, table = parts
        return SqlLabelStore(conn_id, _quoted(table), schema=schema[0] if schema else None)
    kind, colon, folder = text.partition(":")
    if colon and kind in _FORMATS and not folder.startswith("//"):
        return _folder_store(_FORMATS[kind], folder)
    if found := _TABLE.fullmatch(text):
        return SqlLabelStore(found["conn_id"], found["table"])
    _check_folder_is_meant(text)
    return _folder_store("ParquetLabelStore", text)


def existing_store_of(text: str) -> LabelStore:
    """Return the store that a text names, for a command that reads it.

    :raises ConfigurationError: it names none, or its table or its dataset does not exist.
    :raises StorageError: the place cannot be reached.
    """
    store = store_of(text)
    check_exists(store, text)
    return store


def check_exists(store: LabelStore, text: str) -> None:
    """Check that the table or the dataset of a store exists, and create nothing.

    :param text: the store as it was written.
    :raises ConfigurationError: it does not exist.
    :raises StorageError: the place cannot be reached.
    """
    from airflow_imagetag.stores.opening import missing_place

    if (missing := missing_place(store)) is not None:
        raise ConfigurationError(
            f"There is no {missing} yet. Correct the name, or label into it first: "
            f"airflow-imagetag label SOURCE --to {text}"
        )


def read_once(store: LabelStore) -> bool:
    """Ask a store a question, and tell whether its table or its dataset exists.

    :raises ConfigurationError: the place cannot be used, or holds something else.
    :raises StorageError: the place cannot be reached.
    """
    from airflow_imagetag.stores.base import StoreMode
    from airflow_imagetag.stores.opening import missing_place

    with store.open("DetectLabelPro", StoreMode.READ) as opened:
        opened.known(["doctor"])
    return missing_place(store) is None


def source_of(text: str, arguments: Any) -> ImageSource:
    """Return the source that a text names.

    :param text: ``CONN_ID:TABLE``, or a folder.
    :param arguments: the command's arguments ``key``, ``uri``, ``version_column``, ``pattern``.
    """
    from airflow_imagetag.sources.object_storage import ObjectStorageImages
    from airflow_imagetag.sources.sql import SqlImages

    if found := _TABLE.fullmatch(text):
        return SqlImages(
            found["conn_id"],
            table=found["table"],
            key=arguments.key,
            uri=arguments.uri,
            version=arguments.version_column,
        )
    _check_folder_is_meant(text)
    return ObjectStorageImages(_absolute(text), pattern=arguments.pattern)


def is_table(text: str) -> bool:
    """Tell whether a text names a table."""
    return _TABLE.fullmatch(text) is not None


def truth_of(text: str) -> Any:
    """Return the truth that a text names: a table as a ``TruthTable``, a path as it is."""
    from airflow_imagetag.evaluation.truth import TruthTable

    found = _TABLE.fullmatch(text)
    return TruthTable(found["conn_id"], found["table"]) if found else text


def _check_folder_is_meant(text: str) -> None:
    """Check that a name without a path is not a connection whose table was forgotten.

    :raises ConfigurationError: it is the id of a connection, and no folder has this name.
    """
    if _NAME.fullmatch(text) and not Path(text).is_dir() and _is_connection(text):
        raise ConfigurationError(
            f"{text!r} is a connection. Name its table, too: {text}:TABLE, or write ./{text} for "
            "a folder."
        )


def _is_connection(conn_id: str) -> bool:
    from airflow_imagetag.backends.connection_policy import ConnectionTypes

    try:
        ConnectionTypes().type_of(conn_id)
    # Airflow's database may be out of reach; a folder needs none.
    except ConfigurationError:
        return False
    return True


def _quoted(name: str) -> str:
    """Return one part of a table's name so that dots in it are no separators."""
    return name if re.fullmatch(r"\w+", name) else '"{}"'.format(name.replace('"', '""'))


def _folder_store(kind: str, folder: str) -> LabelStore:
    from airflow_imagetag import stores

    found = getattr(stores, kind, None)
    if found is None or not folder:
        raise ConfigurationError(f"There is no store {kind} of the folder {folder!r} here.")
    store: LabelStore = found(_absolute(folder))
    return store


def _absolute(folder: str) -> str:
    """Return a local folder from the root, since a shell names it from the current one.

    A folder has one name, or its images would have several keys: ``..`` is followed to where it
    leads. Links behind it keep their names.
    """
    if not folder or "://" in folder:
        return folder
    path = Path(folder).absolute()
    parts = path.parts
    if ".." not in parts:
        return str(path)
    behind = len(parts) - parts[::-1].index("..")
    return str(Path(*parts[:behind]).resolve().joinpath(*parts[behind:]))
