"""The connections that URIs from data may use, and how often they are read."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_imagetag.adapters.airflow_sdk import BaseHook
from airflow_imagetag.backends.connection_policy import (
    MAX_CONNECTION_AGE,
    ConnectionPolicy,
    ConnectionTypes,
)
from airflow_imagetag.errors import ImageNotAllowedError, UnknownConnectionError

OBJECTS = [f"s3://photos_s3@photos/{number}.jpg" for number in range(1_000)]


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Return the ids of the connections that Airflow is asked for, in this order."""
    asked: list[str] = []
    get_connection = BaseHook.get_connection

    def recorded(conn_id: str) -> Any:
        asked.append(conn_id)
        return get_connection(conn_id)

    monkeypatch.setattr(BaseHook, "get_connection", recorded)
    monkeypatch.setenv("AIRFLOW_CONN_PHOTOS_S3", json.dumps({"conn_type": "aws"}))
    return asked


@pytest.fixture
def now() -> list[float]:
    """Return the time of the clock, its only item."""
    return [0.0]


@pytest.fixture
def policy(now) -> ConnectionPolicy:
    """Return a policy whose clock stands still."""
    return ConnectionPolicy(types=ConnectionTypes(lambda: now[0]))


@pytest.mark.parametrize("only", [None, "photos_s3"])
def test_a_connection_is_read_once_for_all_of_its_objects(read, now, only):
    """Threads that check objects at the same time share the read, too."""
    policy = ConnectionPolicy(only, types=ConnectionTypes(lambda: now[0]))
    with ThreadPoolExecutor(8) as executor:
        assert set(executor.map(policy.check, OBJECTS)) == {None}
    assert read == ["photos_s3"]


def test_a_changed_connection_is_seen_after_the_interval(read, now, policy, monkeypatch):
    """A type that is no storage's is refused from then on."""
    policy.check(OBJECTS[0])
    monkeypatch.setenv("AIRFLOW_CONN_PHOTOS_S3", json.dumps({"conn_type": "postgres"}))
    now[0] = MAX_CONNECTION_AGE - 0.1
    policy.check(OBJECTS[1])
    assert len(read) == 1
    now[0] = MAX_CONNECTION_AGE
    with pytest.raises(ImageNotAllowedError, match="of the type 'postgres'"):
        policy.check(OBJECTS[2])
    assert len(read) == 2


def test_a_missing_connection_is_found_once_it_exists(policy, monkeypatch):
    """No wait for the interval, and no memory for the names that data makes up."""
    with pytest.raises(UnknownConnectionError, match="There is no connection 'new_s3'"):
        policy.check("s3://new_s3@photos/a.jpg")
    monkeypatch.setenv("AIRFLOW_CONN_NEW_S3", json.dumps({"conn_type": "aws"}))
    assert policy.check("s3://new_s3@photos/a.jpg") is None
