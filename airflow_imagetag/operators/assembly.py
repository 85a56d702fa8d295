"""Private: puts the work of one task together from the parameters of its operator."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_imagetag.backends.parameter_files import configured_policy
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.operators.dry_run import DryRun
from airflow_imagetag.operators.jobs import Job, LabelJob
from airflow_imagetag.operators.label_files import read_label_map
from airflow_imagetag.operators.options import RunTuning, parse_options
from airflow_imagetag.operators.output_factory import make_output
from airflow_imagetag.operators.run import OperatorRun
from airflow_imagetag.sources.images_field import as_source

if TYPE_CHECKING:
    from airflow_imagetag.adapters.airflow_sdk import Context


def job_of(operator: Any, context: Context, tuning: RunTuning) -> Job:
    """Return the work that an operator describes.

    :param operator: has the parameters as attributes, rendered.
    :param context: the context of the task.
    :param tuning: settings of the run that no parameter sets.
    :raises ConfigurationError: names the parameter that is wrong.
    """
    given, store = operator, operator.store
    if given.report and store is None:
        raise ConfigurationError("report needs a store: it shows what the store holds.")
    options = parse_options(given, tuning=tuning)
    policy = configured_policy(options.storage_conn_id)
    options = replace(options, mapping=read_label_map(given.label_map, policy))
    source = as_source(given.images).with_columns(given.key_column, given.uri_column)
    output = make_output(
        options,
        store,
        task_instance=context.get("ti"),
        keeps_result=bool(given.do_xcom_push),
    )
    hook = ImageTagHook(given.imagetag_conn_id, oversize=options.oversize)
    source = source.with_formats(hook.limits.formats)
    if options.dry_run:
        return DryRun(hook, source, options, store)
    tags = {"dag_id": str(given.dag_id), "task_id": given.task_id}
    run = OperatorRun(hook, source, options, output, task_tags=tags)
    return LabelJob(run, context, outlets=given.outlets, store=store, report=given.report)
