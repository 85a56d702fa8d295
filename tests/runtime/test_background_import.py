"""Imports in a thread, for coroutines."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from airflow_imagetag.runtime.background_import import import_in_thread


@pytest.fixture
def slow_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module whose import takes a moment and counts itself."""
    name = f"slow_module_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        "import sys, time\ntime.sleep(0.2)\n"
        "sys.imports_of_a_test = getattr(sys, 'imports_of_a_test', 0) + 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "imports_of_a_test", 0, raising=False)
    return name


def test_the_loop_goes_on_and_all_wait_for_one_import(slow_module: str) -> None:
    """Coroutines wait for one import, in a thread; one that is cancelled does not end it."""

    async def main() -> float:
        cancelled = asyncio.create_task(import_in_thread(slow_module))
        waiting = [asyncio.create_task(import_in_thread(slow_module)) for _ in range(5)]
        begun = time.monotonic()
        await asyncio.sleep(0)
        cancelled.cancel()
        blocked = time.monotonic() - begun
        await asyncio.gather(*waiting)
        assert slow_module in sys.modules
        return blocked

    assert asyncio.run(main()) < 0.15
    # A second loop, as a second test has it.
    asyncio.run(import_in_thread(slow_module))
    assert vars(sys)["imports_of_a_test"] == 1


def test_a_module_that_is_missing_is_left_to_its_user() -> None:
    """The error is not raised here: the code that uses the module names what to change."""
    asyncio.run(import_in_thread("there_is_no_such_module"))


def test_those_that_wait_go_on_one_by_one(slow_module: str) -> None:
    """No iteration of the loop runs what several of them do next."""
    iterations: list[int] = []

    async def main() -> None:
        iteration = 0

        async def work() -> None:
            await import_in_thread(slow_module)
            iterations.append(iteration)

        working = [asyncio.create_task(work()) for _ in range(20)]
        while not all(task.done() for task in working):
            iteration += 1
            await asyncio.sleep(0)

    asyncio.run(main())
    assert len(set(iterations)) == 20
