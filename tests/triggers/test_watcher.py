"""The trigger of an asset: announces new images, once, and never ends for a fault."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from databases import API, Database, add, tagged
from modes import AIRFLOW_2, Clock, rebuilt

from airflow_imagetag.assets import announced_images
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.triggers.imagetag import MAX_PAUSE_SECONDS, NewImagesTrigger
from airflow_imagetag.watching import announcement_stores, announcements
from airflow_imagetag.watching.announcements import BEGINS_WITHIN, FIRST_REMINDER
from airflow_imagetag.watching.events import MAX_EVENT_IMAGES as MOST

BEGINS = BEGINS_WITHIN.total_seconds()
REMINDER = FIRST_REMINDER.total_seconds()


class State:
    """Asset state, which outlives the triggerer.

    :param on_set: is called with what is kept, after it is kept.
    :param on_get: is called before a value is handed out.
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
        """Watch for so long, and return the keys that each event announced."""
        before = len(self.events)
        end = self.clock.passed + seconds
        asyncio.run(self._watch(end))
        return [[image["image_key"] for image in told["images"]] for told in self.events[before:]]

    async def _watch(self, end: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.clock.at(end, task.cancel)
        while self.clock.passed < end:
            watcher = rebuilt(self.trigger)
            watcher.asset_state_store = self.state  # type: ignore[assignment]
            try:
                async for event in watcher.run():
                    self.events.append(json.loads(json.dumps(event.payload)))
            except asyncio.CancelledError:
                task.uncancel()
                if self.clock.passed >= end:
                    return
            else:
                self.ends += 1

    def restart(self) -> None:
        """Start another process, which remembers nothing of this one."""
        announcement_stores._remembered.clear()


def label(*keys: str) -> None:
    """Label images."""
    with SqlLabelStore("warehouse").open() as opened:
        opened.write([tagged(key, "x", version="v1") for key in keys], API)


def watching(clock: Clock, **fields: Any) -> Triggerer:
    """Watch the table."""
    usual = {
        "images": SqlImages("warehouse", table="products", version="version"),
        "store": SqlLabelStore("warehouse"),
        "poke_interval": 30,
    }
    return Triggerer(clock, NewImagesTrigger(**(usual | fields)))


# -- once -------------------------------------------------------------------------------------


def test_new_images_are_announced_once(products: Database, clock: Clock):
    """Not again while they wait, nor after a restart, and not when they have their labels."""
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
    """Whether or not it had its labels."""
    triggerer = watching(clock)
    add(products, "a", "b")
    assert triggerer.watch(60) == [["a", "b"]]
    label("a")
    add(products, "a", "b", version="v2")
    assert triggerer.watch(60) == [["a", "b"]]


def test_images_that_were_there_before_the_watcher(products: Database, clock: Clock):
    """What has labels is not announced, and the rest is."""
    add(products, "a", "b", "c")
    label("b")
    assert watching(clock).watch(60) == [["a", "c"]]


def test_a_restart_right_after_an_announcement(products: Database, clock: Clock):
    """It arrived, and the next process does not repeat it."""
    add(products, "a", "b")
    triggerer = watching(clock)
    assert triggerer.watch(5) == [["a", "b"]]
    triggerer.restart()
    assert triggerer.watch(REMINDER / 2) == []
    label("a", "b")
    assert triggerer.watch(5 * REMINDER) == []


def test_a_watcher_that_waits_otherwise_is_the_same(products: Database, clock: Clock):
    """How often it looks and how much it announces at a time may be changed in the DAG."""
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
def test_without_asset_state_the_process_remembers(products: Database, clock: Clock):
    """As on Airflow 3.0 to 3.2: once for each process."""
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
    announcement_stores._remembered.clear()
    assert asyncio.run(announced(rebuilt(trigger))) == ["a"]


# -- not lost ---------------------------------------------------------------------------------


class KilledError(BaseException):
    """The process ends here."""


def kill() -> None:
    """End the process."""
    raise KilledError


def test_a_process_killed_before_it_has_told(products: Database, clock: Clock):
    """Nobody knows, so the images are announced again if they still wait long after."""
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


def test_a_process_killed_before_it_has_noted(products: Database, clock: Clock):
    """Nothing was told, and the next one does it at once."""
    add(products, "a", "b")
    triggerer = watching(clock)
    triggerer.state.on_get = kill
    with pytest.raises(KilledError):
        triggerer.watch(60)
    triggerer.state.on_get = lambda: None
    triggerer.restart()
    assert triggerer.watch(60) == [["a", "b"]]


def test_a_note_that_was_kept_although_its_answer_was_lost(products: Database, clock: Clock):
    """The watcher goes on in the same process: its own note is no proof that it told anybody."""
    add(products, "a", "b")
    triggerer = watching(clock)
    failures = iter([ConnectionError("The answer was lost")])

    def fail_once() -> None:
        for error in failures:
            raise error

    triggerer.state.on_set = fail_once
    assert triggerer.watch(1.5 * REMINDER) == [["a", "b"]]


def test_a_watcher_cancelled_before_it_has_told(products: Database, clock: Clock):
    """The DAG was changed, say, and the same process runs the watcher anew."""
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
    """What comes meanwhile is announced when a run has labelled the first images, or after long."""
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
    """Their run failed, or never was; each time it takes twice as long."""
    add(products, "a", "b")
    triggerer = watching(clock)
    assert triggerer.watch(60) == [["a", "b"]]
    label("b")
    assert triggerer.watch(REMINDER - 120) == []
    assert triggerer.watch(120) == [["a"]]
    assert triggerer.watch(2 * REMINDER - 120) == []
    assert triggerer.watch(240) == [["a"]]


# -- faults -----------------------------------------------------------------------------------


def away(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the connection lead to a PostgreSQL server that does not run."""
    fields = {"conn_type": "postgres", "host": str(folder), "login": "x", "schema": "x"}
    patch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields))


def test_source_and_store_may_go_away(
    products: Database, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """No event and no end, and what came meanwhile is announced when they are back."""
    add(products, "a")
    triggerer = watching(clock)
    assert triggerer.watch(60) == [["a"]]
    away(monkeypatch, tmp_path)
    assert triggerer.watch(1_000) == []
    assert triggerer.ends == 1
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", products.connection_json)
    add(products, "b")
    assert triggerer.watch(60) == [["b"]]


def test_a_table_that_is_dropped_and_made_again(products: Database, clock: Clock):
    """A fault of the configuration does not end a watcher, since nobody would start it again."""
    triggerer = watching(clock)
    products.run("DROP TABLE products")
    assert triggerer.watch(2_000) == []
    assert triggerer.ends == 0
    products.run("CREATE TABLE products (id text PRIMARY KEY, image_url text, version text)")
    add(products, "a")
    assert triggerer.watch(MAX_PAUSE_SECONDS + 10) == [["a"]]


def test_asset_state_that_cannot_be_read(products: Database, clock: Clock):
    """Nothing is announced by mistake; it goes on when the state is there again."""
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
    """It is not taken for an empty one; when it is deleted, all that waits is announced."""
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
    """It would be started anew at once, for ever; so it says what is wrong, ever more rarely."""
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
    """Each is one event of limited size, complete, and together they are all."""
    names = [f"{number:04}" for number in range(2 * MOST + 50)]
    add(products, *names)
    triggerer = watching(clock)
    assert triggerer.watch(60) == [names[:MOST]]
    label(*names[:MOST])
    assert triggerer.watch(60) == [names[MOST : 2 * MOST]]
    label(names[MOST])
    assert triggerer.watch(60) == [names[2 * MOST :]]
    assert all(event["is_complete"] for event in triggerer.events)

    class Happened:
        def __init__(self, payload: Any) -> None:
            self.extra = {"from_trigger": True, "payload": payload}

    found = announced_images({"asset": [Happened(payload) for payload in triggerer.events]})
    assert [image["image_key"] for image in found] == names


def test_max_images_at_a_time(products: Database, clock: Clock):
    """The others follow when the first are being labelled."""
    add(products, *"abcde")
    triggerer = watching(clock, max_images=2)
    assert triggerer.watch(60) == [["a", "b"]]
    label("a")
    assert triggerer.watch(60) == [["c", "d"]]
    label("c")
    assert triggerer.watch(60) == [["e"]]


def test_min_images_are_waited_for(products: Database, clock: Clock):
    """Images that were announced do not count."""
    triggerer = watching(clock, min_images=3)
    add(products, "a", "b")
    assert triggerer.watch(60) == []
    add(products, "c")
    assert triggerer.watch(60) == [["a", "b", "c"]]
    add(products, "d", "e")
    assert triggerer.watch(60) == []


def test_no_more_than_the_memory_holds(
    products: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    """Further images follow when runs have labelled some."""
    monkeypatch.setattr(announcements, "MAX_ANNOUNCED", 3)
    add(products, *"abcdefgh")
    triggerer = watching(clock)
    assert triggerer.watch(60) == [["a", "b", "c"]]
    label("a", "c")
    assert triggerer.watch(60) == [["d", "e"]]
    label("b", "d", "e")
    assert triggerer.watch(60) == [["f", "g", "h"]]


def test_a_signature_is_in_no_event(products: Database, clock: Clock):
    """Airflow shows events; the run needs the source itself, and the event says so."""
    products.run("INSERT INTO products VALUES ('a', 'https://x/a.jpg?X-Amz-Signature=abc', '')")
    triggerer = watching(clock)
    assert triggerer.watch(60) == [[]]
    [event] = triggerer.events
    assert "abc" not in json.dumps(event)
    assert event["count"] == 1
    assert not event["is_complete"]
