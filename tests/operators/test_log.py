"""The log lines of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from airflow_imagetag.models import Image
from airflow_imagetag.operators import run
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.testing import Emulator


@pytest.mark.parametrize(("count", "said"), [(1, "1 image"), (2, "2 images")])
def test_the_first_line_says_what_is_labelled_and_how(
    count: int,
    said: str,
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
    small_jpegs: Callable[[int], list[bytes]],
):
    """How many images, with which interface and account, where, and at what pace."""
    images = [Image(str(number), content=data) for number, data in enumerate(small_jpegs(count))]
    with caplog.at_level(logging.INFO, run.log.name):
        ImageTagOperator(task_id="label", images=images).execute({})
    first = next(record.getMessage() for record in caplog.records if record.name == run.log.name)
    assert first == (
        f"Labelling {said} with picture_classify at {emulator.url} (connection "
        "'imagetag_default'): up to 256 at a time, 20 requests per second"
    )
