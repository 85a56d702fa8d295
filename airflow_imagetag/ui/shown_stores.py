"""Private: the stores that Airflow's UI shows, from ``[imagetag] ui_stores``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow_imagetag.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_imagetag.stores.base import LabelStore

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TABLE = re.compile(r"(?P<conn_id>[\w.-]+):(?P<table>[^/\\].*)", re.DOTALL)

RESERVED = frozenset({"static", "run"})
"""Names that have a page of their own."""


def parse_stores(text: str) -> Mapping[str, LabelStore]:
    """Return the stores by name, in the order in which they are written.

    :param text: ``NAME = PLACE`` in lines or with commas between them. A place is
        ``CONN_ID:TABLE``, the folder of a Parquet dataset, or ``delta:FOLDER``.
    :raises ConfigurationError: names the part that is wrong.
    """
    stores: dict[str, LabelStore] = {}
    for part in filter(None, map(str.strip, re.split(r"[,\n]", text))):
        name, equals, place = (piece.strip() for piece in part.partition("="))
        if not equals or not place or not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"[imagetag] ui_stores holds {part!r}. Write NAME = PLACE, such as products = "
                "warehouse:product_labels; a name has letters, digits, '_', '.' and '-'."
            )
        if name in stores or name in RESERVED:
            raise ConfigurationError(
                f"[imagetag] ui_stores has the name {name!r} twice, or it is one of "
                f"{', '.join(sorted(RESERVED))}. Choose another name."
            )
        stores[name] = store_at(place)
    return stores


def store_at(place: str) -> LabelStore:
    """Return the store at a place.

    :param place: ``CONN_ID:TABLE``, the folder of a Parquet dataset, or ``delta:FOLDER``.
    """
    from airflow_imagetag import stores

    if place.startswith("delta:"):
        return stores.DeltaLabelStore(place.removeprefix("delta:"))
    if found := _TABLE.fullmatch(place):
        return stores.SqlLabelStore(found["conn_id"], found["table"])
    return stores.ParquetLabelStore(place)
