"""The notifier: the text about a run, through another notifier."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_imagetag.adapters.airflow_sdk import BaseNotifier
from airflow_imagetag.errors import ConfigurationError, StoreError
from airflow_imagetag.notifications.imagetag import ImageTagNotifier

FAILURE = {"error": "ImageDecodeError", "code": "-1102", "image_key": "{{ 7 * 7 }}"}
SUMMARY = {
    "tagged": 1_200,
    "failed": 3,
    "waiting": 2,
    "gave_up": 0,
    "calls": 1_203,
    "estimated_cost": 1.8045,
    "failures_sample": [FAILURE, FAILURE, {"error": "ImageFormatError", "code": None}],
}


class Mail(BaseNotifier):
    """Collects the messages that it is told to send."""

    template_fields = ("text", "to")

    def __init__(self, to: str, text: str = "") -> None:
        super().__init__()
        self.to = to
        self.text = text
        self.sent: list[tuple[str, str]] = []

    def notify(self, context: Any) -> None:
        """Send the text."""
        self.sent.append((self.to, self.text))


class TaskInstance:
    """An instance of a task that has pushed a summary, or cannot be asked."""

    dag_id, task_id, log_url = "shop", "label", "http://airflow/log"

    def __init__(self, summary: Any) -> None:
        self._summary = summary

    def xcom_pull(self, task_ids: str, key: str) -> Any:
        """Return the summary."""
        assert (task_ids, key) == ("label", "summary")
        if self._summary is None:
            raise RuntimeError("no XComs here")
        return self._summary


def context(summary: Any = SUMMARY, error: Exception | None = None) -> Any:
    """Return the context of a callback."""
    found = {
        "ti": TaskInstance(summary),
        "owner": "ops",
        "params": {},
        "dag": DAG("shop", schedule=None),
    }
    return found if error is None else {**found, "exception": error}


def test_the_text_has_counts_cost_and_the_commonest_failures():
    """It goes to the field of the other notifier, whose own fields are rendered."""
    mail = Mail("{{ owner }}@example.com")
    ImageTagNotifier(via=mail)(context())
    [(to, text)] = mail.sent
    assert to == "ops@example.com"
    assert text.splitlines() == [
        (
            "shop.label succeeded: 1,200 images labelled, 3 failed, 2 wait for another try, "
            "1,203 calls, cost about 1.80."
        ),
        "Commonest failures (of the first ones): ImageDecodeError (-1102) 2, ImageFormatError 1",
        "Log: http://airflow/log",
    ]


def test_the_text_is_never_rendered():
    """Names of errors, keys and messages are data: a template in one stays a text."""
    mail = Mail("ops")
    error = StoreError("{{ 7 * 7 }} of https://user:secret@host/a.jpg")
    ImageTagNotifier(via=mail)(context(error=error))
    [(_, text)] = mail.sent
    assert "{{ 7 * 7 }}" in text
    assert "secret" not in text
    assert text.startswith("shop.label failed: 1,200 images")


@pytest.mark.parametrize(
    ("only_if", "summary", "error", "sent"),
    [
        ("always", SUMMARY, None, True),
        ("failures", SUMMARY, None, True),
        ("failures", SUMMARY | {"failed": 0}, None, False),
        ("failures", {}, StoreError("gone"), True),
        ("failed_task", SUMMARY, None, False),
        ("failed_task", None, StoreError("gone"), True),
    ],
)
def test_it_is_sent_when_it_is_wanted(only_if, summary, error, sent):
    """Always, when images failed, or when the task did."""
    mail = Mail("ops")
    ImageTagNotifier(via=mail, only_if=only_if)(context(summary, error))
    assert bool(mail.sent) == sent


def test_a_wrong_parameter_is_refused():
    """When the DAG file is read, not when the task has failed."""
    with pytest.raises(ConfigurationError, match="only_if must be"):
        ImageTagNotifier(only_if="sometimes")
    with pytest.raises(ConfigurationError, match="Mail has no attribute 'html'"):
        ImageTagNotifier(via=Mail("ops"), field="html")
