"""The feed: what a thread reads goes to whoever asks, once each, and no more than fits."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_imagetag.engine.prefetcher import MAX_WAITING_BYTES, READ_CHUNK, Prefetcher
from airflow_imagetag.engine.protocols import Counts
from airflow_imagetag.models import Entry, Image
from airflow_imagetag.services.messages import Payload


def images(count: int) -> list[Image]:
    """Return so many images with numbers as keys."""
    return [Image(str(number), f"https://h/{number}.jpg") for number in range(count)]


def endless() -> Iterator[Image]:
    """Give images without an end."""
    return (Image(str(number), "https://h/a.jpg") for number in itertools.count())


def a_chunk_and_then(goes_on: threading.Event, chunks: int = 1) -> Iterator[Image]:
    """Give as many images as the thread hands over together, and hang until told."""
    yield from images(chunks * READ_CHUNK)
    goes_on.wait(10)


class Fixture:
    """A feed with its counts, and those who read it and take from it."""

    def __init__(
        self,
        entries: Iterable[Entry],
        threads: ThreadPoolExecutor,
        *,
        max_waiting: int = 64,
        kind: type[Prefetcher] = Prefetcher,
    ) -> None:
        self.counts = Counts()
        self.stopping = asyncio.Event()
        self.feed = kind(
            iter(entries), Labeller(), threads, self.counts, self.stopping, max_waiting=max_waiting
        )
        self.taken: list[str] = []

    def read(self) -> asyncio.Task[None]:
        return asyncio.create_task(self.feed.read())

    async def take_all(self, busy_seconds: float = 0) -> None:
        while (fed := await self.feed.take()) is not None:
            self.taken.append(fed[0].key)
            await asyncio.sleep(busy_seconds)

    async def take_one(self) -> None:
        if (fed := await self.feed.take()) is not None:
            self.taken.append(fed[0].key)


class Labeller:
    """Has nothing to do."""

    def is_quick(self, image: Image) -> bool:
        return image.content is None

    def load(self, image: Image) -> Payload:
        return Payload(url=image.uri)


def run(scene: Callable[[ThreadPoolExecutor], Awaitable[Any]]) -> None:
    """Play a scene; one that hangs, or leaves its thread at work, fails."""
    threads = ThreadPoolExecutor(1)

    async def main() -> None:
        async with asyncio.timeout(20):
            await scene(threads)

    asyncio.run(main())
    threads.shutdown(wait=False)
    deadline = time.monotonic() + 5
    while any(thread.is_alive() for thread in threads._threads):
        assert time.monotonic() < deadline, "the thread still reads"
        time.sleep(0.01)


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("max_waiting", [1, 5, READ_CHUNK, 64])
@pytest.mark.parametrize("count", [0, 1, READ_CHUNK, READ_CHUNK + 1, 1000])
def test_one_taker_gets_the_source_in_order(count, max_waiting):
    """Whatever fits into a chunk or into what may wait."""

    async def scene(threads: ThreadPoolExecutor) -> None:
        fixture = Fixture(images(count), threads, max_waiting=max_waiting)
        await asyncio.gather(fixture.read(), fixture.take_all())
        assert fixture.taken == [image.key for image in images(count)]
        assert fixture.counts.seen == count
        assert fixture.feed.is_exhausted
        assert await fixture.feed.take() is None

    run(scene)


@pytest.mark.parametrize("takers", [2, 50, 200])
def test_many_takers_get_every_entry_once(takers):
    """However many they are, none is left waiting at the end."""

    async def scene(threads: ThreadPoolExecutor) -> None:
        fixture = Fixture(images(5000), threads)
        waiting = [fixture.take_all(number % 3 / 5000) for number in range(takers)]
        await asyncio.gather(fixture.read(), *waiting)
        assert sorted(fixture.taken, key=int) == [image.key for image in images(5000)]
        assert fixture.counts.seen == 5000

    run(scene)


@pytest.mark.parametrize("max_waiting", [1, 8, 64])
def test_no_more_is_read_than_may_wait(max_waiting):
    """The thread pauses with less than a chunk too many, and goes on when half of it is taken."""

    async def scene(threads: ThreadPoolExecutor) -> None:
        fixture = Fixture(endless(), threads, max_waiting=max_waiting)
        reader = fixture.read()
        for taken in (0, 200):
            for _ in range(taken):
                await fixture.take_one()
            await until(lambda taken=taken: fixture.counts.seen > taken + max_waiting // 2)
            await asyncio.sleep(0.05)
            assert fixture.counts.seen < taken + max_waiting + READ_CHUNK
        fixture.stopping.set()
        reader.cancel()

    run(scene)


def test_no_more_bytes_are_read_than_may_wait():
    """Large images wait in smaller numbers, and all of them arrive."""
    large = MAX_WAITING_BYTES // 4

    async def scene(threads: ThreadPoolExecutor) -> None:
        source = [Image(str(number), content=bytes(large)) for number in range(20)]
        fixture = Fixture(source, threads)
        reader = fixture.read()
        await until(lambda: fixture.counts.seen >= 4)
        await asyncio.sleep(0.05)
        assert fixture.counts.seen == 4
        await fixture.take_all()
        await reader
        assert len(fixture.taken) == 20

    run(scene)


def test_whoever_waits_gets_what_comes_while_others_are_woken():
    """The thread may add entries at any step of the loop, and nobody idles beside them."""

    class HeldUp(Prefetcher):
        def _wake(self, count: int) -> None:
            super()._wake(count)
            time.sleep(0.05)

    goes_on = threading.Event()

    async def scene(threads: ThreadPoolExecutor) -> None:
        fixture = Fixture(
            a_chunk_and_then(goes_on, chunks=2), threads, max_waiting=4 * READ_CHUNK, kind=HeldUp
        )
        takers = [asyncio.create_task(fixture.take_one()) for _ in range(2 * READ_CHUNK)]
        await asyncio.sleep(0)
        reader = fixture.read()
        try:
            await asyncio.wait_for(asyncio.gather(*takers), 5)
        finally:
            goes_on.set()
        await reader

    run(scene)


@pytest.mark.parametrize("is_woken", [False, True])
def test_a_taker_that_is_cancelled_takes_nothing_along(is_woken):
    """Its entry goes to the next, also where it was woken for it already."""

    class Cancels(Prefetcher):
        def _wake(self, count: int) -> None:
            if is_woken:
                super()._wake(count)
            takers[0].cancel()
            if not is_woken:
                super()._wake(count)

    goes_on = threading.Event()
    takers: list[asyncio.Task[None]] = []

    async def scene(threads: ThreadPoolExecutor) -> None:
        fixture = Fixture(a_chunk_and_then(goes_on), threads, kind=Cancels)
        takers.extend(asyncio.create_task(fixture.take_one()) for _ in range(READ_CHUNK + 1))
        await asyncio.sleep(0)
        reader = fixture.read()
        try:
            await asyncio.wait_for(asyncio.gather(*takers[1:]), 5)
        finally:
            goes_on.set()
        await reader
        assert takers[0].cancelled()
        assert len(set(fixture.taken)) == READ_CHUNK

    run(scene)


@pytest.mark.parametrize("given", [0, 5, READ_CHUNK, READ_CHUNK + 5])
def test_a_source_that_raises(given):
    """Its error reaches the reader, and whoever waits is told that nothing more comes."""

    def entries() -> Iterator[Image]:
        yield from images(given)
        raise OSError("gone")

    async def scene(threads: ThreadPoolExecutor) -> None:
        fixture = Fixture(entries(), threads)
        takers = [asyncio.create_task(fixture.take_all()) for _ in range(3)]
        with pytest.raises(OSError, match="gone"):
            await fixture.read()
        await asyncio.gather(*takers)
        assert len(fixture.taken) == fixture.counts.seen <= given
        assert fixture.feed.is_exhausted

    run(scene)


def test_the_end_while_takers_wait():
    """All of them are told, those as well who get no entry."""

    async def scene(threads: ThreadPoolExecutor) -> None:
        fixture = Fixture(images(1), threads)
        takers = [asyncio.create_task(fixture.feed.take()) for _ in range(5)]
        await asyncio.sleep(0)
        await fixture.read()
        taken = await asyncio.gather(*takers)
        assert sum(fed is not None for fed in taken) == 1

    run(scene)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_stopping_while_the_thread_pauses(is_cancelled):
    """Nothing more is read, and the thread ends: when what is at hand is taken, or at once."""
    source = endless()

    async def scene(threads: ThreadPoolExecutor) -> None:
        fixture = Fixture(source, threads, max_waiting=READ_CHUNK)
        reader = fixture.read()
        await until(lambda: fixture.counts.seen == READ_CHUNK)
        await asyncio.sleep(0.05)
        fixture.stopping.set()
        if is_cancelled:
            reader.cancel()
            await asyncio.wait([reader])
            assert fixture.feed.drop() == READ_CHUNK
        else:
            await fixture.take_all()
            await reader
        assert fixture.feed.is_exhausted
        assert fixture.counts.seen == READ_CHUNK

    run(scene)
    assert next(source).key == str(READ_CHUNK)
