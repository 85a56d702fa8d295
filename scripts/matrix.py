"""Test the package on each line of Airflow, and pin what each line is tested with.

    python scripts/matrix.py run               # each line, then the newest one on Python 3.13
    python scripts/matrix.py run 3.0 3.2       # these lines
    python scripts/matrix.py today             # one line, another one each day
    python scripts/matrix.py pin 3.0           # writes constraints/airflow-3.0.txt anew

A line is tested with versions of its own time: `uv` leaves out what was released later.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "matrix"
UV = Path(sys.executable).with_name("uv")
EXTRAS = ("s3", "parquet", "delta", "redis", "emulator", "downscale")
SMOKE = "delta,emulator"
"""Extras that the smoke suite needs."""


@dataclass(frozen=True)
class Line:
    """A line of Airflow.

    :param airflow: the release that is tested.
    :param until: day after which nothing that is pinned was released; None for no such day.
    :param pins: further requirements, such as those of Airflow's own constraints.
    """

    airflow: str
    until: str | None = None
    pins: tuple[str, ...] = field(default=("pandas<3",))


LINES = {
    "2.11": Line("2.11.2", "2026-06-01", ("pandas<3", "sqlalchemy<2")),
    "3.0": Line("3.0.6", "2025-09-05", ("pandas==2.1.4 ; python_version < '3.13'", "pandas<3")),
    "3.1": Line("3.1.8", "2026-04-01"),
    "3.2": Line("3.2.2", "2026-07-01"),
    "3.3": Line("3.3.2", None, ()),
}
TODAY = ("3.0", "3.1", "3.2")
"""Lines that the other steps of CI do not test."""
OTHER_PYTHON = ("3.3", "3.13")
"""The line and the Python of one more run."""


def constraints(line: str) -> Path:
    """Return the file with the pins of a line."""
    return ROOT / "constraints" / f"airflow-{line}.txt"


def pin(line: str) -> None:
    """Write the constraints of a line anew."""
    found = LINES[line]
    BUILD.mkdir(parents=True, exist_ok=True)
    wanted = BUILD / f"wanted-{line}.txt"
    wanted.write_text("\n".join([f"apache-airflow=={found.airflow}", *found.pins, ""]))
    made = BUILD / f"airflow-{line}.txt"
    command = [
        str(UV),
        "pip",
        "compile",
        "pyproject.toml",
        "--universal",
        "--python-version",
        "3.11",
    ]
    command += [f"--extra={name}" for name in EXTRAS] + ["--group=smoke", "--upgrade", "--quiet"]
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]
    command += ["-c", str(wanted), "-o", str(made)]
    if found.until:
        command += ["--exclude-newer", found.until]
    subprocess.run(command, cwd=ROOT, check=True)
    made.replace(constraints(line))


def interpreter(version: str) -> str | None:
    """Return an installed interpreter of a version; None if there is none."""
    command = [str(UV), "python", "find", "--no-python-downloads", version]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode == 0:
        return found.stdout.strip()
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return next((str(path) for path in sorted(pyenv.glob(f"{version}.*/bin/python"))), None)


def run(line: str, python: str | None = None) -> bool:
    """Run the smoke suite on a line, and tell whether it passed.

    :param python: version of the interpreter; None for this one's.
    """
    began = time.monotonic()
    python = python or f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = BUILD / f"{line}-py{python}"
    shutil.rmtree(folder, ignore_errors=True)
    binary = folder / "bin" / "python"
    install = [str(UV), "pip", "install", "--quiet", "--compile-bytecode", "--python", str(binary)]
    steps = [
        [str(UV), "venv", "--quiet", "--python", interpreter(python) or python, str(folder)],
        [*install, "-c", str(constraints(line)), f".[{SMOKE}]", "--group=smoke"],
        [
            *(str(binary), "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("--confcutdir=tests/smoke", "--basetemp", str(folder / "run"), "tests/smoke"),
        ],
    ]
    passed = all(subprocess.run(step, cwd=ROOT, check=False).returncode == 0 for step in steps)
    shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - began
    version = LINES[line].airflow
    word = "passed" if passed else "FAILED"
    print(f"==> Airflow {version}, Python {python}: {word} after {seconds:.0f} s", flush=True)
    return passed


def main() -> int:
    """Run the command line, and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=("run", "today", "pin"))
    parser.add_argument("lines", nargs="*", choices=[*LINES, []], default=[])
    parser.add_argument("--python", help="version of the interpreter")
    given = parser.parse_args()
    if given.command == "pin":
        for line in given.lines or LINES:
            pin(line)
        return 0
    if given.command == "today":
        lines = [TODAY[datetime.now(UTC).day % len(TODAY)]]
    else:
        lines = given.lines or list(LINES)
    runs = [(line, given.python) for line in lines]
    if given.command == "run" and not given.lines:
        if interpreter(OTHER_PYTHON[1]):
            runs.append(OTHER_PYTHON)
        else:
            print(f"==> Python {OTHER_PYTHON[1]} is not installed, and is left out", flush=True)
    results = [run(line, python) for line, python in runs]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
