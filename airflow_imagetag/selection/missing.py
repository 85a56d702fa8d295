"""Which images have left their source: the keys of a store that the source no longer gives.

Both sides may have millions of keys, so they are compared on disk.
"""

from __future__ import annotations

import enum
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import IO

from airflow_imagetag.runtime.disk_set import DiskSet

COMPARED_KEYS = 5_000
"""Number of keys that are compared at a time."""


@dataclass(frozen=True, slots=True)
class HeldImage:
    """An image that a store holds.

    :param api: the interface that labelled it.
    :param key: its key.
    :param is_missing: whether it is marked as missing.
    """

    api: str
    key: str
    is_missing: bool


class Change(enum.StrEnum):
    """The result of a comparison for a held image."""

    MISSING = "missing"
    """It has left the source since the last comparison."""
    STILL_MISSING = "still_missing"
    """It is marked as missing, and the source does not have it."""
    RETURNED = "returned"
    """It is marked as missing, and the source has it again."""


@dataclass(slots=True)
class Comparison:
    """The held images of some interfaces beside the keys of their source.

    :param held: number of held images that may belong to the source.
    :param source: number of different keys of the source.
    :param changes: number of images of each kind of change.
    :param file: change and key of each of them, some in each line, as JSON.
    """

    file: IO[str]
    held: int = 0
    source: int = 0
    changes: Counter[Change] = field(default_factory=Counter)

    @property
    def missing_ratio(self) -> float:
        """Share of the images that were in the source and have left it, from 0 to 1."""
        before = self.held - self.changes[Change.STILL_MISSING]
        return self.changes[Change.MISSING] / before if before else 0.0

    def keys(self, *changes: Change) -> Iterator[str]:
        """Yield the keys of the images with one of these changes; a key may come repeatedly."""
        self.file.seek(0)
        for line in self.file:
            for change, key in json.loads(line):
                if change in changes:
                    yield key


class HeldImages:
    """The images of a store, read once and kept on disk.

    They are read before the source. An image that is added to the source and labelled meanwhile is
    not among them, so it is not taken for one that has left.

    :param file: holds api, key and mark of each image, some in each line, as JSON.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.apis: Counter[str] = Counter()

    def add(self, images: Iterable[HeldImage]) -> None:
        """Add some images."""
        rows = [(image.api, image.key, image.is_missing) for image in images]
        self.apis.update(api for api, _, _ in rows)
        self._file.write(json.dumps(rows) + "\n")

    def of(self, api: str | None) -> Iterator[HeldImage]:
        """Yield the images of an interface.

        :param api: the interface; None for all.
        """
        self._file.seek(0)
        for line in self._file:
            for row in json.loads(line):
                if api in (None, row[0]):
                    yield HeldImage(*row)


@contextmanager
def held_images(pages: Iterable[Iterable[HeldImage]]) -> Iterator[HeldImages]:
    """Read the images of a store.

    :param pages: the images, some at a time.
    """
    with _lines() as file:
        images = HeldImages(file)
        for page in pages:
            images.add(page)
        yield images


@contextmanager
def compared(
    held: Iterable[HeldImage], source: Iterable[str], belongs: Callable[[str], bool]
) -> Iterator[Comparison]:
    """Compare the images of a store with their source.

    :param held: the images of the store.
    :param source: keys of the source, all of them; read first.
    :param belongs: tells whether an image with a key may belong to the source. Others are left
        alone.
    """
    with DiskSet() as found, _lines() as file:
        found.update(map(_digest, source))
        comparison = Comparison(file, source=len(found))
        own = (image for image in held if belongs(image.key))
        while some := list(islice(own, COMPARED_KEYS)):
            comparison.held += len(some)
            changes = [(change, image.key) for image, change in _changes(some, found)]
            comparison.changes.update(change for change, _ in changes)
            file.write(json.dumps(changes) + "\n")
        yield comparison


def _changes(images: Collection[HeldImage], source: DiskSet) -> Iterator[tuple[HeldImage, Change]]:
    """Yield the images that have left the source or come back to it."""
    digests = {image.key: _digest(image.key) for image in images}
    found = source.intersection(digests.values())
    for image in images:
        is_there = digests[image.key] in found
        if is_there and image.is_missing:
            yield image, Change.RETURNED
        elif not is_there:
            yield image, Change.STILL_MISSING if image.is_missing else Change.MISSING


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


@contextmanager
def _lines() -> Iterator[IO[str]]:
    with tempfile.TemporaryFile("w+", encoding="ascii", prefix="imagetag-sync-") as file:
        yield file
