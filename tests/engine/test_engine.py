"""The engine: bounded, patient if that helps, and without losing an answer that is paid for."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from started_threads import StartedThreads

from airflow_imagetag import errors
from airflow_imagetag.backends.accounts import account_of
from airflow_imagetag.engine import failures
from airflow_imagetag.engine import run as engine_run
from airflow_imagetag.engine.flow.circuit_breaker import CircuitBreakerConfig
from airflow_imagetag.engine.flow.retry_policy import RetryPolicy
from airflow_imagetag.engine.flow.worker_pool import AdaptiveWorkerPool
from airflow_imagetag.engine.inputs import RunEnds, RunInputs, never_failed
from airflow_imagetag.engine.protocols import Outcome
from airflow_imagetag.engine.run import LabelEngine
from airflow_imagetag.engine.settings import EngineSettings, EngineTuning
from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.labellers.base import Labeller, Prepared
from airflow_imagetag.labellers.http import HttpLabeller
from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.loading.preflight import ImagePreflight
from airflow_imagetag.models import (
    Entry,
    Failure,
    Image,
    Label,
    RejectedImage,
    SkippedImage,
    TagResult,
)
from airflow_imagetag.runtime.loop_thread import StopSignal
from airflow_imagetag.safety.uris import is_http
from airflow_imagetag.services.messages import Payload
from airflow_imagetag.services.request_codec import RequestCodec
from airflow_imagetag.testing import Emulator, Faults

SMALL_BYTES = 1000
CHUNK = 2 * 8
"""Number of entries in a chunk, with the bound of images in flight that these tests use."""
QUICK = RetryPolicy(max_attempts=4, first_wait_seconds=0.001, max_wait_seconds=0.002)
REFUSED = errors.Billing.REFUSED
SHORT = CircuitBreakerConfig(first_pause_seconds=0.001, max_pause_seconds=0.002)


class FakeLabeller(Labeller):
    """Labels by itself: waits, and fails as told; it counts concurrent loads and calls.

    :param fail: returns the error of a call, by key and attempt, or None.
    """

    def __init__(
        self,
        fail: Callable[[str, int], BaseException | None] = lambda key, attempt: None,
        *,
        call_seconds: float = 0.0,
        load_seconds: float = 0.0,
    ) -> None:
        self._fail = fail
        self._call_seconds = call_seconds
        self._load_seconds = load_seconds
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.fitted: Counter[str] = Counter()
        self.answered: set[str] = set()
        self.loading = self.calling = self.most_loading = self.most_calling = 0

    def prepare_ahead(self, image: Image) -> Prepared | None:
        if image.content is None or len(image.content) < SMALL_BYTES:
            return None
        try:
            return Prepared(image, self.load(image))
        except ImageTagError:
            return None

    async def prepare(self, image: Image) -> Prepared:
        if image.content is not None or is_http(image.uri or ""):
            return Prepared(image, self.load(image))
        return Prepared(image, await asyncio.to_thread(self.load, image))

    def load(self, image: Image) -> Payload:
        with self._lock:
            self.loading += 1
            self.most_loading = max(self.most_loading, self.loading)
        time.sleep(self._load_seconds)
        with self._lock:
            self.loading -= 1
        if image.content is not None:
            digest = hashlib.sha256(image.content).hexdigest()
            return Payload(content=image.content, digest=digest)
        return Payload(url=image.uri)

    async def fit(self, prepared: Prepared) -> Prepared:
        self.fitted[prepared.image.key] += 1
        return prepared

    async def call(self, prepared: Prepared) -> TagResult:
        image = prepared.image
        self.calls[image.key] += 1
        self.calling += 1
        self.most_calling = max(self.most_calling, self.calling)
        try:
            await asyncio.sleep(self._call_seconds)
        finally:
            self.calling -= 1
        if (error := self._fail(image.key, self.calls[image.key])) is not None:
            raise error
        self.answered.add(image.key)
        return TagResult(
            image.key,
            image.uri,
            (Label("a", 1.0),),
            "fake",
            datetime.now(UTC),
            version=image.version,
            content_sha256=prepared.payload.sha256,
        )


class FakeWriter:
    """Keeps the batches; may be slow, and may fail from a batch on."""

    def __init__(self, *, seconds: float = 0.0, fail_at: int | None = None) -> None:
        self.batches: list[list[Outcome]] = []
        self._seconds = seconds
        self._fail_at = fail_at
        self._lock = threading.Lock()

    async def write(self, outcomes: Sequence[Outcome]) -> None:
        assert self._lock.acquire(blocking=False), "two batches at the same time"
        try:
            await asyncio.sleep(self._seconds)
            if self._fail_at is not None and len(self.batches) >= self._fail_at:
                raise OSError("disk full")
            self.batches.append(list(outcomes))
        finally:
            self._lock.release()

    @property
    def outcomes(self) -> list[Outcome]:
        return list(itertools.chain.from_iterable(self.batches))

    @property
    def failure(self) -> Failure:
        """The only outcome, which is a failure."""
        [outcome] = self.outcomes
        assert isinstance(outcome, Failure)
        return outcome

    @property
    def tagged(self) -> set[str]:
        return {item.image_key for item in self.outcomes if isinstance(item, TagResult)}

    @property
    def failed(self) -> dict[str, str]:
        return {
            item.image_key: item.error for item in self.outcomes if not isinstance(item, TagResult)
        }


def urls(count: int) -> Iterator[Image]:
    """Return images that are URLs."""
    return (Image(str(number), f"https://h/{number}.jpg") for number in range(count))


async def no_work() -> None:
    """End at once."""


def settings(**fields: Any) -> EngineSettings:
    """Return settings without a quota and with quick retries."""
    usual = {"requests_per_second": None, "retry": QUICK, "breaker": SHORT, "max_in_flight": 8}
    return EngineSettings(**usual | fields)


def make(
    entries: Iterable[Entry],
    labeller: Labeller,
    writer: FakeWriter,
    stop: StopSignal | None = None,
    has_failed: Callable[[Image], bool] = never_failed,
    **fields: Any,
) -> LabelEngine:
    """Make a run."""
    inputs = RunInputs(RunEnds(iter(entries), writer, has_failed=has_failed), labeller)
    return LabelEngine(inputs, settings(**fields), stop or StopSignal())


def go(run: LabelEngine) -> BaseException | None:
    """Run to the end and return the error that ended it; a run that hangs fails the test."""

    async def main() -> BaseException | None:
        try:
            async with asyncio.timeout(20):
                await run.run()
        except TimeoutError:
            raise AssertionError("the run hangs") from None
        except Exception as error:
            return error
        return None

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    started = StartedThreads("imagetag")
    yield
    deadline = time.monotonic() + 5
    while left := started.names():
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 1000])
def test_every_image_ends_once(count):
    """However many there are, each is called once and written once."""
    labeller, writer = FakeLabeller(), FakeWriter()
    run = make(urls(count), labeller, writer, batch_size=30)
    assert go(run) is None
    assert sorted(item.image_key for item in writer.outcomes) == sorted(map(str, range(count)))
    assert set(labeller.calls.values()) <= {1}
    assert (run.counts.seen, run.counts.tagged, run.counts.calls) == (count,) * 3
    assert all(len(batch) <= 30 for batch in writer.batches)


def test_no_more_than_so_many_in_flight():
    """Images loaded or called at the same time are bounded, and the bound is used."""
    labeller = FakeLabeller(call_seconds=0.01, load_seconds=0.005)
    images = (Image(str(number), "/not/at/hand") for number in range(200))
    assert go(make(images, labeller, FakeWriter(), max_in_flight=7)) is None
    assert 5 <= labeller.most_calling <= 7
    assert 2 <= labeller.most_loading <= 7


def test_one_at_a_time():
    """A bound of one is a bound."""
    labeller = FakeLabeller(call_seconds=0.001)
    assert go(make(urls(20), labeller, FakeWriter(), max_in_flight=1)) is None
    assert labeller.most_calling == 1


@pytest.mark.parametrize(
    ("rate", "latency_seconds", "bound", "size"),
    [
        (20, 1.0, 256, 34),
        (20, 0.05, 256, 6),
        (20, 5.0, 256, 154),
        (20, 30.0, 256, 256),
        (20, 1.0, 8, 8),
        (0.1, 1.0, 256, 5),
        (None, 0.05, 64, 64),
    ],
)
def test_the_crew_is_what_the_quota_keeps_busy(rate, latency_seconds, bound, size):
    """Rate times latency, with room for slow calls, and never more than the bound."""
    team = AdaptiveWorkerPool(no_work, requests_per_second=rate, max_in_flight=bound)
    for _ in range(200):
        team.record_latency(latency_seconds)
    assert abs(team.size() - size) <= 1
    assert team.size() <= bound


def test_the_crew_grows_with_the_latency():
    """A service that becomes slow gets more calls at once, and the quota stays used."""
    tuning = EngineTuning(resize_seconds=0.02, first_latency_seconds=0.01)
    slow_from = 60

    class Slow(FakeLabeller):
        async def call(self, prepared: Prepared) -> TagResult:
            self._call_seconds = 0.01 if self.calls.total() < slow_from else 1.2
            return await super().call(prepared)

    labeller, writer = Slow(), FakeWriter()
    run = make(
        urls(250), labeller, writer, requests_per_second=50, max_in_flight=100, tuning=tuning
    )
    assert go(run) is None
    assert len(writer.tagged) == 250
    # Five at first; 60 calls are under way at the new latency, which takes it a while to show.
    assert 25 <= labeller.most_calling <= 100


@pytest.mark.parametrize("bound", [3, 12])
def test_a_crew_that_would_grow_keeps_its_bound(bound):
    """However slow the service is."""
    tuning = EngineTuning(resize_seconds=0.02)
    labeller = FakeLabeller(call_seconds=0.1)
    run = make(
        urls(60),
        labeller,
        FakeWriter(),
        requests_per_second=500,
        max_in_flight=bound,
        tuning=tuning,
    )
    assert go(run) is None
    assert labeller.most_calling == bound


@pytest.mark.parametrize("reads_inline", [True, False])
@pytest.mark.parametrize("kind", [OSError, asyncio.CancelledError, SystemExit, KeyboardInterrupt])
def test_whatever_a_source_raises_ends_the_run(kind, reads_inline):
    """The run does not pass for a complete one, and labels of sent images are kept."""

    def source() -> Iterator[Image]:
        yield from urls(50)
        raise kind("no more")

    writer = FakeWriter()
    labeller = FakeLabeller(call_seconds=0.01)
    run = make(source(), labeller, writer, reads_inline=reads_inline)
    error = go(run)
    assert isinstance(error, OSError if kind is OSError else RuntimeError)
    assert "no more" in str(error)
    assert kind is OSError or kind.__name__ in str(error)
    assert writer.tagged == set(labeller.calls)
    assert run.counts.seen == run.counts.tagged + run.counts.skipped


@pytest.mark.parametrize("reads_inline", [True, False])
def test_an_entry_that_is_no_image_ends_the_run(reads_inline):
    """A source of another package may give anything, and must not seem to have been labelled."""
    entries: Any = [Image("a", "https://h/a.jpg"), {"image_key": "b"}]
    error = go(make(entries, FakeLabeller(), FakeWriter(), reads_inline=reads_inline))
    assert isinstance(error, errors.ConfigurationError)
    assert error.message.startswith("The source yielded an entry of the class dict.")


def test_a_stop_leaves_a_source_in_memory_alone():
    """The rest of it is neither read nor counted."""
    stop = StopSignal()
    labeller = FakeLabeller(lambda key, attempt: stop.request())
    run = make(urls(100_000), labeller, FakeWriter(), stop, reads_inline=True)
    assert go(run) is None
    assert run.counts.seen == run.counts.tagged + run.counts.skipped < 100


def test_images_that_are_loaded_make_room():
    """The size of an image is assumed only until it is loaded, and not until it is labelled."""

    class Loading(FakeLabeller):
        def expected_bytes(self, image: Image) -> int:
            return 100

    labeller = Loading(call_seconds=0.2)
    tuning = EngineTuning(max_bytes_in_flight=300)
    source = [Image(str(number), "/photos/a.jpg") for number in range(40)]
    run = make(source, labeller, FakeWriter(), max_in_flight=40, tuning=tuning)
    assert go(run) is None
    assert labeller.calls.total() == 40
    assert labeller.most_loading <= 3
    assert labeller.most_calling > 30


@pytest.mark.parametrize("is_large", [True, False], ids=["large", "small"])
def test_large_images_are_digested_beside_the_loop(is_large):
    """The digest of a large image takes no time of the loop; a small one is not worth a thread."""
    threads = set()

    class Slow(FakeLabeller):
        def load(self, image: Image) -> Payload:
            threads.add(threading.current_thread())
            return super().load(image)

    labeller = Slow()
    size = SMALL_BYTES if is_large else 10
    run = make(
        [Image(str(n), content=bytes([n]) * size) for n in range(99)], labeller, FakeWriter()
    )
    assert go(run) is None
    assert labeller.calls.total() == 99
    assert len(threads) == 1
    assert (threading.current_thread() in threads) is not is_large


@pytest.mark.parametrize("size", [0, 20])
def test_bytes_that_cannot_be_sent(size):
    """A fault of one image is its own failure, also if the reading thread meets it."""

    class Slow(FakeLabeller):
        def load(self, image: Image) -> Payload:
            if image.content == b"x" * size:
                raise errors.ImageEmptyError("no")
            return super().load(image)

    images = [Image(str(n), content=b"x" * (size + n)) for n in range(5)]
    writer = FakeWriter()
    assert go(make(images, Slow(), writer)) is None
    assert writer.failed == {"0": "ImageEmptyError"}
    assert writer.tagged == {"1", "2", "3", "4"}


def test_what_rests_leaves_its_place_to_others():
    """Failures cost their own attempts, and not the time that their images rest in between."""
    attempts: list[int] = []

    def fail(key: str, attempt: int) -> BaseException | None:
        attempts.append(attempt)
        return errors.ServiceUnavailableError("x") if attempt == 1 else None

    labeller = FakeLabeller(fail, call_seconds=0.01)
    rest = RetryPolicy(first_wait_seconds=1.0, max_wait_seconds=1.0)
    run = make(
        urls(40),
        labeller,
        FakeWriter(),
        retry=rest,
        max_in_flight=20,
        breaker=CircuitBreakerConfig(1000),
    )
    assert go(run) is None
    # The second twenty do not wait for the rest of the first; a few rests are short by chance.
    assert attempts[:40].count(1) >= 35
    assert labeller.calls.total() == 80


def test_what_rests_is_bounded():
    """When everything fails, no more images wait in memory than may be in flight."""
    labeller = FakeLabeller(lambda key, attempt: errors.ServiceUnavailableError("x"))
    rest = RetryPolicy(first_wait_seconds=60.0, max_wait_seconds=60.0)
    stop = StopSignal()
    many = CircuitBreakerConfig(1000)
    run = make(urls(1000), labeller, FakeWriter(), stop, retry=rest, max_in_flight=5, breaker=many)
    stop_after(0.3, run, stop)
    assert len(labeller.calls) <= 10


def test_a_crew_that_shrinks_leaves_somebody_for_the_rest():
    """Workers that end an image at the same moment do not all take themselves for one too many."""
    together = asyncio.Event()

    class Slow(FakeLabeller):
        async def call(self, prepared: Prepared) -> TagResult:
            if (prepared.image.key, self.calls["0"]) != ("0", 0):
                asyncio.get_running_loop().call_later(0.1, together.set)
                await together.wait()
            return await super().call(prepared)

    def fail(key: str, attempt: int) -> BaseException | None:
        return errors.ServiceUnavailableError("x") if (key, attempt) == ("0", 1) else None

    labeller, writer = Slow(fail), FakeWriter()
    run = make(urls(7), labeller, writer, max_in_flight=4)
    assert go(run) is None
    assert len(writer.tagged) == run.counts.seen == 7


def test_images_with_equal_bytes_rest_together():
    """Images that wait for the first one's answer do not keep it from its next attempt."""
    labeller = FakeLabeller(
        lambda key, attempt: errors.ServiceUnavailableError("x") if attempt < 3 else None
    )
    images = [Image(str(number), content=b"same") for number in range(50)]
    run = make(images, labeller, FakeWriter(), max_in_flight=4)
    assert go(run) is None
    assert run.counts.tagged == 50
    assert labeller.calls.total() == 3


