"""The signature of requests, and its reuse."""

from __future__ import annotations

import base64
import random
import string

import pytest
import qcloud_image.auth

from airflow_imagetag.services.recognition.signature import (
    MAX_LIFETIME_SECONDS,
    MAX_NONCE,
    ReusableSignature,
    sign,
)

PUBLISHED = (
    "wHgvVkXpcZ3d+G0rOkAJml3R5NdhPTIwMDAwMSZiPW5ld2J1Y2tldCZrPUFLSURVZkxVRVVpZ1FpWHFtN0NWU3NwS0pud"
    "WFpSUt0eHFBdiZlPTE0Mzc5OTU3MDQmdD0xNDM3OTk1NjQ0JnI9MjA4MTY2MDQyMSZmPQ=="
)
KEY = "bLcPnl88WU30VY57ipRhSePfPdOfSruK"


def fields(signature: str) -> dict[str, str]:
    """Return the fields that a signature has in clear."""
    original = base64.b64decode(signature)[20:].decode()
    return dict(part.split("=", 1) for part in original.split("&"))


def test_the_published_example():
    """The vendor's page shows one signature in full; ours is the same."""
    assert (
        sign(
            "200001",
            "AKIDUfLUEUigQiXqm7CVSspKJnuaiIKtxqAv",
            KEY,
            bucket="newbucket",
            now=1437995644,
            expires=1437995704,
            nonce=2081660421,
        )
        == PUBLISHED
    )


@pytest.mark.parametrize("seed", range(200))
def test_equal_to_the_vendors_client(seed, monkeypatch):
    """At the same time and nonce, the vendor's own client makes the same signature."""
    chance = random.Random(seed)

    def text(longest: int) -> str:
        length = chance.randint(1, longest)
        return "".join(chance.choices(string.ascii_letters + string.digits + "-_", k=length))

    app_id = str(chance.randint(1, 10**10))
    secret_id, secret_key, bucket = text(40), text(64), text(20) if seed % 4 else ""
    now, howlong = chance.randint(0, 2**32), chance.randint(1, MAX_LIFETIME_SECONDS)
    nonce = chance.randint(0, 999_999_999)
    monkeypatch.setattr(qcloud_image.auth.time, "time", lambda: now + 0.9)
    monkeypatch.setattr(qcloud_image.auth.random, "randint", lambda *_: nonce)
    theirs = qcloud_image.Auth(app_id, secret_id, secret_key).get_sign(bucket, howlong)
    ours = sign(
        app_id,
        secret_id,
        secret_key,
        bucket=bucket,
        now=now,
        expires=now + howlong,
        nonce=nonce,
    )
    assert ours == theirs.decode()


def test_a_single_use_signature_names_its_file():
    """The file's id is the last field, and the end of life is 0."""
    signature = sign("1", "id", "key", now=5, expires=0, nonce=7, file_id="/1/bucket/a.jpg")
    assert fields(signature) == {
        "a": "1",
        "b": "",
        "k": "id",
        "e": "0",
        "t": "5",
        "r": "7",
        "f": "/1/bucket/a.jpg",
    }


class Clock:
    """A clock that stands where it is put."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    """Give a clock."""
    return Clock(1_600_000_000.5)


@pytest.fixture
def signature(clock):
    """Give a signature that lives for an hour by the clock."""
    return ReusableSignature(
        "1250000001", "AKIDsecret", KEY, "b", lifetime_seconds=3600, clock=clock
    )


def test_a_signature_is_reused(signature, clock):
    """Until ten minutes before its end it is the same one."""
    first = signature.value()
    clock.now += 2999
    assert signature.value() == first
    said = fields(first)
    assert (said["t"], said["e"], said["b"]) == ("1600000000", "1600003600", "b")


@pytest.mark.parametrize(
    "step", [3000, 3599, 3600, 86400 * 365, -2, -86400], ids=lambda step: f"{step}s"
)
def test_a_signature_is_renewed(signature, clock, step):
    """Before it expires, past its end, and when the clock is set back, a new one is made."""
    first = signature.value()
    clock.now += step
    second = signature.value()
    assert second != first
    said = fields(second)
    assert int(said["t"]) == int(clock.now)
    assert int(said["e"]) - int(clock.now) == 3600
    assert signature.value() == second


def test_the_nonce_has_ten_digits_at_most():
    """Without a source of one's own, the nonce is random and within the vendor's limit."""
    nonces = [int(fields(ReusableSignature("1", "i", "k").value())["r"]) for _ in range(50)]
    assert len(set(nonces)) > 40
    assert all(0 <= nonce <= MAX_NONCE for nonce in nonces)
    assert len(str(MAX_NONCE)) == 10


def test_repr_shows_no_key(signature):
    """Neither key nor signature is in the repr, before and after the first use."""
    before = repr(signature)
    value = signature.value()
    for shown in (before, repr(signature)):
        assert KEY not in shown
        assert "AKIDsecret" not in shown
        assert value not in shown
