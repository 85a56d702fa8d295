"""The trigger of an asset: announces new images once, and no error ends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from databases import API, Database, add, tagged
from modes import AIRFLOW_2, Clock, rebuilt

from airflow_imagetag.assets import announced_images
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.triggers.imagetag import NewImagesTrigger
from airflow_imagetag.watching.announcement_stores import PROCESS_STATES, AssetAnnouncementStore
from airflow_imagetag.watching.announcements import BEGINS_WITHIN, FIRST_REMINDER
from airflow_imagetag.watching.condition import parse_wait_condition
from airflow_imagetag.watching.events import MAX_EVENT_IMAGES as MOST
from airflow_imagetag.watching.polling import Polling, PollTuning
from airflow_imagetag.watching.watcher import Watcher

MAX_PAUSE_SECONDS = PollTuning().max_pause_seconds
BEGINS = BEGINS_WITHIN.total_seconds()
REMINDER = FIRST_REMINDER.total_seconds()


class State:
    """Asset state, which outlives the triggerer.

    :param on_set: is called after a value is kept.
    :param on_get: is called before a value is returned.
    """

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.on_set: Callable[[], Any] = lambda: None
        self.on_get: Callable[[], Any] = lambda: None

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        self.on_get()
        return json.loads(self.values[key]) if key in self.values else default

    async def aset(self, key: str, value: Any) -> None:
        """Keep a value."""
        self.values[key] = json.dumps(value)
        self.on_set()


class Triggerer:
    """Runs a watcher as Airflow does: anew after each end, and from its database after a restart.

    :param clock: the time.
    :param trigger: the watcher.
    """

    def __init__(self, clock: Clock, trigger: NewImagesTrigger) -> None:
        self.clock, self.trigger, self.state = clock, trigger, State()
        self.events: list[dict[str, Any]] = []
        self.ends = 0

    def watch(self, seconds: float) -> list[list[str]]:
        """Watch for a number of seconds, and return the keys that each event announced."""
        before = len(self.events)
        end = self.clock.passed + seconds
        asyncio.run(self._watch(end))
        return [[image["image_key"] for image in event["images"]] for event in self.events[before:]]

    async def _watch(self, end: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.clock.at(end, task.cancel)
        while self.clock.passed < end:
            try:
                async for payload in self.payloads():
                    self.events.append(json.loads(json.dumps(payload)))
            except asyncio.CancelledError:
                task.uncancel()
                if self.clock.passed >= end:
                    return
            else:
                self.ends += 1

    async def payloads(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the payloads of the watcher's events until it ends."""
        watcher = rebuilt(self.trigger)
        watcher.asset_state_store = self.state  # type: ignore[assignment]
        async for event in watcher.run():
            yield event.payload

    def restart(self) -> None:
        """Start another process, which does not know the state of this one."""
        PROCESS_STATES.clear()


def label(*keys: str) -> None:
    """Label images."""
    with SqlLabelStore("warehouse").open(API) as opened:
        opened.write([tagged(key, "x", version="v1") for key in keys])


def watching(clock: Clock, **fields: Any) -> Triggerer:
    """Watch the table."""
    usual: dict[str, Any] = {
        "images": SqlImages("warehouse", table="products", version="version"),
        "store": SqlLabelStore("warehouse"),
        "poke_interval": 30,
    }
    return Triggerer(clock, NewImagesTrigger(**(usual | fields)))


# -- once -------------------------------------------------------------------------------------


def test_new_images_are_announced_once(products: Database, clock: Clock):
    """Neither while they wait, nor after a restart, nor with their labels are they repeated."""
    triggerer = watching(clock)
    assert triggerer.watch(60) == []
    add(products, "a", "b")
    assert triggerer.watch(60) == [["a", "b"]]
    triggerer.restart()
    assert triggerer.watch(REMINDER / 2) == []
    add(products, "c")
    assert triggerer.watch(60) == [["c"]]
    label("a", "b", "c")
    triggerer.restart()
    assert triggerer.watch(5 * REMINDER) == []


