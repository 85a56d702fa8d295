"""Where a watcher keeps its announcement state."""

from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import airflow
import pytest

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.watching.announcement_stores import (
    AssetAnnouncementStore,
    ProcessAnnouncementStore,
    announcement_store_of,
)
from airflow_imagetag.watching.announcements import AnnouncedBatch, AnnouncementState

AIRFLOW_2 = airflow.__version__.startswith("2.")
NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
STATE = AnnouncementState(
    (
        AnnouncedBatch(frozenset({"A" * 12, "B" * 12}), NOON, is_picked_up=True),
        AnnouncedBatch(frozenset({"C" * 12}), NOON, times=3),
    )
)


class Blocking:
    """Asset state as Airflow 3.3.0 and 3.3.1 hand it out."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        self.values[key] = json.dumps(value)


class Nonblocking(Blocking):
    """Asset state as later versions hand it out; its blocking calls may not be used in a loop."""

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        return json.loads(self.values[key]) if key in self.values else default

    async def aset(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.values[key] = json.dumps(value)

    get = set = None  # type: ignore[assignment]


class OfSeveralAssets(Nonblocking):
    """Asset state of a watcher that serves several assets, which Airflow refuses."""

    async def aget(self, key: str, default: Any = None) -> Any:
        """Refuse."""
        raise ValueError("Task has 2 concrete inlets and outlets")

    async def aset(self, key: str, value: Any) -> None:
        """Refuse."""
        raise ValueError("Task has 2 concrete inlets and outlets")


async def kept(accessor: Any, key: str = "x") -> AnnouncementState:
    """Save a state and return the state that another store of the same key loads."""
    store = AssetAnnouncementStore(accessor, key)
    assert await store.load() == AnnouncementState()
    await store.save(STATE)
    assert await store.load() == STATE
    return await AssetAnnouncementStore(accessor, key).load()


@pytest.mark.parametrize("accessor", [Blocking(), Nonblocking()])
def test_the_asset_state_keeps_it(accessor: Any):
    """A new process loads it; blocking calls are made in a thread, the others in the loop."""
    assert asyncio.run(kept(accessor)) == STATE


def test_each_watcher_of_an_asset_has_a_state_of_its_own():
    """Two watchers of one asset have two keys."""
    accessor = Nonblocking()
    asyncio.run(kept(accessor, "x"))
    asyncio.run(kept(accessor, "y"))
    assert len(accessor.values) == 2


def test_the_process_keeps_the_state_of_a_watcher_of_several_assets(
    caplog: pytest.LogCaptureFixture,
):
    """Airflow keeps no state for such a watcher; the log tells the consequence."""
    key = uuid.uuid4().hex
    assert asyncio.run(kept(OfSeveralAssets(), key)) == STATE
    assert "a watcher of its own" in " ".join(caplog.text.split())


@pytest.mark.parametrize("value", ["rubbish", [{"digests": 7}], [5], 5, {}])
def test_an_unreadable_state_is_not_an_empty_one(value: Any):
    """An empty state would announce all images again; the message names the remedy."""
    accessor = Nonblocking()
    asyncio.run(accessor.aset("imagetag_announced_x", value))
    with pytest.raises(ConfigurationError, match=r"imagetag_announced_x.*Delete it"):
        asyncio.run(AssetAnnouncementStore(accessor, "x").load())


def test_a_store_that_fails_is_not_an_empty_state():
    """Its error reaches the watcher, which tries again."""

    class Failing(Nonblocking):
        async def aget(self, key: str, default: Any = None) -> Any:
            raise ConnectionError("The API server is away")

    with pytest.raises(ConnectionError):
        asyncio.run(AssetAnnouncementStore(Failing(), "x").load())


def test_the_process_keeps_it():
    """The states of two watchers are apart."""
    key = uuid.uuid4().hex
    asyncio.run(ProcessAnnouncementStore(key).save(STATE))
    assert asyncio.run(ProcessAnnouncementStore(key).load()) == STATE
    assert asyncio.run(ProcessAnnouncementStore(key + "2").load()) == AnnouncementState()


def test_only_a_watcher_has_a_store():
    """A trigger that a task waits for has none, nor has a trigger without an asset."""
    accessor = Nonblocking()
    of_task = SimpleNamespace(task_instance=object(), asset_state_store=accessor)
    assert announcement_store_of(of_task, "x") is None
    without_asset = SimpleNamespace(task_instance=None, asset_state_store=None)
    assert announcement_store_of(without_asset, "x") is None
    of_asset = SimpleNamespace(task_instance=None, asset_state_store=accessor)
    assert isinstance(announcement_store_of(of_asset, "x"), AssetAnnouncementStore)


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 has no watchers")
def test_without_asset_state_the_process_keeps_it():
    """Airflow 3.0 to 3.2 have no asset state."""
    assert isinstance(
        announcement_store_of(SimpleNamespace(task_instance=None), "x"), ProcessAnnouncementStore
    )


@pytest.mark.skipif(not AIRFLOW_2, reason="Airflow 3 has watchers")
def test_airflow_2_has_no_watchers():
    """A task waits for each trigger."""
    assert announcement_store_of(SimpleNamespace(task_instance=None), "x") is None
