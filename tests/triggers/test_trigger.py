"""The trigger of a task that waits: one event on every path."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from airflow_imagetag.triggers.imagetag import NewImagesTrigger
from airflow_imagetag.watching.events import MAX_EVENT_IMAGES, parse_event
from airflow_imagetag.watching.polling import PollTuning
from airflow_imagetag.watching.query_thread import THREADS

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


@dataclass
class Gate:
    """Where sources wait for the test.

    :param arrivals: grows by one for each source that begins to wait.
    """

    arrivals: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    is_open: threading.Event = field(default_factory=threading.Event)


GATES: dict[str, Gate] = {}
"""Gates by name: a trigger makes its source anew from plain values."""


@dataclass(repr=False)
class Gated(ImageSource):
    """A source whose reading blocks until the test opens its gate.

    :param gate: name of the gate.
    :param size: number of images that the source holds.
    """

    gate: str
    size: int = 1

    template_fields: ClassVar[tuple[str, ...]] = ()

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Wait and yield."""
        gate = GATES[self.gate]
        gate.arrivals.release()
        assert gate.is_open.wait(60)
        yield from (Image(f"{number}", "https://x") for number in range(self.size))


@dataclass(repr=False)
class Failing(ImageSource):
    """A source that fails.

    :param error: class name of the error.
    """

    error: str

    template_fields: ClassVar[tuple[str, ...]] = ()

    def entries(self, *, shard: Shard | None = None, limit: int | None = None) -> Iterator[Entry]:
        """Raise."""
        kinds = (ConfigurationError, StorageError, ImageUnreadableError, KeyError, MemoryError)
        raise {kind.__name__: kind for kind in kinds}[self.error]("This is the error.")


@pytest.fixture
def gate() -> Iterator[str]:
    """Return the name of a closed gate, which opens when the test ends."""
    name = uuid.uuid4().hex
    GATES[name] = Gate()
    yield name
    GATES[name].is_open.set()


def trigger(**fields: Any) -> NewImagesTrigger:
    """Make a trigger as a task does, and return it as the triggerer makes it anew."""
    usual: dict[str, Any] = {
        "images": SqlImages("warehouse", table="products"),
        "store": SqlLabelStore("warehouse"),
    }
    return rebuilt(NewImagesTrigger(**(usual | fields)))


# -- the values that Airflow keeps ------------------------------------------------------------

KEPT: list[dict[str, Any]] = [
    {},
    {
        "images": [
            "https://x/a.jpg?X-Amz-Signature=abc",
            {"image_key": "k", "image_uri": "s3://b"},
        ],
        "is_rendered": True,
    },
    {"images": ObjectStorageImages("s3://aws@photos/{{ ds }}/", pattern="*.jpg"), "store": None},
    {"store": ParquetLabelStore("s3://aws@lake/{{ ds_nodash }}"), "retag": "never"},
    {"modified_after": NOON},
    {"modified_after": "{{ data_interval_start }}"},
    {"modified_after": NOON.astimezone().isoformat(), "settle_seconds": "{{ params.settle }}"},
    {"min_images": "{{ params.least }}", "max_images": "7", "imagetag_conn_id": "{{ conn }}"},
    {"poke_interval": timedelta(minutes=1), "max_wait": timedelta(hours=1)},
    {"poke_interval": 0.5, "max_wait": 3, "exponential_backoff": True, "silent_fail": True},
    {"deadline": NOON.isoformat()},
    {"images": Gated("a gate", 5)},
]


@pytest.mark.parametrize("fields", KEPT)
def test_it_is_the_same_on_every_round_trip(fields: dict[str, Any]):
    """Each restart of the triggerer makes it anew; another value would make another watcher."""
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
    """They are seconds and ISO texts, which every version reads."""
    kwargs = trigger(
        poke_interval=timedelta(minutes=2), max_wait=timedelta(hours=1), modified_after=NOON
    ).serialize()[1]
    assert kwargs["poke_interval"] == 120
    assert kwargs["max_wait"] == 3600
    assert kwargs["modified_after"] == "2026-07-01T12:00:00+00:00"


@pytest.mark.parametrize("seconds", [-1, "soon", None, True])
def test_a_wrong_interval_is_refused_at_once(seconds: Any):
    """The error appears when the DAG is parsed, where its author sees it."""
    with pytest.raises(ConfigurationError, match="number of seconds"):
        NewImagesTrigger(images=["https://x"], modified_after="2026", poke_interval=seconds)


# -- one event --------------------------------------------------------------------------------


def test_images_that_exist(products: Database, clock: Clock):
    """The event holds them as the operator takes them."""
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
    """The trigger queries until there are enough."""
    clock.at(100, lambda: add(products, "a", "b"))
    clock.at(200, lambda: add(products, "c"))
    [event] = map(parse_event, run_to_end(trigger(min_images=3)))
    assert (event.status, event.count) == ("success", 3)
    assert clock.passed == 240


def test_a_deadline(products: Database, clock: Clock):
    """The last query is made at the deadline; the event counts its images."""
    add(products, "a")
    deadline = (clock.now() + timedelta(seconds=100)).isoformat()
    [event] = map(parse_event, run_to_end(trigger(min_images=3, deadline=deadline)))
    assert (event.status, event.count) == ("timeout", 1)
    assert clock.passed == 100


def test_images_that_come_just_in_time(products: Database, clock: Clock):
    """A query that finds enough images is never too late."""
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
    ({"images": Failing("ConfigurationError")}, "ConfigurationError", "This is the error."),
    ({"images": Failing("ImageUnreadableError")}, "ImageUnreadableError", "This is the error."),
    ({"images": Failing("KeyError")}, "KeyError", "This is the error."),
    ({"images": Failing("MemoryError")}, "MemoryError", "This is the error."),
]


