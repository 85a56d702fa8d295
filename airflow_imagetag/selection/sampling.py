"""An even choice of images by the hash of their keys. No I/O."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator

from airflow_imagetag.models import Entry, Image


def sampled(entries: Iterable[Entry], size: int) -> Iterator[Image]:
    """Yield a sample of the images, in no order that the source knows.

    All entries are read, and the images with the smallest hashes are kept: the choice is even and
    the same each time, whatever the order of the source is. Entries that are no images are left
    out.

    :param entries: the entries of a source.
    :param size: number of images in the sample.
    """
    # A heap with the largest hash first. The number keeps images from being compared.
    kept: list[tuple[int, int, Image]] = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, Image):
            continue
        item = (-_hash(entry.key), number, entry)
        if len(kept) < size:
            heapq.heappush(kept, item)
        elif item > kept[0]:
            heapq.heapreplace(kept, item)
    kept.sort(reverse=True)
    for _, _, image in kept:
        yield image


def _hash(key: str) -> int:
    """Return a number that has nothing to do with the shard of the key."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, person=b"sample")
    return int.from_bytes(digest.digest())