def test_a_slow_sink_holds_the_run_back():
    """Results do not pile up: reading and calling wait until the writer has taken the batch."""
    taken = 0

    def source() -> Iterator[Image]:
        nonlocal taken
        for image in urls(100_000):
            taken += 1
            yield image

    stop, writer, labeller = StopSignal(), FakeWriter(seconds=0.15), FakeLabeller()
    run = make(source(), labeller, writer, stop, max_in_flight=8, batch_size=10)
    timer = threading.Timer(0.4, stop.request)
    timer.start()
    assert go(run) is None
    timer.join()
    written_when_asked = 3 * 10
    # A batch being written, the queue of results, the workers, the queue of images, one chunk.
    bound = written_when_asked + 10 + 10 + 8 + 10
    assert len(labeller.answered) <= bound
    assert taken <= bound + 8 + 2 * CHUNK


def test_results_are_written_before_the_batch_is_full():
    """A finished image waits for its batch at most ``flush_seconds``."""
    go_on = threading.Event()

    def source() -> Iterator[Image]:
        yield from urls(CHUNK)
        go_on.wait(10)

    class Sink(FakeWriter):
        async def write(self, outcomes: Sequence[Outcome]) -> None:
            await super().write(outcomes)
            if len(self.outcomes) == CHUNK:
                go_on.set()

    writer = Sink()
    assert go(make(source(), FakeLabeller(), writer, flush_seconds=0.05)) is None
    assert len(writer.tagged) == CHUNK


