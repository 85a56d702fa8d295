"""Tasks in processes of their own, which the tests start and end.

Importing Airflow and the modules of a task takes seconds, so one process does it once and forks a
child for each task, as Airflow's own workers do. It reads a JSON object from each line of its input
and answers with one number: the process id of the new task for ``start``, the exit code of a task
for ``wait`` and ``poll`` (null while it runs).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Do = Callable[[dict[str, Any], str], int]


class Driver:
    """The process that forks tasks.

    :param script: its program, which calls :func:`serve`.
    :param folder: for the tasks' outputs.
    """

    def __init__(self, script: Path, folder: Path) -> None:
        self.folder = folder
        self.started: list[Task] = []
        here = str(Path(__file__).resolve().parent)
        path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
        with (folder / "driver.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                # The files of a killed task are deleted with the tests' own.
                env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": path},
            )

    def ask(self, **request: Any) -> Any:
        """Send a request and return its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, (self.folder / "driver.log").read_text()[-4000:]
        return json.loads(answer)

    def start(self, job: dict[str, Any], environment: dict[str, str]) -> Task:
        """Start a task."""
        output = self.folder / f"task-{len(self.started)}.log"
        pid = self.ask(start=job, environment=environment, output=str(output))
        self.started.append(Task(self, pid, output))
        return self.started[-1]

    def end(self) -> None:
        """End the process, and the tasks that a failed test has left."""
        for task in self.started:
            if task.code is None and task.poll() is None:
                task.signal(signal.SIGKILL)
                task.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@dataclass
class Task:
    """A process that labels.

    :param driver: its parent.
    :param pid: its id.
    :param output: its log, whose last line is the summary.
    :param code: its exit code, or minus the signal that ended it; None while it runs.
    """

    driver: Driver
    pid: int
    output: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        if self.code is None:
            self.code = self.driver.ask(poll=self.pid)
        return self.code

    def wait(self) -> int:
        """Wait for its end and return the exit code, or minus the signal that ended it."""
        if self.code is None:
            self.code = self.driver.ask(wait=self.pid)
        return self.code

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def summary(self) -> dict[str, Any]:
        """Wait for it to succeed and return its summary."""
        assert self.wait() == 0, self.output.read_text()[-4000:]
        summary: dict[str, Any] = json.loads(self.output.read_text().splitlines()[-1])
        return summary


# -- in the process that forks ------------------------------------------------------------------


def _start(do: Do, job: dict[str, Any], environment: dict[str, str], output: str) -> int:
    """Fork a task and return its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(environment)
        code = do(job, output)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _ended(pid: int, options: int) -> int | None:
    """Return the exit code of a task, or minus the signal that ended it."""
    found, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if found else None


def preload(*modules: str) -> None:
    """Import the modules that each task would otherwise import by itself."""
    for name in modules:
        importlib.import_module(name)


def serve(do: Do, prepare: Callable[[], object] = lambda: None) -> None:
    """Fork tasks until the input ends.

    :param do: the task; takes its job and the file of its output, and returns the exit code.
    :param prepare: called once, before the first task.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    prepare()
    for line in sys.stdin:
        request = json.loads(line)
        answer: int | None
        if "start" in request:
            answer = _start(do, request["start"], request["environment"], request["output"])
        else:
            options = os.WNOHANG if "poll" in request else 0
            answer = _ended(request.get("poll") or request["wait"], options)
        print(json.dumps(answer), file=answers, flush=True)
