"""Private: the values of each page, from the answers of a store. No I/O of its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from airflow_imagetag.stores.browsing import (
    DayCounts,
    LabelSample,
    StoreBrowser,
    StoredImage,
)
from airflow_imagetag.ui import charts

SAMPLE_IMAGES = 20_000
"""Number of images whose labels the page of labels counts."""

TOP_LABELS = 100
"""Number of labels on the page of labels, and of those that the gallery's field offers."""

MAX_NAMES = 10_000
"""Maximum number of labels among which similar ones are looked for."""

SIMILAR_LABELS = 10
"""Maximum number of similar labels that a page names."""

MATRIX_LABELS = 10
"""Number of labels whose joint occurrence is shown."""

MAX_DAYS = 60
"""Number of days that a chart shows."""

BINS = 20
"""Number of columns in a histogram of probabilities."""

MAX_FAILURES = 5_000
"""Number of images without labels that the page of failures counts."""

EXAMPLES = 4
"""Number of examples of each cause."""

STATUSES = ("tagged", "failed", "waiting", "gave_up")

Words = Mapping[str, str]
Run = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LabelRow:
    """A label on the page of labels.

    :param images: number of images with it.
    :param share: share of the images with labels.
    :param mean: mean probability.
    :param bins: number of its probabilities in each tenth of 0 to 1.
    """

    label: str
    images: int
    share: float
    mean: float
    bins: Sequence[int]


@dataclass(frozen=True, slots=True)
class Cause:
    """Images without labels for one reason."""

    status: str
    error: str
    code: str | None
    images: int
    examples: Sequence[StoredImage]


def overview(counts: DayCounts, runs: Sequence[Run], words: Words) -> dict[str, Any]:
    """Return the values of the overview.

    :param runs: the newest runs of the store.
    """
    by_status: Counter[str] = Counter()
    by_api: dict[str, Counter[str]] = defaultdict(Counter)
    labels = 0
    for row in counts.rows:
        status = _status(row.status)
        by_status[status] += row.images
        by_api[row.api][status] += row.images
        by_api[row.api]["labels"] += row.labels
        labels += row.labels
    return {
        "total": sum(by_status.values()),
        "labels_total": labels,
        "by_status": by_status,
        "by_api": [(api, by_api[api]) for api in sorted(by_api)],
        "is_estimate": counts.is_estimate,
        "statuses": STATUSES,
        "days": _day_chart(counts, words),
        "costs": _run_chart(runs, "cost", words["cost_by_day"]),
        "calls": _run_chart(runs, "calls", words["calls_by_day"]),
    }


def _status(status: str) -> str:
    return "waiting" if status == "unfinished" else status


def _day_chart(counts: DayCounts, words: Words) -> Any:
    by_day: dict[date, Counter[str]] = defaultdict(Counter)
    for row in counts.rows:
        by_day[row.day][_status(row.status)] += row.images
    items = [
        charts.Column(
            f"{day:%m-%d}",
            f"{day}: {_counts_of(by_day[day], words)}",
            [(name, by_day[day][name]) for name in STATUSES],
        )
        for day in _last_days(by_day)
    ]
    return charts.columns(items, label=words["by_day"])


def _counts_of(counts: Counter[str], words: Words) -> str:
    return ", ".join(f"{counts[name]:,} {words[name]}" for name in STATUSES if counts[name])


def _run_chart(runs: Sequence[Run], name: str, label: str) -> Any:
    by_day: Counter[date] = Counter()
    for run in runs:
        value = run.get(name)
        if value is not None and value == value and run.get("started_at") is not None:
            by_day[run["started_at"].date()] += value
    if not any(by_day.values()):
        return ""
    items = [
        charts.Column(f"{day:%m-%d}", f"{day}: {by_day[day]:,.4g}", [("tagged", by_day[day])])
        for day in _last_days(by_day)
    ]
    return charts.columns(items, label=label)


def _last_days(days: Iterable[date]) -> list[date]:
    """Return each day between the first and the last one, at most the last ``MAX_DAYS``."""
    found = sorted(days)
    if not found:
        return []
    first = max(found[0], found[-1] - timedelta(days=MAX_DAYS - 1))
    return [first + timedelta(days=number) for number in range((found[-1] - first).days + 1)]


