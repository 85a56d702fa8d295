"""The cores that a process may use, with and without a container's quota."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_imagetag.runtime.cores import usable_cores


@pytest.mark.parametrize("text", ["max 100000", "", "no numbers here"])
def test_without_a_quota_all_cores_are_used(tmp_path: Path, text: str):
    """A file that is missing, or holds no quota, changes nothing."""
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path / "cpu.max") == usable_cores(tmp_path / "none") >= 1


@pytest.mark.parametrize("quota", ["50000 100000", "100000 100000"])
def test_a_container_quota_is_rounded_up(tmp_path: Path, quota: str):
    """Half a core, or one, is one thread."""
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path / "cpu.max") == 1
