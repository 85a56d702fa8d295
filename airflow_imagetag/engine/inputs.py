"""The ends of a run: entries in, outcomes out, and the labeller between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from airflow_imagetag.engine.flow.call_allowance import Ask
from airflow_imagetag.engine.flow.schedule import Schedule
from airflow_imagetag.engine.protocols import AnswerLookup, OutcomeWriter
from airflow_imagetag.labellers.base import Labeller
from airflow_imagetag.models import Entry, Image


def never_failed(image: Image) -> bool:
    """Tell that no earlier run failed for an image: nothing is kept of earlier runs."""
    del image
    return False


@dataclass(frozen=True, slots=True)
class RunEnds:
    """The entries of a run, and the place of its outcomes.

    :param entries: the entries to label.
    :param writer: takes finished images.
    :param lookup: finds answers that were paid for in earlier runs; None for no such answers.
    :param ask_for_calls: asks for the calls that the run may make; None for no limit.
    :param has_failed: tells whether an earlier run failed for an image.
    """

    entries: Iterator[Entry]
    writer: OutcomeWriter
    lookup: AnswerLookup | None = None
    ask_for_calls: Ask | None = None
    has_failed: Callable[[Image], bool] = never_failed


@dataclass(frozen=True, slots=True)
class RunInputs:
    """The ends of a run, and the labeller between them.

    :param ends: entries and writer.
    :param labeller: labels one image; open while the run lasts.
    :param schedule: slots of a quota that processes share; None for a quota of this run alone.
    """

    ends: RunEnds
    labeller: Labeller
    schedule: Schedule | None = None