def test_a_replaced_image_is_announced_again(products: Database, clock: Clock):
    """Its earlier labels do not matter."""
    triggerer = watching(clock)
    add(products, "a", "b")
    assert triggerer.watch(60) == [["a", "b"]]
    label("a")
    add(products, "a", "b", version="v2")
    assert triggerer.watch(60) == [["a", "b"]]


def test_images_that_were_there_before_the_watcher(products: Database, clock: Clock):
    """Those without labels are announced."""
    add(products, "a", "b", "c")
    label("b")
    assert watching(clock).watch(60) == [["a", "c"]]


def test_a_restart_right_after_an_announcement(products: Database, clock: Clock):
    """The announcement has arrived, and the next process does not repeat it."""
    add(products, "a", "b")
    triggerer = watching(clock)
    assert triggerer.watch(5) == [["a", "b"]]
    triggerer.restart()
    assert triggerer.watch(REMINDER / 2) == []
    label("a", "b")
    assert triggerer.watch(5 * REMINDER) == []


def test_a_watcher_with_another_interval_is_the_same(products: Database, clock: Clock):
    """The interval and the numbers of images may be changed in the DAG."""
    add(products, "a")
    first = watching(clock)
    assert first.watch(60) == [["a"]]
    second = watching(clock, poke_interval=30, max_images=5, min_images=1)
    second.state = first.state
    assert second.watch(60) == []
    other = watching(clock, store=SqlLabelStore("warehouse", "other_labels"))
    other.state = first.state
    assert other.watch(60) == [["a"]]


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow 2 has no watchers")
def test_without_asset_state_the_process_keeps_the_state(products: Database, clock: Clock):
    """On Airflow 3.0 to 3.2, an image is announced once by each process."""
    add(products, "a")

    async def announced(watcher: NewImagesTrigger) -> list[Any]:
        del watcher.asset_state_store
        found = []
        task = asyncio.current_task()
        assert task is not None
        clock.at(clock.passed + 100, task.cancel)
        try:
            async for event in watcher.run():
                found += event.payload["images"]
        except asyncio.CancelledError:
            task.uncancel()
        return [image["image_key"] for image in found]

    trigger = watching(clock).trigger
    assert asyncio.run(announced(rebuilt(trigger))) == ["a"]
    assert asyncio.run(announced(rebuilt(trigger))) == []
    PROCESS_STATES.clear()
    assert asyncio.run(announced(rebuilt(trigger))) == ["a"]


# -- killed processes -------------------------------------------------------------------------


class KilledError(BaseException):
    """The process is killed."""


def kill() -> None:
    """Kill the process."""
    raise KilledError


def test_a_process_killed_before_its_event(products: Database, clock: Clock):
    """The event may have been sent, so images that still wait are announced again long after."""
    add(products, "a", "b")
    triggerer = watching(clock)
    triggerer.state.on_set = kill
    with pytest.raises(KilledError):
        triggerer.watch(60)
    triggerer.state.on_set = lambda: None
    triggerer.restart()
    assert triggerer.watch(REMINDER - 60) == []
    assert triggerer.watch(120) == [["a", "b"]]
    assert triggerer.watch(REMINDER) == []


def test_a_process_killed_before_it_has_saved(products: Database, clock: Clock):
    """No event was sent, and the next process sends it at once."""
    add(products, "a", "b")
    triggerer = watching(clock)
    triggerer.state.on_get = kill
    with pytest.raises(KilledError):
        triggerer.watch(60)
    triggerer.state.on_get = lambda: None
    triggerer.restart()
    assert triggerer.watch(60) == [["a", "b"]]


def test_a_state_that_was_saved_although_the_answer_was_lost(products: Database, clock: Clock):
    """The watcher goes on in the same process: the saved state does not prove that it announced."""
    add(products, "a", "b")
    triggerer = watching(clock)
    failures = iter([ConnectionError("The answer was lost")])

    def fail_once() -> None:
        for error in failures:
            raise error

    triggerer.state.on_set = fail_once
    assert triggerer.watch(1.5 * REMINDER) == [["a", "b"]]


