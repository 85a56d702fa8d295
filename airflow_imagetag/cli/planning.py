"""Private: ``airflow-imagetag plan``: the next run of a task, without a call."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from importlib import import_module
from types import SimpleNamespace
from typing import IO, Any

from airflow_imagetag.adapters.templating import is_resolved_by_airflow
from airflow_imagetag.cli.labelling import print_plan
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.operators.imagetag import ImageTagOperator


def plan(arguments: argparse.Namespace, out: IO[str]) -> int:
    """Do all that a task would do but send and write, and print the counts."""
    task = _task(arguments.dag_id, arguments.task_id, arguments.dags)
    context = _context(task)
    _render(task, context)
    task.is_dry_run = True
    found: Any = task.execute(context)
    print_plan(found, arguments, out)
    return 0


def _task(dag_id: str, task_id: str, folder: str | None) -> ImageTagOperator:
    """Return a task of a DAG file."""
    bag = _bag(folder)
    dag = bag.dags.get(dag_id)
    if dag is None:
        errors = bag.import_errors.items()
        broken = "".join(f" {path}: {text.splitlines()[-1]}" for path, text in errors)
        raise ConfigurationError(
            f"There is no DAG {dag_id!r} in {bag.dag_folder}. Correct its id, or name the file or "
            f"folder with --dags.{broken}"
        )
    if task_id not in dag.task_ids:
        raise ConfigurationError(
            f"The DAG {dag_id!r} has no task {task_id!r}. It has: {', '.join(dag.task_ids)}."
        )
    task: Any = dag.get_task(task_id)
    # Airflow 2 has no other sign of a mapped operator.
    if hasattr(task, "partial_kwargs"):
        raise ConfigurationError(
            f"{dag_id}.{task_id} is mapped, so its images are known only in a run. Set "
            "dry_run=True in the DAG, and run it."
        )
    if not isinstance(task, ImageTagOperator):
        raise ConfigurationError(
            f"{dag_id}.{task_id} is no ImageTagOperator: there are no calls to plan."
        )
    if is_resolved_by_airflow(task.images):
        raise ConfigurationError(
            f"The images of {dag_id}.{task_id} come from another task, so they are known only in a "
            "run. Set dry_run=True in the DAG, and run it."
        )
    return task


def _bag(folder: str | None) -> Any:
    """Return the DAGs of a folder or file; None takes the configured folder."""
    for place in ("airflow.dag_processing.dagbag", "airflow.models.dagbag"):
        try:
            kind = import_module(place).DagBag
        except (ImportError, AttributeError):
            continue
        return kind(dag_folder=folder)
    raise ConfigurationError("This Airflow has no DagBag that reads DAG files.")


def _context(task: ImageTagOperator) -> Any:
    """Return the variables of templates, as if a run of the DAG started now."""
    now = datetime.now(UTC)
    dag: Any = task.dag
    params = dag.params.dump() if hasattr(dag.params, "dump") else dict(dag.params)
    run = SimpleNamespace(conf={}, run_id="plan", dag_id=dag.dag_id, logical_date=now)
    return {
        "dag": dag,
        "task": task,
        "dag_run": run,
        "run_id": "plan",
        "params": params,
        "logical_date": now,
        "data_interval_start": now,
        "data_interval_end": now,
        "ds": f"{now:%Y-%m-%d}",
        "ds_nodash": f"{now:%Y%m%d}",
        "ts": now.isoformat(),
        "ts_nodash": f"{now:%Y%m%dT%H%M%S}",
        "var": {"value": _Variables(), "json": _Variables(deserialize_json=True)},
    }


class _Variables:
    """Airflow's variables, as ``var.value`` and ``var.json`` of a template."""

    def __init__(self, *, deserialize_json: bool = False) -> None:
        self._settings = {"deserialize_json": deserialize_json}

    def __getattr__(self, name: str) -> Any:
        from airflow_imagetag.adapters import airflow_sdk

        kind: Any = airflow_sdk.Variable
        return kind.get(name, **self._settings)


def _render(task: ImageTagOperator, context: Any) -> None:
    from jinja2 import TemplateError

    try:
        task.render_template_fields(context)
    except TemplateError as error:
        raise ConfigurationError(
            f"A template of the task has no value outside of a run: {error}. Set dry_run=True in "
            "the DAG, and run it."
        ) from None
