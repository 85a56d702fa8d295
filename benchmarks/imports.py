"""Measure the CPU time that an import of the package adds to the parsing of a DAG file.

Each measurement is a process of its own, which has imported Airflow's DAG, hook, operator and task
already, as a DAG file does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

ROUNDS = 5
IMPORTS = (
    "from airflow_imagetag.assets import watch_images",
    "from airflow_imagetag.hooks.imagetag import ImageTagHook",
    "from airflow_imagetag.operators.imagetag import ImageTagOperator",
    "from airflow_imagetag.sensors.imagetag import NewImagesSensor",
    "from airflow_imagetag.sources import ObjectStorageImages, SqlImages",
    "from airflow_imagetag.stores import ParquetLabelStore, SqlLabelStore",
)

PROBE = """
import json, sys, time
from airflow.sdk import DAG, BaseHook, BaseOperator, task
before = set(sys.modules)
started = time.process_time()
{line}
seconds = time.process_time() - started
print(json.dumps({{"milliseconds": seconds * 1000, "modules": len(set(sys.modules) - before)}}))
"""


def main() -> int:
    """Measure, print a table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="the best of them counts")
    rounds = parser.parse_args().rounds
    print(f"{'import after those of Airflow':72}{'CPU ms':>8}{'modules':>9}")
    for line in IMPORTS:
        best = min((_probe(line) for _ in range(rounds)), key=lambda found: found["milliseconds"])
        print(f"{line:72}{best['milliseconds']:8.1f}{best['modules']:9}")
    return 0


def _probe(line: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE.format(line=line)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
