"""Room that threads share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_imagetag.loading.memory_budget import MemoryBudget


def test_no_more_is_held_than_there_is():
    """Whatever amounts many threads take at the same time."""
    room, lock = MemoryBudget(10), threading.Lock()
    held = most = 0

    def take(amount: int) -> None:
        nonlocal held, most
        with room.taken(amount):
            with lock:
                held += amount
                most = max(most, held)
            threading.Event().wait(0.001)
            with lock:
                held -= amount

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(take, [1, 10, 3, 7, 5] * 20))
    assert held == 0
    assert 7 <= most <= 10


def test_who_wants_much_is_not_overtaken():
    """Else little ones that keep coming would keep it waiting for ever."""
    room, order = MemoryBudget(2), []
    first_done = threading.Event()

    def take(amount: int) -> None:
        with room.taken(amount):
            order.append(amount)

    with ThreadPoolExecutor(3) as threads:
        with room.taken(1):
            large = threads.submit(take, 2)
            while not room._turn.locked():
                first_done.wait(0.001)
            small = threads.submit(take, 1)
            first_done.wait(0.02)
        large.result(5)
        small.result(5)
    assert order == [2, 1]


def test_room_is_given_back_after_an_error():
    """One image that cannot be decoded does not stop the next."""
    room = MemoryBudget(1)
    for _ in range(3):
        with pytest.raises(OSError, match="broken"), room.taken(1):
            raise OSError("broken")
    with room.taken(1):
        pass
