"""Fixtures of all tests: an Airflow home of their own, the emulator, photographs, a clock."""

from __future__ import annotations

import atexit
import importlib.util
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Importing Airflow writes a configuration and a database into this folder.
if "AIRFLOW_HOME" not in os.environ:
    os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="imagetag-airflow-")
    atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
    os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")

from airflow_imagetag.testing import Emulator

if TYPE_CHECKING:
    from modes import Clock

pytest_plugins = ["session_end", "buckets", "databases", "onnx_models", "redis_server"]
"""Modules of this folder: the end of what tests share, and the fixtures that every test may use."""


collect_ignore = ["smoke"]
"""`make matrix` runs it, without this file: it needs next to nothing beside the package."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of a running Airflow start first, since they take longest."""
    items.sort(key=lambda item: item.path.parent.name != "airflow")


PHOTOGRAPHS = ("rocket.jpg", "coffee.png", "chelsea.png", "astronaut.png")


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run an emulator for one test and make it the connection ``imagetag_default``."""
    with Emulator() as running:
        monkeypatch.setenv("AIRFLOW_CONN_IMAGETAG_DEFAULT", running.connection_json)
        yield running


@pytest.fixture(scope="session")
def photographs() -> list[Path]:
    """Name real photographs of scikit-image's wheel."""
    return photograph_paths()


def photograph_paths() -> list[Path]:
    """Return the paths of real photographs of scikit-image's wheel, without importing it."""
    specification = importlib.util.find_spec("skimage")
    assert specification is not None
    assert specification.origin is not None
    folder = Path(specification.origin).parent / "data"
    return [folder / name for name in PHOTOGRAPHS]


@pytest.fixture(scope="session")
def small_jpegs() -> Callable[[int], list[bytes]]:
    """Make any number of small JPEGs, all different, by cropping a photograph.

    It takes no fixture: it lives longer than a folder's own fixture of the same name.
    """
    from PIL import Image

    made: list[bytes] = []
    path = photograph_paths()[1]

    def make(count: int) -> list[bytes]:
        with Image.open(path) as photograph:
            columns = photograph.width - 64
            for number in range(len(made), count):
                left, top = (7 * number) % columns, 3 * (7 * number // columns)
                file = io.BytesIO()
                photograph.crop((left, top, left + 64, top + 64)).convert("RGB").resize(
                    (32, 32)
                ).save(file, "JPEG")
                made.append(file.getvalue())
        assert len(set(made)) == len(made)
        return made[:count]

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Hold the clock of sensor and trigger."""
    from modes import Clock

    held = Clock()
    held.install(monkeypatch)
    return held
