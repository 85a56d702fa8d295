"""Private: the work of one task: a run with its XComs, or a dry run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from airflow_imagetag.safety.redaction import redact

if TYPE_CHECKING:
    from airflow_imagetag.adapters.airflow_sdk import Context
    from airflow_imagetag.operators.run import OperatorRun
    from airflow_imagetag.stores.base import LabelStore

log = logging.getLogger(__name__)

OUTLET_COUNTS = ("seen", "tagged", "reused", "failed", "skipped", "calls")
"""The counts of the summary that the event of the store's asset holds."""


class Job(Protocol):
    """The work of one task."""

    @property
    def labelling(self) -> OperatorRun | None:
        """The run, whose counts grow meanwhile; None for a dry run."""
        ...

    def execute(self) -> Any:
        """Do the work, and return the task's return value."""
        ...

    def stop(self) -> None:
        """Ask the work to end; may be called from a signal handler."""
        ...


class LabelJob:
    """A run, whose outputs become XComs, and whose counts become those of the store's asset.

    :param run: the run.
    :param context: the context of the task.
    :param outlets: the outlets of the task.
    :param store: where the labels are kept; None for a frame.
    :param report: path of the file that shows the store; None for no such file.
    """

    def __init__(
        self,
        run: OperatorRun,
        context: Context,
        *,
        outlets: Sequence[Any],
        store: LabelStore | None,
        report: str | None,
    ) -> None:
        self._run = run
        self._context = context
        self._outlets = outlets
        self._store = store
        self._report = report

    @property
    def labelling(self) -> OperatorRun:
        """The run."""
        return self._run

    def execute(self) -> Any:
        """Label the images, and push ``failures`` and ``summary``.

        :return: the labels frame, or with a store the summary.
        """
        run = self._run
        counts = {"failures": run.failures, "summary": run.summary}
        try:
            run.run()
            self._write_report()
            if errors := self._push_each(counts):
                raise errors[0]
            result = run.result()
            self._tell_outlet(run.summary())
            run.finish(partial(_push, self._context), result)
        except BaseException as error:
            # After any error, a kill included: labels that are paid for go to the outputs first.
            self._push_each(run.rescued() | counts)
            if (raised := run.as_raised(error)) is not error:
                raise raised from None
            raise
        return result

    def stop(self) -> None:
        """End the run: nothing more is sent, and finished images are kept."""
        self._run.stop()

    def _write_report(self) -> None:
        if self._report and self._store is not None:
            self._store.report(self._report)
            log.info("Report: %s", redact(self._report))

    def _tell_outlet(self, summary: Mapping[str, Any]) -> None:
        """Put the counts into the event of the store's asset, if the task has it as an outlet."""
        outlet_events = self._context.get("outlet_events")
        asset_uri = self._run.asset_uri
        if outlet_events is None or asset_uri is None:
            return
        for outlet in self._outlets:
            if getattr(outlet, "uri", None) == asset_uri:
                outlet_events[outlet].extra = {name: summary[name] for name in OUTLET_COUNTS}

    def _push_each(self, outputs: Mapping[str, Callable[[], Any]]) -> list[Exception]:
        """Make and push XComs, each independently of the others, and return their errors."""
        errors: list[Exception] = []
        for key, make in outputs.items():
            try:
                _push(self._context, key, make())
            except Exception as error:  # raised when the others are kept, or another one is
                log.exception("The XCom %r could not be kept", key)
                errors.append(error)
        return errors


def _push(context: Context, key: str, value: Any) -> None:
    task_instance = context.get("ti")
    if task_instance is not None:
        task_instance.xcom_push(key=key, value=value)
