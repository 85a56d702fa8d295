"""Looks in threads: one that hangs is given up, and keeps no other place waiting."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from databases import Database, add

from airflow_imagetag.errors import StorageError
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.triggers import imagetag as triggers
from airflow_imagetag.triggers.imagetag import NewImagesTrigger
from airflow_imagetag.watching.events import parse_event
from airflow_imagetag.watching.query import NewImagesQuery, parse_wait_condition
from airflow_imagetag.watching.query_thread import MAX_HANGING, THREADS, QueryThread

HUNG = "silent"
"""Connection to a database that accepts and never answers."""


class SilentServer:
    """Accepts connections and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        self.accepted: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.accepted.append(self._listener.accept()[0])

    def close(self) -> None:
        """End."""
        # Wakes who accepts, which closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connections that there are."""
        while self.accepted:
            self.accepted.pop().close()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentServer]:
    """Make such a server the connection ``silent``; its looks end with it."""
    server = SilentServer()
    fields = {"conn_type": "postgres", "host": "127.0.0.1", "port": server.port, "login": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_SILENT", json.dumps(fields))
    yield server
    server.close()
    until(lambda: not looks())


def until(is_so: Callable[[], bool]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def looks() -> list[threading.Thread]:
    """Return the threads that look."""
    return [thread for thread in threading.enumerate() if thread.name == "new-images"]


def trigger(conn_id: str, **fields: Any) -> NewImagesTrigger:
    """Make a trigger that waits for the images of a table."""
    source = SqlImages(conn_id, table="products")
    made = NewImagesTrigger(images=source, store=SqlLabelStore(conn_id), **fields)
    made.task_instance = SimpleNamespace(task_id="wait")  # type: ignore[assignment]
    return made


def looking(source: Any, store: Any = None) -> QueryThread:
    """Ask for images."""
    question = parse_wait_condition(
        source=source,
        store=store,
        imagetag_conn_id="imagetag_default",
        retag="changed",
        modified_after="2026-07-01",
        settle_seconds=0,
        min_images=1,
        max_images=10,
    )
    return QueryThread(question)


class Forgetful:
    """Asset state that holds nothing."""

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return nothing."""

    async def aset(self, key: str, value: Any) -> None:
        """Keep nothing."""


async def status_of(waiting: NewImagesTrigger) -> list[str]:
    """Return how it ends."""
    return [parse_event(event.payload).status async for event in waiting.run()]


def test_a_database_that_hangs_keeps_only_its_own_triggers_waiting(
    silent: SilentServer, products: Database
):
    """Those of other connections find their images at once; threads are bounded."""
    add(products, "a")

    async def main() -> list[list[str]]:
        hung = [asyncio.create_task(status_of(trigger(HUNG))) for _ in range(3 * THREADS)]
        await asyncio.to_thread(until, lambda: len(silent.accepted) >= THREADS)
        assert len(looks()) == THREADS
        found = await asyncio.wait_for(
            asyncio.gather(*(status_of(trigger("warehouse")) for _ in range(20))), 60
        )
        assert not any(task.done() for task in hung)
        for task in hung:
            task.cancel()
        await asyncio.gather(*hung, return_exceptions=True)
        return found

    assert asyncio.run(main()) == [["success"]] * 20


def test_a_look_that_hangs_is_given_up(
    silent: SilentServer,
    products: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
):
    """The log says so, and the next look finds what a new connection shows."""
    add(products, "a")
    monkeypatch.setattr(triggers, "LOOK_SECONDS", 2.0)

    async def main() -> list[str]:
        waiting = asyncio.create_task(status_of(trigger(HUNG, poke_interval=0.01)))
        await asyncio.to_thread(until, lambda: bool(silent.accepted))
        # The database is back, at another address.
        monkeypatch.setenv("AIRFLOW_CONN_SILENT", products.connection_json)
        monkeypatch.setattr(triggers, "LOOK_SECONDS", 60.0)
        return await asyncio.wait_for(waiting, 60)

    caplog.set_level(logging.WARNING)
    assert asyncio.run(main()) == ["success"]
    # Airflow 3 prints it.
    logged = caplog.text + capsys.readouterr().out
    assert re.search(f"Cannot look .*{HUNG}.* has not ended within", logged)


def test_a_watcher_gives_up_a_look_that_hangs(
    silent: SilentServer, products: Database, monkeypatch: pytest.MonkeyPatch
):
    """As the trigger of a task does."""
    add(products, "a")
    monkeypatch.setattr(triggers, "LOOK_SECONDS", 2.0)

    async def main() -> list[str]:
        watcher = trigger(HUNG, poke_interval=0.01)
        watcher.task_instance = None  # type: ignore[assignment]
        watcher.asset_state_store = Forgetful()  # type: ignore[assignment]
        waiting = asyncio.create_task(status_of(watcher))
        await asyncio.to_thread(until, lambda: bool(silent.accepted))
        monkeypatch.setenv("AIRFLOW_CONN_SILENT", products.connection_json)
        monkeypatch.setattr(triggers, "LOOK_SECONDS", 60.0)
        return await asyncio.wait_for(waiting, 60)

    assert asyncio.run(main()) == ["success"]


def test_a_trigger_leaves_few_looks_behind(silent: SilentServer):
    """While they hang no other one is begun; when they have ended, one is."""

    async def main() -> None:
        waiting = looking(SqlImages(HUNG, table="products", version="changed"))

        def look(lookout: NewImagesQuery) -> Any:
            return lookout.ask(list, datetime.now(UTC))

        for count in range(1, MAX_HANGING + 1):
            with pytest.raises(StorageError, match="not ended within"):
                await waiting.ask(look, seconds=0.3)
            assert len(looks()) == count
        with pytest.raises(StorageError, match=f"{MAX_HANGING} looks were given up"):
            await waiting.ask(look, seconds=0.3)
        assert len(looks()) == MAX_HANGING
        await asyncio.to_thread(until, lambda: len(silent.accepted) == MAX_HANGING)
        silent.hang_up()
        await asyncio.to_thread(until, lambda: not looks())
        with pytest.raises(StorageError, match="not ended within"):
            await waiting.ask(look, seconds=0.3)

    asyncio.run(main())


def test_who_waits_for_a_turn_gives_up_as_well(silent: SilentServer):
    """It leaves nothing behind: its look was not begun."""

    async def main() -> None:
        source = SqlImages(HUNG, table="products", version="changed")
        others = [looking(source) for _ in range(THREADS)]
        release = threading.Event()
        busy = [
            asyncio.create_task(one.ask(lambda _: release.wait(), seconds=60)) for one in others
        ]
        await asyncio.to_thread(until, lambda: len(looks()) == THREADS)
        late = looking(source)
        for _ in range(MAX_HANGING + 1):
            with pytest.raises(StorageError, match="not ended within"):
                await late.ask(lambda _: None, seconds=0.05)
        release.set()
        await asyncio.gather(*busy)
        assert await late.ask(lambda _: "looked", seconds=5) == "looked"

    asyncio.run(main())


def test_an_error_of_a_look_is_its_own():
    """A time-out that a look meets itself is not the one that ends it."""

    def fail(_: NewImagesQuery) -> None:
        raise TimeoutError("the driver's own")

    async def main() -> None:
        with pytest.raises(TimeoutError, match="own"):
            await looking(SqlImages("warehouse", table="x", version="v")).ask(fail, seconds=60)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("source", "store", "is_same"),
    [
        (SqlImages("one", table="b"), SqlLabelStore("one", "y"), True),
        (SqlImages("two", table="a"), SqlLabelStore("one"), False),
        (SqlImages("one", table="a"), SqlLabelStore("two"), False),
        (ObjectStorageImages("s3://one@a/b"), SqlLabelStore("one"), False),
        (SqlImages("one", table="a"), ParquetLabelStore("s3://one@a/"), False),
    ],
)
def test_places(source: Any, store: Any, is_same: bool):
    """Tables of one database take turns; another database or bucket is another place."""

    async def main() -> bool:
        first = looking(SqlImages("one", table="a"), SqlLabelStore("one"))
        return looking(source, store)._slots is first._slots

    assert asyncio.run(main()) is is_same


WAITS = """
import asyncio
from types import SimpleNamespace
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.triggers import imagetag

async def main():
    waiting = imagetag.NewImagesTrigger(
        images=SqlImages("silent", table="a"),
        store=SqlLabelStore("silent"),
        deadline="2026-07-01T12:00:00+00:00",
    )
    waiting.task_instance = SimpleNamespace(task_id="wait")
    print("status", [event.payload["status"] async for event in waiting.run()])

imagetag.LAST_LOOK_SECONDS = 10.0
asyncio.run(main())
"""


def test_a_process_ends_while_a_look_hangs(silent: SilentServer):
    """Nobody waits for its thread."""
    done = subprocess.run(
        [sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "status ['timeout']" in done.stdout
    assert len(silent.accepted) == 1