@pytest.mark.parametrize(("fields", "error", "message"), WRONG)
def test_an_error_that_waiting_does_not_cure(
    fields: dict[str, Any], error: str, message: str, products: Database, clock: Clock
):
    """One event names the error at once; the task raises it."""
    [event] = map(parse_event, run_to_end(trigger(**fields)))
    assert (event.status, event.error) == ("error", error)
    assert message in event.message
    assert clock.passed == 0


@pytest.mark.parametrize("error", ["ConfigurationError", "KeyError"])
def test_silent_fail_waits_on(error: str, clock: Clock):
    """Airflow's option lets the task wait on after any error of a query."""
    deadline = (clock.now() + timedelta(seconds=100)).isoformat()
    waiting = trigger(
        images=Failing(error),
        store=ParquetLabelStore("/tmp/there-is-none"),
        deadline=deadline,
        silent_fail=True,
    )
    assert [payload["status"] for payload in run_to_end(waiting)] == ["timeout"]
    assert clock.passed == 100


def test_a_storage_that_cannot_be_reached_is_waited_for(clock: Clock):
    """It may be back later; the deadline ends the wait."""
    deadline = (clock.now() + timedelta(seconds=100)).isoformat()
    waiting = trigger(
        images=Failing("StorageError"), store=None, modified_after="2026-07-01", deadline=deadline
    )
    # This source does not know when an image changed, which is checked first.
    assert [payload["status"] for payload in run_to_end(waiting)] == ["error"]
    waiting = trigger(
        images=Failing("StorageError"), store=ParquetLabelStore("/tmp/none"), deadline=deadline
    )
    assert [payload["status"] for payload in run_to_end(waiting)] == ["timeout"]


def test_a_source_that_hangs_does_not_outlast_the_deadline(gate: str, tmp_path: Path):
    """The trigger ends although its source still hangs."""

    class Tuned(NewImagesTrigger):
        tuning = PollTuning(last_query_seconds=0.1)

    deadline = (datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()
    store = ParquetLabelStore(f"{tmp_path}/lake")
    payloads = run_to_end(Tuned(images=Gated(gate), store=store, deadline=deadline))
    assert [payload["status"] for payload in payloads] == ["timeout"]
    assert not GATES[gate].is_open.is_set()


def test_a_cancelled_trigger_sends_nothing(products: Database, clock: Clock):
    """The task was cleared, or the triggerer stops: another triggerer goes on with it."""
    sent: list[Any] = []

    async def run() -> None:
        waiting = trigger()
        waiting.task_instance = SimpleNamespace(task_id="wait")  # type: ignore[assignment]
        task = asyncio.current_task()
        assert task is not None
        clock.at(200, task.cancel)
        async for event in waiting.run():
            sent.append(event)  # noqa: PERF401 (an event before the end counts)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert sent == []
    assert clock.passed == 240


def test_the_deadline_survives_a_restart(products: Database, clock: Clock):
    """A triggerer that is restarted often does not renew it."""
    deadline = (clock.now() + timedelta(seconds=300)).isoformat()
    waiting = trigger(deadline=deadline)

    class RestartedError(BaseException):
        """The process ends."""

    def restart() -> None:
        raise RestartedError

    sent: list[Any] = []
    for second in (50, 100, 150, 200, 250, None):
        if second is not None:
            clock.at(second, restart)
        try:
            sent += run_to_end(waiting)
        except RestartedError:
            waiting = rebuilt(waiting)
    assert [payload["status"] for payload in sent] == ["timeout"]
    assert clock.passed == 300


def test_connections_are_closed(products: Database, clock: Clock):
    """A trigger that has ended keeps no file of the database open."""
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
    assert opened() == 0


# -- the loop ---------------------------------------------------------------------------------


def test_queries_do_not_block_the_loop(gate: str, tmp_path: Path):
    """While as many queries as may run at a time block, the event loop goes on."""
    store = ParquetLabelStore(f"{tmp_path}/lake")
    waiting = [
        trigger(images=Gated(gate, 2 * MAX_EVENT_IMAGES), store=store) for _ in range(2 * THREADS)
    ]

    async def open_gate() -> None:
        # Goes on only if the loop runs this task while the queries wait for the gate.
        for _ in range(THREADS):
            assert await asyncio.to_thread(GATES[gate].arrivals.acquire, timeout=60)
        GATES[gate].is_open.set()

    async def events_of(one: NewImagesTrigger) -> list[Any]:
        one.task_instance = SimpleNamespace(task_id="wait")  # type: ignore[assignment]
        return [event.payload async for event in one.run()]

    async def run() -> list[Any]:
        *sent, _ = await asyncio.gather(*map(events_of, waiting), open_gate())
        return sent

    counts = [[payload["count"] for payload in payloads] for payloads in asyncio.run(run())]
    assert counts == [[MAX_EVENT_IMAGES + 1]] * 2 * THREADS


def test_the_triggers_text_holds_no_signature():
    """Airflow may log the text."""
    trigger = NewImagesTrigger(
        images=["https://shop/a.jpg?X-Amz-Signature=abc"], store=SqlLabelStore("warehouse")
    )
    assert "abc" not in repr(trigger)
    assert "https://shop/a.jpg" in repr(trigger)


def test_parameters_that_a_task_hands_over_are_not_rendered_again():
    """Airflow renders the parameters of a task that starts in the triggerer at each start."""
    given: dict[str, Any] = {
        "images": ["https://shop/{{ 7 }}.jpg"],
        "store": SqlLabelStore("warehouse"),
    }
    trigger = NewImagesTrigger(**given, is_rendered=True)
    trigger.render_template_fields({})
    assert trigger.images["value"][0]["image_uri"] == "https://shop/{{ 7 }}.jpg"