@pytest.mark.parametrize(
    ("error", "calls", "retries"),
    [
        (errors.ServiceUnavailableError, 150, 100),
        # A connection that never stood cost nothing.
        (errors.ConnectionFailedError, 50, 50),
    ],
)
def test_a_transient_fault_is_tried_again(error: type[errors.TransientError], calls, retries):
    """The counts tell calls from images, and omit requests that were not sent."""
    labeller = FakeLabeller(lambda key, attempt: error("x") if attempt < 3 else None)
    writer = FakeWriter()
    run = make(urls(50), labeller, writer)
    assert go(run) is None
    assert len(writer.tagged) == 50
    assert (run.counts.calls, run.counts.retries) == (calls, retries)


def test_an_image_that_stays_transient_is_a_failure():
    """After its attempts it is recorded with their number, and the run goes on."""
    labeller = FakeLabeller(
        lambda key, attempt: errors.AnswerLostError("lost") if key == "7" else None
    )
    writer = FakeWriter()
    run = make(urls(50), labeller, writer)
    assert go(run) is None
    assert writer.failed == {"7": "AnswerLostError"}
    (failure,) = [item for item in writer.outcomes if item.image_key == "7"]
    assert isinstance(failure, Failure)
    assert (failure.attempts, failure.message, labeller.calls["7"]) == (4, "lost", 4)
    assert (run.counts.failed, run.counts.tagged) == (1, 49)


