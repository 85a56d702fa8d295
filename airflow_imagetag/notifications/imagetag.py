"""The notifier: tells how a run of the operator ended, through any other notifier."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.airflow_sdk import BaseNotifier
from airflow_imagetag.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_imagetag.adapters.airflow_sdk import Context

__all__ = ["ImageTagNotifier"]

COMMONEST = 3
"""Number of the commonest errors that a message names."""


class ImageTagNotifier(BaseNotifier):
    """Tells the counts, the cost and the commonest failures of a run of the operator.

    For ``on_success_callback`` and ``on_failure_callback`` of an ``ImageTagOperator``. The text
    goes to another notifier, such as that of Slack or of mail; without one it goes to the log. Keys
    and messages of images are data, and are never rendered as templates.

    :param via: the notifier that sends the text; None for the log.
    :param field: the attribute of ``via`` that takes the text, such as ``text`` of Slack's or
        ``html_content`` of mail's.
    :param only_if: ``always``; ``failures``, when images failed or the task did; ``failed_task``.
    :raises ConfigurationError: ``only_if`` has another value, or ``via`` has no such attribute.
    """

    def __init__(
        self, *, via: BaseNotifier | None = None, field: str = "text", only_if: str = "always"
    ) -> None:
        super().__init__()
        if only_if not in ("always", "failures", "failed_task"):
            raise ConfigurationError(
                f"only_if must be 'always', 'failures' or 'failed_task', not {only_if!r}."
            )
        if via is not None and not hasattr(via, field):
            raise ConfigurationError(
                f"{type(via).__name__} has no attribute {field!r}. Name the one of its text, such "
                "as field='text'."
            )
        self.via = via
        self.field = field
        self.only_if = only_if

    def notify(self, context: Context) -> None:
        """Send the text about the run of a context."""
        summary = self.summary(context)
        error = context.get("exception")
        if self.only_if == "failed_task" and error is None:
            return
        if self.only_if == "failures" and error is None and not summary.get("failed"):
            return
        text = self.message(context, summary)
        if self.via is None:
            self.log.info(text)
            return
        # Its own fields are rendered; the text is not, since it has data in it.
        via = copy.copy(self.via)
        setattr(via, self.field, "")
        via.render_template_fields(context)
        setattr(via, self.field, text)
        via.notify(context)

    def summary(self, context: Context) -> Mapping[str, Any]:
        """Return the summary of the run; empty if the task failed before there was one."""
        instance: Any = context.get("ti")
        if instance is None:
            return {}
        # On Airflow 3 a callback may run where XComs cannot be read; the text then says less.
        try:
            found = instance.xcom_pull(task_ids=instance.task_id, key="summary")
        except Exception as error:
            self.log.warning("The summary of the run cannot be read: %s", type(error).__name__)
            return {}
        return found if isinstance(found, Mapping) else {}

    def message(self, context: Context, summary: Mapping[str, Any]) -> str:
        """Return the text; a subclass may write another.

        :param context: the context of the callback.
        :param summary: the summary of the run, or an empty mapping.
        """
        instance: Any = context.get("ti")
        error = context.get("exception")
        name = f"{getattr(instance, 'dag_id', '?')}.{getattr(instance, 'task_id', '?')}"
        lines = [f"{name} {'succeeded' if error is None else 'failed'}{_counts(summary)}"]
        if error is not None:
            lines.append(f"Error: {_short(error)}")
        if commonest := commonest_failures(summary.get("failures_sample", ())):
            named = ", ".join(f"{error_name} {count}" for error_name, count in commonest)
            lines.append(f"Commonest failures (of the first ones): {named}")
        if url := getattr(instance, "log_url", None):
            lines.append(f"Log: {url}")
        return "\n".join(lines)


def commonest_failures(
    sample: Sequence[Mapping[str, Any]], most: int = COMMONEST
) -> list[tuple[str, int]]:
    """Return the commonest errors of some failures, with their numbers."""
    names = Counter(
        f"{one['error']} ({one['code']})" if one.get("code") else str(one["error"])
        for one in sample
    )
    return names.most_common(most)


def _counts(summary: Mapping[str, Any]) -> str:
    if not summary:
        return "."
    tagged, failed = (summary.get(name, 0) for name in ("tagged", "failed"))
    parts = [f"{tagged:,} images labelled", f"{failed:,} failed"]
    for name, text in (("waiting", "wait for another try"), ("gave_up", "given up")):
        if summary.get(name):
            parts.append(f"{summary[name]:,} {text}")
    parts.append(f"{summary.get('calls', 0):,} calls")
    if summary.get("estimated_cost"):
        parts.append(f"cost about {summary['estimated_cost']:,.2f}")
    return f": {', '.join(parts)}."


def _short(error: Any) -> str:
    from airflow_imagetag.safety.redaction import redact_text

    return redact_text(f"{type(error).__name__}: {error}")[:500]
