"""The calls that a run may make: taken one by one, and asked for in portions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

Ask = Callable[[int], Awaitable[int]]
"""Asks for a number of calls, and returns how many are granted; 0 if none is left."""

MIN_PORTION = 64
"""Smallest number of calls that are asked for at once."""

MAX_PORTION = 16_384
"""Largest number of calls that are asked for at once."""

MIN_SCARCE_PORTION = 4
"""Smallest number of calls that are asked for where less was granted than asked for. More are asked
for when a quarter is left."""

PORTION_SECONDS = 4.0
"""Time that a portion should last. A process that is killed leaves the rest of one unaccounted."""

STOP_CHECK_SECONDS = 0.5
"""Maximum sleep between checks of the stop event."""


class CallAllowance:
    """Hands out the calls of a run, so that never more are on their way than were granted.

    A portion is asked for before the last one is used up, so a worker seldom waits. A call that the
    service refused is not billed, and is handed out again.

    :param ask: asks for more calls.
    :param stopping: set when nothing more is sent, so that no worker needs to wait.
    """

    def __init__(self, ask: Ask, stopping: asyncio.Event) -> None:
        self._ask = ask
        self._stopping = stopping
        self._left = 0
        self._on_their_way = 0
        self._portion = MIN_PORTION
        self._asked_at = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._error: Exception | None = None
        self._is_scarce = False
        self._is_used_up = False
        self._changed = asyncio.Event()

    async def take(self, calls: int) -> bool:
        """Wait until calls may be made, and take them; False if none are left.

        While others are on their way a worker waits: the service may refuse them, and then they are
        left.

        :param calls: number of calls.
        :raises Exception: the error of the question for more.
        """
        while self._left < calls and not self._stopping.is_set():
            if self._error is not None:
                raise self._error
            if self._is_used_up and not self._on_their_way:
                return False
            self._ask_if_below(max(calls, self._portion // 4))
            self._changed.clear()
            await self._wait()
        self._left -= calls
        self._on_their_way += calls
        self._ask_if_below(self._portion // 4)
        return True

    def settle(self, calls: int, *, is_billed: bool) -> None:
        """Take note that calls have ended, or were not made.

        :param calls: number of calls.
        :param is_billed: whether they may be billed; else they are handed out again.
        """
        self._on_their_way -= calls
        if not is_billed:
            self._left += calls
        self._changed.set()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(STOP_CHECK_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            return

    def _ask_if_below(self, calls: int) -> None:
        if self._asking is None and not self._is_used_up and self._left < calls:
            self._asking = asyncio.create_task(self._ask_for_more())

    async def _ask_for_more(self) -> None:
        if not self._is_scarce:
            self._adapt()
        wanted = self._portion
        try:
            granted = await self._ask(wanted)
        except Exception as error:  # raised where the next call is taken
            self._error = error
        else:
            self._left += granted
            self._is_used_up = granted == 0
            if granted < wanted:
                # Others need the rest: no more is taken than is used up.
                self._is_scarce = True
                self._portion = max(granted, MIN_SCARCE_PORTION)
        finally:
            self._asking = None
            self._changed.set()

    def _adapt(self) -> None:
        """Ask for as much as the run needs in the time that a portion should last."""
        now = time.monotonic()
        seconds, self._asked_at = now - self._asked_at, now
        if seconds < PORTION_SECONDS / 2:
            self._portion = min(2 * self._portion, MAX_PORTION)
        elif seconds > PORTION_SECONDS * 2:
            self._portion = max(self._portion // 2, MIN_PORTION)
