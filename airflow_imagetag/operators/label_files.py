"""Private: read the label map before a run: a dict, a CSV file or a JSON file."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from airflow_imagetag.backends.parameter_files import PathPolicy, read_named_file
from airflow_imagetag.engine.output.label_mapping import (
    LabelMapping,
    MappingEntry,
    label_mapping_of,
)
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.operators.label_map import LabelMap
from airflow_imagetag.safety.redaction import redact

log = logging.getLogger(__name__)

MAX_MAP_BYTES = 10 * 1024 * 1024
"""Maximum size of a file: a few hundred thousand labels, more than any service has."""

COLUMNS = ("label", "name")

THRESHOLD_COLUMN = "min_probability"
"""The optional third column."""


def read_label_map(given: Any, policy: PathPolicy) -> LabelMapping | None:
    """Return the mapping that the parameter ``label_map`` describes; None for none.

    :param given: the parameter after Airflow has rendered it.
    :param policy: holds for a path that data has named.
    :raises ConfigurationError: the value is not a map, or its file is missing or wrong.
    :raises StorageError: the storage of its file failed.
    """
    label_map = given if isinstance(given, LabelMap) else LabelMap(given)
    value = label_map.value
    if value is None:
        return None
    if isinstance(value, Mapping):
        return label_mapping_of((MappingEntry(*pair) for pair in value.items()), "label_map")
    if not isinstance(value, str):
        raise ConfigurationError(
            f"label_map must be a dict or the path of a file, not a {type(value).__name__}."
        )
    # A template of a missing parameter renders to one of these texts.
    if value.strip() in ("", "None", "null"):
        return None
    if value.lstrip().startswith("{"):
        return label_mapping_of(_json_entries(value, "label_map"), "label_map")
    mapping = _from_file(value, None if label_map.is_literal else policy)
    log.info("label_map %s: %s", redact(value), mapping)
    return mapping


def _from_file(path: str, policy: PathPolicy | None) -> LabelMapping:
    """Return the mapping of a file.

    :param policy: None for any file.
    """
    what = f"label_map {redact(path)}"
    parse = {".csv": _csv_entries, ".json": _json_entries}.get(PurePosixPath(path).suffix.lower())
    if parse is None:
        raise ConfigurationError(
            f"{what} must be the path of a file that ends in .csv or .json. For the text of a "
            "dict, end its template with '| tojson'."
        )
    content = read_named_file(path, policy, "label_map", MAX_MAP_BYTES)
    if len(content) > MAX_MAP_BYTES:
        raise ConfigurationError(
            f"{what} is larger than {MAX_MAP_BYTES // 1024 // 1024} MB. Keep in it only the labels "
            "that are renamed or dropped."
        )
    return label_mapping_of(parse(_decoded(content, what), what), what)


def _decoded(content: bytes, what: str) -> str:
    try:
        # Spreadsheets write a byte order mark.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{what}, line {line} is not UTF-8. Save it as UTF-8.") from None


def _csv_entries(text: str, what: str) -> Iterator[MappingEntry]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        if any(header.count(column) != 1 for column in COLUMNS):
            raise ConfigurationError(
                f"{what}: the first line must name the columns label and name once each, separated "
                f"by commas, and is {','.join(header)[:200]!r}."
            )
        label, name = (header.index(column) for column in COLUMNS)
        threshold = _optional_column(header, what)
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise ConfigurationError(
                    f"{what}, line {rows.line_num} has {len(row)} values and the first line "
                    f"{len(header)}. Write one for each column, in double quotes if it holds a "
                    "comma."
                )
            least = None if threshold is None else row[threshold]
            yield MappingEntry(row[label], row[name], rows.line_num, least)
    except csv.Error as error:
        raise ConfigurationError(f"{what}, line {rows.line_num}: {error}.") from None


def _optional_column(header: list[str], what: str) -> int | None:
    if header.count(THRESHOLD_COLUMN) > 1:
        raise ConfigurationError(
            f"{what}: the first line names the column {THRESHOLD_COLUMN} more than once. Keep one."
        )
    return header.index(THRESHOLD_COLUMN) if THRESHOLD_COLUMN in header else None


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with all its pairs: a dict would hide that a name is there twice."""


def _json_entries(text: str, what: str) -> Iterator[MappingEntry]:
    try:
        found = json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"{what}, line {error.lineno}, column {error.colno} is not JSON: {error.msg}. For the "
            "text of a dict, end its template with '| tojson'."
        ) from None
    except (RecursionError, ValueError):
        raise ConfigurationError(f"{what} is not a JSON object of texts.") from None
    if not isinstance(found, _Pairs):
        raise ConfigurationError(
            f'{what} must be one JSON object, such as {{"天空": "sky", "水印": null}}.'
        )
    return (MappingEntry(*pair) for pair in found)
