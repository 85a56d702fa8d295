"""``source - store``: the entries of a source that a store does not hold yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from airflow_imagetag.models import Entry, Image, SkippedImage
from airflow_imagetag.selection.rules import Condition, Rule, Window
from airflow_imagetag.selection.shards import Shard
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.sources.sql import SqlImages
from airflow_imagetag.stores.sql import SqlLabelStore

if TYPE_CHECKING:
    from airflow_imagetag.stores.base import LabelStore, OpenStore

LOOKUP_ENTRIES = 500

E = TypeVar("E", bound=Entry)


def new_entries(
    source: ImageSource,
    store: LabelStore,
    opened: OpenStore,
    rule: Rule,
    api: str,
    *,
    shard: Shard | None,
    limit: int | None,
) -> Iterator[Entry]:
    """Yield the entries that are to be labelled.

    In one database the database itself tells; otherwise the store is asked in chunks.

    :param source: where images are.
    :param store: where labels are kept.
    :param opened: the same store, opened.
    :param rule: what counts as new.
    :param api: interface that is to label them.
    :param shard: only the images of this part.
    :param limit: no more than so many images will be taken.
    """
    pending = _pushed_down(source, store, opened, rule, api)
    if isinstance(source, SqlImages) and pending is not None:
        # What is left is asked for all the same: rows without a key are no matter of a statement
        # that compares keys, and would be reported in every run.
        entries = source.entries(shard=shard, limit=limit, pending=pending)
        return pending_entries(entries, opened, rule, api)
    return pending_entries(source.entries(shard=shard), opened, rule, api)


def new_images(
    source: ImageSource,
    store: LabelStore,
    opened: OpenStore,
    rule: Rule,
    api: str,
    *,
    window: Window | None,
    limit: int | None,
) -> Iterator[Image]:
    """Yield the images that are to be labelled, without their bytes.

    Reading stops when no more is taken, and what is no image is left out.

    :param source: where images are.
    :param store: where labels are kept.
    :param opened: the same store, opened.
    :param rule: what counts as new.
    :param api: interface that is to label them.
    :param window: only images that changed in this time.
    :param limit: no more than so many images will be taken.
    """
    pending = _pushed_down(source, store, opened, rule, api)
    # A page of the source holds more than is new in it, unless its database left out the others.
    images = source.images(
        limit=limit if pending is not None else None, window=window, pending=pending
    )
    return pending_entries(images, opened, rule, api)


def _pushed_down(
    source: ImageSource, store: LabelStore, opened: OpenStore, rule: Rule, api: str
) -> Condition | None:
    """Return the condition that an image is new, where source and store share a database."""
    if (
        isinstance(source, SqlImages)
        and isinstance(store, SqlLabelStore)
        and source.conn_id == store.conn_id
    ):
        return opened.pending(rule, api)
    return None


def pending_entries(entries: Iterable[E], opened: OpenStore, rule: Rule, api: str) -> Iterator[E]:
    """Yield the entries that the store does not hold in their version."""
    iterator = iter(entries)
    while chunk := list(islice(iterator, LOOKUP_ENTRIES)):
        held = opened.known([entry.key for entry in chunk], api)
        for entry in chunk:
            if isinstance(entry, SkippedImage) or rule.is_pending(
                held.get(entry.key), version=entry.version, has_uri=entry.uri is not None
            ):
                yield entry


def limited(entries: Iterator[Entry], max_images: int | None) -> Iterator[Entry]:
    """Yield entries up to the last of so many images; the others are the next run's."""
    if max_images is None:
        yield from entries
        return
    left = max_images
    for entry in entries:
        yield entry
        left -= isinstance(entry, Image)
        if left == 0:
            return
