"""What a run reads from and writes to: a frame, a frame with a checkpoint, or a store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from airflow_imagetag.engine.answers.batched_lookup import AnswerLookup
from airflow_imagetag.engine.answers.single_flight import CachedAnswer
from airflow_imagetag.engine.output.sinks import FrameSink, LabelFilter, StoreSink
from airflow_imagetag.engine.protocols import Outcome, Sink
from airflow_imagetag.errors import ImageError, ResultTooLargeError, StoreError, error_named
from airflow_imagetag.models import Entry, Failure
from airflow_imagetag.operators.options import Options
from airflow_imagetag.selection.difference import limited, new_entries, pending_entries
from airflow_imagetag.selection.rules import Retag, Rule

if TYPE_CHECKING:
    from airflow_imagetag.sources.base import ImageSource
    from airflow_imagetag.stores.base import LabelStore, OpenStore
    from airflow_imagetag.stores.parquet import ParquetLabelStore


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenRun:
    """One run's input and output, while they are open.

    :param entries: what is to be labelled.
    :param sink: where outcomes go.
    :param reads_at_once: the entries are in memory.
    :param paid: returns what was paid for bytes with some digests earlier; blocks.
    :param resumed_tagged: images that an earlier try of the task labelled.
    :param resumed_failed: images that failed in one by their own fault.
    """

    entries: Iterator[Entry]
    sink: Sink
    reads_at_once: bool = False
    paid: AnswerLookup | None = None
    resumed_tagged: int = 0
    resumed_failed: int = 0


@contextmanager
def into_frame(source: ImageSource, options: Options, frame: FrameSink) -> Iterator[OpenRun]:
    """Label everything, and keep the labels in memory."""
    entries = limited(source.entries(shard=options.shard), options.max_images)
    yield OpenRun(
        entries,
        _Chosen(frame, options),
        reads_at_once=source.is_in_memory and options.shard is None,
    )


@contextmanager
def into_checkpointed_frame(
    source: ImageSource,
    options: Options,
    frame: FrameSink,
    checkpoint: ParquetLabelStore,
    api: str,
) -> Iterator[OpenRun]:
    """Label what earlier tries of the task did not, and keep all labels in memory."""
    chosen = _Chosen(frame, options)
    with checkpoint.open() as opened:
        tagged = failed = 0
        too_large: ResultTooLargeError | None = None
        for outcomes in opened.outcomes(api):
            failures = sum(isinstance(outcome, Failure) for outcome in outcomes)
            failed += failures
            tagged += len(outcomes) - failures
            try:
                chosen.write(outcomes)
            except ResultTooLargeError as error:
                # The outputs of this try replace those of the last one, so they get all of it.
                too_large = error
        limit = options.max_images
        left = None if limit is None else max(limit - tagged - failed, 0)
        entries = pending_entries(source.entries(shard=options.shard), opened, Rule(), api)
        yield OpenRun(
            limited(entries, left) if too_large is None else _refused(too_large),
            _Both(partial(opened.write, api=api), chosen),
            paid=partial(_paid, opened, Rule(), api),
            resumed_tagged=tagged,
            resumed_failed=failed,
        )


@contextmanager
def into_store(
    source: ImageSource, options: Options, sink: StoreSink, store: LabelStore, api: str
) -> Iterator[OpenRun]:
    """Label what the store does not hold, and write it there."""
    with store.open() as opened:
        opened.check_writable(originals=options.taxonomy is not None)
        sink.to = partial(opened.write, api=api)
        entries = new_entries(
            source,
            store,
            opened,
            options.rule,
            api,
            shard=options.shard,
            limit=options.max_images,
        )
        yield OpenRun(
            limited(entries, options.max_images),
            _Chosen(sink, options),
            # Who asks for every image anew is not given the labels that were paid before.
            paid=None
            if options.rule.retag is Retag.ALWAYS
            else partial(_paid, opened, options.rule, api),
        )


def _refused(error: ResultTooLargeError) -> Iterator[Entry]:
    """Raise when the first entry is asked for: by then the run has counted what it resumed."""
    yield from ()
    raise error


class _Chosen:
    """Hands outcomes on with the labels that the task keeps."""

    def __init__(self, to: Sink, options: Options) -> None:
        self._to = to
        self._choice = LabelFilter(
            min_probability=options.min_probability,
            top_k=options.top_k,
            taxonomy=options.taxonomy,
        )

    @property
    def is_quick(self) -> bool:
        return self._to.is_quick

    def write(self, outcomes: Sequence[Outcome]) -> None:
        self._to.write([self._choice(outcome) for outcome in outcomes])


class _Both:
    """Writes to the checkpoint first: what it holds is safe whatever comes after."""

    is_quick = False

    def __init__(self, checkpoint: Callable[[Sequence[Outcome]], None], then: Sink) -> None:
        self._checkpoint: Callable[[Sequence[Outcome]], None] | None = checkpoint
        self._then = then

    def write(self, outcomes: Sequence[Outcome]) -> None:
        try:
            if self._checkpoint is not None:
                self._checkpoint(outcomes)
        except StoreError as error:
            # It only spares a later try some calls; the result of this one does not need it.
            log.error("No checkpoint is kept from here on: %s", error.message)
            self._checkpoint = None
        self._then.write(outcomes)


def _paid(
    opened: OpenStore, rule: Rule, api: str, digests: Collection[str]
) -> dict[str, CachedAnswer]:
    return {
        digest: _known(answer)
        for digest, answer in opened.answers(digests, api).items()
        if not isinstance(answer, Failure) or _holds(answer, rule)
    }


def _holds(failure: Failure, rule: Rule) -> bool:
    """Tell whether equal bytes would fail again: the service said so, and nobody asks anew."""
    return failure.code is not None and not rule.retry_failed


def _known(answer: Outcome) -> CachedAnswer:
    if not isinstance(answer, Failure):
        return answer
    kind = error_named(answer.error)
    known = kind if issubclass(kind, ImageError) else ImageError
    return known(answer.message, code=answer.code)