@pytest.mark.parametrize(
    "error", [errors.ImageDecodeError("x", code="-1102"), errors.UnknownCodeError("x")]
)
def test_an_images_own_fault_is_recorded(error):
    """It is called once, and the others are not touched."""
    labeller = FakeLabeller(lambda key, attempt: error if int(key) % 2 else None)
    writer = FakeWriter()
    assert go(make(urls(100), labeller, writer)) is None
    assert len(writer.failed) == len(writer.tagged) == 50
    assert set(labeller.calls.values()) == {1}
    codes = {item.code for item in writer.outcomes if isinstance(item, Failure)}
    assert codes == {error.code}


def test_retry_after_holds_everyone():
    """One throttled answer that names a time holds every request until then."""
    moments: list[float] = []

    def fail(key: str, attempt: int) -> ImageTagError | None:
        moments.append(time.monotonic())
        if len(moments) == 20:
            return errors.ThrottledError("x", retry_after_seconds=0.4)
        return None

    writer = FakeWriter()
    run = make(urls(200), FakeLabeller(fail), writer, max_in_flight=4)
    assert go(run) is None
    assert len(writer.tagged) == 200
    assert run.counts.throttled == 1
    # Those on their way at that moment may still arrive.
    held = [moment for moment in moments[20:] if moment < moments[19] + 0.35]
    assert len(held) <= 4


def test_the_emulators_quota_is_waited_for(small_jpegs):
    """A real 429 with Retry-After: every image is labelled, and billed once."""
    faults = Faults(requests_per_second=10, retry_after_seconds=1)
    with Emulator(faults=faults) as emulator:
        run, writer = emulated(emulator, images_of(small_jpegs(12)))
        assert go_emulated(run) is None
        assert len(writer.tagged) == 12
        assert emulator.stats.over_limit >= 1
        assert run.counts.throttled == emulator.stats.over_limit
        assert set(emulator.stats.billed_images.values()) == {1}


@pytest.mark.parametrize(
    "error", [errors.AuthenticationError("x"), errors.ConfigurationError("x"), ImageTagError("x")]
)
def test_the_accounts_fault_ends_the_run_at_once(error):
    """Nothing more is sent than was on its way; the error is raised and no image is lost."""
    labeller = FakeLabeller(lambda key, attempt: error, call_seconds=0.01)
    writer = FakeWriter()
    run = make(urls(10_000), labeller, writer, max_in_flight=8)
    assert go(run) is error
    assert 1 <= labeller.calls.total() <= 8
    assert len(writer.failed) == labeller.calls.total()
    assert run.counts.seen <= 3 * CHUNK


def test_the_accounts_fault_does_not_wait_for_a_retry():
    """Others that wait for their next attempt are given up, not waited for."""

    def fail(key: str, attempt: int) -> ImageTagError:
        if key == "7":
            return errors.AuthenticationError("x")
        return errors.ServiceUnavailableError("x", retry_after_seconds=None)

    labeller = FakeLabeller(fail, call_seconds=0.02)
    patient = RetryPolicy(max_attempts=9, first_wait_seconds=60, max_wait_seconds=60)
    error = go(make(urls(8), labeller, FakeWriter(), retry=patient))
    assert isinstance(error, errors.AuthenticationError)
    assert labeller.calls.total() <= 8 + 1


def test_what_was_answered_before_the_accounts_fault_is_written():
    """Labels that are paid for reach the writer."""
    labeller = FakeLabeller(
        lambda key, attempt: errors.AuthenticationError("x") if int(key) > 200 else None
    )
    writer = FakeWriter()
    assert isinstance(go(make(urls(1000), labeller, writer)), errors.AuthenticationError)
    assert writer.tagged == labeller.answered
    assert len(writer.tagged) >= 190


def test_an_outage_ends_the_run():
    """A service that is down costs few calls, and the error says for how long it was."""
    labeller = FakeLabeller(lambda key, attempt: errors.ConnectionFailedError("no route"))
    breaker = CircuitBreakerConfig(
        first_pause_seconds=0.05, max_pause_seconds=0.1, max_outage_seconds=1
    )
    error = go(make(urls(10_000), labeller, FakeWriter(), max_in_flight=4, breaker=breaker))
    assert isinstance(error, errors.OutageError)
    assert "not answered for 1 seconds" in error.message
    assert "no route" in error.message
    assert 12 <= labeller.calls.total() <= 40


