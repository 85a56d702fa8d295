"""Private: the operator's outputs: a frame, a frame with a checkpoint, or a store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_imagetag.engine.counts import Counts
from airflow_imagetag.engine.flow.call_allowance import Ask
from airflow_imagetag.engine.inputs import RunEnds
from airflow_imagetag.engine.output.label_rows import failures_frame
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.models import Failure
from airflow_imagetag.operators.budget import own_budget
from airflow_imagetag.operators.new_entries import every_entry
from airflow_imagetag.operators.options import Options
from airflow_imagetag.operators.writers import (
    Collected,
    FrameWriter,
)
from airflow_imagetag.stores.open_store import DEFAULT_BATCH, BatchBounds

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.sources.base import ImageSource

Push = Callable[[str, Any], None]
"""Keeps a value as an XCom of this key."""


@dataclass(frozen=True, slots=True)
class RunTerms:
    """The facts of a run that an output must know before it opens.

    :param api: the interface that labels the images.
    :param counts: the counts of the run, which change while it lasts.
    :param price_per_thousand: price of 1,000 calls; None if it is unknown.
    """

    api: str
    counts: Counts
    price_per_thousand: float | None = None


@dataclass(frozen=True, slots=True)
class OpenRun:
    """The input and the output of a run while they are open.

    :param ends: the entries to label, and the place of the outcomes.
    :param reads_inline: the entries are in memory.
    :param resumed_tagged: images that an earlier try of the task labelled.
    :param resumed_failed: images that failed in an earlier try by their own fault.
    :param total: number of entries, if it is known by now.
    :param batch: bounds of a batch, unless the task has its own.
    """

    ends: RunEnds
    reads_inline: bool = False
    resumed_tagged: int = 0
    resumed_failed: int = 0
    total: int | None = None
    batch: BatchBounds = DEFAULT_BATCH


@dataclass(frozen=True, slots=True)
class Selection:
    """The images of a run by their earlier tries, and those that wait after it.

    :param new: images that were never tried in their version.
    :param due: images that had failed and were tried again.
    :param failed_again: those of them that failed again.
    :param waiting: images that a later run tries again; with a store, all of its interface.
    :param gave_up: images that are not tried again, likewise.
    :param next_try_at: earliest time of a later try, with a zone; None for none.
    """

    new: int = 0
    due: int = 0
    failed_again: int = 0
    waiting: int = 0
    gave_up: int = 0
    next_try_at: datetime | None = None


class Output(ABC):
    """Where the outcomes of a run go, and the XComs that they leave.

    :param options: the operator's checked parameters.
    """

    place: ClassVar[str]
    """Names the place of the labels in messages."""

    needs_sha256: ClassVar[bool]
    """Whether digests are kept, so that they must be those of other runs, too."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.collected = Collected(originals=options.mapping is not None)

    @property
    def asset_uri(self) -> str | None:
        """URI of the asset that the outcomes change; None for no asset."""
        return None

    @property
    def failures(self) -> list[Failure]:
        """The failures so far; of a run with a store, the first of them."""
        return self.collected.failures

    def failures_frame(self) -> pd.DataFrame:
        """Return the failures as a frame."""
        return failures_frame(self.failures)

    def count(self, source: ImageSource) -> int | None:
        """Return the number of entries of a run; None if it is unknown."""
        del source
        return None

    def check_size(self, total: int | None) -> None:
        """Check that the result will not be too large, before anything is paid for.

        :raises ConfigurationError: the result is certain to be too large.
        """
        del total

    @abstractmethod
    def open(self, source: ImageSource, terms: RunTerms) -> AbstractContextManager[OpenRun]:
        """Return a context in which the images of a source can be labelled.

        An error that leaves the context is the end of the run.

        :raises ConfigurationError: a place cannot be used.
        """

    @abstractmethod
    def result(self, summary: dict[str, Any]) -> Any:
        """Return the operator's return value."""

    @abstractmethod
    def rescued(self) -> dict[str, Callable[[], Any]]:
        """Return the XComs that keep the labels of a run that failed, each as a function."""

    def finish(self, push: Push, result: Any) -> None:
        """End a run that succeeded.

        :param push: keeps an XCom.
        :param result: the operator's return value.
        """
        del push, result

    def written_rows(self) -> dict[str, int]:
        """Return the numbers of rows that a store has taken, by ``labels`` and ``images``."""
        return {}

    def selection(self, counts: Counts) -> Selection:
        """Return the counts of images by their earlier tries.

        :param counts: the counts of the run.
        """
        waiting = sum(not failure.is_final for failure in self.failures)
        return Selection(new=counts.done, waiting=waiting)

    @abstractmethod
    def describe(self) -> dict[str, Any] | None:
        """Return the store as the summary shows it; None for no store."""


class FrameOutput(Output):
    """Labels everything, and keeps the labels in memory.

    :param options: the operator's checked parameters.
    :param max_rows: maximum number of labels of the frame.
    :param keeps_result: Airflow keeps the return value as an XCom.
    """

    place = "XCom 'return_value'"
    needs_sha256 = False

    def __init__(self, options: Options, *, max_rows: int, keeps_result: bool) -> None:
        super().__init__(options)
        self._max_rows = max_rows
        self._keeps_result = keeps_result
        self._writer = FrameWriter(self.collected, options.label_filter, max_rows)

    def count(self, source: ImageSource) -> int | None:
        """Return the number of entries of the source, if it is known."""
        count = source.count()
        bounds = (count, self._options.max_images, self._options.sample)
        return None if count is None else min(one for one in bounds if one is not None)

    def check_size(self, total: int | None) -> None:
        """Check that the images do not make more labels than an XCom should hold.

        :raises ConfigurationError: they are certain to.
        """
        images = total or 0
        if images > self._max_rows:
            raise ConfigurationError(
                f"{images:,} images make more than the {self._max_rows:,} labels that an XCom "
                "should hold ([imagetag] max_result_rows). Give the task a store, such as "
                "store=SqlLabelStore(...), or split the images between mapped tasks."
            )

    @contextmanager
    def open(self, source: ImageSource, terms: RunTerms) -> Iterator[OpenRun]:
        """Open a run over all entries of the source."""
        options = self._options
        yield OpenRun(
            RunEnds(
                every_entry(source, options),
                self._writer,
                ask_for_calls=self._ask_for_calls(terms),
            ),
            # A shard and a sample hash every key.
            reads_inline=(source.is_in_memory and options.shard is None and options.sample is None),
        )

    def _ask_for_calls(self, terms: RunTerms) -> Ask | None:
        own = own_budget(self._options.budget, terms.price_per_thousand)
        if own is None:
            return None

        async def ask(wanted: int) -> int:
            return own.reserve(wanted)

        return ask

    def result(self, summary: dict[str, Any]) -> pd.DataFrame:
        """Return the labels frame."""
        del summary
        return self.collected.labels.frame()

    def rescued(self) -> dict[str, Callable[[], Any]]:
        """Return the labels that were found, unless Airflow keeps no return value."""
        return {"return_value": self.collected.labels.frame} if self._keeps_result else {}

    def describe(self) -> None:
        """Return None: there is no store."""
