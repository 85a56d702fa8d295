"""Private: the commands that look after a store."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import IO

from airflow_imagetag.cli.places import check_exists, existing_store_of, store_of
from airflow_imagetag.cli.screen import printable, show, show_json
from airflow_imagetag.errors import ConfigurationError


def compact(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Rewrite a dataset as few files."""
    store = store_of(arguments.store)
    work = getattr(store, "compact", None)
    if work is None:
        raise ConfigurationError(
            f"{store!r} needs no compaction: only stores of files have many of them."
        )
    check_exists(store, arguments.store)
    work()
    if arguments.json:
        show_json({"store": store.serialize()}, out)
    else:
        print(f"{store!r} is compacted.", file=out)
    return 0


def delete(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Delete images with their labels; 1 if the store holds none of them."""
    count = existing_store_of(arguments.store).delete(arguments.keys, api=arguments.api)
    if arguments.json:
        show_json({"deleted": count}, out)
    else:
        print(f"{count:,} images deleted, each counted once for every interface.", file=out)
    return 0 if count else 1


def report(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Write the report of a store."""
    from airflow_imagetag.ui.report import write_report

    left_out = write_report(existing_store_of(arguments.store), arguments.file)
    if arguments.json:
        show_json({"file": arguments.file, "pictures_left_out": len(left_out)}, out)
        return 0
    print(f"The report is in {arguments.file}.", file=out)
    if left_out:
        folder = printable(os.path.commonpath([Path(path).parent for path in left_out]))
        print(
            f"{len(left_out):,} pictures are left out, since reading local files is not allowed: "
            f"set [imagetag] allowed_local_paths to their folder, {folder}",
            file=out,
        )
    return 0


def store(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Check a store, or upgrade it."""
    return {"check": _check, "upgrade": _upgrade}[arguments.action](arguments, out)


def _check(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Count the images of a store by their status; writes nothing."""
    found = existing_store_of(arguments.store)
    counts: Counter[tuple[str, str]] = Counter()
    labels: Counter[tuple[str, str]] = Counter()
    for images in found.images():
        for (api, status), group in images.groupby(["api", "status"]):
            counts[str(api), str(status)] += len(group)
            labels[str(api), str(status)] += int(group["labels"].sum())
    rows = [
        {"api": api, "status": status, "images": count, "labels": labels[api, status]}
        for (api, status), count in sorted(counts.items())
    ]
    if arguments.json:
        show_json({"store": found.serialize(), "counts": rows}, out)
    elif rows:
        show(rows, out)
    else:
        print(f"{found!r} can be read, and holds no images.", file=out)
    return 0


def _upgrade(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Bring the tables to the form of this version."""
    changes = existing_store_of(arguments.store).upgrade()
    if arguments.json:
        show_json({"changes": changes}, out)
    for change in [] if arguments.json else changes or ["Nothing was to be changed."]:
        print(change, file=out)
    return 0
