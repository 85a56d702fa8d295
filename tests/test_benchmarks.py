"""The benchmarks run, each at a size too small to measure speed."""

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
        ("imports.py", ("--rounds", "1"), "from airflow_imagetag.stores"),
        ("incremental.py", ("--sizes", "20", "40"), "peak memory"),
        ("waiting.py", ("--rows", "100"), "many wait"),
        ("sharing.py", ("--quick",), "postgres"),
        ("triggers.py", ("--triggers", "2", "--query", "0.1"), "longest full collection"),
        ("stores.py", ("--images", "0", "--sizes", "5000"), "delta"),
        ("scaling.py", ("--sql", "400", "--parquet", "400"), "400"),
        ("pages.py", ("--sizes", "200", "--parquet", "--pictures", "2"), "| second"),
    ],
)
def test_a_benchmark_runs_to_its_last_line(
    name: str, arguments: tuple[str, ...], last: str
) -> None:
    """The benchmark prints its last line, and exits with 0."""
    assert run(name, *arguments).splitlines()[-1].lstrip().startswith(last)


def test_contenders_label_all_images_but_those_that_a_quota_loses() -> None:
    """The operator and threads with retries label every image; each contender has a row."""
    shown = run("compare.py", "--only", "quota", "--quick", "--images", "20")
    tables = shown.split("\n**")[1:]
    assert len(tables) == 3
    for table in tables[:-1]:
        rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")][1:]
        labelled = {row[0].strip(): row[-1].strip() for row in rows}
        assert len(labelled) == 7
        for name in ("ours", "ours, DetectLabelPro", "requests, threads"):
            assert labelled[name] == "20 of 20"
    assert "over limit" in tables[-1]


def test_four_processes_share_a_quota_and_a_bad_day_loses_no_image() -> None:
    """The comparisons with Redis, with faults and with a store run."""
    parts = ("shared", "faults", "growth")
    shown = run("compare.py", "--only", *parts, "--quick", "--images", "20")
    assert shown.count("20 of 20") == 3
    assert "labels into a Parquet dataset" in shown
