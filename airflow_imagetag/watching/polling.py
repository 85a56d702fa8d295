"""The pauses, time limits and clock of a trigger's queries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from airflow_imagetag.adapters.numbers import SECONDS
from airflow_imagetag.watching.decisions import wait_seconds

QUERY_SECONDS = 1_800.0
"""Maximum time of a query; the listing of ten million objects takes less."""


def parse_seconds(name: str, value: float | timedelta) -> float:
    """Return the seconds of a parameter.

    :param name: names the parameter in the error message.
    :raises ConfigurationError: the value is not a number of seconds.
    """
    return value.total_seconds() if isinstance(value, timedelta) else SECONDS.require(name, value)


def utc_now() -> datetime:
    """Return the time of the system's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class PollTuning:
    """Time limits and clock, which are the same for every trigger.

    :param query_seconds: maximum time of a query.
    :param last_query_seconds: maximum time of the query at the deadline.
    :param max_pause_seconds: maximum pause of a watcher after an error that waiting does not cure.
    :param now: returns the time, with a zone.
    :param sleep: suspends a coroutine for a number of seconds.
    """

    query_seconds: float = QUERY_SECONDS
    last_query_seconds: float = 30.0
    max_pause_seconds: float = 600.0
    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


@dataclass(frozen=True, slots=True)
class Polling:
    """How often a trigger queries.

    :param poke_interval: seconds between two queries.
    :param is_exponential: each pause is twice as long as the one before.
    :param max_wait: maximum seconds of a pause; None for no bound of its own.
    :param tuning: time limits and clock.
    """

    poke_interval: float
    is_exponential: bool = False
    max_wait: float | None = None
    tuning: PollTuning = field(default_factory=PollTuning)

    def now(self) -> datetime:
        """Return the time, with a zone."""
        return self.tuning.now()

    async def pause(self, queries: int, now: datetime, deadline: datetime | None) -> None:
        """Sleep until the next query, which is not later than the deadline.

        :param queries: number of queries so far.
        :param now: time of the last query.
        :param deadline: when waiting ends; None for never.
        """
        seconds = wait_seconds(
            queries,
            poke_interval=self.poke_interval,
            is_exponential=self.is_exponential,
            max_wait=self.max_wait,
            now=now,
            deadline=deadline,
        )
        await self.sleep(seconds)

    async def sleep(self, seconds: float) -> None:
        """Sleep for a number of seconds."""
        await self.tuning.sleep(seconds)

    def seconds_after_error(self, errors: int) -> float:
        """Return the pause of a watcher after its last error.

        :param errors: number of errors so far.
        """
        return min(self.poke_interval * 2.0 ** min(errors, 40), self.tuning.max_pause_seconds)

    def query_seconds(self, now: datetime, deadline: datetime | None) -> float:
        """Return the maximum time of a query: a database that hangs must not outlast the deadline.

        :param now: the time.
        :param deadline: when waiting ends; None for never.
        """
        if deadline is None:
            return self.tuning.query_seconds
        left = max((deadline - now).total_seconds(), 0.0)
        return min(self.tuning.query_seconds, left + self.tuning.last_query_seconds)
