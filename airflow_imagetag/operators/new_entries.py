"""Private: the entries that a run or a dry run takes from its source."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from airflow_imagetag.engine.progress import plural
from airflow_imagetag.models import Entry, Image
from airflow_imagetag.operators.writers import Collected, answer_lookup
from airflow_imagetag.selection.beginning import Beginning
from airflow_imagetag.selection.difference import count_entries, limited, new_entries
from airflow_imagetag.selection.rules import Retag, Status, StoredState, has_failed_before

if TYPE_CHECKING:
    from airflow_imagetag.engine.protocols import AnswerLookup
    from airflow_imagetag.operators.options import Options
    from airflow_imagetag.sources.base import ImageSource
    from airflow_imagetag.stores.open_store import OpenStore

log = logging.getLogger(__name__)


def every_entry(source: ImageSource, options: Options) -> Iterator[Entry]:
    """Yield the entries of a run without a store, within its bounds.

    :param options: the operator's checked parameters.
    """
    entries = options.chosen(source.entries(shard=options.shard))
    return limited(entries, options.max_images)


class NewEntries:
    """The entries of a run that its store does not hold, or that are due, within its bounds.

    :param source: where the images are.
    :param opened: the store.
    :param options: the operator's checked parameters.
    :param now: the time, with a zone, at which waiting images are due.
    """

    def __init__(
        self, source: ImageSource, opened: OpenStore, options: Options, now: datetime
    ) -> None:
        self._source = source
        self._opened = opened
        self._options = options
        self._now = now
        self._rule = replace(options.rule, now=now)
        self.tried: dict[str, StoredState] = {}
        """The stored states of the entries so far that were tried before."""
        found = new_entries(
            source,
            opened,
            self._rule,
            shard=options.shard,
            # A sample is taken of all.
            limit=options.max_images if options.sample is None else None,
            tried=self.tried,
        )
        self._entries = limited(options.chosen(found), options.max_images)

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries, once."""
        return self._entries

    @cached_property
    def beginning(self) -> Beginning:
        """The first entries; from here on all are read through it."""
        return Beginning(self._entries)

    def counted(self, collected: Collected) -> Iterator[Entry]:
        """Yield all entries, and count the images that are new and those that are due.

        :param collected: has the counts.
        """
        for entry in self.beginning.entries():
            if isinstance(entry, Image):
                is_due = self.is_due(entry)
                collected.due += is_due
                collected.new += not is_due
            yield entry

    @cached_property
    def total(self) -> int | None:
        """Number of entries; None if it is unknown."""
        if self.beginning.is_all:
            return len(self.beginning)
        options = self._options
        # Counting reads the table once more, which is little beside the calls.
        total = count_entries(self._source, self._opened, self._rule, shard=options.shard)
        bounds = (total, options.max_images, options.sample)
        return None if total is None else min(one for one in bounds if one is not None)

    def is_due(self, image: Image) -> bool:
        """Tell whether an image has failed before in its version."""
        stored = self.tried.get(image.key)
        return has_failed_before(stored, version=image.version, has_uri=image.uri is not None)

    def lookup(self, executor: Executor) -> AnswerLookup | None:
        """Return the look-up of answers that were paid for in earlier runs.

        :param executor: runs the look-up.
        """
        # retag='always' bypasses the cache of paid answers.
        if self._rule.retag is Retag.ALWAYS:
            return None
        return answer_lookup(self._opened, self._rule, executor)

    def log_start(self) -> None:
        """Log how many images there are to label, and how many are left alone."""
        if self.beginning.is_all:
            images = [entry for entry in self.beginning if isinstance(entry, Image)]
            due = sum(map(self.is_due, images))
            parts = [f"{plural(len(images) - due, 'new image')}, {due:,} due again"]
        elif self.total is None:
            parts = [f"{len(self.beginning):,} images or more"]
        else:
            parts = [f"{plural(self.total, 'image')}, new or due again"]
        unlabelled = self._opened.unlabelled(self._now)
        if unlabelled is not None and (waiting := unlabelled.waiting - unlabelled.due):
            parts.append(f"{waiting:,} wait for another try")
        if unlabelled is not None and unlabelled.gave_up:
            parts.append(f"{unlabelled.gave_up:,} were given up")
        log.info("To label: %s", "; ".join(parts))


@dataclass(slots=True)
class Needs:
    """The images by why they would be labelled.

    :param new: images that the store does not hold.
    :param changed: images that it holds in another version, or that ``retag`` labels again.
    :param due: images that had failed and are tried again.
    :param not_waiting: those of them whose time has not come.
    :param not_given_up: those of them that were given up.
    """

    new: int = 0
    changed: int = 0
    due: int = 0
    not_waiting: int = 0
    not_given_up: int = 0

    def count(self, stored: StoredState | None, *, has_failed_before: bool, now: datetime) -> None:
        """Count an image that would be labelled.

        :param stored: its state in the store; None if the store does not hold it.
        :param has_failed_before: whether it failed in its version.
        :param now: the time of the run, with a zone.
        """
        if stored is None:
            self.new += 1
            return
        self.due += has_failed_before
        self.changed += not has_failed_before
        self.not_waiting += stored.next_try_at is not None and stored.next_try_at > now
        self.not_given_up += stored.status is Status.GAVE_UP
