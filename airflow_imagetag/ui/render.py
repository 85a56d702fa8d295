"""Private: makes HTML of pages with Jinja2. Every text is escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
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

MAX_ACCENTS = 4
"""Maximum number of accents on a letter; more would cover the lines above and below."""

_ACCENTS = ("Mn", "Me")

# Controls, marks of direction and other invisible ones, surrogates; line and paragraph ends.
_HARMFUL = ("Cc", "Cf", "Cs", "Zl", "Zp")


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
        "clock": clock,
        "money": money,
        "first_labels": first_labels,
    }
    environment.globals |= {"bar": charts.bar, "spark": charts.spark, "heat": charts.heat}
    return environment


def shown(text: object, limit: int = SHOWN_CHARACTERS) -> str:
    """Return a text as a page shows it: on one line, without characters that move others, short.

    Control characters, those that change the direction of writing, and piles of accents become a
    visible mark.
    """
    value = "" if text is None else str(text)
    cut = value[: limit + 1]
    safe = "".join(_visible(cut[:limit]))
    return f"{safe}…" if len(cut) > limit else safe


def _visible(text: str) -> Iterator[str]:
    # An accent at the beginning would stand on what the page has before the text.
    accents = MAX_ACCENTS
    for letter in text:
        category = unicodedata.category(letter)
        accents = accents + 1 if category in _ACCENTS else 0
        yield "\ufffd" if category in _HARMFUL or accents > MAX_ACCENTS else letter


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


def clock(value: datetime) -> str:
    """Return the time of the day, in UTC."""
    return f"{value:%H:%M:%S}Z"


def day(value: datetime | None) -> str:
    """Return the day of a time, in UTC."""
    return "-" if value is None else f"{value:%Y-%m-%d}"
