"""A memory budget that threads share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_imagetag.loading.memory_budget import MemoryBudget


def test_the_total_is_never_exceeded():
    """Many threads reserve different amounts at the same time."""
    budget, lock = MemoryBudget(10), threading.Lock()
    held = most = 0

    def hold(size: int) -> None:
        nonlocal held, most
        with budget.reserve(size):
            with lock:
                held += size
                most = max(most, held)
            threading.Event().wait(0.001)
            with lock:
                held -= size

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(hold, [1, 10, 3, 7, 5] * 20))
    assert held == 0
    assert 7 <= most <= 10


def test_a_large_reservation_is_not_overtaken():
    """Small reservations that keep coming cannot starve it."""
    budget, order = MemoryBudget(2), []
    pause = threading.Event()

    def hold(size: int) -> None:
        with budget.reserve(size):
            order.append(size)

    with ThreadPoolExecutor(3) as threads:
        with budget.reserve(1):
            large = threads.submit(hold, 2)
            while not budget._turn.locked():
                pause.wait(0.001)
            small = threads.submit(hold, 1)
            pause.wait(0.02)
        large.result(5)
        small.result(5)
    assert order == [2, 1]


def test_memory_is_released_after_an_error():
    """An image that cannot be decoded does not hold up the next."""
    budget = MemoryBudget(1)
    for _ in range(3):
        with pytest.raises(OSError, match="broken"), budget.reserve(1):
            raise OSError("broken")
    with budget.reserve(1):
        pass