@pytest.mark.parametrize("asked_seconds", [None, 0.3])
def test_images_that_the_service_fails_for_are_no_outage(asked_seconds: float | None):
    """It answers for the others: these images fail, and neither end the run nor hold it back."""
    busy = errors.ServiceUnavailableError("busy", retry_after_seconds=asked_seconds)

    def fail(key: str, attempt: int) -> ImageTagError | None:
        return busy if int(key) < 12 else None

    labeller, writer = FakeLabeller(fail, call_seconds=0.001), FakeWriter()
    breaker = CircuitBreakerConfig(
        first_pause_seconds=0.05, max_outage_seconds=0.4, max_asked_seconds=0.5
    )
    run = make(urls(60), labeller, writer, max_in_flight=30, breaker=breaker)
    assert go(run) is None
    assert len(writer.failed) == 12
    assert len(writer.tagged) == 48
    assert run.counts.calls == 48 + 12 * QUICK.max_attempts


def test_images_that_failed_in_an_earlier_run_are_no_outage():
    """Nothing else is left in the run, so that no answer tells that the service is there."""
    labeller, writer = FakeLabeller(lambda *_: errors.ServiceUnavailableError("busy")), FakeWriter()
    breaker = CircuitBreakerConfig(first_pause_seconds=0.05, max_outage_seconds=0.2)
    run = make(urls(12), labeller, writer, has_failed=lambda image: True, breaker=breaker)
    assert go(run) is None
    assert len(writer.failed) == 12


def test_every_image_fails_once():
    """However many fail one after the other, each has its second attempt, and few wait long."""

    def fail(key: str, attempt: int) -> ImageTagError | None:
        return errors.ServiceUnavailableError("busy") if attempt == 1 else None

    labeller, writer = FakeLabeller(fail, call_seconds=0.001), FakeWriter()
    breaker = CircuitBreakerConfig(max_failures=3, first_pause_seconds=0.02, max_outage_seconds=10)
    run = make(urls(300), labeller, writer, max_in_flight=16, breaker=breaker)
    assert go(run) is None
    assert len(writer.tagged) == 300
    assert set(labeller.calls.values()) == {2}
    assert run.counts.retries == 300


def test_a_service_that_comes_back():
    """Calls are held back while it is down, and the run goes on without a loss."""
    back_at = time.monotonic() + 0.6

    def fail(key: str, attempt: int) -> ImageTagError | None:
        is_down = time.monotonic() < back_at
        return errors.ConnectionFailedError("no route") if is_down else None

    labeller, writer = FakeLabeller(fail, call_seconds=0.001), FakeWriter()
    breaker = CircuitBreakerConfig(first_pause_seconds=0.05, max_pause_seconds=0.1)
    policy = RetryPolicy(max_attempts=20, first_wait_seconds=0.001, max_wait_seconds=0.002)
    run = make(urls(500), labeller, writer, max_in_flight=8, breaker=breaker, retry=policy)
    assert go(run) is None
    assert len(writer.tagged) == 500
    # Those that opened the circuit, those that were on their way, and one after each rest.
    assert 10 <= run.counts.retries <= 10 + 8 + 15


@pytest.mark.parametrize("between", [None, errors.ImageDecodeError("x", billing=REFUSED)])
def test_now_and_then_is_no_outage(between):
    """A success or an image's own fault shows that the service is there."""

    def fail(key: str, attempt: int) -> ImageTagError | None:
        return between if int(key) % 10 == 0 else errors.ConnectionFailedError("x")

    assert go(make(urls(300), FakeLabeller(fail), FakeWriter(), max_in_flight=4)) is None


def test_a_source_that_raises():
    """Entries that were sent are labelled and written; the error is raised."""

    def source() -> Iterator[Image]:
        yield from urls(CHUNK * 3)
        raise KeyError("source")

    writer, labeller = FakeWriter(), FakeLabeller(call_seconds=0.001)
    error = go(make(source(), labeller, writer))
    assert isinstance(error, KeyError)
    assert writer.tagged == labeller.answered
    assert len(writer.tagged) >= CHUNK


def test_a_source_that_raises_at_once():
    """Without a single image the error is raised all the same."""

    def refuse(number: int) -> Image:
        raise errors.ConfigurationError("images is None")

    source = map(refuse, [1])
    assert isinstance(go(make(source, FakeLabeller(), FakeWriter())), errors.ConfigurationError)


@pytest.mark.parametrize("fail_at", [0, 2])
def test_a_sink_that_raises(fail_at):
    """Nothing more is sent than fits between the workers and the writer; its error is raised."""
    labeller, writer = FakeLabeller(call_seconds=0.001), FakeWriter(fail_at=fail_at)
    run = make(urls(10_000), labeller, writer, batch_size=10)
    error = go(run)
    assert isinstance(error, OSError)
    assert len(writer.batches) == fail_at
    assert labeller.calls.total() < 10 * fail_at + 100
    assert run.counts.tagged == 10 * fail_at


@pytest.mark.parametrize("where", ["load", "call"])
def test_a_fault_of_ours_ends_the_run(where):
    """An exception that is none of ours is raised, and does not hang the run."""

    class Broken(FakeLabeller):
        def load(self, image: Image) -> Payload:
            if where == "load":
                raise ZeroDivisionError
            return super().load(image)

        async def call(self, prepared: Prepared) -> TagResult:
            raise ZeroDivisionError

    assert isinstance(go(make(urls(1000), Broken(), FakeWriter())), ZeroDivisionError)


def test_entries_that_are_not_sent():
    """A rejected entry is a failure without an attempt, a skipped one only counts."""
    entries: list[Entry] = [
        RejectedImage("bad", None, errors.InvalidImageError("no image")),
        SkippedImage("twin"),
        Image("good", "https://h/a"),
    ]
    labeller, writer = FakeLabeller(), FakeWriter()
    run = make(entries, labeller, writer)
    assert go(run) is None
    assert writer.failed == {"bad": "InvalidImageError"}
    assert writer.tagged == {"good"}
    assert labeller.calls == {"good": 1}
    assert (run.counts.seen, run.counts.skipped, run.counts.failed) == (3, 1, 1)


