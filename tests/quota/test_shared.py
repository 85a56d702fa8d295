"""A shared quota that is out of reach, and wrong connections of one."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis_server import RedisServer

from airflow_imagetag.errors import (
    ConfigurationError,
    QuotaUnavailableError,
    UnknownConnectionError,
)
from airflow_imagetag.quota import QuotaTiming, shared
from airflow_imagetag.quota.redis import RedisSchedule
from airflow_imagetag.quota.shared import FallbackSchedule, RetryingSchedule, open_schedule

UNAVAILABLE = QuotaUnavailableError("The shared quota cannot be asked")
IMPATIENT = QuotaTiming(max_outage_seconds=0.0)
"""The first failure is final."""


class FakeSchedule:
    """Fails at first, as often as it is told, and records the calls."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.calls: list[tuple[int, float]] = []
        self.is_closed = False

    def reserve(self, count: int, interval_seconds: float) -> float:
        self.calls.append((count, interval_seconds))
        if len(self.calls) <= self.failures:
            raise UNAVAILABLE
        return 0.125

    def close(self) -> None:
        self.is_closed = True


class Clock:
    """Stands still until it is moved, or slept by."""

    now = 500.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Reserve a port that refuses connections."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Open a port that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def connect(patch: pytest.MonkeyPatch, **fields: object) -> None:
    """Make the connection ``quota``."""
    patch.setenv("AIRFLOW_CONN_QUOTA", json.dumps(fields))


# Without a fallback


def test_a_short_outage_is_waited_out():
    """The schedule is asked again until it answers."""
    clock, schedule = Clock(), FakeSchedule(failures=3)
    retrying = RetryingSchedule(schedule, clock=clock, sleep=clock.sleep)
    assert retrying.reserve(2, 0.05) == 0.125
    assert schedule.calls == [(2, 0.05)] * 4


def test_a_long_outage_ends_in_an_error():
    """After the time limit, the last error of the schedule is raised as it is."""
    clock, schedule = Clock(), FakeSchedule(failures=10_000)
    retrying = RetryingSchedule(schedule, clock=clock, sleep=clock.sleep)
    with pytest.raises(QuotaUnavailableError) as caught:
        retrying.reserve(1, 0.05)
    assert caught.value is UNAVAILABLE
    assert 15 <= clock.now - 500 <= 15 + 2
    assert 5 <= len(schedule.calls) <= 200


def test_the_time_limit_begins_anew_with_each_outage():
    """An outage that has passed does not shorten the next."""
    clock, schedule = Clock(), FakeSchedule()
    retrying = RetryingSchedule(
        schedule, QuotaTiming(max_outage_seconds=1), clock=clock, sleep=clock.sleep
    )
    for _ in range(50):
        schedule.failures = len(schedule.calls) + 2
        assert retrying.reserve(1, 0.05) == 0.125


def test_closing_ends_the_wait():
    """A run that was asked to end does not wait for a quota that it needs no more."""
    schedule = FakeSchedule(failures=10_000_000)
    # A limit that would outlast the test.
    retrying = RetryingSchedule(schedule, QuotaTiming(max_outage_seconds=3600))
    errors: list[QuotaUnavailableError] = []

    def reserve() -> None:
        try:
            retrying.reserve(1, 0.05)
        except QuotaUnavailableError as error:
            errors.append(error)

    thread = threading.Thread(target=reserve, daemon=True)
    thread.start()
    retrying.close()
    thread.join(60)
    assert errors == [UNAVAILABLE]


@pytest.mark.parametrize("kind", ["redis", "postgres"])
@pytest.mark.parametrize("share", [None, 0.25])
def test_a_server_that_is_not_there(kind, share, closed_port, monkeypatch):
    """The error names the connection and no password; a share makes up for the server."""
    connect(
        monkeypatch,
        conn_type=kind,
        host="127.0.0.1",
        port=closed_port,
        login="u",
        password="5ecre7",
    )
    schedule = open_schedule("quota", "q", fallback_share=share, timing=IMPATIENT)
    if share is None:
        with pytest.raises(QuotaUnavailableError) as caught:
            schedule.reserve(1, 0.05)
        assert "'quota'" in caught.value.message
        assert "5ecre7" not in caught.value.message
    else:
        assert [schedule.reserve(1, 1) <= delay for delay in (0, 4, 8)] == [True] * 3
    schedule.close()


@pytest.mark.parametrize("extra", [{}, {"ssl": True}], ids=["plain", "TLS"])
def test_a_redis_that_never_answers(extra, silent_port, monkeypatch):
    """It is given up after its time limit, although the connection stands."""
    timing = QuotaTiming(max_outage_seconds=0.0, redis_timeout_seconds=0.2)
    connect(monkeypatch, conn_type="redis", host="127.0.0.1", port=silent_port, extra=extra)
    schedule = open_schedule("quota", "q", fallback_share=None, timing=timing)
    with pytest.raises(QuotaUnavailableError, match="Timeout"):
        schedule.reserve(1, 0.05)
    schedule.close()


