"""Which new images an asset watcher has still to announce. Pure decisions, no I/O.

A watcher remembers the announced images as long as they wait for their labels, and does not
announce them again. It saves an announcement before it sends the event, since its process may be
killed between the two.

Airflow starts one run for all events since the last run, up to the first event that its scheduler
has not processed yet: later events wait until another one comes. So there is one announcement at a
time. The next is made when an image of the last one waits no more, which shows that a run has
begun, or when no run has begun for a while.

An announcement may be lost: with the process, in the scheduler, or because its run failed. So
images that still wait long after it are announced again, each time after twice the pause.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from airflow_imagetag.models import Image

MAX_ANNOUNCED = 4_000
"""Maximum number of announced images that wait for labels: their digests fit the 64 KB that Airflow
advises for a value of the asset state store."""

BEGINS_WITHIN = timedelta(minutes=10)
"""Maximum time until the run of an announcement labels its first image."""

FIRST_REMINDER = timedelta(minutes=30)
"""Time after which images that still wait are announced again for the first time."""

LONGEST_REMINDER = timedelta(days=1)
"""Maximum time between two announcements of the same images."""

DIGEST_BYTES = 9
"""Length of the digest of an image; 4,000 images collide with a probability of 10**-15."""


@dataclass(frozen=True, slots=True)
class AnnouncedBatch:
    """An announcement of images that wait for their labels.

    :param digests: digests of the images that still wait.
    :param announced_at: when they were announced last.
    :param times: how often they have been announced.
    :param is_picked_up: whether some of its images wait no more.
    """

    digests: frozenset[str]
    announced_at: datetime
    times: int = 1
    is_picked_up: bool = False

    def only(self, digests: Set[str]) -> AnnouncedBatch:
        """Return the announcement with only those of its images that still wait."""
        left = self.digests & digests
        is_picked_up = self.is_picked_up or len(left) < len(self.digests)
        return replace(self, digests=left, is_picked_up=is_picked_up)

    def is_awaited(self, now: datetime) -> bool:
        """Tell whether the run that it started may still be about to begin."""
        return not self.is_picked_up and timedelta() <= now - self.announced_at < BEGINS_WITHIN

    def is_due(self, now: datetime) -> bool:
        """Tell whether its images are to be announced again."""
        pause = min(FIRST_REMINDER * (1 << min(self.times - 1, 16)), LONGEST_REMINDER)
        # A time in the future comes from a clock that has been corrected since.
        return not timedelta() <= now - self.announced_at < pause


@dataclass(frozen=True, slots=True)
class AnnouncementState:
    """The earlier announcements of a watcher.

    :param batches: the announcements with images that still wait, the earliest first.
    """

    batches: tuple[AnnouncedBatch, ...] = ()

    @property
    def digests(self) -> frozenset[str]:
        """The digests of all announced images that still wait."""
        return frozenset().union(*(batch.digests for batch in self.batches))

    def only(self, digests: Set[str]) -> AnnouncementState:
        """Return the state of only those images that still wait."""
        kept = (batch.only(digests) for batch in self.batches)
        return AnnouncementState(tuple(batch for batch in kept if batch.digests))

    def announced(self, digests: Set[str], now: datetime) -> AnnouncementState:
        """Return the state after an announcement of these images, the first or another one."""
        kept = [replace(batch, digests=batch.digests - digests) for batch in self.batches]
        again = [
            AnnouncedBatch(batch.digests & digests, now, batch.times + 1)
            for batch in self.batches
            if batch.digests & digests
        ]
        first = AnnouncedBatch(frozenset(digests - self.digests), now)
        batches = (*kept, *again, first)
        return AnnouncementState(tuple(batch for batch in batches if batch.digests))

    def dump(self) -> list[dict[str, Any]]:
        """Return the state as JSON values; ``load`` reads them."""
        return [
            {
                "digests": "".join(sorted(batch.digests)),
                # The key of version 0.1.0.
                "sent_at": batch.announced_at.isoformat(),
                "times": batch.times,
                "is_picked_up": batch.is_picked_up,
            }
            for batch in self.batches
        ]

    @classmethod
    def load(cls, value: Any) -> AnnouncementState:
        """Return the state that was dumped.

        :raises ValueError: the value was not made by ``dump``.
        """
        if not isinstance(value, list):
            raise ValueError(f"It is not the state of a watcher, but a {type(value).__name__}")
        try:
            return cls(tuple(map(_batch, value)))
        except (KeyError, TypeError) as error:
            raise ValueError(f"It is not the state of a watcher: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Announcement:
    """An announcement, and the state to save before it is sent.

    :param images: the images to announce; may be empty.
    :param state: the state to save.
    :param is_held_back: whether more images are new than may wait for labels at a time.
    """

    images: tuple[Image, ...]
    state: AnnouncementState
    is_held_back: bool = False


def announce(
    waiting: Iterable[Image],
    state: AnnouncementState,
    *,
    min_images: int,
    max_images: int,
    now: datetime,
    max_announced: int = MAX_ANNOUNCED,
) -> Announcement:
    """Select the images to announce from those that wait for labels.

    Reads no more images than needed, and holds at most ``max_images``.

    :param waiting: the new images; an image whose version changed is another one.
    :param state: the earlier announcements.
    :param min_images: with fewer new images, only reminders are announced.
    :param max_images: maximum number of images in the announcement.
    :param now: the time.
    :param max_announced: maximum number of announced images that wait for labels.
    """
    known = state.digests
    due = frozenset().union(*(batch.digests for batch in state.batches if batch.is_due(now)))
    seen: set[str] = set()
    again: dict[str, Image] = {}
    fresh: dict[str, Image] = {}
    new = 0
    for image in waiting:
        digest = image_digest(image)
        if digest in known:
            seen.add(digest)
        else:
            new += 1
        group = again if digest in due else fresh
        if (digest in due or digest not in known) and len(group) < max_images:
            group[digest] = image
        # An announced image that is not seen waits no more; to know that, every image is read.
        if new >= max(min_images, max_images) and len(seen) == len(known):
            break
    kept = state.only(seen)
    room = max_announced - len(seen)
    first = dict(islice(fresh.items(), room)) if new >= min_images else {}
    chosen = dict(islice((again | first).items(), max_images))
    if not chosen or any(batch.is_awaited(now) for batch in kept.batches):
        return Announcement((), kept, new > room)
    return Announcement(tuple(chosen.values()), kept.announced(set(chosen), now), new > room)


def image_digest(image: Image) -> str:
    """Return a short digest of an image in its version."""
    text = f"{image.key}\0{image.version or ''}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()
    return base64.b64encode(digest).decode()


def _batch(value: Any) -> AnnouncedBatch:
    return AnnouncedBatch(
        _split(value["digests"]),
        _moment(value["sent_at"]),
        int(value["times"]),
        bool(value["is_picked_up"]),
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return moment


def _split(text: str) -> frozenset[str]:
    # Nine bytes make twelve characters, without padding.
    width = DIGEST_BYTES * 4 // 3
    return frozenset(text[start : start + width] for start in range(0, len(text), width))