def test_a_watcher_cancelled_before_its_event(products: Database, clock: Clock):
    """After a change of the DAG, the same process runs the watcher anew."""
    add(products, "a", "b")
    triggerer = watching(clock)

    def cancel() -> None:
        triggerer.state.on_set = lambda: None
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise asyncio.CancelledError

    triggerer.state.on_set = cancel
    assert triggerer.watch(1.5 * REMINDER) == [["a", "b"]]


def test_one_announcement_at_a_time(products: Database, clock: Clock):
    """Later images are announced when a run has labelled the first, or after a while."""
    add(products, "a", "b")
    triggerer = watching(clock)
    assert triggerer.watch(60) == [["a", "b"]]
    add(products, "c", "d")
    assert triggerer.watch(BEGINS / 2) == []
    label("a")
    assert triggerer.watch(60) == [["c", "d"]]
    add(products, "e")
    assert triggerer.watch(BEGINS / 2) == []
    assert triggerer.watch(BEGINS) == [["e"]]


def test_images_that_wait_for_long_are_announced_again(products: Database, clock: Clock):
    """Their run failed or did not begin; each pause is twice as long as the one before."""
    add(products, "a", "b")
    triggerer = watching(clock)
    assert triggerer.watch(60) == [["a", "b"]]
    label("b")
    assert triggerer.watch(REMINDER - 120) == []
    assert triggerer.watch(120) == [["a"]]
    assert triggerer.watch(2 * REMINDER - 120) == []
    assert triggerer.watch(240) == [["a"]]


# -- errors -----------------------------------------------------------------------------------


