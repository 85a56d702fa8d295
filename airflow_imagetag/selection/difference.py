"""``source - store``: the entries of a source that a store does not hold yet."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Protocol, TypeVar, runtime_checkable

from airflow_imagetag.models import Entry, Image, SkippedImage, content_bytes
from airflow_imagetag.selection.rules import Condition, Need, Rule, StoredState, Window
from airflow_imagetag.selection.shards import Shard

LOOKUP_ENTRIES = 500
"""Number of keys in one look-up of the store."""

HELD_BACK_ENTRIES = 20_000
"""Maximum number of entries held back until the images that were never tried have come."""

HELD_BACK_BYTES = 64 * 1024 * 1024
"""Maximum size of the image bytes among them."""

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


@runtime_checkable
class CountingPushDown(PushDown, Protocol):
    """A push-down that can count, too: a run then tells how much is left of it."""

    def count(self, condition: Condition, *, shard: Shard | None) -> int:
        """Return the number of entries that meet the condition.

        :param condition: selects the new images.
        :param shard: only entries for whose key ``shard.holds(key)`` is true.
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

    def may_be_due(self, rule: Rule) -> bool:
        """Tell whether some stored image may be due by the rule."""
        ...

    def known(self, keys: Collection[str]) -> Mapping[str, StoredState]:
        """Return the state of the images with these keys."""
        ...


def new_entries(
    source: Source,
    held: Held,
    rule: Rule,
    *,
    shard: Shard | None,
    limit: int | None,
    tried: dict[str, StoredState] | None = None,
) -> Iterator[Entry]:
    """Yield the entries that are to be labelled: those never tried first, then those that are due.

    If source and store share a database, the database compares them; else the store is asked for
    some keys at a time.

    :param source: gives the images.
    :param held: the open store.
    :param rule: decides which images are new, and which are due.
    :param shard: only the images of this part.
    :param limit: maximum number of images that the caller takes.
    :param tried: takes the stored states of the entries that are yielded and were tried before.
    """

    def selected(condition: Condition, push_down: PushDown) -> Iterator[Entry]:
        return push_down.entries(condition, shard=shard, limit=limit)

    def every() -> Iterator[Entry]:
        return source.entries(shard=shard, limit=None)

    return _new_first(source, held, rule, selected, every, limit=limit, tried=tried)


def count_entries(source: Source, held: Held, rule: Rule, *, shard: Shard | None) -> int | None:
    """Return the number of entries that are to be labelled, if the source's database can count."""
    push_down = _shared_push_down(source, held, rule)
    if not isinstance(push_down, CountingPushDown):
        return None
    conditions = (held.condition(replace(rule, need=need)) for need in Need)
    return sum(push_down.count(one, shard=shard) for one in conditions if one is not None)


def new_images(
    source: Source, held: Held, rule: Rule, *, window: Window | None, limit: int | None
) -> Iterator[Image]:
    """Yield the images that are to be labelled, without their bytes, read as they are taken.

    Images never tried come first. Entries that cannot be labelled are left out.

    :param source: gives the images.
    :param held: the open store.
    :param rule: decides which images are new, and which are due.
    :param window: only images that changed in this time.
    :param limit: maximum number of images that the caller takes.
    """

    def selected(condition: Condition, push_down: PushDown) -> Iterator[Image]:
        return push_down.images(condition, window=window, limit=limit)

    def every() -> Iterator[Image]:
        # No limit: a page of the source holds images that are not new.
        return source.images(limit=None, window=window)

    return _new_first(source, held, rule, selected, every, limit=limit, tried=None)


def _new_first(
    source: Source,
    held: Held,
    rule: Rule,
    selected: Callable[[Condition, PushDown], Iterator[E]],
    every: Callable[[], Iterator[E]],
    *,
    limit: int | None,
    tried: dict[str, StoredState] | None,
) -> Iterator[E]:
    """Yield the entries that are to be labelled, those that are due last.

    :param selected: reads the entries that meet a condition of the source's database.
    :param every: reads all entries.
    """
    push_down = _shared_push_down(source, held, rule)
    if push_down is None:
        yield from _due_last(with_needs(every(), held, rule, tried), limit)
        return
    for need in Need:
        if need is Need.DUE and not held.may_be_due(rule):
            return
        only = replace(rule, need=need)
        condition = held.condition(only)
        if condition is not None:
            # After a push-down, too: a statement that compares keys says nothing about rows without
            # a key, which would be reported in every run.
            found = selected(condition, push_down)
            yield from (entry for entry, _ in with_needs(found, held, only, tried))


def _shared_push_down(source: Source, held: Held, rule: Rule) -> PushDown | None:
    """Return the push-down of a source whose database holds the store, too."""
    push_down = source.push_down
    if push_down is None or push_down.database != held.database or held.condition(rule) is None:
        return None
    return push_down


def pending_entries(entries: Iterable[E], held: Held, rule: Rule) -> Iterator[E]:
    """Yield the entries that are to be labelled, in their order."""
    return (entry for entry, _ in with_needs(entries, held, rule))


def with_needs(
    entries: Iterable[E],
    held: Held,
    rule: Rule,
    tried: dict[str, StoredState] | None = None,
) -> Iterator[tuple[E, Need]]:
    """Yield the entries that are to be labelled, each with the reason.

    :param tried: takes the stored states of the entries that were tried before.
    """
    iterator = iter(entries)
    while chunk := list(islice(iterator, LOOKUP_ENTRIES)):
        states = held.known([entry.key for entry in chunk])
        for entry in chunk:
            if isinstance(entry, SkippedImage):
                yield entry, Need.NEW
                continue
            stored = states.get(entry.key)
            has_uri = entry.uri is not None
            need = rule.need_of(stored, version=entry.version, has_uri=has_uri)
            if need is None or rule.need not in (None, need):
                continue
            if stored is not None and tried is not None:
                tried[entry.key] = stored
            yield entry, need


def _due_last(needed: Iterator[tuple[E, Need]], limit: int | None) -> Iterator[E]:
    """Yield entries, those that are due last.

    A source is read once, so entries that are due are held back. More than the bounds allow come in
    the order of the source; those that the limit excludes are dropped.

    :param limit: maximum number of images that the caller takes.
    """
    held_back: list[E] = []
    size_bytes = 0
    for entry, need in needed:
        size = content_bytes(entry)
        is_full = len(held_back) >= HELD_BACK_ENTRIES or size_bytes + size > HELD_BACK_BYTES
        if need is Need.NEW or (is_full and (limit is None or len(held_back) < limit)):
            yield entry
        elif limit is None or len(held_back) < limit:
            held_back.append(entry)
            size_bytes += size
    yield from held_back


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
