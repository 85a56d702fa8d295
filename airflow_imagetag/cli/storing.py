"""Private: the commands that look after a store."""

from __future__ import annotations

import argparse
from typing import IO

from airflow_imagetag.cli.places import store_of
from airflow_imagetag.cli.screen import show, show_json
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.stores.base import StoreMode


def compact(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Rewrite a dataset as few files."""
    store = store_of(arguments.store)
    work = getattr(store, "compact", None)
    if work is None:
        raise ConfigurationError(
            f"{store!r} needs no compaction: only stores of files have many of them."
        )
    work()
    print(f"{store!r} is compacted.", file=out)
    return 0


def delete(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Delete images with their labels; 1 if the store holds none of them."""
    count = store_of(arguments.store).delete(arguments.keys, api=arguments.api)
    if arguments.json:
        show_json({"deleted": count}, out)
    else:
        print(f"{count:,} images deleted, each counted once for every interface.", file=out)
    return 0 if count else 1


def store(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Check a store, or upgrade it."""
    return {"check": _check, "upgrade": _upgrade}[arguments.action](arguments, out)


def _check(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Open the store, and count its images and labels; writes nothing."""
    found = store_of(arguments.store)
    with found.open("DetectLabelPro", StoreMode.READ):
        pass
    counts: dict[str, dict[str, int]] = {}
    for labels in found.labels():
        for api, group in labels.groupby("api"):
            count = counts.setdefault(str(api), {"labels": 0})
            count["labels"] += len(group)
    rows = [{"api": api, **count} for api, count in sorted(counts.items())]
    if arguments.json:
        show_json({"store": found.serialize(), "counts": rows}, out)
    elif rows:
        show(rows, out)
    else:
        print("The store can be read, and holds no labels.", file=out)
    return 0


def _upgrade(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Bring the tables to the form of this version."""
    found = store_of(arguments.store)
    with found.open("DetectLabelPro", StoreMode.WRITE) as opened:
        opened.check_writable()
    if arguments.json:
        show_json({"store": found.serialize()}, out)
    else:
        print("The store has the form of this version, and can be written.", file=out)
    return 0
