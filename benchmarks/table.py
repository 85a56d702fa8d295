"""Rows of medians, ratios to ours, targets; printed as tables that Markdown reads as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from contenders import Result


@dataclass(frozen=True, slots=True)
class Round:
    """One run of one contender.

    :param images: that it was to label.
    :param result: what the process did.
    :param over_limit: requests that the service refused for the quota.
    """

    images: int
    result: Result
    over_limit: int


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of a contender's rounds.

    :param images: that each round was to label.
    :param labelled: that got labels.
    :param images_per_second: those that got labels, by the time of the whole run.
    :param seconds: that time.
    :param cpu_per_thousand: CPU seconds of the client for 1,000 of them.
    :param peak_mb: memory of the client.
    :param above_start_mb: what of it came after the imports.
    :param over_limit: requests that the service refused for the quota.
    """

    images: int
    labelled: int
    images_per_second: float
    seconds: float
    cpu_per_thousand: float
    peak_mb: float
    above_start_mb: float
    over_limit: float


def row(rounds: Sequence[Round]) -> Row:
    """Return the medians of some rounds; of the labelled images, the worst round's."""
    results = [one.result for one in rounds]
    return Row(
        images=rounds[0].images,
        labelled=min(result.labelled for result in results),
        images_per_second=median(result.labelled / result.seconds for result in results),
        seconds=median(result.seconds for result in results),
        cpu_per_thousand=median(
            result.cpu_seconds * 1000 / max(result.labelled, 1) for result in results
        ),
        peak_mb=median(result.peak_mb for result in results),
        above_start_mb=median(result.above_start_mb for result in results),
        over_limit=median(one.over_limit for one in rounds),
    )


@dataclass(frozen=True, slots=True)
class Target:
    """Something that shall hold.

    :param text: what.
    :param value: what was measured.
    :param limit: the bound.
    :param is_floor: the value shall be the bound or more; else the bound or less.
    :param unit: printed behind both.
    """

    text: str
    value: float
    limit: float
    is_floor: bool = False
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether it holds."""
        return self.value >= self.limit if self.is_floor else self.value <= self.limit


HEAD = (
    "contender",
    "images/s",
    "ours to it",
    "CPU s per 1,000",
    "peak MB",
    "above start",
    "over limit",
    "labelled",
)


def print_comparison(title: str, rows: Mapping[str, Row], ours: str = "ours") -> None:
    """Print how contenders compare.

    :param rows: by name of the contender.
    :param ours: the name that ratios are made with.
    """
    lines = [
        (
            name,
            f"{one.images_per_second:,.1f}",
            f"{rows[ours].images_per_second / one.images_per_second:.2f}"
            if one.images_per_second
            else "",
            f"{one.cpu_per_thousand:.2f}",
            f"{one.peak_mb:.0f}",
            f"{one.above_start_mb:.0f}",
            f"{one.over_limit:,.0f}",
            f"{one.labelled:,} of {one.images:,}",
        )
        for name, one in rows.items()
    ]
    print_table(title, HEAD, lines)


def print_targets(targets: Sequence[Target]) -> None:
    """Print what was to hold, and whether it does."""
    lines = [
        (
            target.text,
            f"{target.value:.3g}{target.unit}",
            f"{'at least' if target.is_floor else 'at most'} {target.limit:g}{target.unit}",
            "met" if target.is_met else "NOT MET",
        )
        for target in targets
    ]
    print_table("Targets", ("what", "measured", "target", ""), lines)


def print_table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table; all columns but the first are flush right."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    print(f"\n**{title}**\n")
    for cells in (head, None, *lines):
        if cells is None:
            rules = ["-" * width + "-:" for width in widths[1:]]
            print(f"|{'-' * (widths[0] + 2)}|{'|'.join(rules)}|")
            continue
        first, *others = zip(cells, widths, strict=True)
        shown = [f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]
        print(f"| {' | '.join(shown)} |", flush=True)
