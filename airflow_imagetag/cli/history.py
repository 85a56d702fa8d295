"""Private: the commands that list the runs and the images of a store."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection
from typing import IO, TYPE_CHECKING, Any

from airflow_imagetag.backends.configuration import allowed_local_folders
from airflow_imagetag.cli.labelling import CommandRun, run_task
from airflow_imagetag.cli.places import existing_store_of, source_of
from airflow_imagetag.cli.screen import records, show, show_json
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.safety.uris import is_below, is_local, local_path
from airflow_imagetag.sources.images_field import wrap_images

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.stores.base import LabelStore

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

NOTHING_DONE = {"seen": 0, "tagged": 0, "failed": 0, "calls": 0}
"""The summary of a retry without images."""

UNLABELLED = ("failed", "waiting", "gave_up")
"""Statuses of images without labels."""


def runs(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Print the latest runs, or their sums by day or month."""
    store = existing_store_of(arguments.store)
    found = _joined(store.runs(), arguments.api)
    if found.empty:
        _print_nothing(f"No runs in {store!r}.", arguments, out)
    elif arguments.by:
        _print(_sums(found, arguments.by), arguments, out)
    else:
        _print(found.tail(arguments.last), arguments, out, columns=RUN_COLUMNS)
    return 0


def failures(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Print the images without labels, or their number by cause."""
    store = existing_store_of(arguments.store)
    found = _unlabelled(store, arguments.api)
    if found.empty:
        _print_nothing(f"No images without labels in {store!r}.", arguments, out)
    elif arguments.why:
        causes = found.groupby(["status", "error", "code"], dropna=False)
        counted = causes.agg(images=("image_key", "size"), example=("message", "first"))
        _print(counted.reset_index().sort_values("images", ascending=False), arguments, out)
    else:
        _print(found.head(arguments.last), arguments, out, columns=FAILURE_COLUMNS)
    return 0


def retry(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Label the images again that have no labels: those of a source, or all that have a URI."""
    store = existing_store_of(arguments.store)
    images: Any
    if arguments.source is not None:
        images = source_of(arguments.source, arguments)
    else:
        found = _unlabelled(store, None)
        if found.empty:
            _print_nothing(f"No images without labels in {store!r}.", arguments, out, NOTHING_DONE)
            return 0
        images = wrap_images(_rows_to_try(found, arguments.store), literal=False)
    task = CommandRun(
        images=images,
        store=store,
        imagetag_conn_id=arguments.connection,
        requests_per_second=arguments.requests_per_second,
        max_images=arguments.max_images,
        only_failed=True,
    )
    return run_task(task, arguments, out, place=arguments.store)


def _joined(frames: Any, api: str | None) -> pd.DataFrame:
    """Return frames as one, of one interface if it is named."""
    import pandas as pd

    parts = [frame if api is None else frame[frame["api"] == api] for frame in frames]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _unlabelled(store: LabelStore, api: str | None) -> pd.DataFrame:
    parts = (frame[frame["status"].isin(UNLABELLED)] for frame in store.images())
    return _joined(parts, api)


def _rows_to_try(found: pd.DataFrame, store: str) -> list[dict[str, Any]]:
    """Return the rows of images that can be read by their URI, and tell the number of the others.

    The store's rows are data: local files that they name must lie in an allowed folder. Those of
    others are left as they are, with the failures that the store has recorded.

    :param store: the store, as it was written.
    :raises ConfigurationError: no image can be read.
    """
    with_uri = found.dropna(subset=["image_uri"])
    folders = allowed_local_folders()
    may_read = [_may_read(uri, folders) for uri in with_uri["image_uri"]]
    readable = with_uri[may_read]
    messages = []
    if left_out := len(found) - len(with_uri):
        messages.append(
            f"The store does not have the URIs of {left_out:,} of {len(found):,} images. To label "
            f"them, too, name their source: airflow-imagetag retry {store} SOURCE."
        )
    if outside := len(with_uri) - len(readable):
        messages.append(
            f"{outside:,} of {len(found):,} images are local files, which a store may name only in "
            "the folders of [imagetag] allowed_local_paths. To label them, give the folder: "
            f"airflow-imagetag retry {store} FOLDER"
        )
    if readable.empty:
        raise ConfigurationError(" ".join(messages))
    for message in messages:
        print(f"airflow-imagetag: {message}", file=sys.stderr)
    return records(readable[["image_key", "image_uri", "version"]])


def _may_read(uri: str, folders: Collection[str]) -> bool:
    """Tell whether data may name a URI, as far as local files go."""
    if not is_local(uri):
        return True
    path = os.path.realpath(local_path(uri))
    return any(is_below(path, folder) for folder in folders)


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
    """Print a frame that has rows; JSON has all its columns."""
    if arguments.json:
        show_json(records(table), out)
    else:
        show(records(table), out, columns=columns)


def _print_nothing(
    message: str, arguments: argparse.Namespace, out: IO[str], value: Any = ()
) -> None:
    """Print that there are no rows.

    :param message: for people.
    :param value: the JSON.
    """
    if arguments.json:
        show_json(value, out)
    else:
        print(message, file=out)
