"""The metrics and spans of a run in StatsD and OpenTelemetry."""

from __future__ import annotations

import importlib
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import airflow
import pytest

from airflow_imagetag.errors import TooManyFailuresError
from airflow_imagetag.lineage import metrics
from airflow_imagetag.lineage.metrics import Metrics
from airflow_imagetag.lineage.traces import run_span
from airflow_imagetag.models import Image
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.testing import Emulator

AIRFLOW_2 = airflow.__version__.startswith("2.")


class Listener:
    """A StatsD server.

    :param server: its socket.
    """

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.lines: list[str] = []

    def read(self) -> list[str]:
        """Return all lines that have come."""
        self._server.settimeout(0.2)
        while True:
            try:
                self.lines += self._server.recv(65_536).decode().splitlines()
            except TimeoutError:
                return self.lines

    def counters(self) -> Counter[str]:
        """Return the sums of the counters by name and tags."""
        sums: Counter[str] = Counter()
        for line in self.read():
            name, _, value = line.rpartition(":")
            number, kind = value.split("|")[:2]
            if kind == "c":
                sums[name] += int(number)
        return sums


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Listen, and let Airflow's client send its metrics there, with tags as InfluxDB has them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        logger = importlib.import_module(
            "airflow.metrics.statsd_logger"
            if AIRFLOW_2
            else "airflow.sdk._shared.observability.metrics.statsd_logger"
        )
        from statsd import StatsClient

        client = StatsClient(host="127.0.0.1", port=server.getsockname()[1], prefix="airflow")
        made = logger.SafeStatsdLogger(client, influxdb_tags_enabled=True)
        # Airflow 3 is told so; 2.11 asks its configuration.
        made.statsd_influxdb_enabled = True
        monkeypatch.setattr(metrics, "Stats", made)
        monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", "True")
        yield Listener(server)
        client.close()


def label(images: list[Image], **parameters: Any) -> Any:
    """Run the operator."""
    return ImageTagOperator(task_id="label", images=images, **parameters).execute({})


def test_counters_equal_the_summary(
    statsd: Listener, service: Emulator, small_jpegs: Callable[[int], list[bytes]]
):
    """Images by outcome, calls, and the durations; tagged by interface and task."""
    contents = small_jpegs(20)
    images = [Image(f"k{n}", content=one) for n, one in enumerate([*contents, contents[0]])]
    images.append(Image("broken", content=b"\xff\xd8\xff no photograph"))
    label(images)
    sums = statsd.counters()
    assert {name.split(",")[0]: number for name, number in sums.items()} == {
        "airflow.imagetag.images.tagged": 21,
        "airflow.imagetag.images.reused": 1,
        "airflow.imagetag.images.failed": 1,
        "airflow.imagetag.calls": service.stats.requests,
        "airflow.imagetag.calls.refused": 1,
        "airflow.imagetag.runs": 1,
    }
    assert all("api=picture_classify" in name and "task_id=label" in name for name in sums)
    text = "\n".join(statsd.lines)
    for name in ("run.duration", "request.latency", "request.latency_max"):
        assert f"airflow.imagetag.{name}," in text
    assert "k1" not in text
    assert len(statsd.lines) < 20


def test_a_failed_run_counts_as_one(statsd: Listener, service: Emulator):
    """With what it did before."""
    images = [Image(f"k{n}", content=b"%d no photograph" % n) for n in range(3)]
    with pytest.raises(TooManyFailuresError):
        label(images)
    runs = [line for line in statsd.read() if line.startswith("airflow.imagetag.runs")]
    assert len(runs) == 1
    assert "outcome=failed" in runs[0]


def test_a_client_that_fails_ends_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """It is told once."""

    class Broken:
        def incr(self, *args: Any, **kwargs: Any) -> None:
            raise OSError("no route")

    monkeypatch.setattr(metrics, "Stats", Broken())
    sender = Metrics({})
    for _ in range(3):
        sender.count("calls", 1)
    assert caplog.text.count("Metrics cannot be sent") == 1


@contextmanager
def recorded_spans() -> Iterator[Any]:
    """Record spans in memory, below a span of a task."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer", provider.get_tracer)
        with trace.get_tracer("airflow").start_as_current_span("worker.label"):
            yield exporter
    provider.shutdown()


def test_a_run_is_a_child_of_its_task(service: Emulator, small_jpegs: Callable[[int], list[bytes]]):
    """With its counts as attributes, and nothing of an image."""
    with recorded_spans() as exporter:
        label([Image(f"k{n}", content=one) for n, one in enumerate(small_jpegs(5))])
    run, task = exporter.get_finished_spans()
    assert run.name == "imagetag.label"
    assert run.parent.span_id == task.context.span_id
    assert run.attributes["imagetag.api"] == "picture_classify"
    assert run.attributes["imagetag.tagged"] == 5
    assert run.attributes["imagetag.calls"] == 5
    assert "k1" not in str(dict(run.attributes))


def test_an_error_is_recorded_by_its_class():
    """Its message may name an image."""
    with (
        recorded_spans() as exporter,
        pytest.raises(ValueError, match="s3://photos"),
        run_span({"api": "x"}),
    ):
        raise ValueError("s3://photos/secret.jpg")
    run = exporter.get_finished_spans()[0]
    assert run.status.description == "ValueError"
    assert not run.events


def test_without_a_tracer_nothing_is_made():
    """The counts go nowhere."""
    with run_span({"api": "x"}) as counts:
        counts["calls"] = 1
