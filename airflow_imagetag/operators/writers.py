"""Private: the writers of the operator's outputs, and the look-up of answers in a store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from airflow_imagetag.engine.flow.call_allowance import Ask
from airflow_imagetag.engine.output.label_filter import LabelFilter
from airflow_imagetag.engine.output.label_rows import LabelRows
from airflow_imagetag.engine.protocols import AnswerLookup, CachedAnswer, Outcome, as_exception
from airflow_imagetag.errors import ImageError, ResultTooLargeError, StoreError, error_named
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.selection.retry_schedule import RetrySchedule
from airflow_imagetag.selection.rules import Rule, StoredState, has_failed_before

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.stores.open_store import OpenStore

log = logging.getLogger(__name__)

T = TypeVar("T")

MAX_SHOWN_FAILURES = 10_000
"""Maximum number of failures in the XCom of a run with a store, which itself holds all of them."""


@dataclass(slots=True)
class Collected:
    """The part of the outcomes that a run keeps in memory for its XComs.

    :param originals: a label map renames labels, so frames have their original names, too.
    :param failures: images without labels.
    :param unsaved: outcomes that are paid for and that the store did not take.
    :param new: number of images that were never tried in their version.
    :param due: number of images that had failed and are tried again.
    :param failed_again: number of failed images that had failed in an earlier run, too.
    :param without_labels: number of images with an answer of which no label is kept.
    :param written_images: number of images that a store has taken.
    :param written_labels: number of their labels.
    """

    originals: bool = False
    failures: list[Failure] = field(default_factory=list)
    unsaved: list[Outcome] = field(default_factory=list)
    new: int = 0
    due: int = 0
    failed_again: int = 0
    without_labels: int = 0
    written_images: int = 0
    written_labels: int = 0
    labels: LabelRows = field(init=False)
    """Rows of the labels frame."""

    def __post_init__(self) -> None:
        self.labels = LabelRows(originals=self.originals)

    def count_without_labels(self, outcomes: Sequence[Outcome]) -> None:
        """Count the images of a batch that have no row among the labels, though they were answered.

        :param outcomes: with the labels that are kept.
        """
        self.without_labels += sum(
            isinstance(outcome, TagResult) and not outcome.labels for outcome in outcomes
        )

    def count_written(self, outcomes: Sequence[Outcome]) -> None:
        """Count a batch that a store has taken."""
        for outcome in outcomes:
            if isinstance(outcome, TagResult):
                self.written_images += 1
                self.written_labels += len(outcome.labels)
            else:
                self.written_images += outcome.is_of_image

    @property
    def has_unsaved_labels(self) -> bool:
        """Whether there are labels that the store did not take."""
        return any(isinstance(one, TagResult) and one.labels for one in self.unsaved)

    def unsaved_frame(self) -> pd.DataFrame:
        """Return the labels that the store did not take."""
        rows = LabelRows(originals=self.originals)
        rows.add([one for one in self.unsaved if isinstance(one, TagResult)])
        return rows.frame()


class FrameWriter:
    """Collects outcomes in memory.

    :param collected: the outcomes.
    :param label_filter: selects the labels that are kept.
    :param max_rows: maximum number of labels.
    """

    def __init__(self, collected: Collected, label_filter: LabelFilter, max_rows: int) -> None:
        self._collected = collected
        self._label_filter = label_filter
        self._max_rows = max_rows

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """Collect a batch.

        :raises ResultTooLargeError: the labels are more than ``max_rows`` now; all are kept.
        """
        self.collect(outcomes)

    def collect(self, outcomes: Sequence[Outcome]) -> None:
        """Collect a batch.

        :raises ResultTooLargeError: the labels are more than ``max_rows`` now; all are kept.
        """
        results: list[TagResult] = []
        for outcome in map(self._label_filter, outcomes):
            if isinstance(outcome, Failure):
                self._collected.failures.append(outcome)
            else:
                results.append(outcome)
        self._collected.count_without_labels(results)
        self._collected.labels.add(results)
        if len(self._collected.labels) > self._max_rows:
            raise ResultTooLargeError(
                f"The result has more than {self._max_rows:,} labels, more than an XCom should "
                "hold. Give the task a store, such as store=SqlLabelStore(...), or split the "
                "images between mapped tasks. If an XCom backend of your own can hold more, raise "
                "[imagetag] max_result_rows."
            )


class CheckpointWriter:
    """Writes each batch to the checkpoint first: a batch that it holds survives the process.

    :param opened: the checkpoint.
    :param executor: runs the writing.
    :param then: collects the batch.
    """

    def __init__(self, opened: OpenStore, executor: Executor, then: FrameWriter) -> None:
        self._opened = opened
        self._executor = executor
        self._then = then
        self._has_failed = False

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """Write a batch; a checkpoint that fails is not written to any more.

        :raises ResultTooLargeError: the labels are more than an XCom should hold.
        """
        try:
            if not self._has_failed:
                await _in_executor(self._executor, lambda: self._opened.write(outcomes))
        except StoreError as error:
            # The checkpoint only spares a later try some calls; this try does not need it.
            log.error("No checkpoint is kept from here on: %s", error.message)
            self._has_failed = True
        self._then.collect(outcomes)


class StoreWriter:
    """Writes outcomes to a store, and collects those that the XComs show.

    :param opened: the store.
    :param executor: runs the writing.
    :param label_filter: selects the labels that are kept.
    :param collected: failures, and outcomes that the store did not take.
    :param tried: the stored states of images that were tried before; those that are finished are
        removed.
    :param schedule: when images that failed are tried again.
    """

    def __init__(
        self,
        opened: OpenStore,
        executor: Executor,
        label_filter: LabelFilter,
        collected: Collected,
        *,
        tried: dict[str, StoredState],
        schedule: RetrySchedule,
    ) -> None:
        self._tried = tried
        self._schedule = schedule
        self._opened = opened
        self._executor = executor
        self._label_filter = label_filter
        self._collected = collected
        self._errors: list[BaseException] = []

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        """Write a batch; after the store has failed for good, keep the outcomes in memory.

        :raises StoreError: the store failed.
        """
        await _in_executor(self._executor, lambda: self._write(outcomes))

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        filtered = [self._with_next_try(self._label_filter(outcome)) for outcome in outcomes]
        room = MAX_SHOWN_FAILURES - len(self._collected.failures)
        failures = [outcome for outcome in filtered if isinstance(outcome, Failure)]
        self._collected.failures += failures[:room]
        self._collected.count_without_labels(filtered)
        try:
            if self._errors:
                raise self._errors[0]
            self._opened.write(filtered)
            self._collected.count_written(filtered)
        except BaseException as error:
            self._errors.append(error)
            self._collected.unsaved += filtered
            raise

    def _with_next_try(self, outcome: Outcome) -> Outcome:
        """Return the outcome, a failure with the time of its next try; count what fails again."""
        stored = self._tried.pop(outcome.image_key, None)
        if not isinstance(outcome, Failure):
            return outcome
        is_again = has_failed_before(
            stored, version=outcome.version, has_uri=outcome.image_uri is not None
        )
        self._collected.failed_again += is_again and not outcome.is_tolerated
        return replace(self._schedule.after(outcome, stored), is_again=is_again)


def answer_lookup(opened: OpenStore, rule: Rule, executor: Executor) -> AnswerLookup:
    """Return the look-up of answers that were paid for in earlier runs.

    :param opened: the store.
    :param rule: decides whether a stored failure is tried again.
    :param executor: runs the look-up.
    """

    def look_up(digests: Collection[str]) -> dict[str, CachedAnswer]:
        return {
            digest: _cached(answer)
            for digest, answer in opened.answers(digests).items()
            if not isinstance(answer, Failure) or _would_fail_again(answer, rule)
        }

    async def lookup(digests: Collection[str]) -> Mapping[str, CachedAnswer]:
        return await _in_executor(executor, lambda: look_up(digests))

    return lookup


def ask_through(reserve: Callable[[int], int], executor: Executor) -> Ask:
    """Return the question for calls that an executor asks.

    :param reserve: sets calls aside; blocks.
    :param executor: runs it.
    """

    async def ask(wanted: int) -> int:
        return await _in_executor(executor, lambda: reserve(wanted))

    return ask


def _would_fail_again(failure: Failure, rule: Rule) -> bool:
    """Tell whether equal bytes would fail again: the service said so, and no retry was asked."""
    return failure.code is not None and not (rule.retry_failed or rule.only_failed)


def _cached(answer: Outcome) -> CachedAnswer:
    if not isinstance(answer, Failure):
        return answer
    kind = error_named(answer.error)
    known = kind if issubclass(kind, ImageError) else ImageError
    return known(answer.message, code=answer.code)


async def _in_executor(executor: Executor, work: Callable[[], T]) -> T:
    """Run blocking work; a ``CancelledError`` of its own would pass for the engine's."""

    def guarded() -> T:
        try:
            return work()
        except Exception:
            raise
        except BaseException as error:
            raise as_exception("writer", error) from error

    return await asyncio.get_running_loop().run_in_executor(executor, guarded)