def disconnect(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the connection lead to a PostgreSQL server that does not run."""
    fields = {"conn_type": "postgres", "host": str(folder), "login": "x", "schema": "x"}
    patch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields))


def test_source_and_store_may_be_unreachable(
    products: Database, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The watcher goes on without an event; later images are announced when they are back."""
    add(products, "a")
    triggerer = watching(clock)
    assert triggerer.watch(60) == [["a"]]
    disconnect(monkeypatch, tmp_path)
    assert triggerer.watch(1_000) == []
    assert triggerer.ends == 1
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", products.connection_json)
    add(products, "b")
    assert triggerer.watch(60) == [["b"]]


def test_a_table_that_is_dropped_and_made_again(products: Database, clock: Clock):
    """An error of the configuration does not end a watcher."""
    triggerer = watching(clock)
    products.run("DROP TABLE products")
    assert triggerer.watch(2_000) == []
    assert triggerer.ends == 0
    products.run("CREATE TABLE products (id text PRIMARY KEY, image_url text, version text)")
    add(products, "a")
    assert triggerer.watch(MAX_PAUSE_SECONDS + 10) == [["a"]]


def test_asset_state_that_cannot_be_read(products: Database, clock: Clock):
    """No image is announced by mistake; the watcher goes on when the state can be read."""
    add(products, "a")
    triggerer = watching(clock)
    assert triggerer.watch(60) == [["a"]]

    def fail() -> None:
        raise ConnectionError("The API server is away")

    triggerer.state.on_get = fail
    add(products, "b")
    assert triggerer.watch(500) == []
    triggerer.state.on_get = lambda: None
    assert triggerer.watch(MAX_PAUSE_SECONDS + 10) == [["b"]]


def test_asset_state_of_another_kind(
    products: Database, clock: Clock, caplog: pytest.LogCaptureFixture
):
    """It is not taken for an empty one; once it is deleted, all waiting images are announced."""
    add(products, "a")
    triggerer = watching(clock)
    triggerer.watch(60)
    triggerer.state.values = dict.fromkeys(triggerer.state.values, '[{"digests": 7}]')
    assert triggerer.watch(2_000) == []
    triggerer.state.values.clear()
    assert triggerer.watch(MAX_PAUSE_SECONDS + 10) == [["a"]]


WRONG: list[dict[str, Any]] = [
    {"store": None},
    {"store": None, "modified_after": "2026-07-01"},
    {"retag": "always"},
    {"min_images": "some"},
    {"max_images": 0},
    {"settle_seconds": "-1"},
    {"modified_after": "noon"},
    {"imagetag_conn_id": "no_such"},
    {"images": SqlImages("no_such", table="products")},
    {"images": {"type": "no.such.Source"}},
    {"images": ValueImages(["https://x"]), "settle_seconds": 5},
    {"images": ObjectStorageImages("no://such/storage")},
]


@pytest.mark.parametrize("fields", WRONG)
def test_a_wrong_watcher_never_ends(fields: dict[str, Any], products: Database, clock: Clock):
    """The triggerer would start it anew at once; so it logs its error, ever more rarely."""
    add(products, "a")
    triggerer = watching(clock, **fields)
    waits: list[float] = []
    sleep = clock.sleep

    def note(seconds: float) -> None:
        waits.append(seconds)
        sleep(seconds)

    clock.sleep = note  # type: ignore[method-assign]
    assert triggerer.watch(20_000) == []
    assert triggerer.ends == 0
    assert waits[0] >= 10
    assert waits == sorted(waits)
    assert waits[-1] == MAX_PAUSE_SECONDS


# -- many -------------------------------------------------------------------------------------


def test_many_images_are_several_announcements(products: Database, clock: Clock):
    """Each is one complete event of limited size, and together they hold all images."""
    names = [f"{number:04}" for number in range(2 * MOST + 50)]
    add(products, *names)
    triggerer = watching(clock)
    assert triggerer.watch(60) == [names[:MOST]]
    label(*names[:MOST])
    assert triggerer.watch(60) == [names[MOST : 2 * MOST]]
    label(names[MOST])
    assert triggerer.watch(60) == [names[2 * MOST :]]
    assert all(event["is_complete"] for event in triggerer.events)

    class AssetEvent:
        def __init__(self, payload: Any) -> None:
            self.extra = {"from_trigger": True, "payload": payload}

    found = announced_images({"asset": [AssetEvent(payload) for payload in triggerer.events]})
    assert [image["image_key"] for image in found] == names


def test_max_images_at_a_time(products: Database, clock: Clock):
    """The others follow when a run labels the first."""
    add(products, *"abcde")
    triggerer = watching(clock, max_images=2)
    assert triggerer.watch(60) == [["a", "b"]]
    label("a")
    assert triggerer.watch(60) == [["c", "d"]]
    label("c")
    assert triggerer.watch(60) == [["e"]]


def test_min_images_are_waited_for(products: Database, clock: Clock):
    """Images that were announced before do not count."""
    triggerer = watching(clock, min_images=3)
    add(products, "a", "b")
    assert triggerer.watch(60) == []
    add(products, "c")
    assert triggerer.watch(60) == [["a", "b", "c"]]
    add(products, "d", "e")
    assert triggerer.watch(60) == []


class FewAnnounced(Triggerer):
    """Runs a watcher of which at most three announced images wait for labels."""

    async def payloads(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the payload of the watcher's event."""
        source = SqlImages("warehouse", table="products", version="version")
        condition = parse_wait_condition(source, SqlLabelStore("warehouse"), self.trigger)
        watcher = Watcher(
            AssetAnnouncementStore(self.state, "x"),
            lambda: condition,
            Polling(30, tuning=NewImagesTrigger.tuning),
            about="products",
            log=self.trigger.log,
            max_announced=3,
        )
        yield (await watcher.run()).payload()


def test_further_images_are_held_back_until_runs_have_labelled_some(
    products: Database, clock: Clock
):
    """No more images are announced than the state may hold."""
    add(products, *"abcdefgh")
    triggerer = FewAnnounced(clock, watching(clock).trigger)
    assert triggerer.watch(60) == [["a", "b", "c"]]
    label("a", "c")
    assert triggerer.watch(60) == [["d", "e"]]
    label("b", "d", "e")
    assert triggerer.watch(60) == [["f", "g", "h"]]


def test_a_signature_is_in_no_event(products: Database, clock: Clock):
    """Airflow shows events; the event tells that its list is not complete."""
    products.run("INSERT INTO products VALUES ('a', 'https://x/a.jpg?X-Amz-Signature=abc', '')")
    triggerer = watching(clock)
    assert triggerer.watch(60) == [[]]
    [event] = triggerer.events
    assert "abc" not in json.dumps(event)
    assert event["count"] == 1
    assert not event["is_complete"]
