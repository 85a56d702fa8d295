"""The copies of stores that pages are made of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from airflow_imagetag.stores import ParquetLabelStore
from airflow_imagetag.ui.hub import COPY_RATIO, CopyIsMadeError, StoreHub

READ_SECONDS = 0.2


class SlowStore(ParquetLabelStore):
    """A dataset that takes its time, and counts how often it is read."""

    def images(self, **options: Any) -> Iterator[pd.DataFrame]:
        """Yield the images later."""
        reads.append(time.monotonic())
        time.sleep(READ_SECONDS)
        return super().images(**options)


reads: list[float] = []


def wait_for_copy(hub: StoreHub) -> None:
    """Ask for the copy until it is made."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with hub.browser("photos"):
                return
        except CopyIsMadeError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_copy_that_took_long_is_kept_long(tmp_path: Path):
    """However often its pages are asked for, a server copies in a small part of its time."""
    store = SlowStore(str(tmp_path / "labels"))
    with store.open("DetectLabelPro"):
        pass
    reads.clear()
    hub = StoreHub({"photos": store}, copy_seconds=0)
    try:
        wait_for_copy(hub)
        made_at = time.monotonic()
        while time.monotonic() < made_at + READ_SECONDS:
            wait_for_copy(hub)
        assert len(reads) == 1
        deadline = time.monotonic() + 60
        while len(reads) == 1:
            wait_for_copy(hub)
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert reads[1] - reads[0] > COPY_RATIO * READ_SECONDS
    finally:
        hub.close()
