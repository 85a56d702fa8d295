"""Medians, ratios to this package, and targets, printed as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from contenders import Result


@dataclass(frozen=True, slots=True)
class Round:
    """One run of one contender.

    :param images: number of images of the job.
    :param result: figures of the process.
    :param over_limit: requests that the service refused for the quota.
    """

    images: int
    result: Result
    over_limit: int


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of a contender's rounds.

    :param images: number of images of a round.
    :param labelled: number of labelled images in the worst round.
    :param images_per_second: labelled images by the time of the whole run.
    :param seconds: time of the whole run.
    :param cpu_per_thousand: CPU seconds of the client for 1,000 labelled images.
    :param peak_mb: peak memory of the client.
    :param above_start_mb: peak memory above that after the imports.
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
    """Return the medians of the rounds, and the smallest number of labelled images."""
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
    """A bound on a measured value.

    :param text: description of the value.
    :param value: measured value.
    :param limit: the bound.
    :param is_floor: whether the bound is a minimum; else it is a maximum.
    :param unit: unit of both.
    """

    text: str
    value: float
    limit: float
    is_floor: bool = False
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the value keeps the bound."""
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
    """Print the comparison of contenders.

    :param rows: medians by the name of the contender.
    :param ours: name of the contender that ratios refer to.
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
    """Print the targets, and whether each is met."""
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
    """Print a table with all columns but the first flush right."""
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
