"""The prefetcher: every entry reaches one worker, and no more is read than the bounds allow."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any

import pytest

from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.flow.bytes_in_flight import BytesInFlight
from airflow_imagetag.engine.prefetcher import PrefetchConfig, Prefetcher
from airflow_imagetag.labellers.base import Prepared
from airflow_imagetag.models import Entry, Image, SkippedImage
from airflow_imagetag.runtime.threads import DaemonExecutor
from airflow_imagetag.services.messages import Payload

CHUNK = 16
SLOW = PrefetchConfig(max_entries=CHUNK, max_seconds=60)
EXECUTORS = pytest.mark.parametrize("is_inline", [False, True], ids=["thread", "inline"])


def images(count: int) -> list[Image]:
    """Return images with numbers as keys."""
    return [Image(str(number), f"https://h/{number}.jpg") for number in range(count)]


def endless() -> Iterator[Image]:
    """Yield images without an end."""
    return (Image(str(number), "https://h/a.jpg") for number in itertools.count())


class Fixture:
    """A prefetcher with its counts and errors, and the keys that were taken from it."""

    def __init__(
        self,
        entries: Iterable[Entry],
        executor: Executor | None,
        config: PrefetchConfig = SLOW,
        prepare_ahead: Callable[[Image], Prepared | None] = lambda image: None,
        expected_bytes: Callable[[Image], int] = lambda image: 0,
        max_bytes: int = 1_000_000,
    ) -> None:
        self.in_flight = BytesInFlight(max_bytes)
        self.counts = Counts()
        self.stopping = asyncio.Event()
        self.errors: list[Exception] = []
        self.prefetcher = Prefetcher(
            iter(entries),
            executor,
            self.counts,
            self.stopping,
            self.errors.append,
            prepare_ahead=prepare_ahead,
            expected_bytes=expected_bytes,
            in_flight=self.in_flight,
            config=config,
        )
        self.taken: list[str] = []

    async def take_all(self, busy_seconds: float = 0) -> None:
        while (taken := await self.prefetcher.take()) is not None:
            self.taken.append(taken.entry.key)
            await asyncio.sleep(busy_seconds)

    async def take_one(self) -> None:
        if (taken := await self.prefetcher.take()) is not None:
            self.taken.append(taken.entry.key)


def run(scene: Callable[[Executor | None], Awaitable[Any]], *, is_inline: bool = False) -> None:
    """Play a scene; a scene that hangs fails."""
    executor = None if is_inline else DaemonExecutor(1, "test-read")

    async def main() -> None:
        async with asyncio.timeout(20):
            await scene(executor)

    try:
        asyncio.run(main())
    finally:
        if executor is not None:
            executor.shutdown(wait=False)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 (threads change it)
            await asyncio.sleep(0.005)


@EXECUTORS
@pytest.mark.parametrize("max_entries", [1, 5, CHUNK, 64])
@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1, 1000])
def test_one_worker_gets_the_source_in_order(count, max_entries, is_inline):
    """For any number of entries, and any size of a chunk."""

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture(images(count), executor, PrefetchConfig(max_entries=max_entries))
        await fixture.take_all()
        assert fixture.taken == [image.key for image in images(count)]
        assert fixture.counts.seen == count
        assert fixture.prefetcher.is_exhausted
        assert await fixture.prefetcher.take() is None
        assert fixture.prefetcher.drop() == 0

    run(scene, is_inline=is_inline)


@EXECUTORS
@pytest.mark.parametrize("workers", [2, 50, 200])
def test_many_workers_get_every_entry_once(workers, is_inline):
    """No worker is left waiting at the end."""

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture(images(5000), executor)
        await asyncio.gather(*(fixture.take_all(number % 3 / 5000) for number in range(workers)))
        assert sorted(fixture.taken, key=int) == [image.key for image in images(5000)]
        assert fixture.counts.seen == 5000

    run(scene, is_inline=is_inline)


@pytest.mark.parametrize("max_entries", [1, 8, 64])
def test_at_most_two_chunks_are_read_ahead(max_entries):
    """However long the workers take."""

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture(endless(), executor, PrefetchConfig(max_entries=max_entries))
        for _ in range(200):
            await fixture.take_one()
            await asyncio.sleep(0)
            assert fixture.counts.seen <= len(fixture.taken) + 2 * max_entries

    run(scene)


def test_large_images_make_small_chunks():
    """A chunk ends at its bound of bytes, and all images arrive."""
    config = PrefetchConfig(max_entries=CHUNK, max_bytes=1000, max_seconds=60)
    source = [Image(str(number), content=bytes(400)) for number in range(20)]

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture(source, executor, config)
        await fixture.take_one()
        await until(lambda: fixture.counts.seen >= 3)
        assert fixture.counts.seen == 3
        await fixture.take_all()
        assert len(fixture.taken) == 20

    run(scene)


def test_a_slow_source_delays_no_entry_that_it_has_given():
    """A chunk ends when its time is over, although it is not full."""
    goes_on = threading.Event()

    def entries() -> Iterator[Image]:
        yield from images(3)
        goes_on.wait(10)
        yield from images(5)[3:]

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture(entries(), executor, PrefetchConfig(max_entries=CHUNK, max_seconds=0))
        try:
            for _ in range(3):
                await fixture.take_one()
            assert fixture.taken == ["0", "1", "2"]
        finally:
            goes_on.set()
        await fixture.take_all()
        assert len(fixture.taken) == 5

    run(scene)


@EXECUTORS
def test_a_worker_that_is_cancelled_takes_no_entry_along(is_inline):
    """Its entry goes to another worker, and the reading goes on."""

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture(images(10), executor)
        first = asyncio.create_task(fixture.take_one())
        await asyncio.sleep(0)
        first.cancel()
        await fixture.take_all()
        await asyncio.wait((first,))
        assert sorted(fixture.taken, key=int) == [str(number) for number in range(10)]

    run(scene, is_inline=is_inline)


@EXECUTORS
@pytest.mark.parametrize("given", [0, 5, CHUNK, CHUNK + 5])
@pytest.mark.parametrize("kind", [OSError, asyncio.CancelledError, SystemExit])
def test_an_error_of_the_source_ends_it(kind, given, is_inline):
    """The error is reported once, and no worker waits any longer."""

    def entries() -> Iterator[Image]:
        yield from images(given)
        raise kind("gone")

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture(entries(), executor)
        await asyncio.gather(*(fixture.take_all() for _ in range(3)))
        [error] = fixture.errors
        assert isinstance(error, OSError if kind is OSError else RuntimeError)
        assert "gone" in str(error)
        assert len(fixture.taken) == fixture.counts.seen <= given
        assert fixture.prefetcher.is_exhausted

    run(scene, is_inline=is_inline)


def test_the_end_while_workers_wait():
    """All of them are woken, also those that get no entry."""

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture(images(1), executor)
        taken = await asyncio.gather(*(fixture.prefetcher.take() for _ in range(5)))
        assert sum(one is not None for one in taken) == 1

    run(scene)


@EXECUTORS
def test_a_stop_before_the_first_entry(is_inline):
    """Nothing is read."""

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture(endless(), executor)
        fixture.stopping.set()
        assert await fixture.prefetcher.take() is None
        assert fixture.counts.seen == 0

    run(scene, is_inline=is_inline)


def test_dropped_entries_are_counted():
    """After a stop, the entries at hand are dropped, and a chunk that comes later is not seen."""
    goes_on = threading.Event()

    def entries() -> Iterator[Image]:
        yield from images(CHUNK)
        goes_on.wait(10)
        yield from images(CHUNK)

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture(entries(), executor)
        await fixture.take_one()
        for _ in range(CHUNK // 2):
            await fixture.take_one()
        fixture.stopping.set()
        left = CHUNK - len(fixture.taken)
        assert fixture.prefetcher.drop() == left
        goes_on.set()
        await asyncio.sleep(0.05)
        assert fixture.prefetcher.is_exhausted
        assert fixture.counts.seen == CHUNK

    run(scene)


@EXECUTORS
def test_entries_without_work_let_the_loop_run(is_inline):
    """A million of them, and a stop takes effect soon."""

    async def scene(executor: Executor | None) -> None:
        entries = (SkippedImage(str(number)) for number in range(1_000_000))
        fixture = Fixture(entries, executor)
        asyncio.get_running_loop().call_later(0.01, fixture.stopping.set)
        while not fixture.stopping.is_set() and await fixture.prefetcher.take() is not None:
            pass
        assert 0 < fixture.counts.seen < 1_000_000

    run(scene, is_inline=is_inline)


def test_bytes_are_prepared_where_they_are_read():
    """An image with its bytes is prepared in the reading thread; a URL is left to the worker."""
    threads: set[str] = set()

    def prepare_ahead(image: Image) -> Prepared:
        threads.add(threading.current_thread().name)
        return Prepared(image, Payload(content=image.content))

    async def scene(executor: Executor | None) -> None:
        source = [Image("a", content=b"x"), Image("b", "https://h/b.jpg")]
        fixture = Fixture(source, executor, prepare_ahead=prepare_ahead)
        first, second = await fixture.prefetcher.take(), await fixture.prefetcher.take()
        assert first is not None
        assert first.prepared is not None
        assert first.prepared.payload.content == b"x"
        assert second is not None
        assert second.prepared is None
        assert threads == {"test-read"}

    run(scene)


@EXECUTORS
@pytest.mark.parametrize("in_memory", [True, False], ids=["bytes", "loaded"])
def test_large_images_wait_for_those_in_flight(in_memory, is_inline):
    """With ten workers and room for three images, no more than three are taken at a time."""

    async def scene(executor: Executor | None) -> None:
        content = b"x" * 100 if in_memory else None
        entries = [Image(str(number), "s3://b/k", content=content) for number in range(40)]
        fixture = Fixture(entries, executor, expected_bytes=lambda image: 100, max_bytes=250)
        held = most = 0

        async def work() -> None:
            nonlocal held, most
            while (taken := await fixture.prefetcher.take()) is not None:
                assert taken.size_bytes == 100
                held += 1
                most = max(most, held)
                await asyncio.sleep(0.001)
                fixture.taken.append(taken.entry.key)
                held -= 1
                fixture.in_flight.release(taken.size_bytes)

        await asyncio.gather(*(work() for _ in range(10)))
        assert most == 3
        assert fixture.taken == [image.key for image in entries]

    run(scene, is_inline=is_inline)


def test_an_image_over_the_whole_limit_is_taken_alone():
    """It never fits, and must not wait for ever; nor must the rest of a run that is stopped."""

    async def scene(executor: Executor | None) -> None:
        fixture = Fixture([Image("a", content=b"x" * 9), *images(5)], executor, max_bytes=5)
        taken = await fixture.prefetcher.take()
        assert taken is not None
        assert fixture.in_flight.is_full
        waiting = asyncio.create_task(fixture.prefetcher.take())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        fixture.stopping.set()
        fixture.in_flight.release(taken.size_bytes)
        assert await waiting is None

    run(scene)
