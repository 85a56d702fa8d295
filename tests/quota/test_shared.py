"""What happens while the shared quota is out of reach, and when its connection is wrong."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from redis_server import RedisServer

from airflow_imagetag.errors import (
    ConfigurationError,
    QuotaUnavailableError,
    UnknownConnectionError,
)
from airflow_imagetag.quota import redis, shared
from airflow_imagetag.quota.shared import (
    ASK_AGAIN_SECONDS,
    FallbackSchedule,
    RetryingSchedule,
    open_schedule,
)

GONE = QuotaUnavailableError("The shared quota cannot be asked")


class Schedule:
    """Fails as often as it is told, and counts."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.asked: list[tuple[int, float]] = []
        self.is_closed = False

    def reserve(self, count: int, interval_seconds: float) -> float:
        self.asked.append((count, interval_seconds))
        if len(self.asked) <= self.failures:
            raise GONE
        return 0.125

    def close(self) -> None:
        self.is_closed = True


class Clock:
    """Stands still until it is moved."""

    now = 500.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def nobody() -> Iterator[int]:
    """Give a port on which nobody listens, and keep it."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


@pytest.fixture
def silent() -> Iterator[int]:
    """Give a port that takes connections and never answers."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        kept.listen()
        yield kept.getsockname()[1]


def connect(patch: pytest.MonkeyPatch, **fields: object) -> None:
    """Make the connection ``quota``."""
    patch.setenv("AIRFLOW_CONN_QUOTA", json.dumps(fields))


# Without a fallback


def test_a_short_absence_is_waited_out():
    """The ledger is asked again until it answers."""
    ledger = Schedule(failures=3)
    assert RetryingSchedule(ledger).reserve(2, 0.05) == 0.125
    assert ledger.asked == [(2, 0.05)] * 4


def test_a_long_absence_ends_in_an_error(monkeypatch):
    """After the patience, the last error of the ledger is raised as it is."""
    monkeypatch.setattr(shared, "PATIENCE_SECONDS", 0.3)
    ledger = Schedule(failures=10_000)
    started = time.monotonic()
    with pytest.raises(QuotaUnavailableError) as caught:
        RetryingSchedule(ledger).reserve(1, 0.05)
    assert caught.value is GONE
    assert 0.2 < time.monotonic() - started < 5
    assert 2 <= len(ledger.asked) <= 100


def test_patience_begins_anew_with_each_question(monkeypatch):
    """An absence that was waited out does not shorten the next."""
    monkeypatch.setattr(shared, "PATIENCE_SECONDS", 1)
    ledger = Schedule()
    patient = RetryingSchedule(ledger)
    for _ in range(3):
        ledger.failures = len(ledger.asked) + 2
        assert patient.reserve(1, 0.05) == 0.125


def test_closing_ends_the_wait():
    """A run that was asked to end does not hang about for a ledger that it needs no more."""
    ledger = Schedule(failures=10_000)
    patient = RetryingSchedule(ledger)
    timer = threading.Timer(0.5, patient.close)
    timer.start()
    started = time.monotonic()
    with pytest.raises(QuotaUnavailableError):
        patient.reserve(1, 0.05)
    assert time.monotonic() - started < 5
    timer.join()


@pytest.mark.parametrize("kind", ["redis", "postgres"])
@pytest.mark.parametrize("share", [None, 0.25])
def test_a_server_that_is_not_there(kind, share, nobody, monkeypatch):
    """It is found out within the patience; the error names the connection, and no password."""
    monkeypatch.setattr(shared, "PATIENCE_SECONDS", 0.3)
    connect(
        monkeypatch, conn_type=kind, host="127.0.0.1", port=nobody, login="u", password="5ecre7"
    )
    ledger = open_schedule("quota", "q", fallback_share=share)
    started = time.monotonic()
    if share is None:
        with pytest.raises(QuotaUnavailableError) as caught:
            ledger.reserve(1, 0.05)
        assert "'quota'" in caught.value.message
        assert "5ecre7" not in caught.value.message
    else:
        assert [ledger.reserve(1, 1) <= delay for delay in (0, 4, 8)] == [True] * 3
    assert time.monotonic() - started < 10
    ledger.close()


