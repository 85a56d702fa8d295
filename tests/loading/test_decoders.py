"""The threads that decode: how many, what becomes of what waits, and that nobody waits for them."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from airflow_imagetag.loading.decoders import Decoders

ENDLESS = """
import threading
from airflow_imagetag.loading.decoders import Decoders

begun = threading.Event()
decoders = Decoders(1)
decoders.submit(lambda: (begun.set(), threading.Event().wait()))
begun.wait()
decoders.close()
"""


def test_results_and_errors_come_back():
    """Each where it is waited for, and in any number."""
    decoders = Decoders(3)
    futures = [decoders.submit(lambda number=number: 12 // number) for number in range(50)]
    assert [future.result(10) for future in futures[1:]] == [12 // n for n in range(1, 50)]
    with pytest.raises(ZeroDivisionError):
        futures[0].result(10)


def test_no_more_run_at_the_same_time_than_they_may():
    """The others have their turn later."""
    running, most, lock = 0, 0, threading.Lock()
    full = threading.Barrier(3)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        full.wait(10)
        with lock:
            running -= 1

    decoders = Decoders(3)
    for future in [decoders.submit(work) for _ in range(12)]:
        future.result(10)
    assert most == 3


def test_what_waits_is_given_up_at_once():
    """What runs is not held up, nor does it hold up anybody."""
    decoders, end = Decoders(1), threading.Event()
    runs = decoders.submit(lambda: end.wait(10))
    waits = [decoders.submit(lambda: None) for _ in range(3)]
    decoders.close()
    assert all(future.cancelled() for future in waits)
    end.set()
    assert runs.result(10) is True


def test_a_process_ends_while_a_picture_is_decoded():
    """A task that was told to end does not stay for a picture that takes hours."""
    subprocess.run([sys.executable, "-c", ENDLESS], check=True, timeout=30)