def test_what_an_error_says_can_be_stored(caplog):
    """Code and message may come from anybody's service, with half a character in them."""
    error = errors.ImageDecodeError("half of \ud800 a character", code="\ud83d" * 300)
    writer = FakeWriter()
    assert go(make(urls(1), FakeLabeller(lambda key, attempt: error), writer)) is None
    failure = writer.failure
    assert (failure.code, failure.message) == ("?" * 128, "half of ? a character")
    assert "half of ? a character" in caplog.text


def test_loading_is_tried_again_and_sends_nothing():
    """A storage that fails for a moment is asked again; one that stays down is a failure."""

    class Shaky(FakeLabeller):
        loads: ClassVar[Counter[str]] = Counter()

        def load(self, image: Image) -> Payload:
            self.loads[image.key] += 1
            if image.key == "3" or self.loads[image.key] < 2:
                raise errors.StorageError("down")
            return super().load(image)

    labeller, writer = Shaky(), FakeWriter()
    run = make((Image(str(number), f"s3://b/{number}") for number in range(10)), labeller, writer)
    assert go(run) is None
    assert writer.failed == {"3": "StorageError"}
    assert "3" not in labeller.calls
    assert (run.counts.calls, run.counts.retries) == (9, 0)
    (failure,) = [item for item in writer.outcomes if item.image_key == "3"]
    assert failure.attempts == 0


# Equal bytes


def equal(count: int, content: bytes = b"same") -> list[Image]:
    """Give images with equal bytes."""
    return [Image(f"{content.decode()}{number}", content=content) for number in range(count)]


@pytest.mark.parametrize("seconds", [0, 0.02])
def test_equal_bytes_are_called_once(seconds):
    """Also when they come at the same time; each image gets the labels under its own key."""
    labeller, writer = FakeLabeller(call_seconds=seconds), FakeWriter()
    run = make([*equal(50), *equal(50, b"other")], labeller, writer)
    assert go(run) is None
    assert labeller.calls.total() == 2
    assert len(writer.tagged) == 100
    assert run.counts.reused == 98
    results = [item for item in writer.outcomes if isinstance(item, TagResult)]
    assert sum(item.reused for item in results) == 98


def test_equal_bytes_share_a_fault_of_theirs():
    """Bytes that the service cannot decode once, it cannot decode under another key."""
    labeller = FakeLabeller(lambda key, attempt: errors.ImageDecodeError("x", code="-1102"))
    writer = FakeWriter()
    assert go(make(equal(30), labeller, writer)) is None
    assert labeller.calls.total() == 1
    assert set(writer.failed.values()) == {"ImageDecodeError"}
    assert sorted(item.attempts for item in writer.outcomes) == [0] * 29 + [1]


def test_equal_bytes_do_not_share_a_fault_of_the_service():
    """The next image with these bytes tries for itself."""

    def fail(key: str, attempt: int) -> ImageTagError | None:
        return errors.AnswerLostError("x") if key == "same0" else None

    labeller, writer = FakeLabeller(fail), FakeWriter()
    assert go(make(equal(10), labeller, writer, max_in_flight=1)) is None
    assert writer.failed == {"same0": "AnswerLostError"}
    assert labeller.calls == {"same0": 4, "same1": 1}
    assert len(writer.tagged) == 9


def test_equal_urls_are_called_each():
    """The bytes behind a URL are unknown here."""
    labeller = FakeLabeller()
    go(make([Image(str(n), "https://h/a") for n in range(5)], labeller, FakeWriter()))
    assert labeller.calls.total() == 5


# Stopping


def stop_after(seconds: float, run: LabelEngine, stop: StopSignal) -> None:
    """Run, and give the signal from another thread; a run that does not end fails the test."""
    timer = threading.Timer(seconds, stop.request)
    timer.start()
    assert go(run) is None
    timer.join()


def test_stopping_while_calls_are_under_way():
    """Answers on their way are waited for and written; nothing new is sent."""
    stop, writer = StopSignal(), FakeWriter()
    labeller = FakeLabeller(call_seconds=0.3)
    run = make(urls(10_000), labeller, writer, stop)
    stop_after(0.1, run, stop)
    assert labeller.calls.total() == 8
    assert writer.tagged == labeller.answered == set(labeller.calls)
    assert run.counts.tagged == 8


@pytest.mark.parametrize(
    "error",
    [errors.ServiceUnavailableError("x"), errors.ThrottledError("x", retry_after_seconds=200)],
)
def test_stopping_while_retries_wait(error):
    """A long wait for the next attempt, or for the service's rest, does not keep the run."""
    tuning = EngineTuning(drain_seconds=0.5)
    stop, writer = StopSignal(), FakeWriter()
    labeller = FakeLabeller(lambda key, attempt: error if int(key) > 3 else None)
    patient = RetryPolicy(max_attempts=9, first_wait_seconds=300, max_wait_seconds=300)
    run = make(urls(1000), labeller, writer, stop, retry=patient, tuning=tuning)
    stop_after(0.2, run, stop)
    assert writer.tagged == labeller.answered >= {"0", "1", "2", "3"}
    assert writer.failed == {}


def test_stopping_while_the_quota_is_waited_for():
    """Workers that wait for their turn send nothing after the signal."""
    tuning = EngineTuning(drain_seconds=0.5)
    stop, writer, labeller = StopSignal(), FakeWriter(), FakeLabeller()
    run = make(urls(1000), labeller, writer, stop, requests_per_second=0.5, tuning=tuning)
    stop_after(0.2, run, stop)
    assert labeller.calls.total() == 1
    assert writer.tagged == labeller.answered


def test_stopping_while_the_source_is_slow():
    """A source that gives nothing for long does not keep the run."""
    tuning = EngineTuning(drain_seconds=0.2)
    go_on = threading.Event()

    def source() -> Iterator[Image]:
        yield from urls(CHUNK)
        go_on.wait(10)

    stop, writer = StopSignal(), FakeWriter()
    run = make(source(), FakeLabeller(), writer, stop, tuning=tuning)
    try:
        stop_after(0.1, run, stop)
    finally:
        go_on.set()
    assert len(writer.tagged) == CHUNK


