"""Private: ``airflow-imagetag label``: labels without a DAG."""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from airflow_imagetag.cli.main import INTERRUPTED
from airflow_imagetag.cli.places import is_table, source_of, store_of
from airflow_imagetag.cli.progress_bar import progress_bar
from airflow_imagetag.cli.screen import printable, show, show_json
from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.errors import ConfigurationError, RunInterruptedError, TooManyFailuresError
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.operators.imagetag import ImageTagOperator

LOCAL_CONNECTION = "imagetag_local"
"""Connection of ``--local``, which exists while the command runs."""

SHOWN = (
    "seen",
    "tagged",
    "reused",
    "without_labels",
    "failed",
    "waiting",
    "skipped",
    "calls",
    "estimated_cost",
    "elapsed_seconds",
    "images_per_second",
)
"""The counts of the summary that the table has."""


@dataclass(frozen=True)
class RunProgress:
    """How far a run is.

    :param counts: the counts so far.
    :param total: number of entries; None if it is unknown.
    :param cost: price of the calls so far; None if it is unknown, or if they are free.
    """

    counts: Counts
    total: int | None
    cost: float | None


@dataclass(frozen=True)
class XComs:
    """Takes XComs, as a task's instance does; it has no identity, since there is no task.

    :param kept: the XComs by key.
    """

    kept: dict[str, Any]

    def xcom_push(self, key: str, value: Any) -> None:
        """Take an XCom."""
        self.kept[key] = value


class CommandRun(ImageTagOperator):
    """The operator outside of a task: it hands its XComs over, and tells its progress."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(task_id="label", **kwargs)
        self.kept: dict[str, Any] = {}

    def run_now(self) -> Any:
        """Label the images and return what the task would return; XComs are in ``kept``."""
        context: Any = {"ti": XComs(self.kept)}
        return self._execute(context)

    def progress(self) -> RunProgress | None:
        """Return how far the run is; None before it has begun."""
        for job in self._running:
            run = job.labelling
            # A dry run has no calls to count.
            return None if run is None else RunProgress(run.counts, run.total, run.cost)
        return None


def label(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Label the images of a source."""
    is_file = arguments.to.lower().endswith(".csv")
    if is_file and arguments.only_failed:
        raise ConfigurationError("--only-failed needs a store that knows what has failed.")
    if is_file and not arguments.dry_run:
        _check_writable(Path(arguments.to))
    task = CommandRun(
        images=source_of(arguments.source, arguments),
        store=None if is_file else store_of(arguments.to),
        imagetag_conn_id=LOCAL_CONNECTION if arguments.local else arguments.connection,
        requests_per_second=arguments.requests_per_second,
        max_images=arguments.max_images,
        min_probability=arguments.min_probability,
        top_k=arguments.top_k,
        label_map=arguments.label_map,
        only_failed=arguments.only_failed,
        dry_run=arguments.dry_run,
        sample=arguments.sample,
        max_calls=arguments.max_calls,
    )
    return run_task(task, arguments, out, place=arguments.to, is_file=is_file)


def _check_writable(path: Path) -> None:
    """Check that a file can be written, before anything is paid for.

    :raises ConfigurationError: it cannot.
    """
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"There is no folder for {path}. Correct the path, or create it.")
    if path.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ConfigurationError(f"{path} cannot be written. Name another file.")


def run_task(
    task: CommandRun,
    arguments: argparse.Namespace,
    out: IO[str],
    *,
    place: str,
    is_file: bool = False,
) -> int:
    """Run an operator with a progress bar, print its summary, and return the exit code.

    Ctrl-C ends the run in order: finished images are kept.

    :param place: where the labels are, as it was written.
    :param is_file: the run has no store: its labels are written to that place, as CSV.
    """
    code, message = 0, None
    try:
        with _environment(), _ending_on_interrupt(task), progress_bar(task.progress):
            labels = task.run_now()
        if task.is_dry_run:
            print_plan(labels, arguments, out)
            return 0
    except RunInterruptedError as error:
        code, message, labels = INTERRUPTED, error.message, task.kept.get("return_value")
    except TooManyFailuresError as error:
        code, labels = 1, task.kept.get("return_value")
        all_of_them = "" if is_file else f" All: airflow-imagetag failures {printable(place)}"
        message = f"{error.facts}{all_of_them}"
    if is_file and labels is not None:
        labels.to_csv(place, index=False)
    summary = task.kept.get("summary", {})
    if arguments.json:
        show_json(summary | {"message": message}, out)
        return code
    if summary and not summary["seen"]:
        print(_nothing_to_label(task, arguments, summary, place), file=out)
    _print_summary(summary, message, out)
    if count := summary.get("tagged", 0) - summary.get("without_labels", 0):
        images = "1 image are" if count == 1 else f"{count:,} images are"
        print(f"The labels of {images} in {printable(place)}.", file=out)
    return code


