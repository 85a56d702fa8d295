"""The copies of stores that pages are made of."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from databases import Database, tagged
from pictures import write
from web import client_of

from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore
from airflow_imagetag.stores.stored_rows import StoredRows
from airflow_imagetag.ui.hub import COPY_RATIO, CopyIsMadeError, StoreHub

READ_SECONDS = 0.2


class SlowStore(ParquetLabelStore):
    """A dataset that takes its time, and counts how often it is read."""

    @contextmanager
    def _stored_rows(self) -> Iterator[StoredRows]:
        reads.append(time.monotonic())
        time.sleep(READ_SECONDS)
        with super()._stored_rows() as rows:
            yield rows


reads: list[float] = []


class StoppedStore(ParquetLabelStore):
    """A dataset whose reading stops behind its images, until it may go on."""

    @contextmanager
    def _stored_rows(self) -> Iterator[StoredRows]:
        with super()._stored_rows() as rows:
            yield rows._replace(labels=self._later(rows.labels))

    def _later(self, labels: Iterator[Any]) -> Iterator[Any]:
        yield next(labels)
        stopped.set()
        assert may_go_on.wait(60)
        yield from labels


stopped, may_go_on = threading.Event(), threading.Event()


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


def test_while_a_store_is_read_its_pages_say_how_far(tmp_path: Path, sqlite: Database):
    """They load again by themselves, no request waits, and other stores are shown meanwhile."""
    slow = StoppedStore(str(tmp_path / "labels"))
    for number in range(2):
        write(slow, [tagged(f"image {number} {place}", "cat") for place in range(3)])
    quick = SqlLabelStore("warehouse", "product_labels")
    write(quick, [tagged("image", "cat")])
    stopped.clear()
    may_go_on.clear()
    with client_of({"photos": slow, "products": quick}) as client:
        try:
            client.get("/photos/gallery")
            assert stopped.wait(60)
            began = time.monotonic()
            answer = client.get("/photos/gallery")
            assert time.monotonic() - began < 2
            assert answer.status_code == 200
            assert '<meta http-equiv="refresh" content="3">' in answer.text
            assert "This store is being read: the labels of 3 of 6 images." in answer.text
            chinese = client.get("/photos/gallery?lang=zh").text
            assert "正在读取此标签库：已读取 6 张图像中 3 张的标签。" in chinese
            assert "image</" in client.get("/products/gallery").text
        finally:
            may_go_on.set()
        deadline = time.monotonic() + 60
        while "is being read" in (text := client.get("/photos/gallery").text):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert text.count("image 1 ") >= 3


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
