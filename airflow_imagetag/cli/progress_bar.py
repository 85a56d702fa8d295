"""Private: the progress of a run as a bar in the terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from airflow_imagetag.engine.counts import Counts

REFRESH_SECONDS = 0.25
"""Time between two looks at the counts."""

LINE_SECONDS = 10.0
"""Time between two lines where there is no terminal."""


class Progress(Protocol):
    """How far a run is."""

    @property
    def counts(self) -> Counts:
        """The counts so far."""

    @property
    def total(self) -> int | None:
        """Number of entries; None if it is unknown."""

    @property
    def cost(self) -> float | None:
        """Price of the calls so far; None if it is unknown."""


@contextmanager
def progress_bar(look: Callable[[], Progress | None]) -> Iterator[None]:
    """Show the progress of a run on the standard error while the block runs.

    A terminal shows a bar with images, rate, time left, failures and cost; anything else gets a
    line every ten seconds.

    :param look: returns the progress, or None before the run has begun.
    """
    ended = threading.Event()
    draw = _draw_bar if sys.stderr.isatty() else _write_lines
    thread = threading.Thread(target=draw, args=(look, ended), name="imagetag-progress")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _draw_bar(look: Callable[[], Progress | None], ended: threading.Event) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(20),
        MofNCompleteColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.1f} images/s"),
        TextColumn("{task.fields[failed]:,} failed"),
        TextColumn("{task.fields[cost]}"),
        TimeElapsedColumn(),
        TextColumn("elapsed, ETA"),
        TimeRemainingColumn(compact=True),
    )
    with Bar(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        task = bar.add_task("Labelling", total=None, rate=0.0, failed=0, cost="")
        started = None
        is_last = False
        while not is_last:
            is_last = ended.wait(REFRESH_SECONDS)
            if (now := look()) is None:
                continue
            started = started or time.monotonic()
            done = now.counts.done
            bar.update(
                task,
                completed=done,
                total=now.total,
                rate=done / max(time.monotonic() - started, REFRESH_SECONDS),
                failed=now.counts.failed,
                cost="" if now.cost is None else f"cost {now.cost:.2f}",
            )


def _write_lines(look: Callable[[], Progress | None], ended: threading.Event) -> None:
    from airflow_imagetag.engine import progress

    started: Any = None
    while not ended.wait(LINE_SECONDS):
        if (now := look()) is None:
            continue
        started = started or time.monotonic() - LINE_SECONDS
        elapsed = time.monotonic() - started
        line = progress.line(now.counts, elapsed_seconds=elapsed, total=now.total)
        print(line, file=sys.stderr, flush=True)