def _nothing_to_label(
    task: CommandRun, arguments: argparse.Namespace, summary: dict[str, Any], place: str
) -> str:
    """Return sentences on a run without images: there are none, or the store knows them all."""
    if arguments.source is not None and (lack := _lack_of_images(task, arguments)):
        return f"Nothing to label: no images were found in {printable(arguments.source)}{lack}."
    said = "Nothing to label: the source has no images that the store does not know."
    later, ended = summary.get("waiting", 0), summary.get("gave_up", 0)
    if later or ended:
        said += (
            f" {later:,} images wait for a later try and {ended:,} were given up: "
            f"airflow-imagetag failures {printable(place)}"
        )
    return said


def _lack_of_images(task: CommandRun, arguments: argparse.Namespace) -> str | None:
    """Return why a source gives no images; None if it gives some."""
    from airflow_imagetag.sources.suffixes import suffixes_of

    with _environment():
        formats = ImageTagHook(task.imagetag_conn_id).limits.formats
        source = source_of(arguments.source, arguments).with_formats(formats)
        if next(source.entries(limit=1), None) is not None:
            return None
    if is_table(arguments.source):
        return ", which has no rows"
    if arguments.pattern is not None:
        return f": no name matches the pattern {arguments.pattern!r}"
    suffixes = " ".join(suffixes_of(formats))
    return f": no name ends in one of {suffixes} (--pattern '*' takes files of any name)"


def print_plan(found: dict[str, Any], arguments: argparse.Namespace, out: IO[str]) -> None:
    """Print the result of a dry run."""
    if arguments.json:
        show_json(found, out)
        return
    rows = [
        {"name": name.replace("_", " "), "value": value}
        for name, value in found.items()
        if isinstance(value, int | float)
        and name != "dry_run"
        and (value or name != "estimated_cost")
    ]
    show(rows, out, has_header=False, title="Nothing was sent. The run would take:")
    if found.get("sample"):
        print(f"Among them: {', '.join(map(printable, found['sample'][:5]))}", file=out)


def _print_summary(summary: dict[str, Any], message: str | None, out: IO[str]) -> None:
    rows = [
        {"name": name.replace("_", " "), "value": summary[name]}
        for name in SHOWN
        if summary.get(name) not in (None, 0)
    ]
    show(rows, out, has_header=False)
    failures = [
        {name: one[name] for name in ("image_key", "error", "message")}
        for one in summary.get("failures_sample", [])
    ]
    if failures:
        show(failures, out, title="Failed, the first of them")
    if message:
        print(message, file=out)


@contextmanager
def _environment() -> Iterator[None]:
    """Define the connection of ``--local``, and keep no checkpoint: there is no task to resume."""
    values = {
        f"AIRFLOW_CONN_{LOCAL_CONNECTION.upper()}": json.dumps(
            {"conn_type": "imagetag", "extra": {"api": "local"}}
        ),
        "AIRFLOW__IMAGETAG__CHECKPOINT_PATH": "",
    }
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _ending_on_interrupt(task: CommandRun) -> Iterator[None]:
    """End the run in order on Ctrl-C and SIGTERM; a second one ends the process."""

    def handler(number: int, frame: Any) -> None:
        del frame
        signal.signal(number, previous[number])
        task.on_kill()

    numbers = (int(signal.SIGINT), int(signal.SIGTERM))
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, one in previous.items():
            signal.signal(number, one)