@pytest.mark.parametrize("kind", ["redis_server", "redis_cluster"])
def test_the_time_limit_is_that_of_each_connection(kind, request):
    """Of a plain server and of the nodes of a cluster."""
    request.getfixturevalue(kind)
    schedule = RedisSchedule("quota", "q", timeout_seconds=1.25)
    client: Any = schedule._client
    nodes = [node.redis_connection for node in getattr(client, "get_nodes", list)()]
    assert len(nodes) == (kind == "redis_cluster")
    for each in (client, *nodes):
        kwargs = each.get_connection_kwargs()
        assert (kwargs["socket_timeout"], kwargs["socket_connect_timeout"]) == (1.25, 1.25)
    pool = (nodes or [client])[0].connection_pool
    pool.disconnect()
    pool.reset()
    assert pool.get_connection().socket_timeout == 1.25
    schedule.close()


def test_a_redis_that_refuses(redis_server: RedisServer, monkeypatch):
    """A refusal is an error of the quota, and repeats no password."""
    fields = json.loads(redis_server.connection_json)
    connect(monkeypatch, **fields, login="nobody", password="5ecre7")
    schedule = open_schedule("quota", "q", fallback_share=None, timing=IMPATIENT)
    with pytest.raises(QuotaUnavailableError) as caught:
        schedule.reserve(1, 0.05)
    assert "5ecre7" not in caught.value.message
    schedule.close()


def test_a_redis_that_comes_back(redis_server: RedisServer):
    """A restart is waited out, on the same connection."""
    schedule = open_schedule("quota", "q", fallback_share=None)
    schedule.reserve(1, 0.05)
    redis_server.stop()
    redis_server.start()
    assert schedule.reserve(1, 0.05) < 1
    schedule.close()


# With a fallback


def test_a_share_is_taken_during_an_outage(caplog):
    """Its slots are wide enough to leave the rest of the quota to the others."""
    clock, schedule = Clock(), FakeSchedule(failures=1)
    fallback = FallbackSchedule(schedule, 0.25, clock=clock)
    with caplog.at_level(logging.WARNING, shared.log.name):
        delays = [fallback.reserve(1, 0.5) for _ in range(5)]
    # From now on, less the lag of a timer; then every two seconds.
    assert delays == pytest.approx([0, 2, 4, 6, 8], abs=0.011)
    assert len(schedule.calls) == 1
    [record] = caplog.records
    assert "cannot be asked" in record.getMessage()
    assert "a share of 0.25" in record.getMessage()


def test_the_share_of_a_large_quota(caplog):
    """Several slots at once are together as wide as the share asks for."""
    clock = Clock()
    fallback = FallbackSchedule(FakeSchedule(failures=1), 0.5, clock=clock)
    delays = [fallback.reserve(10, 0.01) for _ in range(5)]
    assert delays == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=0.011)


def test_the_shared_schedule_is_asked_again():
    """From time to time; once it answers, it is used again."""
    clock, schedule = Clock(), FakeSchedule(failures=3)
    fallback = FallbackSchedule(schedule, 0.5, QuotaTiming(ask_again_seconds=10), clock=clock)
    calls = []
    for _ in range(4):
        fallback.reserve(1, 0.5)
        clock.now += 9.9
        fallback.reserve(1, 0.5)
        calls.append(len(schedule.calls))
        clock.now += 0.2
    assert calls[:3] == [1, 2, 3]
    assert calls[3] > 4
    assert [fallback.reserve(1, 0.5) for _ in range(5)] == [0.125] * 5


def test_a_redis_that_goes_and_comes_back(redis_server: RedisServer):
    """Two runs take their shares meanwhile, and share one quota again afterwards."""
    timing = QuotaTiming(ask_again_seconds=0.0)
    one, another = (open_schedule("quota", "q", fallback_share=0.5, timing=timing) for _ in "12")
    assert one.reserve(1, 100) < 1
    assert 90 < another.reserve(1, 100) <= 100
    redis_server.stop()
    assert one.reserve(1, 1000) < 1
    assert another.reserve(1, 1000) < 1
    redis_server.start()
    # The server is empty: the first slot is now, the second behind it, for any of the runs.
    assert one.reserve(1, 100) < 1
    assert 90 < another.reserve(1, 100) <= 100
    one.close()
    another.close()


def with_fallback(schedule: FakeSchedule) -> FallbackSchedule:
    return FallbackSchedule(schedule, 0.5)


@pytest.mark.parametrize("wrap", [RetryingSchedule, with_fallback])
def test_closing_reaches_the_connection(wrap: Callable[[FakeSchedule], shared.SharedSchedule]):
    """No connection stays open."""
    schedule = FakeSchedule()
    wrap(schedule).close()
    assert schedule.is_closed


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
    """The error names the extra to install."""
    connect(monkeypatch, conn_type="redis", host="h")
    monkeypatch.setitem(sys.modules, "airflow.providers.redis.hooks.redis", None)
    with pytest.raises(ConfigurationError, match=r"'quota' is a Redis: .*extra \[redis\]"):
        open_schedule("quota", "q", fallback_share=None)


def test_a_cluster_with_a_database_number(monkeypatch):
    """The provider's refusal is an error of the connection."""
    connect(monkeypatch, conn_type="redis", host="h", extra={"cluster": True, "db": 3})
    with pytest.raises((ConfigurationError, QuotaUnavailableError), match="'quota'"):
        open_schedule("quota", "q", fallback_share=None)


def test_a_cluster_that_is_not_there(closed_port, monkeypatch):
    """Its client asks for the nodes at once, and the error is that of the quota."""
    connect(
        monkeypatch, conn_type="redis", host="127.0.0.1", port=closed_port, extra={"cluster": True}
    )
    with pytest.raises(QuotaUnavailableError, match="'quota'"):
        open_schedule("quota", "q", fallback_share=None)
