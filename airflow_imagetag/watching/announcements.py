"""Which waiting images an asset watcher still has to announce. Pure decisions, no I/O.

A watcher remembers the images that it has announced as long as they wait for their labels, and
does not announce them again. It notes an announcement before it sends it, since its process may be
killed between the two.

Airflow starts one run for all events that came since the last run, up to the first that its
scheduler has not looked at yet: those after that one wait until another comes. So there is one
announcement at a time: the next is made when an image of the last one waits no more, which shows
that a run has begun, or when none has begun for a while.

An announcement may come to nothing all the same: lost with the process, overtaken in the scheduler,
or its run failed. So images that still wait long after it are announced again, and each time it
takes twice as long.
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
"""Announced images that may wait for labels at a time: their digests fit the 64 KB that Airflow
advises for a value of the asset state store."""

BEGINS_WITHIN = timedelta(minutes=10)
"""How long the run that an announcement starts may take until it labels its first image."""

FIRST_REMINDER = timedelta(minutes=30)
"""How long after the first announcement images that still wait are announced again."""

LONGEST_REMINDER = timedelta(days=1)

DIGEST_BYTES = 9
"""Of the digest that stands for an image; two of 4,000 images never have the same by chance."""


@dataclass(frozen=True, slots=True)
class AnnouncedBatch:
    """An announcement of images that wait for their labels.

    :param digests: of those that still do.
    :param sent_at: when it was sent.
    :param times: how often they have been announced.
    :param is_picked_up: whether some of its images wait no more.
    """

    digests: frozenset[str]
    sent_at: datetime
    times: int = 1
    is_picked_up: bool = False

    def only(self, digests: Set[str]) -> AnnouncedBatch:
        """Return the announcement of these of its images: the others wait no more."""
        left = self.digests & digests
        is_picked_up = self.is_picked_up or len(left) < len(self.digests)
        return replace(self, digests=left, is_picked_up=is_picked_up)

    def is_awaited(self, now: datetime) -> bool:
        """Tell whether the run that it started may still be about to begin."""
        return not self.is_picked_up and timedelta() <= now - self.sent_at < BEGINS_WITHIN

    def is_due(self, now: datetime) -> bool:
        """Tell whether its images are to be announced again."""
        pause = min(FIRST_REMINDER * (1 << min(self.times - 1, 16)), LONGEST_REMINDER)
        # One of the future was sent before the clock was put right.
        return not timedelta() <= now - self.sent_at < pause


@dataclass(frozen=True, slots=True)
class AnnouncementState:
    """What a watcher remembers.

    :param sent: the announcements that have images left, the earliest first.
    """

    sent: tuple[AnnouncedBatch, ...] = ()

    @property
    def digests(self) -> frozenset[str]:
        """Of all images that were announced and still wait."""
        return frozenset().union(*(sent.digests for sent in self.sent))

    def only(self, digests: Set[str]) -> AnnouncementState:
        """Return the memory of these images."""
        kept = (sent.only(digests) for sent in self.sent)
        return AnnouncementState(tuple(sent for sent in kept if sent.digests))

    def resent(self, digests: Set[str], now: datetime) -> AnnouncementState:
        """Return the memory after these images were announced, again or for the first time."""
        kept = [replace(sent, digests=sent.digests - digests) for sent in self.sent]
        again = [
            AnnouncedBatch(sent.digests & digests, now, sent.times + 1)
            for sent in self.sent
            if sent.digests & digests
        ]
        first = AnnouncedBatch(frozenset(digests - self.digests), now)
        return AnnouncementState(tuple(sent for sent in (*kept, *again, first) if sent.digests))

    def dump(self) -> list[dict[str, Any]]:
        """Return the memory as JSON values; ``load`` reads them."""
        return [
            {
                "digests": "".join(sorted(sent.digests)),
                "sent_at": sent.sent_at.isoformat(),
                "times": sent.times,
                "is_picked_up": sent.is_picked_up,
            }
            for sent in self.sent
        ]

    @classmethod
    def load(cls, value: Any) -> AnnouncementState:
        """Return the memory that was dumped.

        :raises ValueError: the value was not made by ``dump``.
        """
        if not isinstance(value, list):
            raise ValueError(f"It is not what a watcher keeps, but a {type(value).__name__}")
        try:
            return cls(
                tuple(
                    AnnouncedBatch(
                        _split(sent["digests"]),
                        _moment(sent["sent_at"]),
                        int(sent["times"]),
                        bool(sent["is_picked_up"]),
                    )
                    for sent in value
                )
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"It is not what a watcher keeps: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Announcement:
    """What is to be announced, and what is to be remembered before.

    :param images: the images to announce; none for nothing.
    :param memory: what to keep.
    :param is_held_back: whether more images are new than may wait for labels at a time.
    """

    images: tuple[Image, ...]
    memory: AnnouncementState
    is_held_back: bool = False


def announce(
    waiting: Iterable[Image],
    memory: AnnouncementState,
    *,
    min_images: int,
    max_images: int,
    now: datetime,
) -> Announcement:
    """Choose what to announce of the images that wait for labels.

    Reads no more of them than it must, and holds no more than ``max_images``.

    :param waiting: the new images; an image whose version changed is another one.
    :param memory: what was announced before.
    :param min_images: announces nothing below so many, but what it has announced before.
    :param max_images: announces so many at most.
    :param now: the time.
    """
    known = memory.digests
    due = frozenset().union(*(sent.digests for sent in memory.sent if sent.is_due(now)))
    seen: set[str] = set()
    again: dict[str, Image] = {}
    fresh: dict[str, Image] = {}
    new = 0
    for image in waiting:
        digest = digest_of(image)
        if digest in known:
            seen.add(digest)
        else:
            new += 1
        group = again if digest in due else fresh
        if (digest in due or digest not in known) and len(group) < max_images:
            group[digest] = image
        # What is no longer seen waits no more; to know that takes a look at every image.
        if new >= max(min_images, max_images) and len(seen) == len(known):
            break
    kept = memory.only(seen)
    room = MAX_ANNOUNCED - len(seen)
    first = dict(islice(fresh.items(), room)) if new >= min_images else {}
    chosen = dict(islice((again | first).items(), max_images))
    if not chosen or any(sent.is_awaited(now) for sent in kept.sent):
        return Announcement((), kept, new > room)
    return Announcement(tuple(chosen.values()), kept.resent(set(chosen), now), new > room)


def digest_of(image: Image) -> str:
    """Return a short text that stands for an image in its version."""
    text = f"{image.key}\0{image.version or ''}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()
    return base64.b64encode(digest).decode()


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no zone")
    return moment


def _split(text: str) -> frozenset[str]:
    # Nine bytes make twelve characters, without padding.
    width = DIGEST_BYTES * 4 // 3
    return frozenset(text[start : start + width] for start in range(0, len(text), width))
