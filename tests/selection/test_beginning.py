"""The entries that are read before a run, to tell how many there are."""

from __future__ import annotations

import pytest

from airflow_imagetag.models import Image
from airflow_imagetag.selection.beginning import MAX_BYTES, MAX_ENTRIES, Beginning


@pytest.mark.parametrize("count", [0, 1, MAX_ENTRIES - 1, MAX_ENTRIES, MAX_ENTRIES + 1])
def test_the_entries_are_those_that_were_given(count: int):
    """All of them, in their order, and it is known whether there are more."""
    images = [Image(str(number), "https://host/a.jpg") for number in range(count)]
    first = Beginning(iter(images))
    assert first.is_all is (count < MAX_ENTRIES)
    assert list(first) == images[:MAX_ENTRIES]
    assert len(first) == min(count, MAX_ENTRIES)
    assert list(first.entries()) == images


def test_few_bytes_are_read_ahead():
    """Entries with bytes are fewer, and are not kept beside those that are taken."""
    size = MAX_BYTES // 4
    first = Beginning(Image(str(number), content=bytes(size)) for number in range(9))
    assert (len(first), first.is_all) == (4, False)
    entries = first.entries()
    assert len(first) == 0
    assert [entry.key for entry in entries] == [str(number) for number in range(9)]
