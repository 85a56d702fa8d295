"""A process with one Airflow in it, which answers the requests of the tests over a pipe.

Airflow reads its settings once, when it is imported, and keeps state in its modules; the tests'
own process holds another Airflow home, or none. Started by the fixture ``airflow_host``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

# Test modules import the helpers that the tests of all folders share.
sys.path.append(str(Path(__file__).resolve().parent.parent))

modules: dict[str, ModuleType] = {}


def load(path: str) -> ModuleType:
    """Import a test module under a name of its own."""
    if path not in modules:
        name = f"host_{Path(path).stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        modules[path] = module
    return modules[path]


def call(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a function of a test module in this process."""
    return function(*args)


def run(build: Callable[..., Any], args: tuple[Any, ...], conf: dict[str, Any]) -> dict[str, Any]:
    """Run the DAG that a function builds; return the records of the run in the database."""
    import airflow
    from airflow.utils.session import create_session

    dag = build(*args)
    if airflow.__version__.startswith("2."):
        from airflow.models.xcom import XCom

        model, deserialize = XCom, XCom.deserialize_value
    else:
        from airflow.models.xcom import XComModel
        from airflow.sdk.serde import deserialize as from_json

        keep(dag)
        model, deserialize = XComModel, lambda row: from_json(row.value)
    ended = dag.test(run_conf=conf)
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Rendered
    from airflow.models.taskinstance import TaskInstance

    with create_session() as session:

        def rows(table: Any, *columns: Any) -> Any:
            return session.query(*(columns or (table,))).filter(
                table.dag_id == ended.dag_id, table.run_id == ended.run_id
            )

        # Columns, since a whole row of Airflow 2 holds a shortened value.
        xcoms = rows(model, model.task_id, model.map_index, model.key, model.value)

        return {
            "state": str(ended.state),
            "states": {(ti.task_id, ti.map_index): str(ti.state) for ti in rows(TaskInstance)},
            "xcoms": {(x.task_id, x.map_index, x.key): deserialize(x) for x in xcoms},
            "rendered": {(r.task_id, r.map_index): r.rendered_fields for r in rows(Rendered)},
        }


def keep(dag: Any) -> None:
    """Write the DAG to the database, where Airflow 3 looks for a DAG that it runs."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(collect_dags=False)
    bag.bag_dag(dag)
    sync_bag_to_db(bag, "dags-folder", None)


TODO: dict[str, Callable[..., Any]] = {"call": call, "run": run}


def main() -> None:
    """Answer requests until the other end closes the pipe."""
    # Airflow's own deprecations are not ours, and it has set up filters by now.
    warnings.filterwarnings("error", module=r"airflow_imagetag(\.|$)")
    with Connection(int(sys.argv[1])) as pipe:
        while True:
            try:
                request = pipe.recv()
            except EOFError:
                return
            before = dict(os.environ)
            os.environ.update(request["environment"])
            try:
                function = getattr(load(request["path"]), request["function"])
                answer = (True, TODO[request["todo"]](function, *request["arguments"]))
            except BaseException:
                answer = (False, traceback.format_exc())
            # The next request meets the home's own settings, without those that a task has set.
            os.environ.clear()
            os.environ.update(before)
            sys.stdout.flush()
            pipe.send(answer)


if __name__ == "__main__":
    # Importing Airflow sets up logging, before the first request.
    importlib.import_module("airflow")
    main()
