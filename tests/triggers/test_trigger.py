"""The trigger of a task that waits: one event on every path, by the clock on the wall."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from databases import Database, add
from modes import AIRFLOW_2, Clock, rebuilt, run_to_end

from airflow_imagetag.errors import ConfigurationError, ImageUnreadableError, StorageError
from airflow_imagetag.models import Entry, Image
from airflow_imagetag.selection.shards import Shard
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.triggers import imagetag as triggers
from airflow_imagetag.triggers.imagetag import NewImagesTrigger
from airflow_imagetag.watching.events import MAX_EVENT_IMAGES, parse_event

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
LOOP_GAP_SECONDS = 0.25
"""What a busy machine may add to the 100 ms after which Airflow warns of a blocked loop."""


@dataclass(repr=False)
class Slow(ImageSource):
    """A source whose reading takes its time.

    :param seconds: that it takes.
    :param count: of images that it holds.
    """

    seconds: float
    count: int = 1

    template_fields: ClassVar[tuple[str, ...]] = ()

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Sleep and yield."""
        time.sleep(self.seconds)
        yield from (Image(f"{number}", "https://x") for number in range(self.count))


@dataclass(repr=False)
class Faulty(ImageSource):
    """A source that fails.

    :param fault: name of the error.
    """

    fault: str

    template_fields: ClassVar[tuple[str, ...]] = ()

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Raise."""
        kinds = (ConfigurationError, StorageError, ImageUnreadableError, KeyError, MemoryError)
        raise {kind.__name__: kind for kind in kinds}[self.fault]("This is the fault.")


def trigger(**fields: Any) -> NewImagesTrigger:
    """Make a trigger as a task does, and take what the triggerer makes of it."""
    usual = {
        "images": SqlImages("warehouse", table="products"),
        "store": SqlLabelStore("warehouse"),
    }
    return rebuilt(NewImagesTrigger(**(usual | fields)))


# -- what Airflow keeps -----------------------------------------------------------------------

KEPT: list[dict[str, Any]] = [
    {},
    {"images": ["https://x/a.jpg?X-Amz-Signature=abc", {"image_key": "k", "image_uri": "s3://b"}]},
    {"images": ObjectStorageImages("s3://aws@photos/{{ ds }}/", pattern="*.jpg"), "store": None},
    {"store": ParquetLabelStore("s3://aws@lake/{{ ds_nodash }}"), "retag": "never"},
    {"modified_after": NOON},
    {"modified_after": "{{ data_interval_start }}"},
    {"modified_after": NOON.astimezone().isoformat(), "settle_seconds": "{{ params.settle }}"},
    {"min_images": "{{ params.least }}", "max_images": "7", "imagetag_conn_id": "{{ conn }}"},
    {"poke_interval": timedelta(minutes=1), "max_wait": timedelta(hours=1)},
    {"poke_interval": 0.5, "max_wait": 3, "exponential_backoff": True, "silent_fail": True},
    {"deadline": NOON.isoformat()},
    {"images": Slow(2.0, 5)},
]


@pytest.mark.parametrize("fields", KEPT)
def test_it_is_the_same_on_every_round_trip(fields: dict[str, Any]):
    """Each restart of the triggerer makes it anew; a difference would make it another watcher."""
    first = trigger(**fields)
    second = rebuilt(first)
    third = NewImagesTrigger(**json.loads(json.dumps(second.serialize()[1])))
    assert first.serialize() == second.serialize() == third.serialize()
    assert repr(first) == repr(third)
    path, kwargs = first.serialize()
    assert json.dumps(kwargs) == json.dumps(third.serialize()[1])
    if not AIRFLOW_2:
        assert first.hash(path, kwargs) == third.hash(*third.serialize())


def test_times_are_kept_as_plain_values():
    """Seconds and ISO text, which every version reads."""
    kwargs = trigger(
        poke_interval=timedelta(minutes=2), max_wait=timedelta(hours=1), modified_after=NOON
    ).serialize()[1]
    assert kwargs["poke_interval"] == 120
    assert kwargs["max_wait"] == 3600
    assert kwargs["modified_after"] == "2026-07-01T12:00:00+00:00"


@pytest.mark.parametrize("seconds", [-1, "soon", None, True])
def test_an_interval_that_is_none_is_refused_at_once(seconds: Any):
    """When the DAG is parsed, where a person sees it."""
    with pytest.raises(ConfigurationError, match="number of seconds"):
        NewImagesTrigger(images=["https://x"], modified_after="2026", poke_interval=seconds)


# -- one event --------------------------------------------------------------------------------


def test_images_that_are_there(products: Database, clock: Clock):
    """The event holds them, as the operator takes them."""
    add(products, "a", "b")
    assert run_to_end(trigger()) == [
        {
            "status": "success",
            "count": 2,
            "images": [
                {"image_key": "a", "image_uri": "https://x", "version": ""},
                {"image_key": "b", "image_uri": "https://x", "version": ""},
            ],
            "is_complete": True,
            "error": "",
            "message": "",
        }
    ]
    assert clock.passed == 0


def test_images_that_come(products: Database, clock: Clock):
    """It looks again until there are enough."""
    clock.at(100, lambda: add(products, "a", "b"))
    clock.at(200, lambda: add(products, "c"))
    [event] = map(parse_event, run_to_end(trigger(min_images=3)))
    assert (event.status, event.count) == ("success", 3)
    assert clock.passed == 240


def test_a_deadline(products: Database, clock: Clock):
    """The last look is at it; what it found is counted."""
    add(products, "a")
    deadline = (clock.now() + timedelta(seconds=100)).isoformat()
    [event] = map(parse_event, run_to_end(trigger(min_images=3, deadline=deadline)))
    assert (event.status, event.count) == ("timeout", 1)
    assert clock.passed == 100


def test_images_that_come_just_in_time(products: Database, clock: Clock):
    """What is there at the last look counts, and so it does long after the deadline."""
    clock.at(100, lambda: add(products, "a"))
    deadline = (clock.now() + timedelta(seconds=100)).isoformat()
    assert run_to_end(trigger(deadline=deadline))[0]["status"] == "success"
    clock.sleep(1000)
    assert run_to_end(trigger(deadline=deadline))[0]["status"] == "success"


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"images": SqlImages("warehouse", table="nowhere")}, "ConfigurationError", "nowhere"),
    ({"images": SqlImages("no_such", table="x")}, "UnknownConnectionError", "no_such"),
    ({"store": None}, "ConfigurationError", "store="),
    ({"retag": "always"}, "ConfigurationError", "retag"),
    ({"min_images": "some"}, "ConfigurationError", "min_images"),
    ({"settle_seconds": "-5"}, "ConfigurationError", "settle_seconds"),
    ({"modified_after": "noon"}, "ConfigurationError", "modified_after"),
    ({"deadline": "tonight"}, "ConfigurationError", "deadline"),
    ({"imagetag_conn_id": "no_such"}, "UnknownConnectionError", "no_such"),
    ({"images": {"type": "no.such.Source"}}, "ConfigurationError", "no.such.Source"),
    ({"store": {"type": "builtins.dict"}}, "ConfigurationError", "builtins.dict"),
    ({"images": Faulty("ConfigurationError")}, "ConfigurationError", "This is the fault."),
    ({"images": Faulty("ImageUnreadableError")}, "ImageUnreadableError", "This is the fault."),
    ({"images": Faulty("KeyError")}, "KeyError", "This is the fault."),
    ({"images": Faulty("MemoryError")}, "MemoryError", "This is the fault."),
]


@pytest.mark.parametrize(("fields", "error", "message"), WRONG)
def test_what_waiting_does_not_mend(
    fields: dict[str, Any], error: str, message: str, products: Database, clock: Clock
):
    """One event names the error, at once; the task raises it."""
    [event] = map(parse_event, run_to_end(trigger(**fields)))
    assert (event.status, event.error) == ("error", error)
    assert message in event.message
    assert clock.passed == 0


@pytest.mark.parametrize("fault", ["ConfigurationError", "KeyError"])
def test_silent_fail_waits_on(fault: str, clock: Clock, caplog: pytest.LogCaptureFixture):
    """As Airflow's option says; the fault is in the log."""
    deadline = (clock.now() + timedelta(seconds=100)).isoformat()
    waiting = trigger(
        images=Faulty(fault),
        store=ParquetLabelStore("/tmp/there-is-none"),
        deadline=deadline,
        silent_fail=True,
    )
    assert [payload["status"] for payload in run_to_end(waiting)] == ["timeout"]
    assert clock.passed == 100


