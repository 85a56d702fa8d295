"""A source in memory: each entry once, at once, and never at the cost of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from airflow_imagetag.engine.direct import ENTRIES_IN_A_ROW, DirectFeed
from airflow_imagetag.engine.protocols import Counts
from airflow_imagetag.models import Entry, Image, SkippedImage


def images(count: int) -> Iterator[Entry]:
    """Return so many images, named by their numbers."""
    return (Image(str(number), content=b"x") for number in range(count))


class Fixture:
    """A feed, what was taken from it, and the event that stops it."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self.counts = Counts()
        self.stopping = asyncio.Event()
        self.feed = DirectFeed(entries, self.counts, self.stopping)
        self.taken: list[str] = []
        self.reading = asyncio.create_task(self.feed.read())

    async def take_all(self) -> None:
        while (fed := await self.feed.take()) is not None:
            assert fed[1] is None
            self.taken.append(fed[0].key)


def run(scene: Callable[[], Awaitable[Any]]) -> None:
    """Play a scene; one that hangs fails."""

    async def main() -> None:
        async with asyncio.timeout(20):
            await scene()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.sleep(0)
        assert all(task.done() for task in left)

    asyncio.run(main())


@pytest.mark.parametrize("takers", [1, 3, 200])
@pytest.mark.parametrize("count", [0, 1, ENTRIES_IN_A_ROW, 1000])
def test_every_entry_once_and_in_order(count, takers):
    """However many take them."""

    async def scene() -> None:
        fixture = Fixture(images(count))
        await asyncio.gather(*(fixture.take_all() for _ in range(takers)))
        await fixture.reading
        assert fixture.taken == [str(number) for number in range(count)]
        assert fixture.counts.seen == count
        assert fixture.feed.is_exhausted
        assert await fixture.feed.take() is None
        assert fixture.feed.drop() == 0

    run(scene)


@pytest.mark.parametrize("kind", [OSError, asyncio.CancelledError, SystemExit])
def test_an_error_of_the_source_ends_it(kind):
    """What came before it counts, whoever waits for the end gets it, and nobody is left waiting."""

    def entries() -> Iterator[Entry]:
        yield from images(3)
        raise kind("no more")

    async def scene() -> None:
        fixture = Fixture(entries())
        await asyncio.gather(fixture.take_all(), fixture.take_all())
        with pytest.raises((OSError, RuntimeError), match="no more"):
            await fixture.reading
        assert len(fixture.taken) == 3
        assert fixture.feed.is_exhausted

    run(scene)


@pytest.mark.parametrize("is_early", [True, False])
def test_a_stop_ends_it_with_entries_left(is_early):
    """Before anything was taken or in between; what is left is not read."""

    async def scene() -> None:
        fixture = Fixture(images(1_000_000))
        if not is_early:
            await fixture.feed.take()
            await asyncio.sleep(0)
        fixture.stopping.set()
        await fixture.reading
        assert await fixture.feed.take() is None
        assert fixture.counts.seen == (0 if is_early else 1)

    run(scene)


def test_entries_without_work_do_not_hold_the_loop_up():
    """A million of them, and a stop is heard soon."""

    async def scene() -> None:
        fixture = Fixture(SkippedImage(str(number)) for number in range(1_000_000))
        asyncio.get_running_loop().call_later(0.01, fixture.stopping.set)
        await fixture.take_all()
        await fixture.reading
        assert 0 < fixture.counts.seen < 1_000_000

    run(scene)


def test_who_is_cancelled_takes_no_entry_along():
    """One that waits for its turn, and the reader."""

    async def scene() -> None:
        fixture = Fixture(images(10))
        taker = asyncio.create_task(fixture.feed.take())
        await asyncio.sleep(0)
        taker.cancel()
        await fixture.take_all()
        fixture.reading.cancel()
        await asyncio.wait((taker, fixture.reading))
        assert len(fixture.taken) + (not taker.cancelled()) == 10

    run(scene)
