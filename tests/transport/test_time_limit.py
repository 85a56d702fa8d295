"""One time limit for many tasks."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_imagetag.transport.time_limit import TimeLimit


async def inside(limit: TimeLimit, seconds: float) -> str:
    """Stay for this long and return the outcome."""
    try:
        with limit:
            await asyncio.sleep(seconds)
    except TimeoutError:
        return "late"
    return "in time"


def test_each_task_has_the_whole_time():
    """Each task over the limit ends, in any order of beginning; the others go on."""

    async def main() -> list[str]:
        limit = TimeLimit(0.2)
        first = [asyncio.create_task(inside(limit, seconds)) for seconds in (0.05, 5, 0.1, 5)]
        await asyncio.sleep(0.1)
        second = [asyncio.create_task(inside(limit, seconds)) for seconds in (5, 0.15)]
        return await asyncio.gather(*first, *second)

    begun = asyncio.run(asyncio.wait_for(main(), 3))
    assert begun == ["in time", "late", "in time", "late", "late", "in time"]


def test_a_task_may_be_inside_again():
    """The time begins anew, also after it was over once; it works on after a pause."""

    async def main() -> list[str]:
        limit = TimeLimit(0.1)
        stays = [await inside(limit, seconds) for seconds in (0.06, 0.06, 5, 0.06)]
        await asyncio.sleep(0.15)
        return [*stays, await inside(limit, 5)]

    assert asyncio.run(main()) == ["in time", "in time", "late", "in time", "late"]


def test_a_cancellation_by_another_stays_one():
    """Only the limit's own end is a timeout."""

    async def main() -> None:
        limit = TimeLimit(5)
        task = asyncio.create_task(inside(limit, 5))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_cancellation_beside_the_limit_goes_first():
    """A task that is cancelled in the moment its time is over ends as cancelled."""

    async def main() -> None:
        limit = TimeLimit(0.01)
        task = asyncio.create_task(inside(limit, 5))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        # Both are due in one turn of the loop.
        time.sleep(0.02)  # noqa: ASYNC251 (the loop is to be late)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_errors_pass():
    """An error that is raised inside comes out as it is."""

    async def main() -> None:
        with TimeLimit(5):
            raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(main())
