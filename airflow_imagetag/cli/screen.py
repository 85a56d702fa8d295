"""Private: tables for people, and JSON for programs."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import IO, Any

WIDE = 1_000
"""Columns of an output that is no terminal: nothing is cut off."""

LONG = 25
"""Characters of a text that may go over several lines."""

GAP = 2
"""Blanks between two columns."""


def show(
    rows: Sequence[Mapping[str, Any]],
    out: IO[str],
    *,
    columns: Sequence[str] = (),
    title: str | None = None,
    has_header: bool = True,
) -> None:
    """Print rows as a table, or one by one where a terminal is too narrow for it.

    :param columns: their order; empty takes those of the first row.
    :param title: a line above the table.
    :param has_header: print the names of the columns.
    """
    if title is not None:
        print(title, file=out)
    names = list(columns or (rows[0] if rows else ()))
    texts = [[_text(row.get(name)) for name in names] for row in rows]
    width = shutil.get_terminal_size().columns if out.isatty() else WIDE
    if has_header and texts and _least_width([names, *texts]) > width:
        _show_one_by_one(names, texts, out)
        return
    numbers = {
        name for name in names if any(isinstance(row.get(name), int | float) for row in rows)
    }
    _show_table(names, texts, out, width=width, numbers=numbers, has_header=has_header)


def _least_width(lines: Sequence[Sequence[str]]) -> int:
    """Return the width of a table in which only long texts go over several lines."""
    columns = zip(*lines, strict=True)
    return sum(min(max(map(len, column)), LONG) + GAP for column in columns) - GAP


def _show_one_by_one(names: Sequence[str], texts: Sequence[Sequence[str]], out: IO[str]) -> None:
    """Print each row as lines of a name and a value, without those that are empty."""
    width = max(map(len, names)) + GAP
    blocks = (
        "".join(f"{name:{width}}{text}\n" for name, text in zip(names, row, strict=True) if text)
        for row in texts
    )
    out.write("\n".join(blocks))


def _show_table(
    names: Sequence[str],
    texts: Sequence[Sequence[str]],
    out: IO[str],
    *,
    width: int,
    numbers: Collection[str],
    has_header: bool,
) -> None:
    from rich.console import Console
    from rich.table import Table

    buffer = io.StringIO()
    console = Console(file=buffer, width=width, markup=False, highlight=False)
    table = Table(box=None, pad_edge=False, show_header=has_header)
    for place, name in enumerate(names):
        longest = max((len(row[place]) for row in texts), default=0)
        table.add_column(
            name,
            justify="right" if name in numbers else "left",
            overflow="fold",
            min_width=min(max(longest, len(name)), LONG) if has_header else None,
        )
    for row in texts:
        table.add_row(*row)
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


def printable(text: str) -> str:
    """Return a text without characters that a terminal would obey; keys and messages are data."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1_000 else f"{value:,.1f}"
    return printable(str(value))


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
