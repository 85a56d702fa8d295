"""Digests of equal and of different bytes."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from airflow_imagetag.runtime import digests


def test_sha256_is_the_standard_one():
    """FIPS 180-2 gives this value for its first example."""
    assert digests.sha256(b"abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 20_000, 3_000_000])
def test_equal_bytes_have_equal_hashes(size):
    """Of any object, and after any other call."""
    keyed_hash = digests.keyed_hasher()
    content = random.Random(size).randbytes(size)
    first = keyed_hash(content)
    keyed_hash(b"something else")
    assert keyed_hash(bytes(bytearray(content))) == first
    assert len(first) == 16


def test_bytes_that_are_too_many_for_one_call():
    """They have a hash as well, and different bytes a different one."""
    keyed_hash = digests.keyed_hasher(max_tagged_bytes=10)
    assert keyed_hash(b"x" * 11) == keyed_hash(b"x" * 11)
    assert len({keyed_hash(b"x" * count) for count in range(20)}) == 20


def test_different_bytes_have_different_hashes():
    """Also bytes that differ in one bit, in their order, or in the number of zeros at their end."""
    keyed_hash = digests.keyed_hasher()
    content = random.Random(1).randbytes(4096)
    others = {content, content[::-1], content[2048:] + content[:2048]}
    others |= {content + bytes(count) for count in range(1, 40)}
    others |= {content[:count] for count in range(40)}
    for bit in range(0, 8 * 4096, 61):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        others.add(bytes(changed))
    assert len({keyed_hash(other) for other in others}) == len(others)


def test_each_hasher_has_a_key_of_its_own():
    """Therefore two images cannot be prepared to have the same hash."""
    made = [digests.keyed_hasher()(b"the same") for _ in range(20)]
    assert len(set(made)) == 20
    # The difference of two tags depends on the key, and not on the nonce.
    both = [(one(b"a"), one(b"b")) for one in (digests.keyed_hasher() for _ in range(20))]
    differences = [int.from_bytes(a) ^ int.from_bytes(b) for a, b in both]
    assert all(one != other for one, other in pairwise(differences))
