"""One execution of the operator: hook, source, engine, frame or store put together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from airflow_imagetag.backends import configuration
from airflow_imagetag.engine import progress
from airflow_imagetag.engine.output.sinks import FrameSink, StoreSink, failures_frame
from airflow_imagetag.engine.protocols import Counts
from airflow_imagetag.engine.run import DRAIN_SECONDS, EngineSettings, LabelEngine
from airflow_imagetag.errors import (
    ConfigurationError,
    ResultTooLargeError,
    RunError,
    RunInterruptedError,
    TooManyFailuresError,
)
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.loading.download import download
from airflow_imagetag.models import Failure, TagResult
from airflow_imagetag.operators.options import Options
from airflow_imagetag.operators.outputs import (
    OpenRun,
    into_checkpointed_frame,
    into_frame,
    into_store,
)
from airflow_imagetag.runtime.loop_thread import StopSignal, fast_loop, run_in_thread
from airflow_imagetag.runtime.relaxed_gc import relaxed_gc
from airflow_imagetag.runtime.threads import submit_daemon
from airflow_imagetag.safety.addresses import names_private_host
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.sources.object_storage import ObjectStorageImages
from airflow_imagetag.sources.values import ValueImages

if TYPE_CHECKING:
    import pandas as pd

    from airflow_imagetag.quota.shared import SharedSchedule
    from airflow_imagetag.stores.base import LabelStore
    from airflow_imagetag.stores.parquet import ParquetLabelStore

log = logging.getLogger(__name__)

DEFAULT_MAX_IN_FLIGHT = 256
"""With a quota, which needs that many only if it is large or the service slow."""

DEFAULT_WITHOUT_QUOTA = 64
"""More make no service faster, and cost memory."""

PANDAS_AFTER_SECONDS = 0.05
"""By then the first requests are on their way: pandas is loaded while their answers are."""

NAMED_ERRORS = 3


class OperatorRun:
    """Labels the images of a source through a hook.

    :param hook: the account.
    :param source: where the images are.
    :param options: the operator's checked parameters.
    :param store: where the labels go; None collects them in a frame.
    :param checkpoint: with a frame, where they are kept for the task's next try.
    """

    def __init__(
        self,
        hook: ImageTagHook,
        source: ImageSource,
        options: Options,
        *,
        store: LabelStore | None = None,
        checkpoint: ParquetLabelStore | None = None,
    ) -> None:
        self._hook = hook
        self._account = hook.account
        self._source = source
        self._options = options
        self._store = store
        self._checkpoint = checkpoint
        self._originals = options.taxonomy is not None
        self._frame = FrameSink(max_rows=configuration.max_result_rows(), originals=self._originals)
        self._stored = StoreSink()
        self._stop = StopSignal()
        self._total = len(source) if isinstance(source, ValueImages) and store is None else None
        self._rate = options.requests_per_second or self._account.requests_per_second
        self._max_in_flight = (
            options.max_in_flight
            or self._account.max_in_flight
            or (DEFAULT_WITHOUT_QUOTA if self._rate is None else DEFAULT_MAX_IN_FLIGHT)
        )
        self._counts = Counts()
        self._pandas: Future[ModuleType] | None = None
        self._started = time.monotonic()
        self._elapsed_seconds = 0.0
        self._is_cut_off = False

    def stop(self) -> None:
        """Ask the run to end; may be called from a signal handler."""
        self._stop.request()

    def run(self) -> None:
        """Label everything.

        :raises ImageTagError: what ended the run before its last image, or made it fail after.
        """
        _check_xcom_can_hold_frames()
        # It takes as long as many calls, so it is done beside them; but not beside a quota's even
        # pace, which needs the interpreter at every moment.
        if self._rate is not None:
            self._load_pandas().result()
        self._started = time.monotonic()
        rate = "no limit of" if self._rate is None else f"{self._rate:g}"
        shared = None if self._rate is None else self._account.quota_conn_id
        log.info(
            "Labelling %s with %s at %s (connection %r): up to %d at a time, %s requests per "
            "second%s",
            _images(self._total),
            self._account.api,
            self._account.endpoint,
            self._hook.imagetag_conn_id,
            self._max_in_flight,
            rate,
            f", a quota shared through {shared!r}" if shared else "",
        )
        if self._store is not None:
            log.info("What is finished goes to %r", self._store)
        try:
            with self._open() as work, self._open_ledger() as ledger:
                self._run(work, ledger)
        except BaseException:
            self._is_cut_off = True
            raise
        finally:
            self._is_cut_off = self._is_cut_off or self._stop.requested
            self._elapsed_seconds = time.monotonic() - self._started
            log.info("Ended: %s", self._progress())
        # Here and not where the outputs are made: whoever is interrupted here can still make them.
        self._load_pandas().result()
        if self._stop.requested:
            raise RunInterruptedError(
                f"The run was asked to end before its last image: {self._progress()}. What it "
                "finished is in its outputs."
            )
        self._check_failures()

    def labels(self) -> pd.DataFrame:
        """Return the labels that were found; with a store, those that it could not be given."""
        if self._store is None:
            return self._frame.labels_frame()
        unsaved = FrameSink(originals=self._originals)
        unsaved.write(self._stored.unsaved)
        return unsaved.labels_frame()

    @property
    def has_unsaved_labels(self) -> bool:
        """Whether there are labels that the store could not be given."""
        return any(isinstance(one, TagResult) and one.labels for one in self._stored.unsaved)

    def failures(self) -> pd.DataFrame:
        """Return the failures so far."""
        return failures_frame(self._failures)

    def summary(self) -> dict[str, Any]:
        """Return the counts so far."""
        price = self._account.price_per_thousand
        elapsed = self._elapsed_seconds
        counts = self._counts
        return {
            **asdict(counts),
            "elapsed_seconds": round(elapsed, 3),
            "images_per_second": round(counts.done / elapsed, 3) if elapsed else 0.0,
            "estimated_cost": None if price is None else round(counts.calls * price / 1000, 6),
            "store": None if self._store is None else self._store.serialize(),
        }

    def is_final(self, error: RunError) -> bool:
        """Tell whether a retry of the task would end in the same error again."""
        if isinstance(error, TooManyFailuresError):
            return all(failure.is_final for failure in self._failures)
        return isinstance(error, ResultTooLargeError)

    @property
    def _failures(self) -> Sequence[Failure]:
        return self._frame.failures if self._store is None else self._stored.failures

    def _open(self) -> AbstractContextManager[OpenRun]:
        api = self._account.api
        if self._store is not None:
            return into_store(self._source, self._options, self._stored, self._store, api)
        self._check_size()
        if self._checkpoint is not None:
            return into_checkpointed_frame(
                self._source, self._options, self._frame, self._checkpoint, api
            )
        return into_frame(self._source, self._options, self._frame)

    def _open_ledger(self) -> AbstractContextManager[SharedSchedule | None]:
        """Return the slots of the quota that all workers share, where the connection names any."""
        account = self._account
        if account.quota_conn_id is None or self._rate is None:
            return nullcontext()
        from airflow_imagetag.quota.shared import open_schedule

        ledger = open_schedule(
            account.quota_conn_id, account.quota_name, fallback_share=account.quota_fallback_share
        )
        return closing(ledger)

    def _run(self, work: OpenRun, ledger: SharedSchedule | None) -> None:
        resumed = work.resumed_tagged + work.resumed_failed
        if resumed:
            log.info("An earlier try of this task finished %d images already", resumed)
        self._counts.tagged = self._counts.reused = work.resumed_tagged
        self._counts.failed = work.resumed_failed
        tagger = self._hook.tagger(self._reader(), max_connections=self._max_in_flight)
        engine = LabelEngine(
            work.entries,
            tagger,
            work.sink,
            EngineSettings(
                max_in_flight=self._max_in_flight,
                requests_per_second=self._rate,
                shared_requests_per_second=self._account.requests_per_second,
                batch_size=self._options.batch_size,
                flush_seconds=self._options.flush_seconds,
                calls_per_image=self._hook.caller.calls_per_image,
                reads_at_once=work.reads_at_once,
            ),
            self._stop,
            counts=self._counts,
            total=self._total,
            paid=work.paid,
            ledger=ledger,
        )

        async def main() -> None:
            async with tagger:
                with self._loading_pandas():
                    await engine.run()

        with relaxed_gc():
            # The writer's last batch comes after the answers that were waited for.
            run_in_thread(
                main,
                self._stop,
                grace_seconds=DRAIN_SECONDS + 4,
                loop_factory=fast_loop() if self._rate is None else None,
            )

    @contextmanager
    def _loading_pandas(self) -> Iterator[None]:
        """Load pandas beside the calls, unless it is loaded, or the run ends before."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(PANDAS_AFTER_SECONDS, self._load_pandas)
        try:
            yield
        finally:
            timer.cancel()

    def _load_pandas(self) -> Future[ModuleType]:
        """Return pandas, which a thread loads from the first time on that this is called."""
        if self._pandas is None:
            self._pandas = submit_daemon(partial(import_module, "pandas"), name="imagetag-import")
            self._pandas.add_done_callback(self._stop_unless_usable)
        return self._pandas

    def _stop_unless_usable(self, importing: Future[ModuleType]) -> None:
        """End a run whose labels could not be returned."""
        if importing.exception() is not None:
            self._stop.request()

    def _reader(self) -> ContentLoader:
        source = self._source
        folders = configuration.allowed_local_folders()
        literal_paths: frozenset[str] = frozenset()
        presign = False
        if isinstance(source, ValueImages):
            literal_paths = source.literal_paths()
        elif isinstance(source, ObjectStorageImages):
            presign = source.send == "url"
            folders += source.literal_folders()
            source.check_folder(folders)
        return ContentLoader(
            folders,
            literal_paths,
            presign=presign,
            fetch=self._fetch() if self._options.fetch == "worker" else None,
            max_bytes=self._hook.max_image_bytes,
            may_reach_private=names_private_host(self._account.endpoint),
            needs_sha256=self._store is not None or self._checkpoint is not None,
        )

    def _fetch(self) -> partial[bytes]:
        return partial(
            download,
            max_bytes=self._hook.max_image_bytes,
            timeout_seconds=self._account.timeout_seconds,
            allowed_hosts=configuration.allowed_private_hosts(),
        )

    def _check_size(self) -> None:
        """Refuse a result that is sure to be too large before anything is paid."""
        limit = configuration.max_result_rows()
        images = min(self._total or 0, self._options.max_images or self._total or 0)
        if images > limit:
            raise ConfigurationError(
                f"{images:,} images make more than the {limit:,} labels that an XCom should hold "
                "([imagetag] max_result_rows). Give the task a store, such as "
                "store=SqlLabelStore(...), or split the images between mapped tasks."
            )

    def _check_failures(self) -> None:
        counts = self._counts
        failed = counts.failed - counts.tolerated
        judged = counts.done - counts.tolerated
        if failed <= self._options.max_failure_ratio * judged:
            return
        commonest = Counter(
            failure.error if failure.code is None else f"{failure.error} ({failure.code})"
            for failure in self._failures
            if not failure.is_tolerated
        ).most_common(NAMED_ERRORS)
        names = ", ".join(f"{name} {count:,}" for name, count in commonest)
        first = next(failure for failure in self._failures if not failure.is_tolerated)
        where = "XCom 'return_value'" if self._store is None else "store"
        raise TooManyFailuresError(
            f"{failed:,} of {judged:,} images failed ({failed / judged:.1%}), more than "
            f"max_failure_ratio={self._options.max_failure_ratio:g} allows. Commonest: {names}. "
            f"The first: {first.message} "
            f"The labels of the other {counts.tagged:,} are in the {where}, the failures in the "
            "XCom 'failures'."
        )

    def _progress(self) -> str:
        return progress.line(
            self._counts,
            elapsed_seconds=time.monotonic() - self._started,
            total=self._total,
            is_cut_off=self._is_cut_off,
        )


def _images(total: int | None) -> str:
    """Return how many images a run has, for the log; a source or a store does not tell."""
    if total is None:
        return "new images"
    return progress.plural(total, "image")


def _check_xcom_can_hold_frames() -> None:
    """Refuse a pair of versions whose outputs could not be kept, before anything is paid."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

    if AIRFLOW_V_3_0_PLUS:
        return
    found = version("pandas")
    if int(found.partition(".")[0]) >= 3:
        raise ConfigurationError(
            f"Airflow 2 cannot put a DataFrame of pandas {found} into an XCom. Install "
            "'pandas<3', or Airflow 3."
        )
