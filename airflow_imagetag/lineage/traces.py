"""Private: a span of a run below the span of its task, where the task has one."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SPAN = "imagetag.label"


@contextmanager
def run_span(attributes: Mapping[str, Any], name: str = SPAN) -> Iterator[dict[str, Any]]:
    """Make a child of the current span, if a span is recorded; yield a dict for its counts.

    The counts become attributes when the span ends. An error is recorded by its class alone, since
    a message may name an image.

    :param attributes: known at the start.
    """
    counts: dict[str, Any] = {}
    # A tracer of Airflow has imported it.
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None or not trace.get_current_span().is_recording():
        yield counts
        return
    tracer = trace.get_tracer("airflow_imagetag")
    with tracer.start_as_current_span(
        name,
        attributes=_attributes(attributes),
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield counts
        except BaseException as error:
            span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.set_attributes(_attributes(counts))


def _attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"imagetag.{name}": value
        for name, value in values.items()
        if isinstance(value, (bool, int, float, str))
    }
