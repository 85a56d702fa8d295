"""Private: makes HTML of pages with Jinja2. Every text is escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_imagetag.errors import ConfigurationError

if TYPE_CHECKING:
    from jinja2 import Environment

    from airflow_imagetag.stores.browsing import StoredLabel

_FOLDER = Path(__file__).parent

SHOWN_CHARACTERS = 300
"""Number of characters that are shown of a text."""


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return the HTML of a page.

    :param template: name of a file in ``templates/``.
    :param context: the values of the page.
    :raises ConfigurationError: Jinja2 is missing.
    """
    return _environment().get_template(template).render(context)


def static_file(name: str) -> bytes:
    """Return a file of ``static/``."""
    return (_FOLDER / "static" / name).read_bytes()


@cache
def _environment() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise ConfigurationError(f"Pages need Jinja2: pip install jinja2 ({error}).") from None
    from airflow_imagetag.ui import charts

    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "shown": shown,
        "number": number,
        "percent": percent,
        "moment": moment,
        "day": day,
        "money": money,
        "first_labels": first_labels,
    }
    environment.globals |= {"bar": charts.bar, "spark": charts.spark, "heat": charts.heat}
    return environment


def shown(text: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Return a text as a page shows it: on one line, without characters that move others, short.

    Control characters and those that change the direction of writing become a visible mark.
    """
    value = "" if text is None else str(text)
    cut = value[: limit + 1]
    safe = "".join("\ufffd" if _is_harmful(letter) else letter for letter in cut[:limit])
    return f"{safe}…" if len(cut) > limit else safe


def _is_harmful(letter: str) -> bool:
    # Controls, marks of direction and other invisible ones, surrogates; line and paragraph ends.
    return unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def first_labels(
    labels: Sequence[StoredLabel], limit: int, wanted: str | None
) -> Sequence[StoredLabel]:
    """Return the first labels of an image; the one that is looked for is among them.

    :param wanted: its name, whatever its case; None or an empty text for none.
    """
    first = labels[:limit]
    name = (wanted or "").lower()
    later = [label for label in labels[limit:] if label.label.lower() == name]
    if not later or any(label.label.lower() == name for label in first):
        return first
    return [*first[:-1], later[0]]


def number(value: float | None) -> str:
    """Return a number with a mark between the thousands."""
    if value is None or value != value:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def money(value: float | None) -> str:
    """Return an amount of money."""
    return "-" if value is None or value != value else f"{value:,.4g}"


def percent(share: float) -> str:
    """Return a share in per cent."""
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def moment(value: datetime | None) -> str:
    """Return a time, in UTC."""
    return "-" if value is None else f"{value:%Y-%m-%d %H:%M:%S}Z"


def day(value: datetime | None) -> str:
    """Return the day of a time, in UTC."""
    return "-" if value is None else f"{value:%Y-%m-%d}"
