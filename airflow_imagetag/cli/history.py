"""Private: the commands that list the runs and the images of a store."""

from __future__ import annotations

import argparse
from typing import IO, TYPE_CHECKING, Any

from airflow_imagetag.cli.labelling import CommandRun, run_task
from airflow_imagetag.cli.places import source_of, store_of
from airflow_imagetag.cli.screen import records, show, show_json
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.sources.images_field import wrap_images

if TYPE_CHECKING:
    import pandas as pd

RUN_COLUMNS = (
    "started_at",
    "dag_id",
    "task_id",
    "try_number",
    "api",
    "outcome",
    "error",
    "tagged",
    "failed",
    "calls",
    "billed_calls",
    "cost",
)
"""The columns of the table of runs; JSON has them all."""

SUMS = ("tagged", "failed", "calls", "billed_calls", "refused_calls", "unknown_calls", "cost")

FAILURE_COLUMNS = (
    "image_key",
    "status",
    "error",
    "code",
    "message",
    "tries",
    "first_failed_at",
    "next_try_at",
)

UNLABELLED = ("failed", "waiting", "gave_up")
"""Statuses of images without labels."""


def runs(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Print the latest runs, or their sums by day or month."""
    found = _joined(store_of(arguments.store).runs(), arguments.api)
    if arguments.by and len(found):
        _print(_sums(found, arguments.by), arguments, out)
        return 0
    latest = found.tail(arguments.last) if len(found) else found
    _print(latest, arguments, out, columns=() if arguments.json else RUN_COLUMNS)
    return 0


def failures(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Print the images without labels, or their number by cause."""
    found = _unlabelled(arguments.store, arguments.api)
    if arguments.why and len(found):
        causes = found.groupby(["status", "error", "code"], dropna=False)
        counted = causes.agg(images=("image_key", "size"), example=("message", "first"))
        _print(counted.reset_index().sort_values("images", ascending=False), arguments, out)
        return 0
    columns = () if arguments.json else FAILURE_COLUMNS
    _print(found.head(arguments.last) if len(found) else found, arguments, out, columns=columns)
    return 0


def retry(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Label the images again that have no labels: those of a source, or all that have a URI."""
    store = store_of(arguments.store)
    images: Any
    if arguments.source is not None:
        images = source_of(arguments.source, arguments)
    else:
        found = _unlabelled(arguments.store, None)
        with_uri = found.dropna(subset=["image_uri"]) if len(found) else found
        if len(found) > len(with_uri):
            raise ConfigurationError(
                f"The store does not have the URIs of {len(found) - len(with_uri):,} of "
                f"{len(found):,} images. Name their source: airflow-imagetag retry STORE SOURCE."
            )
        rows = [] if with_uri.empty else records(with_uri[["image_key", "image_uri", "version"]])
        # The store's rows are data: local files that they name must lie in an allowed folder.
        images = wrap_images(rows, literal=False)
    task = CommandRun(
        images=images,
        store=store,
        imagetag_conn_id=arguments.connection,
        requests_per_second=arguments.requests_per_second,
        max_images=arguments.max_images,
        only_failed=True,
    )
    return run_task(task, arguments, out)


def _joined(frames: Any, api: str | None) -> pd.DataFrame:
    """Return frames as one, of one interface if it is named."""
    import pandas as pd

    parts = [frame if api is None else frame[frame["api"] == api] for frame in frames]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _unlabelled(place: str, api: str | None) -> pd.DataFrame:
    parts = (frame[frame["status"].isin(UNLABELLED)] for frame in store_of(place).images())
    return _joined(parts, api)


def _sums(found: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return the sums of the runs of each day or month, in UTC, and of each interface."""
    length = {"day": 10, "month": 7}[by]
    period = found["started_at"].map(lambda moment: moment.isoformat()[:length])
    counted = found.assign(period=period, runs=1).rename(columns={"period": by})
    groups = counted.groupby([by, "api"], as_index=False)
    # A sum without any price is unknown, not 0.
    sums: pd.DataFrame = groups[["runs", *SUMS]].sum(min_count=1)
    return sums


def _print(
    table: pd.DataFrame,
    arguments: argparse.Namespace,
    out: IO[str],
    *,
    columns: tuple[str, ...] = (),
) -> None:
    rows = records(table) if len(table) else []
    if arguments.json:
        show_json(rows, out)
    elif rows:
        show(rows, out, columns=columns)
    else:
        print("None.", file=out)