def test_stopping_while_a_call_hangs():
    """After the time for answers on their way, a call that hangs is given up."""
    tuning = EngineTuning(drain_seconds=0.3)
    stop, writer = StopSignal(), FakeWriter()
    run = make(urls(10), FakeLabeller(call_seconds=60), writer, stop, tuning=tuning)
    stop_after(0.1, run, stop)
    assert writer.outcomes == []


def test_what_a_stopped_run_leaves_is_counted():
    """Every entry that was seen is in the counts, also if no worker took it."""
    tuning = EngineTuning(drain_seconds=0.1)
    stop, labeller = StopSignal(), FakeLabeller(call_seconds=10)
    run = make(urls(50), labeller, FakeWriter(), stop, max_in_flight=2, tuning=tuning)
    threading.Timer(0.2, stop.request).start()
    assert go(run) is None
    assert run.counts.seen == run.counts.skipped == 2 * 2 * 2


def test_stopping_while_the_sink_is_slow():
    """Finished images that wait for the writer are written, however long it takes."""
    tuning = EngineTuning(drain_seconds=0.1)
    stop, writer, labeller = StopSignal(), FakeWriter(seconds=0.15), FakeLabeller()
    run = make(urls(1000), labeller, writer, stop, batch_size=2, max_in_flight=4, tuning=tuning)
    stop_after(0.1, run, stop)
    assert writer.tagged == labeller.answered
    assert run.counts.tagged == len(writer.tagged)


def test_a_run_that_is_stopped_before_it_starts():
    """Nothing is sent."""
    stop, labeller = StopSignal(), FakeLabeller()
    stop.request()
    assert go(make(urls(100), labeller, FakeWriter(), stop)) is None
    assert labeller.calls.total() == 0


# The log


def test_failures_are_logged_but_not_all(caplog):
    """The first of each class are shown with key and reason; credentials are not."""
    labeller = FakeLabeller(lambda key, attempt: errors.ImageDecodeError("cannot be decoded"))
    images = [Image(f"https://h/{n}?sig=5ecre7", f"https://h/{n}?sig=5ecre7") for n in range(50)]
    with caplog.at_level(logging.DEBUG, failures.log.name):
        go(make(images, labeller, FakeWriter()))
    shown = [record.getMessage() for record in caplog.records if "failed:" in record.getMessage()]
    assert len(shown) == failures.LOGGED_FAILURES
    assert "ImageDecodeError: cannot be decoded" in shown[0]
    assert "5ecre7" not in caplog.text


@pytest.mark.parametrize(
    "error", [errors.QuotaUnavailableError("x"), errors.AuthenticationError("x")]
)
def test_what_ends_the_run_is_no_failure_of_an_image(error, caplog):
    """It is raised; no line blames the image that met it first."""
    labeller = FakeLabeller(lambda key, attempt: error)
    with caplog.at_level(logging.DEBUG, failures.log.name):
        assert go(make(urls(50), labeller, FakeWriter())) is error
    assert "failed:" not in caplog.text


def test_progress_is_logged(caplog):
    """A line from time to time."""
    tuning = EngineTuning(progress_seconds=0.05)
    with caplog.at_level(logging.INFO, engine_run.log.name):
        go(make(urls(40), FakeLabeller(call_seconds=0.04), FakeWriter(), tuning=tuning))
    assert any("images/s" in record.getMessage() for record in caplog.records)


def test_an_image_is_fitted_once_however_often_it_is_sent():
    """Making it smaller again for every request would cost more than the request."""
    busy = errors.ServiceUnavailableError("busy")
    labeller = FakeLabeller(lambda key, attempt: busy if attempt < 3 else None)
    go(make([Image("a", content=b"a")], labeller, FakeWriter()))
    assert labeller.calls == {"a": 3}
    assert labeller.fitted == {"a": 1}


def test_an_image_whose_labels_are_known_is_not_fitted():
    """Resizing it would be wasted."""
    labeller, writer = FakeLabeller(), FakeWriter()
    go(make([Image(key, content=b"the same") for key in "abc"], labeller, writer))
    assert len(writer.outcomes) == 3
    assert sum(labeller.fitted.values()) == 1


def test_an_image_that_does_not_fit_costs_no_call():
    """It fails with its digest, without a request, a place in the quota or a retry."""

    class Strict(FakeLabeller):
        async def fit(self, prepared: Prepared) -> Prepared:
            raise errors.ImageTooLargeError("too large")

    labeller, writer = Strict(), FakeWriter()
    run = make([Image("a", content=b"a")], labeller, writer)
    go(run)
    failure = writer.failure
    assert (failure.error, failure.attempts, failure.is_final) == ("ImageTooLargeError", 0, True)
    assert failure.content_sha256 == hashlib.sha256(b"a").hexdigest()
    assert run.counts.calls == 0
    assert labeller.calls == {}


# Against the emulator


def images_of(contents: list[bytes]) -> list[Image]:
    """Name images by their place."""
    return [Image(str(number), content=content) for number, content in enumerate(contents)]


def emulated(
    emulator: Emulator, images: list[Image], secret_key: str | None = None, **fields: Any
) -> tuple[LabelEngine, FakeWriter]:
    """Make a run against the emulator, and its writer."""
    account = dataclasses.replace(account_of(emulator.connection), timeout_seconds=5)
    if secret_key is not None:
        account = dataclasses.replace(account, secret_key=secret_key)
    codec = RequestCodec(account)
    preflight = ImagePreflight(account.api, codec.limits)
    labeller = HttpLabeller(account, codec, ContentLoader(), preflight, max_connections=16)
    writer = FakeWriter()
    return make(images, labeller, writer, **{"max_in_flight": 16} | fields), writer


def go_emulated(run: LabelEngine) -> BaseException | None:
    """Run to the end with open connections."""

    async def main() -> None:
        async with run._inputs.labeller:
            await run.run()

    try:
        asyncio.run(asyncio.wait_for(main(), 30))
    except Exception as error:
        return error
    return None


