"""The calls that a run may make are never exceeded, and all of them are used."""

from __future__ import annotations

import asyncio
import random

import pytest

from airflow_imagetag.engine.flow.call_allowance import CallAllowance


class Bank:
    """Grants calls up to a limit.

    :param limit: number of calls.
    :param share: at most this part of those that are left at once; 1 for all.
    """

    def __init__(self, limit: int, share: int = 1) -> None:
        self.left = limit
        self.share = share
        self.questions = 0

    async def ask(self, wanted: int) -> int:
        """Grant some calls."""
        self.questions += 1
        await asyncio.sleep(0)
        granted = min(wanted, max(1, self.left // self.share), self.left)
        self.left -= granted
        return granted


def spent(limit: int, *, refused: float = 0.0, share: int = 8, calls: int = 1) -> tuple[int, int]:
    """Let 20 workers call until none is left; return the calls that were billed and refused."""
    billed = refusals = 0
    chance = random.Random(7)

    async def main() -> None:
        allowance = CallAllowance(Bank(limit, share).ask, asyncio.Event())

        async def work() -> None:
            nonlocal billed, refusals
            while await allowance.take(calls):
                await asyncio.sleep(0)
                is_billed = chance.random() >= refused
                billed += calls * is_billed
                refusals += calls * (not is_billed)
                assert billed <= limit
                allowance.settle(calls, is_billed=is_billed)

        await asyncio.gather(*(work() for _ in range(20)))

    asyncio.run(main())
    return billed, refusals


@pytest.mark.parametrize("limit", [0, 1, 63, 500, 5_000])
def test_all_calls_are_used_and_no_more(limit: int):
    """However many workers take them, in portions."""
    assert spent(limit) == (limit, 0)


def test_refused_calls_are_made_again():
    """The service bills none, so as many are billed as are allowed."""
    billed, refusals = spent(500, refused=0.5)
    assert billed == 500
    assert refusals > 100


def test_an_image_of_several_calls_takes_them_together():
    """A rest that is too small for one image is left."""
    assert spent(500, calls=3) == (498, 0)


def test_a_fast_run_asks_seldom():
    """Each portion is twice as large as the last while they are used up quickly."""

    async def main() -> int:
        bank = Bank(100_000)
        allowance = CallAllowance(bank.ask, asyncio.Event())
        for _ in range(100_000):
            assert await allowance.take(1)
            allowance.settle(1, is_billed=True)
        return bank.questions

    assert asyncio.run(main()) < 20


def test_an_error_of_the_question_is_raised_where_a_call_is_taken():
    """Not before: the calls that were granted are used."""

    async def main() -> None:
        answers = iter([10])

        async def ask(wanted: int) -> int:
            found = next(answers, None)
            if found is None:
                raise ValueError("the store failed")
            return found

        allowance = CallAllowance(ask, asyncio.Event())
        for _ in range(10):
            assert await allowance.take(1)
        with pytest.raises(ValueError, match="the store failed"):
            await allowance.take(1)

    asyncio.run(main())


def test_a_run_that_ends_waits_for_no_answer():
    """The stop event lets each worker go on."""

    async def main() -> None:
        stopping = asyncio.Event()

        async def ask(wanted: int) -> int:
            await asyncio.sleep(3600)
            return wanted

        allowance = CallAllowance(ask, stopping)
        taking = asyncio.create_task(allowance.take(1))
        await asyncio.sleep(0)
        stopping.set()
        assert await taking

    asyncio.run(main())