def labels(sample: LabelSample, counts: DayCounts, words: Words) -> dict[str, Any]:
    """Return the values of the page of labels."""
    images_of: dict[str, set[str]] = defaultdict(set)
    sums: dict[str, float] = defaultdict(float)
    rows_of: Counter[str] = Counter()
    tenths: dict[str, list[int]] = defaultdict(lambda: [0] * 10)
    bins = [0] * BINS
    for image, label, probability in sample.rows:
        images_of[label].add(image)
        sums[label] += probability
        rows_of[label] += 1
        tenths[label][_bin(probability, 10)] += 1
        bins[_bin(probability, BINS)] += 1
    ranked = sorted(images_of, key=lambda label: (-len(images_of[label]), label))
    scale = _scale(sample, counts)
    rows = [
        LabelRow(
            label,
            round(len(images_of[label]) * scale),
            len(images_of[label]) / max(1, sample.images),
            sums[label] / rows_of[label],
            tenths[label],
        )
        for label in ranked[:TOP_LABELS]
    ]
    return {
        "rows": rows,
        "different": len(ranked),
        "sample_images": sample.images,
        "label_estimate": not sample.is_all,
        "histogram": charts.columns(
            [
                charts.Column(
                    f"{place / BINS:.2g}",
                    f"{place / BINS:.2f}-{(place + 1) / BINS:.2f}: {round(count * scale):,}",
                    [("tagged", count)],
                )
                for place, count in enumerate(bins)
            ],
            label=words["probabilities"],
            every=2,
        ),
        "matrix": _matrix(ranked[:MATRIX_LABELS], images_of),
    }


def label_names(sample: LabelSample) -> list[str]:
    """Return the labels of a sample, the commonest first."""
    counts = Counter(label for _, label, _ in sample.rows)
    return [label for label, _ in counts.most_common(MAX_NAMES)]


def similar_labels(names: Sequence[str], text: str) -> list[str] | None:
    """Return the first labels that contain a text; None if it is a label itself.

    :param names: the labels of a store.
    """
    part = text.casefold()
    if any(name.casefold() == part for name in names):
        return None
    return [name for name in names if part in name.casefold()][:SIMILAR_LABELS]


def _bin(probability: float, bins: int) -> int:
    return min(max(int(probability * bins), 0), bins - 1)


def _scale(sample: LabelSample, counts: DayCounts) -> float:
    """Return the factor from the sample to all images with labels."""
    if sample.is_all or not sample.images:
        return 1.0
    tagged = sum(row.images for row in counts.rows if row.status == "tagged")
    return max(1.0, tagged / sample.images)


def _matrix(
    names: Sequence[str], images_of: Mapping[str, set[str]]
) -> list[tuple[str, list[tuple[str, float | None]]]]:
    return [
        (
            one,
            [
                (
                    other,
                    None
                    if one == other
                    else len(images_of[one] & images_of[other]) / len(images_of[one]),
                )
                for other in names
            ],
        )
        for one in names
    ]


def failures(images: Sequence[StoredImage], limit: int = MAX_FAILURES) -> dict[str, Any]:
    """Return the values of the page of failures.

    :param images: images without labels.
    :param limit: number of images that were asked for.
    """
    groups: dict[tuple[str, str, str | None], list[StoredImage]] = defaultdict(list)
    for image in images:
        groups[_status(image.status), image.error or "", image.code].append(image)
    causes = [
        Cause(status, error, code, len(found), found[:EXAMPLES])
        for (status, error, code), found in groups.items()
    ]
    causes.sort(key=lambda cause: (-cause.images, cause.error, cause.code or ""))
    waiting = [image.next_try_at for image in images if image.next_try_at is not None]
    return {
        "causes": causes,
        "failed_total": len(images),
        "is_cut": len(images) >= limit,
        "next_try_at": min(waiting, default=None),
    }


def runs_of(store: Any, limit: int = 200) -> list[dict[str, Any]]:
    """Return the newest runs of a store, the newest first; none if it keeps no runs.

    :raises StorageError: the store cannot be read.
    """
    from airflow_imagetag.errors import ConfigurationError

    newest: list[dict[str, Any]] = []
    try:
        for frame in store.runs():
            newest += frame.astype(object).where(frame.notna(), None).to_dict("records")
            newest.sort(key=lambda run: run["started_at"], reverse=True)
            del newest[limit:]
    except (AttributeError, ConfigurationError):
        return []
    return [{**run, "until": _end_of(run)} for run in newest]


def _end_of(run: Mapping[str, Any]) -> datetime | None:
    """Return a time after the last image of a run; None while it runs."""
    return None if run["ended_at"] is None else run["ended_at"] + timedelta(seconds=1)


def is_run(run: Run, wanted: Mapping[str, Any]) -> bool:
    """Tell whether a run is that of a task.

    :param wanted: names of the task, as they were read from an address.
    """
    return all(
        _as_read(run.get(name)) == _as_read(value)
        for name, value in wanted.items()
        if value is not None
    )


def _as_read(value: Any) -> Any:
    # Airflow 3.1 writes the id of a run into an address as it is, where + means a blank.
    return value.replace("+", " ") if isinstance(value, str) else value


def report_counts(browser: StoreBrowser) -> tuple[DayCounts, LabelSample]:
    """Return the counts and the sample that a report shows."""
    return browser.day_counts(), browser.label_sample(SAMPLE_IMAGES)
