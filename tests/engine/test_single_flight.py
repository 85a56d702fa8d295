"""The cache of answers for equal bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from airflow_imagetag.engine.answers.single_flight import SingleFlightCache
from airflow_imagetag.engine.protocols import CachedAnswer
from airflow_imagetag.errors import ImageDecodeError
from airflow_imagetag.models import TagResult

RESULT = TagResult("k", None, (), "picture_classify", datetime.now(UTC))


@contextlib.asynccontextmanager
async def held(
    cache: SingleFlightCache, digest: str, answer: CachedAnswer | None = None
) -> AsyncIterator[CachedAnswer | None]:
    """Claim a digest as the pipeline does; the value is its remembered answer.

    :param answer: is remembered at the end.
    """
    while not cache.claim(digest):
        await cache.wait(digest)
    try:
        yield cache.recall(digest)
    finally:
        cache.release(digest, answer)


def test_what_is_not_known():
    """At first nothing is known of a digest, and a failed attempt leaves it so."""

    async def main() -> None:
        known = SingleFlightCache()
        async with held(known, "a") as found:
            assert found is None
        with pytest.raises(KeyError):
            async with held(known, "a"):
                raise KeyError
        async with held(known, "a") as found:
            assert found is None

    asyncio.run(main())


@pytest.mark.parametrize("said", [RESULT, ImageDecodeError("x")], ids=["labels", "failure"])
def test_equal_images_wait_for_the_first(said):
    """One at a time holds a digest; the others get the answer that the first remembered."""

    async def main() -> None:
        known = SingleFlightCache()
        calls = 0

        async def one() -> object:
            nonlocal calls
            async with held(known, "a", said) as found:
                if found is None:
                    calls += 1
                    await asyncio.sleep(0.01)
                return found

        found = await asyncio.gather(*(one() for _ in range(10)))
        assert calls == 1
        assert found.count(None) == 1
        assert found.count(said) == 9

    asyncio.run(main())


def test_others_do_not_wait():
    """Different bytes are called at the same time."""

    async def main() -> None:
        known = SingleFlightCache()
        async with held(known, "a"), asyncio.timeout(1), held(known, "b") as found:
            assert found is None

    asyncio.run(main())


def test_memory_is_bounded():
    """The longest unused is forgotten first, and no lock is left behind."""

    async def main() -> None:
        known = SingleFlightCache(3)
        for digest in "abc":
            async with held(known, digest, RESULT):
                pass
        async with held(known, "a"):
            pass
        async with held(known, "d", RESULT):
            pass
        found = []
        for digest in "abcd":
            async with held(known, digest) as result:
                found.append(result is not None)
        assert found == [True, False, True, True]
        assert known._in_flight == {}
        assert len(known._answers) == 3

    asyncio.run(main())


def test_a_waiter_that_is_cancelled_leaves_no_lock():
    """Cancelling one that waits disturbs neither the holder nor the next."""

    async def main() -> None:
        known = SingleFlightCache()

        async def one() -> None:
            async with held(known, "a"):
                pass

        async with held(known, "a"):
            waiting = [asyncio.create_task(one()) for _ in range(2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            await asyncio.sleep(0)
        await asyncio.wait_for(waiting[1], 1)
        assert waiting[0].cancelled()
        assert known._in_flight == {}

    asyncio.run(main())
