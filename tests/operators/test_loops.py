"""Where a run reads a source that is in memory, and in which event loop."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.stores import ParquetLabelStore
from airflow_imagetag.testing import Emulator


class Source(ImageSource):
    """Notes the loop that it is read in; None in a thread without one."""

    template_fields = ()
    is_in_memory = False

    def __init__(self, images: list[bytes], *, is_in_memory: bool) -> None:
        self._images = images
        self.is_in_memory = is_in_memory
        self.loops: list[asyncio.AbstractEventLoop | None] = []

    def entries(self, **_: Any) -> Iterator[Image]:
        try:
            self.loops.append(asyncio.get_running_loop())
        except RuntimeError:
            self.loops.append(None)
        for number, data in enumerate(self._images):
            yield Image(str(number), content=data)


@pytest.mark.parametrize("is_stored", [True, False])
@pytest.mark.parametrize("is_in_memory", [True, False])
def test_only_a_source_in_memory_is_read_in_the_loop(
    is_in_memory, is_stored, emulator: Emulator, small_jpegs, tmp_path
):
    """A source that reads or waits would hold up every call; so would a store."""
    source = Source(small_jpegs(5), is_in_memory=is_in_memory)
    store = ParquetLabelStore(str(tmp_path)) if is_stored else None
    ImageTagOperator(task_id="a", images=source, store=store).execute({})
    assert emulator.stats.requests == 5
    [loop] = source.loops
    assert (loop is not None) is (is_in_memory and not is_stored)


@pytest.mark.parametrize("requests_per_second", [20, 0])
def test_a_quota_is_kept_by_the_clock_of_asyncio(
    requests_per_second, emulator: Emulator, small_jpegs, monkeypatch
):
    """Only without one may the loop be of the kind that has a coarser clock."""
    fields = json.loads(emulator.connection_json)
    fields["extra"]["requests_per_second"] = requests_per_second
    monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", json.dumps(fields))
    source = Source(small_jpegs(5), is_in_memory=True)
    ImageTagOperator(task_id="a", images=source).execute({})
    assert emulator.stats.requests == 5
    [loop] = source.loops
    is_fast = not requests_per_second and importlib.util.find_spec("uvloop") is not None
    expected = "uvloop" if is_fast else "asyncio"
    assert type(loop).__module__.partition(".")[0] == expected


def test_a_source_of_ones_own_need_not_be_a_dataclass():
    """Airflow then shows its class, which is the same at each parsing."""
    source = Source([b"x"], is_in_memory=True)
    assert source.serialize() == {"type": "Source"}
    assert repr(source) == "Source()"
