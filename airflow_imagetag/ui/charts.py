"""Private: charts as SVG, which needs neither JavaScript nor inline styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

HEIGHT = 120
"""Height of a chart in its own units."""

_LEAST_COLUMNS = 14
"""Number of columns that a chart has room for at least."""

_LABELLED_COLUMNS = 7
"""Number of columns between two that have a text below them."""

_RECTANGLE = Markup('<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"></rect>')


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a chart.

    :param text: stands below it.
    :param title: shown when the pointer is on it.
    :param parts: values from the bottom upwards, each with the class of its colour.
    """

    text: str
    title: str
    parts: Sequence[tuple[str, float]]

    @property
    def total(self) -> float:
        """The height of the column in the values' unit."""
        return sum(value for _, value in self.parts)


def columns(items: Sequence[Column], *, label: str, every: int = _LABELLED_COLUMNS) -> Markup:
    """Return a chart of columns.

    :param label: names the chart, for a screen reader.
    :param every: number of columns from one text to the next.
    """
    if not items:
        return Markup("")
    width, most = 600, max(item.total for item in items) or 1.0
    # A few columns are not as broad as the chart.
    step = width / max(len(items), _LEAST_COLUMNS)
    shapes = [
        _column(item, number * step, step, HEIGHT / most, has_text=number % every == 0)
        for number, item in enumerate(items)
    ]
    return Markup(
        '<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        '<line class="axis" x1="0" x2="{width}" y1="{axis}" y2="{axis}"></line>{shapes}</svg>'
    ).format(
        width=width,
        height=HEIGHT + 22,
        axis=HEIGHT + 0.5,
        label=label,
        shapes=Markup().join(shapes),
    )


def _column(item: Column, left: float, step: float, scale: float, *, has_text: bool) -> Markup:
    rectangles, top = [], float(HEIGHT)
    for name, value in item.parts:
        height = value * scale
        top -= height
        if height > 0:
            rectangles.append(_RECTANGLE.format(name, left + step * 0.1, top, step * 0.8, height))
    text = Markup('<text x="{:.2f}" y="{}">{}</text>').format(left, HEIGHT + 16, item.text)
    return Markup("<g><title>{}</title>{}{}</g>").format(
        item.title, Markup().join(rectangles), text if has_text else ""
    )


def bar(share: float) -> Markup:
    """Return a bar for a share from 0 to 1; the number stands beside it."""
    width = 100 * min(max(share, 0.0), 1.0)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rest" width="100" height="8"></rect>'
        '<rect class="part" width="{:.1f}" height="8"></rect></svg>'
    ).format(width)


def spark(counts: Sequence[int]) -> Markup:
    """Return a small histogram."""
    most = max([*counts, 1])
    rectangles = [
        Markup('<rect class="part" x="{}" y="{:.1f}" width="5" height="{:.1f}"></rect>').format(
            6 * place, 20 - 20 * count / most, 20 * count / most
        )
        for place, count in enumerate(counts)
    ]
    return Markup('<svg class="spark" viewBox="0 0 {} 20" aria-hidden="true">{}</svg>').format(
        6 * len(counts), Markup().join(rectangles)
    )


def heat(share: float) -> Markup:
    """Return a square whose colour is stronger, the larger a share from 0 to 1 is."""
    return Markup(
        '<svg class="heat" viewBox="0 0 10 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="part" width="10" height="10" fill-opacity="{:.2f}"></rect></svg>'
    ).format(min(max(share, 0.0), 1.0))