def test_a_bad_day_of_the_service(small_jpegs):
    """Errors, dropped connections and garbage: every image ends, and is written once."""
    faults = Faults(
        first_attempts={500: 0.2, 503: 0.1},
        error_rates={502: 0.05},
        drop_rate=0.05,
        drop_after_work_rate=0.03,
        garbage_rate=0.06,
        garbage="truncated",
    )
    contents = small_jpegs(150)
    broken = [b"not an image %d" % number for number in range(10)]
    with Emulator(faults=faults) as emulator:
        policy = RetryPolicy(max_attempts=8, first_wait_seconds=0.01, max_wait_seconds=0.05)
        run, writer = emulated(emulator, images_of([*contents, *broken]), retry=policy)
        assert go_emulated(run) is None
        stats = emulator.stats
    assert len(writer.outcomes) == 160
    assert writer.failed == {str(number): "ImageDecodeError" for number in range(150, 160)}
    assert run.counts.calls == stats.requests
    assert stats.max_in_flight <= 16
    # Only an answer that was lost or spoiled is paid for again.
    assert stats.billed <= 150 + stats.dropped + stats.garbage


@pytest.mark.parametrize(
    ("garbage", "requests"), [("missing_data", 2), ("bad_probability", 2), ("html", 4)]
)
def test_an_answer_that_cannot_be_read(small_jpegs, garbage, requests):
    """A success in no known form will have been billed: one more try, then it is the image's."""
    with Emulator(faults=Faults(garbage_rate=1.0, garbage=garbage)) as emulator:
        policy = RetryPolicy(max_attempts=4, first_wait_seconds=0.01, max_wait_seconds=0.02)
        run, writer = emulated(emulator, images_of(small_jpegs(1)), retry=policy)
        assert go_emulated(run) is None
        assert emulator.stats.requests == requests
    assert writer.failure.error == "MalformedAnswerError"
    assert writer.failure.is_final is (requests == 2)


def test_the_quota_is_used_and_kept(small_jpegs):
    """The emulator allows as much as we send, and refuses nothing; hardly a slot is lost."""
    count = 160
    with Emulator(faults=Faults(latency_seconds=0.3, requests_per_second=40)) as emulator:
        run, writer = emulated(
            emulator, images_of(small_jpegs(count)), max_in_flight=64, requests_per_second=40
        )
        assert go_emulated(run) is None
        stats = emulator.stats
    assert len(writer.tagged) == count
    assert stats.billed == count
    # None, unless the machine holds up a request for longer than the margin between them.
    assert stats.over_limit <= 2


@pytest.mark.parametrize("retry_after_seconds", [None, 1])
def test_a_quota_below_ours(small_jpegs, retry_after_seconds):
    """The run slows down: every image is labelled, none is billed twice, few are refused."""
    count = 80
    faults = Faults(requests_per_second=20, retry_after_seconds=retry_after_seconds)
    with Emulator(faults=faults) as emulator:
        policy = RetryPolicy(max_attempts=6, first_wait_seconds=0.5, max_wait_seconds=30)
        run, writer = emulated(
            emulator, images_of(small_jpegs(count)), requests_per_second=40, retry=policy
        )
        assert go_emulated(run) is None
        stats = emulator.stats
    assert len(writer.tagged) == count
    assert set(stats.billed_images.values()) == {1}
    assert run.counts.throttled == stats.over_limit >= 1
    assert stats.over_limit <= count / 2


def test_every_first_attempt_fails_at_the_emulator(small_jpegs):
    """A real 503 for each image, once: all are labelled, with two requests each."""
    with Emulator(faults=Faults(first_attempts={503: 1.0})) as emulator:
        policy = RetryPolicy(max_attempts=4, first_wait_seconds=0.01, max_wait_seconds=0.02)
        breaker = CircuitBreakerConfig(first_pause_seconds=0.02)
        run, writer = emulated(emulator, images_of(small_jpegs(60)), retry=policy, breaker=breaker)
        assert go_emulated(run) is None
        assert emulator.stats.requests == 120
        assert emulator.stats.billed == 60
    assert len(writer.tagged) == 60


def test_an_emulator_that_is_stopped_is_an_outage(small_jpegs):
    """The run ends with few calls and says so; earlier labels are with the writer."""
    with Emulator(faults=Faults(latency_seconds=0.05)) as emulator:
        breaker = CircuitBreakerConfig(
            first_pause_seconds=0.05, max_pause_seconds=0.2, max_outage_seconds=1
        )
        run, writer = emulated(
            emulator,
            images_of(small_jpegs(2000)),
            breaker=breaker,
            retry=RetryPolicy(max_attempts=3, first_wait_seconds=0.01, max_wait_seconds=0.05),
            requests_per_second=200,
        )
        timer = threading.Timer(0.8, emulator.stop)
        timer.start()
        error = go_emulated(run)
        timer.join()
        billed = emulator.stats.billed
    assert isinstance(error, errors.OutageError)
    assert "has not answered for" in error.message
    assert 1 <= len(writer.tagged) <= billed
    # Those on their way when it went, those that opened the circuit, and one after each rest.
    assert run.counts.calls <= billed + 16 + 10 + 20


def test_equal_photographs_are_billed_once(small_jpegs):
    """Twenty copies of five photographs cost five calls."""
    with Emulator(faults=Faults(latency_seconds=0.02)) as emulator:
        run, writer = emulated(emulator, images_of(small_jpegs(5) * 20))
        assert go_emulated(run) is None
        assert emulator.stats.billed == 5
        assert emulator.stats.requests == 5
    assert len(writer.tagged) == 100


def test_a_wrong_key_sends_little(small_jpegs):
    """At most as many requests as may be in flight, and the run ends at once."""
    with Emulator() as emulator:
        run, _ = emulated(emulator, images_of(small_jpegs(100)), secret_key="wrong")
        assert isinstance(go_emulated(run), errors.AuthenticationError)
        assert emulator.stats.requests <= 16
        assert emulator.stats.billed == 0
