"""``source - store``: the entries of a source that a store does not hold yet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Protocol, TypeVar

from airflow_imagetag.models import Entry, Image, SkippedImage
from airflow_imagetag.selection.rules import Condition, Rule, StoredState, Window
from airflow_imagetag.selection.shards import Shard

LOOKUP_ENTRIES = 500
"""Number of keys in one look-up of the store."""

E = TypeVar("E", bound=Entry)


class PushDown(Protocol):
    """Reads a source with a condition that its database applies.

    A condition takes SQLAlchemy expressions of the texts of key, version and URI (None for a source
    of bytes) and returns an expression. Versions are compared as texts; a missing one is empty.
    """

    @property
    def database(self) -> str:
        """Id of the connection whose database evaluates the condition."""
        ...

    def entries(
        self, condition: Condition, *, shard: Shard | None, limit: int | None
    ) -> Iterator[Entry]:
        """Yield the entries that meet the condition.

        :param condition: selects the new images.
        :param shard: yield only entries for whose key ``shard.holds(key)`` is true.
        :param limit: maximum number of images that the caller takes.
        """
        ...

    def images(
        self, condition: Condition, *, window: Window | None, limit: int | None
    ) -> Iterator[Image]:
        """Yield the images that meet the condition, without their bytes.

        :param condition: selects the new images.
        :param window: only images that changed in this time.
        :param limit: maximum number of images that the caller takes.
        """
        ...


class Source(Protocol):
    """The part of a source that the difference reads."""

    @property
    def push_down(self) -> PushDown | None:
        """How the source's database can apply the rule; None if it has no database."""
        ...

    def entries(self, *, shard: Shard | None, limit: int | None) -> Iterator[Entry]:
        """Yield all entries."""
        ...

    def images(self, *, limit: int | None, window: Window | None) -> Iterator[Image]:
        """Yield all images that can be labelled."""
        ...


class Held(Protocol):
    """The part of an open store that the difference asks."""

    @property
    def database(self) -> str | None:
        """Id of the connection whose database holds the store; None for another kind of store."""
        ...

    def condition(self, rule: Rule) -> Condition | None:
        """Return the rule as a condition of a statement in the store's database, if it has one."""
        ...

    def known(self, keys: Collection[str]) -> Mapping[str, StoredState]:
        """Return the state of the images with these keys."""
        ...


def new_entries(
    source: Source, held: Held, rule: Rule, *, shard: Shard | None, limit: int | None
) -> Iterator[Entry]:
    """Yield the entries that are to be labelled.

    If source and store share a database, the database compares them; else the store is asked for
    some keys at a time.

    :param source: gives the images.
    :param held: the open store.
    :param rule: decides which images are new.
    :param shard: only the images of this part.
    :param limit: maximum number of images that the caller takes.
    """
    push_down = source.push_down
    condition = _shared_condition(push_down, held, rule)
    if push_down is None or condition is None:
        entries = source.entries(shard=shard, limit=None)
    else:
        entries = push_down.entries(condition, shard=shard, limit=limit)
    # After a push-down, too: a statement that compares keys says nothing about rows without a key,
    # which would be reported in every run.
    return pending_entries(entries, held, rule)


def new_images(
    source: Source, held: Held, rule: Rule, *, window: Window | None, limit: int | None
) -> Iterator[Image]:
    """Yield the images that are to be labelled, without their bytes, read as they are taken.

    Entries that cannot be labelled are left out.

    :param source: gives the images.
    :param held: the open store.
    :param rule: decides which images are new.
    :param window: only images that changed in this time.
    :param limit: maximum number of images that the caller takes.
    """
    push_down = source.push_down
    condition = _shared_condition(push_down, held, rule)
    if push_down is None or condition is None:
        # No limit: a page of the source holds images that are not new.
        images = source.images(limit=None, window=window)
    else:
        images = push_down.images(condition, window=window, limit=limit)
    return pending_entries(images, held, rule)


def _shared_condition(push_down: PushDown | None, held: Held, rule: Rule) -> Condition | None:
    """Return the rule as a condition if source and store are in one database."""
    if push_down is None or push_down.database != held.database:
        return None
    return held.condition(rule)


def pending_entries(entries: Iterable[E], held: Held, rule: Rule) -> Iterator[E]:
    """Yield the entries that the store does not hold in their version."""
    iterator = iter(entries)
    while chunk := list(islice(iterator, LOOKUP_ENTRIES)):
        states = held.known([entry.key for entry in chunk])
        for entry in chunk:
            if isinstance(entry, SkippedImage) or rule.is_pending(
                states.get(entry.key), version=entry.version, has_uri=entry.uri is not None
            ):
                yield entry


def limited(entries: Iterator[Entry], max_images: int | None) -> Iterator[Entry]:
    """Yield entries up to and including the last image that the limit allows."""
    if max_images is None:
        yield from entries
        return
    left = max_images
    for entry in entries:
        yield entry
        left -= isinstance(entry, Image)
        if left == 0:
            return