def test_a_storage_that_is_away_is_waited_for(clock: Clock):
    """It may be back; the deadline ends it."""
    deadline = (clock.now() + timedelta(seconds=100)).isoformat()
    waiting = trigger(
        images=Faulty("StorageError"), store=None, modified_after="2026-07-01", deadline=deadline
    )
    # This source knows no times, which is asked first.
    assert [payload["status"] for payload in run_to_end(waiting)] == ["error"]
    waiting = trigger(
        images=Faulty("StorageError"), store=ParquetLabelStore("/tmp/none"), deadline=deadline
    )
    assert [payload["status"] for payload in run_to_end(waiting)] == ["timeout"]


def test_a_source_that_hangs_does_not_outlast_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A database that never answers must not keep a task waiting for ever."""
    monkeypatch.setattr(triggers, "LAST_LOOK_SECONDS", 0.1)
    deadline = (datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()
    store = ParquetLabelStore(f"{tmp_path}/lake")
    began = time.monotonic()
    payloads = run_to_end(trigger(images=Slow(1.5), store=store, deadline=deadline))
    assert [payload["status"] for payload in payloads] == ["timeout"]
    assert time.monotonic() - began < 1


def test_cancelled_it_sends_nothing(products: Database):
    """The task was cleared, or the triggerer stops: another one goes on with it."""
    told: list[Any] = []

    async def watch() -> None:
        waiting = trigger(poke_interval=0.01)
        waiting.task_instance = SimpleNamespace(task_id="wait")  # type: ignore[assignment]

        async def run() -> None:
            async for event in waiting.run():
                told.append(event)  # noqa: PERF401 (those before the end count)

        task = asyncio.create_task(run())
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(watch())
    assert told == []


def test_the_deadline_survives_a_restart(products: Database, clock: Clock):
    """A triggerer that is restarted every minute does not renew it."""
    deadline = (clock.now() + timedelta(seconds=300)).isoformat()
    waiting = trigger(deadline=deadline)

    class RestartedError(BaseException):
        """The process ends."""

    def restart() -> None:
        raise RestartedError

    told: list[Any] = []
    for second in (50, 100, 150, 200, 250, None):
        if second is not None:
            clock.at(second, restart)
        try:
            told += run_to_end(waiting)
        except RestartedError:
            waiting = rebuilt(waiting)
    assert [payload["status"] for payload in told] == ["timeout"]
    assert clock.passed == 300


def test_connections_are_let_go(products: Database, clock: Clock):
    """A finished trigger keeps no file of the database open."""
    add(products, "a")
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("no /proc")

    def opened() -> int:
        found = 0
        for link in folder.iterdir():
            try:
                found += "warehouse.db" in str(link.readlink())
            except OSError:
                continue
        return found

    for _ in range(5):
        assert run_to_end(trigger())[0]["status"] == "success"
    deadline = time.monotonic() + 5
    while opened() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert opened() == 0


# -- the loop ---------------------------------------------------------------------------------


def test_the_loop_is_never_blocked(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """While 20 triggers read a source that takes two seconds, the triggerer's heart beats."""
    store = ParquetLabelStore(f"{tmp_path}/lake")
    # Neither what is loaded once is part of it, nor to collect what other tests have left.
    run_to_end(trigger(images=Slow(0), store=store))
    gc.collect()
    gc.freeze()
    waiting = [
        trigger(images=Slow(2.0, 2 * MAX_EVENT_IMAGES), store=store, poke_interval=1)
        for _ in range(20)
    ]
    gaps: list[float] = []

    async def beat() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    async def events_of(one: NewImagesTrigger) -> list[Any]:
        one.task_instance = SimpleNamespace(task_id="wait")  # type: ignore[assignment]
        return [event.payload async for event in one.run()]

    async def all_of_them() -> list[list[Any]]:
        heart = asyncio.create_task(beat())
        told = await asyncio.gather(*map(events_of, waiting))
        heart.cancel()
        return told

    caplog.set_level(logging.WARNING)
    told = asyncio.run(all_of_them())
    assert [[payload["count"] for payload in payloads] for payloads in told] == [
        [MAX_EVENT_IMAGES + 1]
    ] * 20
    print(f"longest gap {max(gaps) * 1000:.0f} ms")
    assert max(gaps) < LOOP_GAP_SECONDS


def test_the_triggers_text_holds_no_signature():
    """Airflow may log it."""
    trigger = NewImagesTrigger(
        images=["https://shop/a.jpg?X-Amz-Signature=abc"], store=SqlLabelStore("warehouse")
    )
    assert "abc" not in repr(trigger)
    assert "https://shop/a.jpg" in repr(trigger)


def test_what_a_task_hands_to_the_trigger_is_data():
    """Airflow renders the parameters of a task that starts in the triggerer, each time."""
    given = {"images": ["https://shop/{{ 7 }}.jpg"], "store": SqlLabelStore("warehouse")}
    trigger = NewImagesTrigger(**given, is_rendered=True)
    trigger.render_template_fields({})
    assert trigger.images["value"][0]["image_uri"] == "https://shop/{{ 7 }}.jpg"
