"""A process with one Airflow in it, in which DAGs that test modules build are run."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clusters import AIRFLOW_2, HERE, AirflowHome

from airflow_imagetag.testing import Emulator

HOST_SECONDS = 120
"""How long a test waits for the answer of the process."""

WRONG_KEY = "aWrongSecretKeyThatOpensNothing0"


def connection(emulator: Emulator, **changes: Any) -> str:
    """Return the emulator's connection without a quota, with other changes.

    :param changes: fields of the connection, and names in its extra for all others.
    """
    fields = json.loads(emulator.connection_json)
    fields["extra"]["requests_per_second"] = 0
    for name, value in changes.items():
        (fields if name in ("login", "password", "host", "port") else fields["extra"])[name] = value
    return json.dumps(fields)


@dataclass(frozen=True)
class Run:
    """The records of a DAG run that has ended.

    :param state: of the run.
    :param states: of each task, by (task id, map index).
    :param xcoms: by (task id, map index, key).
    :param rendered: rendered fields by (task id, map index).
    :param log: the log of all tasks.
    """

    state: str
    states: Mapping[tuple[str, int], str]
    xcoms: Mapping[tuple[str, int, str], Any]
    rendered: Mapping[tuple[str, int], Mapping[str, Any]]
    log: str

    def xcom(self, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return one XCom."""
        assert (task_id, map_index, key) in self.xcoms, self.log
        return self.xcoms[task_id, map_index, key]


def templates_rendered_of(task: Any) -> int:
    """Render the fields of a task and count the templates that Jinja was given."""
    import jinja2

    class Counting(jinja2.Environment):
        count = 0

        def from_string(self, *args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return super().from_string(*args, **kwargs)

    environment = Counting()
    task.render_template_fields({"ds": "2026-01-02"}, environment)
    return environment.count


def serialized(*dags: Any) -> str:
    """Return DAGs as Airflow writes them, sorted as it compares two versions of a DAG."""
    from airflow.serialization import serialized_objects

    name = "SerializedDAG" if AIRFLOW_2 else "DagSerialization"
    to_dict = getattr(serialized_objects, name).to_dict
    return json.dumps([to_dict(dag) for dag in dags], sort_keys=True)


class AirflowHost:
    """The process, which runs one DAG after another.

    :param home: its Airflow home.
    """

    def __init__(self, home: AirflowHome) -> None:
        self.home = home
        self._log = home.path / "host.log"
        self._pipe, theirs = multiprocessing.Pipe()
        with self._log.open("wb") as output, theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "airflow_host.py"), str(theirs.fileno())],
                env=home.environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of a test module inside Airflow's process."""
        return self._ask("call", function, {}, args)

    def run(
        self,
        build: Callable[..., Any],
        *args: Any,
        conf: dict[str, Any] | None = None,
        **environment: str,
    ) -> Run:
        """Run the DAG that a function of a test module builds.

        :param conf: the run's configuration, which holds its params.
        :param environment: variables to set for it.
        """
        start = self._log.stat().st_size
        found = self._ask("run", build, environment, args, conf or {})
        return Run(**found, log=self._log.read_bytes()[start:].decode())

    def _ask(
        self, todo: str, function: Callable[..., Any], environment: dict[str, str], *arguments: Any
    ) -> Any:
        self._pipe.send(
            {
                "todo": todo,
                "path": function.__code__.co_filename,
                "function": function.__name__,
                "arguments": arguments,
                "environment": environment,
            }
        )
        assert self._pipe.poll(HOST_SECONDS), self._log.read_text()[-4000:]
        good, answer = self._pipe.recv()
        assert good, f"{answer}\n{self._log.read_text()[-4000:]}"
        return answer

    def serialized(self, module: str) -> str:
        """Call ``serialized_dags`` of a test module under two hash seeds; return the one text.

        :param module: its file.
        """
        code = (
            "import sys; sys.path.insert(0, sys.argv[1]); import airflow_host;"
            "print('serialized', airflow_host.load(sys.argv[2]).serialized_dags())"
        )
        texts = []
        for seed in ("1", "2"):
            done = subprocess.run(
                [sys.executable, "-c", code, str(HERE), module],
                env=self.home.environment | {"PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            texts += [line for line in done.stdout.splitlines() if line.startswith("serialized ")]
        [first, second] = texts
        assert first == second
        return first

    def stop(self) -> None:
        """End the process."""
        self._pipe.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
