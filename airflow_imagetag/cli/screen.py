"""Private: tables for people, and JSON for programs."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import IO, Any

WIDE = 1_000
"""Columns of an output that is no terminal: nothing is cut off."""


def show(
    rows: Sequence[Mapping[str, Any]],
    out: IO[str],
    *,
    columns: Sequence[str] = (),
    title: str | None = None,
    has_header: bool = True,
) -> None:
    """Print rows as a table.

    :param columns: their order; empty takes those of the first row.
    :param title: a line above the table.
    :param has_header: print the names of the columns.
    """
    from rich.console import Console
    from rich.table import Table

    if title is not None:
        print(title, file=out)
    is_terminal = out.isatty()
    buffer = io.StringIO()
    file = out if is_terminal else buffer
    console = Console(file=file, width=None if is_terminal else WIDE, markup=False, highlight=False)
    table = Table(box=None, pad_edge=False, show_header=has_header)
    names = list(columns or (rows[0] if rows else ()))
    for name in names:
        is_number = any(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(row.get(name)) for name in names))
    console.print(table)
    # A table pads its lines.
    out.write("".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines()))


def show_json(value: Any, out: IO[str]) -> None:
    """Print a value as JSON; a missing value is null, and times are in ISO 8601."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False), file=out)


def records(table: Any) -> list[dict[str, Any]]:
    """Return the rows of a frame; None for a missing value."""
    return [
        {str(name): _plain(value) for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1_000 else f"{value:,.1f}"
    return str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    # pandas' missing values are not equal to themselves; its NaT is a datetime.
    if value is not value or str(value) in ("NaT", "<NA>"):
        return None
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return value.item() if hasattr(value, "item") else str(value)
