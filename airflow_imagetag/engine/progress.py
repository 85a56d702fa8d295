"""The progress of a run as one line of the log: images, rate, time left."""

from __future__ import annotations

from airflow_imagetag.engine.counts import Counts


def line(
    counts: Counts,
    *,
    elapsed_seconds: float,
    total: int | None,
    unwritten: int = 0,
    is_cut_off: bool = False,
) -> str:
    """Return the progress as a sentence.

    :param counts: the counts so far.
    :param elapsed_seconds: since the start of the run.
    :param total: entries of the source, None if unknown.
    :param unwritten: finished images that are not written yet, and so not counted.
    :param is_cut_off: the run has ended before its last image, so skipped entries are not done.
    """
    done = counts.done + unwritten + (0 if is_cut_off else counts.skipped)
    rate = done / elapsed_seconds if elapsed_seconds > 0 else 0.0
    parts = [plural(done, "image")]
    if total:
        parts = [f"{done:,} of {plural(total, 'image')} ({min(done / total, 1):.0%})"]
    parts.append(f"{rate:,.1f} images/s")
    if total and rate and done < total and not is_cut_off:
        parts.append(f"about {duration((total - done) / rate)} left")
    if counts.reused:
        by_calls = counts.tagged - counts.reused
        parts.append(
            f"{counts.tagged:,} labelled ({by_calls:,} by calls, "
            f"{counts.reused:,} from earlier answers)"
        )
    tolerated = f" ({counts.tolerated:,} tolerated)" if counts.tolerated else ""
    parts.append(f"{counts.failed:,} failed{tolerated}")
    parts.append(f"{plural(counts.calls, 'call')} ({plural(counts.retries, 'retry', 'retries')})")
    return ", ".join(parts)


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a number of things for a person: ``1 image``, ``2,000 images``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Return a length of time for a person: ``42 s``, ``3 min``, ``1 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
