"""Queries in threads: one that hangs is given up, and delays no other place."""

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
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from conditions import condition
from databases import Database, add

from airflow_imagetag.errors import StorageError
from airflow_imagetag.sources import ObjectStorageImages, SqlImages
from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.triggers.imagetag import NewImagesTrigger
from airflow_imagetag.watching.events import parse_event
from airflow_imagetag.watching.polling import PollTuning
from airflow_imagetag.watching.query import NewImagesQuery
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
        """Stop accepting and close all connections."""
        # Closing alone does not wake the thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close all connections."""
        while self.accepted:
            self.accepted.pop().close()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentServer]:
    """Make such a server the connection ``silent``; its queries end with it."""
    server = SilentServer()
    fields = {"conn_type": "postgres", "host": "127.0.0.1", "port": server.port, "login": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_SILENT", json.dumps(fields))
    yield server
    server.close()
    until(lambda: not query_threads())


def until(is_true: Callable[[], bool]) -> None:
    """Wait until a function returns true."""
    deadline = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def query_threads() -> list[threading.Thread]:
    """Return the threads that run a query."""
    return [thread for thread in threading.enumerate() if thread.name == "new-images"]


def trigger(conn_id: str, *, query_seconds: float = 600.0, **fields: Any) -> NewImagesTrigger:
    """Make a trigger that waits for the images of a table."""

    class Tuned(NewImagesTrigger):
        tuning = PollTuning(query_seconds=query_seconds)

    source = SqlImages(conn_id, table="products")
    made = Tuned(images=source, store=SqlLabelStore(conn_id), **fields)
    made.task_instance = SimpleNamespace(task_id="wait")  # type: ignore[assignment]
    return made


def query_thread(source: Any, store: Any = None) -> QueryThread:
    """Make the thread of a trigger that waits for images of this month."""
    return QueryThread(condition(source, store, modified_after="2026-07-01"))


class EmptyState:
    """Asset state that keeps nothing."""

    async def aget(self, key: str, default: Any = None) -> Any:
        """Return nothing."""

    async def aset(self, key: str, value: Any) -> None:
        """Keep nothing."""


async def status_of(waiting: NewImagesTrigger) -> list[str]:
    """Return the status of each event that a trigger sends."""
    return [parse_event(event.payload).status async for event in waiting.run()]


def test_a_database_that_hangs_delays_only_its_own_triggers(
    silent: SilentServer, products: Database
):
    """Triggers of other connections find their images; the number of threads is bounded."""
    add(products, "a")

    async def main() -> list[list[str]]:
        hung = [asyncio.create_task(status_of(trigger(HUNG))) for _ in range(3 * THREADS)]
        await asyncio.to_thread(until, lambda: len(silent.accepted) >= THREADS)
        assert len(query_threads()) == THREADS
        found = await asyncio.wait_for(
            asyncio.gather(*(status_of(trigger("warehouse")) for _ in range(20))), 60
        )
        assert not any(task.done() for task in hung)
        for task in hung:
            task.cancel()
        await asyncio.gather(*hung, return_exceptions=True)
        return found

    assert asyncio.run(main()) == [["success"]] * 20


def test_a_query_that_hangs_is_given_up(
    silent: SilentServer,
    products: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
):
    """The log tells it, and the next query finds the images through a new connection."""
    add(products, "a")

    async def main() -> list[str]:
        hung = trigger(HUNG, query_seconds=2.0, poke_interval=0.01)
        waiting = asyncio.create_task(status_of(hung))
        await asyncio.to_thread(until, lambda: bool(silent.accepted))
        # The database is back, at another address.
        monkeypatch.setenv("AIRFLOW_CONN_SILENT", products.connection_json)
        return await asyncio.wait_for(waiting, 60)

    caplog.set_level(logging.WARNING)
    assert asyncio.run(main()) == ["success"]
    # Airflow 3 prints it.
    logged = caplog.text + capsys.readouterr().out
    assert re.search(f"Cannot query .*{HUNG}.* has not ended within", logged)


def test_a_watcher_gives_up_a_query_that_hangs(
    silent: SilentServer, products: Database, monkeypatch: pytest.MonkeyPatch
):
    """It does as the trigger of a task."""
    add(products, "a")

    async def main() -> list[str]:
        watcher = trigger(HUNG, query_seconds=2.0, poke_interval=0.01)
        watcher.task_instance = None
        watcher.asset_state_store = EmptyState()  # type: ignore[assignment]
        waiting = asyncio.create_task(status_of(watcher))
        await asyncio.to_thread(until, lambda: bool(silent.accepted))
        monkeypatch.setenv("AIRFLOW_CONN_SILENT", products.connection_json)
        return await asyncio.wait_for(waiting, 60)

    assert asyncio.run(main()) == ["success"]


def test_a_trigger_leaves_few_hanging_queries_behind(silent: SilentServer):
    """While they hang, no other query is started; when they have ended, one is."""

    async def main() -> None:
        thread = query_thread(SqlImages(HUNG, table="products", version="changed"))

        def read(query: NewImagesQuery) -> Any:
            return query.read(list, datetime.now(UTC))

        for count in range(1, MAX_HANGING + 1):
            with pytest.raises(StorageError, match="not ended within"):
                await thread.ask(read, seconds=0.3)
            assert len(query_threads()) == count
        with pytest.raises(StorageError, match=f"{MAX_HANGING} queries were given up"):
            await thread.ask(read, seconds=0.3)
        assert len(query_threads()) == MAX_HANGING
        await asyncio.to_thread(until, lambda: len(silent.accepted) == MAX_HANGING)
        silent.hang_up()
        await asyncio.to_thread(until, lambda: not query_threads())
        with pytest.raises(StorageError, match="not ended within"):
            await thread.ask(read, seconds=0.3)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def all_threads_busy(source: Any, store: Any = None) -> AsyncIterator[None]:
    """Run as many queries of a place as may run at a time."""
    release = threading.Event()
    busy = [
        asyncio.create_task(query_thread(source, store).ask(lambda _: release.wait(), seconds=600))
        for _ in range(THREADS)
    ]
    await asyncio.to_thread(until, lambda: len(query_threads()) == THREADS)
    yield
    release.set()
    await asyncio.gather(*busy)


def test_a_query_that_waits_for_a_thread_is_given_up(silent: SilentServer):
    """It was not started, so it leaves nothing behind."""

    async def main() -> None:
        source = SqlImages(HUNG, table="products", version="changed")
        late = query_thread(source)
        async with all_threads_busy(source):
            for _ in range(MAX_HANGING + 1):
                with pytest.raises(StorageError, match="not ended within"):
                    await late.ask(lambda _: None, seconds=0.05)
        assert await late.ask(lambda _: "done", seconds=60) == "done"

    asyncio.run(main())


def test_a_time_out_of_the_driver_is_not_the_querys():
    """The error of a query is raised as it is."""

    def fail(_: NewImagesQuery) -> None:
        raise TimeoutError("the driver's own")

    async def main() -> None:
        thread = query_thread(SqlImages("warehouse", table="x", version="v"))
        with pytest.raises(TimeoutError, match="own"):
            await thread.ask(fail, seconds=60)

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
    """Queries of one database share its threads; another database or bucket has its own."""

    async def main() -> None:
        other = query_thread(source, store)
        async with all_threads_busy(SqlImages("one", table="a"), SqlLabelStore("one")):
            if is_same:
                with pytest.raises(StorageError, match="not ended within"):
                    await other.ask(lambda _: None, seconds=0.05)
            else:
                assert await other.ask(lambda _: "done", seconds=60) == "done"

    asyncio.run(main())


WAITS = """
import asyncio
from types import SimpleNamespace
from airflow_imagetag.sources import SqlImages
from airflow_imagetag.stores import SqlLabelStore
from airflow_imagetag.triggers.imagetag import NewImagesTrigger
from airflow_imagetag.watching.polling import PollTuning

class Tuned(NewImagesTrigger):
    tuning = PollTuning(last_query_seconds=10.0)

async def main():
    waiting = Tuned(
        images=SqlImages("silent", table="a"),
        store=SqlLabelStore("silent"),
        deadline="2026-07-01T12:00:00+00:00",
    )
    waiting.task_instance = SimpleNamespace(task_id="wait")
    print("status", [event.payload["status"] async for event in waiting.run()])

asyncio.run(main())
"""


def test_a_process_ends_while_a_query_hangs(silent: SilentServer):
    """Its thread does not keep the process alive."""
    done = subprocess.run(
        [sys.executable, "-c", WAITS], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "status ['timeout']" in done.stdout
    assert len(silent.accepted) == 1
