"""Which waiting images an asset watcher still has to announce. Pure decisions, no I/O.

A watcher remembers the images that it has announced as long as they wait for their labels. The
memory is kept before an announcement is sent, marked as under way, because the process may be
killed between the two: the next one cannot know whether the announcement arrived. If it did, the
run that it started soon labels the images; if they still wait after a while, they are announced
again. So none is lost, and none is announced twice but where a run takes longer than that while,
and the triggerer was killed at this moment.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from airflow_imagetag.models import Image

MAX_ANNOUNCED = 4_000
"""Announced images that may wait for labels at a time: their digests fit the 64 KB that Airflow
advises for a value of the asset state store."""

DOUBT = timedelta(minutes=10)
"""How long an announcement that may have been lost is given the benefit of the doubt."""

DIGEST_BYTES = 9
"""Of the digest that stands for an image; two of 4,000 images never have the same by chance."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An announcement that may have arrived.

    :param digests: of its images.
    :param sender: names the process that sent it.
    :param sent_at: when it did.
    """

    digests: frozenset[str]
    sender: str
    sent_at: datetime

    def is_doubtful(self, now: datetime) -> bool:
        """Tell whether it may still have arrived, although nobody can say so."""
        return now - self.sent_at < DOUBT


@dataclass(frozen=True, slots=True)
class Memory:
    """What a watcher remembers.

    :param announced: digests of images whose announcement has arrived.
    :param under_way: announcements that may have arrived.
    """

    announced: frozenset[str] = frozenset()
    under_way: tuple[Sent, ...] = ()

    @property
    def digests(self) -> frozenset[str]:
        """Of all images that are not to be announced again."""
        return self.announced.union(*(sent.digests for sent in self.under_way))

    def settled(self, *, sender: str, now: datetime) -> Memory:
        """Return the memory with what is known now of the announcements under way.

        :param sender: names the process that asks; what it sent itself has arrived, since Airflow
            starts a watcher anew only after it has kept the event of the last one.
        :param now: the time.
        """
        arrived = (sent.digests for sent in self.under_way if sent.sender == sender)
        doubtful = (
            sent for sent in self.under_way if sent.sender != sender and sent.is_doubtful(now)
        )
        return Memory(self.announced.union(*arrived), tuple(doubtful))

    def only(self, digests: Set[str]) -> Memory:
        """Return the memory of these images."""
        kept = (
            Sent(sent.digests & digests, sent.sender, sent.sent_at)
            for sent in self.under_way
            if sent.digests & digests
        )
        return Memory(self.announced & digests, tuple(kept))

    def dump(self) -> dict[str, Any]:
        """Return the memory as JSON values; ``load`` reads them."""
        return {
            "announced": _join(self.announced),
            "under_way": [
                {
                    "digests": _join(sent.digests),
                    "sender": sent.sender,
                    "sent_at": sent.sent_at.isoformat(),
                }
                for sent in self.under_way
            ],
        }

    @classmethod
    def load(cls, value: Any) -> Memory:
        """Return the memory that was dumped.

        :raises ValueError: the value was not made by ``dump``.
        """
        try:
            under_way = (
                Sent(
                    _split(sent["digests"]),
                    str(sent["sender"]),
                    datetime.fromisoformat(sent["sent_at"]),
                )
                for sent in value["under_way"]
            )
            return cls(_split(value["announced"]), tuple(under_way))
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
    memory: Memory
    is_held_back: bool = False


def announce(
    waiting: Iterable[Image],
    memory: Memory,
    *,
    min_images: int,
    max_images: int,
    sender: str,
    now: datetime,
) -> Announcement:
    """Choose what to announce of the images that wait for labels.

    Reads no more of them than it must, and holds no more than ``max_images``.

    :param waiting: the new images; an image whose version changed is another one.
    :param memory: what was announced before.
    :param min_images: announces nothing below so many.
    :param max_images: announces so many at most.
    :param sender: names this process.
    :param now: the time.
    """
    memory = memory.settled(sender=sender, now=now)
    known = memory.digests
    seen: set[str] = set()
    fresh: dict[str, Image] = {}
    for image in waiting:
        digest = digest_of(image)
        if digest in known:
            seen.add(digest)
        elif len(fresh) < max_images:
            fresh[digest] = image
        # What is no longer seen has its labels; to know that takes a look at every image.
        if len(fresh) == max_images and len(seen) == len(known):
            break
    kept = memory.only(seen)
    chosen = dict(islice(fresh.items(), MAX_ANNOUNCED - len(seen)))
    is_held_back = len(chosen) < len(fresh)
    if len(chosen) < min(min_images, max_images):
        return Announcement((), kept, is_held_back)
    sent = Sent(frozenset(chosen), sender, now)
    memory = Memory(kept.announced, (*kept.under_way, sent))
    return Announcement(tuple(chosen.values()), memory, is_held_back)


def digest_of(image: Image) -> str:
    """Return a short text that stands for an image in its version."""
    text = f"{image.key}\0{image.version or ''}".encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()
    return base64.b64encode(digest).decode()


def _join(digests: Iterable[str]) -> str:
    return "".join(sorted(digests))


def _split(text: str) -> frozenset[str]:
    # Nine bytes make twelve characters, without padding.
    width = DIGEST_BYTES * 4 // 3
    return frozenset(text[start : start + width] for start in range(0, len(text), width))
