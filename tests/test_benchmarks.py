"""The benchmarks run: each at a size that says nothing about speed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def run(name: str, *arguments: str) -> str:
    """Run a benchmark and return its output."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "last"),
    [
        ("incremental.py", ("--sizes", "20", "40"), "peak memory"),
        ("waiting.py", ("--rows", "100"), "nothing new"),
    ],
)
def test_a_benchmark_runs_to_its_last_line(name, arguments, last):
    """It measures all that it is to measure, and ends well."""
    assert run(name, *arguments).splitlines()[-1].startswith(last)


def test_contenders_label_all_images_but_those_that_a_quota_loses():
    """Ours and threads with retries label every image; each contender has a row in the table."""
    shown = run("compare.py", "--only", "quota", "--quick", "--images", "20")
    tables = shown.split("\n**")[1:]
    assert len(tables) == 3
    for table in tables[:-1]:
        rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")][1:]
        labelled = {row[0].strip(): row[-1].strip() for row in rows}
        assert len(labelled) == 6
        for name in ("ours", "ours, DetectLabelPro", "requests, threads"):
            assert labelled[name] == "20 of 20"
    assert "over limit" in tables[-1]


def test_four_processes_share_a_quota_and_a_bad_day_loses_no_image():
    """The comparisons with a Redis, with faults and with a store run as well."""
    parts = ("shared", "faults", "growth")
    shown = run("compare.py", "--only", *parts, "--quick", "--images", "20")
    assert shown.count("20 of 20") == 3
    assert "labels into a Parquet dataset" in shown
