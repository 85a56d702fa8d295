"""What tells equal bytes from others."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from airflow_imagetag.runtime import digests


def test_sha256_is_that_of_everybody():
    """The value that FIPS 180-2 gives for its first example."""
    assert digests.sha256(b"abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 20_000, 3_000_000])
def test_equal_bytes_have_equal_fingerprints(size):
    """Whatever object they stand in, and whatever was asked in between."""
    fingerprint = digests.keyed_hasher()
    content = random.Random(size).randbytes(size)
    first = fingerprint(content)
    fingerprint(b"something else")
    assert fingerprint(bytes(bytearray(content))) == first
    assert len(first) == 16


def test_what_is_too_large_for_the_fast_way(monkeypatch):
    """It has a value as well, and no other's."""
    monkeypatch.setattr(digests, "MAX_TAGGED_BYTES", 10)
    fingerprint = digests.keyed_hasher()
    assert fingerprint(b"x" * 11) == fingerprint(b"x" * 11)
    assert len({fingerprint(b"x" * count) for count in range(20)}) == 20


def test_other_bytes_have_other_fingerprints():
    """Also those that differ in one bit, in their order, or in how many zeros they end with."""
    fingerprint = digests.keyed_hasher()
    content = random.Random(1).randbytes(4096)
    others = {content, content[::-1], content[2048:] + content[:2048]}
    others |= {content + bytes(count) for count in range(1, 40)}
    others |= {content[:count] for count in range(40)}
    for bit in range(0, 8 * 4096, 61):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        others.add(bytes(changed))
    assert len({fingerprint(other) for other in others}) == len(others)


def test_no_run_can_know_the_fingerprints_of_another():
    """Each has a key of its own, so nobody can prepare two images that are taken for one."""
    made = [digests.keyed_hasher()(b"the same") for _ in range(20)]
    assert len(set(made)) == 20
    # What two tags under one key differ by, no nonce changes; that of another key tells nothing.
    both = [(one(b"a"), one(b"b")) for one in (digests.keyed_hasher() for _ in range(20))]
    differences = [int.from_bytes(a) ^ int.from_bytes(b) for a, b in both]
    assert all(one != other for one, other in pairwise(differences))
