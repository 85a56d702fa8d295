"""Shards of any keys: together they are everything, and no two overlap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from properties import property_test

from airflow_imagetag.selection.shards import Shard, parse_shard, shard_names


@property_test
@given(st.text(st.characters()), st.integers(1, 1000))
def test_each_key_is_in_one_shard(key, count):
    """With any characters in the key, and any number of shards."""
    assert sum(Shard(number, count).holds(key) for number in range(count)) == 1


@property_test
@given(st.text(st.characters()), st.integers(1, 50), st.integers(1, 50))
def test_a_finer_division_divides_each_shard(key, count, factor):
    """A key of shard n of a multiple is in shard n modulo the count."""
    fine = next(n for n in range(count * factor) if Shard(n, count * factor).holds(key))
    assert Shard(fine % count, count).holds(key)


@property_test
@given(st.integers(1, 1000))
def test_names_name_each_shard_once(count):
    """The names of all shards are read back as all shards."""
    assert [parse_shard(name) for name in shard_names(count)] == [
        Shard(number, count) for number in range(count)
    ]
