"""A sample of images: even, the same each time, and independent of order and shards."""

from __future__ import annotations

import random

from airflow_imagetag.errors import InvalidImageError
from airflow_imagetag.models import Entry, Image, RejectedImage, SkippedImage
from airflow_imagetag.selection.sampling import sampled
from airflow_imagetag.selection.shards import Shard

IMAGES: list[Entry] = [Image(f"k{number:05}") for number in range(10_000)]


def keys(entries: list[Entry], size: int) -> list[str]:
    """Return the keys of a sample."""
    return [image.key for image in sampled(entries, size)]


def test_it_is_spread_over_the_whole_source():
    """Each tenth of the source has about a tenth of the sample, each shard its share."""
    chosen = keys(IMAGES, 1_000)
    assert len(set(chosen)) == 1_000
    by_tenth = [sum(int(key[1:]) // 1_000 == tenth for key in chosen) for tenth in range(10)]
    assert all(70 <= count <= 130 for count in by_tenth), by_tenth
    shards = [Shard(index, 4) for index in range(4)]
    by_shard = [sum(shard.holds(key) for key in chosen) for shard in shards]
    assert all(200 <= count <= 300 for count in by_shard), by_shard


def test_it_is_the_same_in_whatever_order_the_source_is():
    """And a smaller sample is a part of a larger one."""
    shuffled = random.Random(1).sample(IMAGES, len(IMAGES))
    assert keys(shuffled, 200) == keys(IMAGES, 200)
    assert keys(IMAGES, 20) == keys(IMAGES, 200)[:20]


def test_a_small_source_is_taken_as_a_whole():
    """Without entries that are no images."""
    others: list[Entry] = [RejectedImage("r", None, InvalidImageError("no")), SkippedImage("s")]
    assert sorted(keys([*others, *IMAGES[:3]], 5)) == ["k00000", "k00001", "k00002"]
    assert keys([*others], 5) == []
