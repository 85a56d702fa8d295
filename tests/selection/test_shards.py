"""Parts of a source for tasks that share its work."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.selection.shards import Shard, parse_shard, shard_names


def test_names_are_read_back():
    """The parameter takes the names that ``shards(n)`` returns."""
    names = shard_names(16)
    assert names[0] == "0/16"
    assert [parse_shard(name) for name in names] == [Shard(n, 16) for n in range(16)]


@pytest.mark.parametrize("count", [1, 2, 7, 16])
@pytest.mark.parametrize("form", ["{}", "sku-{:06}", "s3://bucket/{}.jpg", "{}00"])
def test_parts_are_disjoint_complete_and_even(count: int, form: str):
    """Also of keys that are as like as rows of a table are."""
    keys = [form.format(number) for number in range(4000)]
    parts = [{key for key in keys if Shard(n, count).holds(key)} for n in range(count)]
    assert sum(map(len, parts)) == 4000
    assert set().union(*parts) == set(keys)
    assert all(0.75 * 4000 / count < len(part) < 1.25 * 4000 / count for part in parts)


def test_the_part_is_the_same_in_every_process():
    """Python's own hash differs from process to process."""
    script = (
        "from airflow_imagetag.selection.shards import Shard;"
        "print(''.join(str(int(Shard(1, 3).holds(str(n)))) for n in range(200)))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_any_key_belongs_somewhere():
    """An emoji, and half of one, and nothing at all."""
    for key in ("😀", "\ud83d", "", "a\x00b"):
        assert sum(Shard(n, 5).holds(key) for n in range(5)) == 1


@pytest.mark.parametrize("text", [None, "", "None"])
def test_no_shard_is_everything(text: str | None):
    """A template of a missing parameter renders to one of these texts."""
    assert parse_shard(text) is None


@pytest.mark.parametrize(
    "text", ["3", "3/", "/3", "3/3", "4/3", "-1/3", "a/b", "0/0", "0/16 ", "1.0/2", "0/16\n"]
)
def test_a_text_that_is_no_shard_is_refused(text: str):
    """The message names the function that returns valid names."""
    with pytest.raises(ConfigurationError, match="is not the name of a shard"):
        parse_shard(text)


@pytest.mark.parametrize("count", [0, -1])
def test_a_source_has_a_shard(count: int):
    """A mapped task over no shards would silently do nothing."""
    with pytest.raises(ConfigurationError, match="1 shard or more"):
        shard_names(count)