def test_a_redis_that_never_answers(silent, monkeypatch):
    """It is given up after the time that is set, though the connection stands."""
    monkeypatch.setattr(shared, "PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(redis, "SOCKET_SECONDS", 0.2)
    connect(monkeypatch, conn_type="redis", host="127.0.0.1", port=silent)
    ledger = open_schedule("quota", "q", fallback_share=None)
    started = time.monotonic()
    with pytest.raises(QuotaUnavailableError, match="Timeout"):
        ledger.reserve(1, 0.05)
    assert time.monotonic() - started < 5
    ledger.close()


def test_a_redis_that_refuses(redis_server: RedisServer, monkeypatch):
    """A refusal is an error of the quota, and repeats no password."""
    monkeypatch.setattr(shared, "PATIENCE_SECONDS", 0.1)
    fields = json.loads(redis_server.connection_json)
    connect(monkeypatch, **fields, login="nobody", password="5ecre7")
    ledger = open_schedule("quota", "q", fallback_share=None)
    with pytest.raises(QuotaUnavailableError) as caught:
        ledger.reserve(1, 0.05)
    assert "5ecre7" not in caught.value.message
    ledger.close()


def test_a_redis_that_comes_back(redis_server: RedisServer):
    """A restart is waited out, on the same connection."""
    ledger = open_schedule("quota", "q", fallback_share=None)
    ledger.reserve(1, 0.05)
    redis_server.stop()
    redis_server.start()
    assert ledger.reserve(1, 0.05) < 1
    ledger.close()


# With one


def test_a_share_is_taken_while_the_ledger_is_away(caplog):
    """Slots of one's own, wide enough to leave the rest of the quota to the others."""
    clock, ledger = Clock(), Schedule(failures=1)
    fallback = FallbackSchedule(ledger, 0.25, clock=clock)
    with caplog.at_level(logging.WARNING, shared.log.name):
        delays = [fallback.reserve(1, 0.5) for _ in range(5)]
    # From now on, less what a timer may be late; then every two seconds.
    assert delays == pytest.approx([0, 2, 4, 6, 8], abs=0.011)
    assert len(ledger.asked) == 1
    [record] = caplog.records
    assert "cannot be asked" in record.getMessage()
    assert "a share of 0.25" in record.getMessage()


def test_the_share_of_a_large_quota(caplog):
    """Several slots at once are as wide together as the share asks for."""
    clock = Clock()
    fallback = FallbackSchedule(Schedule(failures=1), 0.5, clock=clock)
    delays = [fallback.reserve(10, 0.01) for _ in range(5)]
    assert delays == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=0.011)


def test_the_shared_ledger_is_asked_again():
    """From time to time, and once it answers it is used again for good."""
    clock, ledger = Clock(), Schedule(failures=3)
    fallback = FallbackSchedule(ledger, 0.5, clock=clock)
    asked = []
    for _ in range(4):
        fallback.reserve(1, 0.5)
        clock.now += ASK_AGAIN_SECONDS - 0.1
        fallback.reserve(1, 0.5)
        asked.append(len(ledger.asked))
        clock.now += 0.2
    assert asked[:3] == [1, 2, 3]
    assert asked[3] > 4
    assert [fallback.reserve(1, 0.5) for _ in range(5)] == [0.125] * 5


def test_a_redis_that_goes_and_comes_back(redis_server: RedisServer, monkeypatch):
    """Two runs take their shares meanwhile, and share one quota again afterwards."""
    monkeypatch.setattr(shared, "ASK_AGAIN_SECONDS", 0.2)
    one, another = (open_schedule("quota", "q", fallback_share=0.5) for _ in range(2))
    assert one.reserve(1, 100) < 1
    assert 90 < another.reserve(1, 100) <= 100
    redis_server.stop()
    assert one.reserve(1, 1000) < 1
    assert another.reserve(1, 1000) < 1
    redis_server.start()
    time.sleep(0.3)
    # An empty server: the first slot is now, the second behind it, whoever asks.
    assert one.reserve(1, 100) < 1
    assert 90 < another.reserve(1, 100) <= 100
    one.close()
    another.close()


@pytest.mark.parametrize("of", [RetryingSchedule, lambda ledger: FallbackSchedule(ledger, 0.5)])
def test_closing_reaches_the_connection(of):
    """Nothing stays open behind it."""
    ledger = Schedule()
    of(ledger).close()
    assert ledger.is_closed


# Wrong connections


def test_a_connection_that_is_not_there():
    """The error names the id, and the field to correct."""
    with pytest.raises(UnknownConnectionError) as caught:
        open_schedule("no_such_quota", "q", fallback_share=None)
    assert "no_such_quota" in caught.value.message
    assert "quota_conn_id" in caught.value.message


@pytest.mark.parametrize("kind", ["fs", "imagetag", "no_such_type", ""])
@pytest.mark.parametrize("share", [None, 0.5])
def test_a_connection_of_another_type(kind, share, monkeypatch):
    """A quota needs Redis or SQL, and no share makes up for that."""
    connect(monkeypatch, conn_type=kind, host="h")
    with pytest.raises(ConfigurationError, match="'quota'"):
        open_schedule("quota", "q", fallback_share=share)


def test_redis_without_its_provider(monkeypatch):
    """The error says what to install."""
    connect(monkeypatch, conn_type="redis", host="h")
    monkeypatch.setitem(sys.modules, "airflow.providers.redis.hooks.redis", None)
    with pytest.raises(ConfigurationError, match=r"'quota' is a Redis: .*extra \[redis\]"):
        open_schedule("quota", "q", fallback_share=None)


def test_a_cluster_with_a_database_number(monkeypatch):
    """What the provider refuses is an error of the connection."""
    connect(monkeypatch, conn_type="redis", host="h", extra={"cluster": True, "db": 3})
    with pytest.raises((ConfigurationError, QuotaUnavailableError), match="'quota'"):
        open_schedule("quota", "q", fallback_share=None)


def test_a_cluster_that_is_not_there(nobody, monkeypatch):
    """It is asked for its nodes at once, and the error is that of the quota."""
    connect(monkeypatch, conn_type="redis", host="127.0.0.1", port=nobody, extra={"cluster": True})
    with pytest.raises(QuotaUnavailableError, match="'quota'"):
        open_schedule("quota", "q", fallback_share=None)
