"""No image is lost; a wrong key costs nothing and leaves no secret in a log."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import DAG, task
from clusters import HERE, AirflowHome
from hosts import WRONG_KEY, connection
from web_servers import Handler, serving

from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.testing import Emulator, Faults

MAX_IN_FLIGHT = 8


def label_folder(folder: str, max_failure_ratio: float) -> DAG:
    """Label every file of a folder."""

    @task
    def give() -> list[str]:
        return [str(path) for path in sorted(Path(folder).iterdir())]

    with DAG("accepted", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        ImageTagOperator(task_id="label", images=give(), max_failure_ratio=max_failure_ratio)
    return dag


@pytest.mark.parametrize(("ratio", "state"), [(0.1, "success"), (0.01, "failed")])
def test_a_thousand_images_of_which_some_are_broken(ratio, state, run_dag, emulator, image_folder):
    """Every image ends in labels or failures, whether the task is green or red.

    Of 1,000 different files 50 are no pictures, and of all 5 % meet HTTP 500 at first.
    """
    emulator.faults = Faults(first_attempts={500: 0.05})
    run = run_dag(label_folder, str(image_folder), ratio)
    assert run.states["label", -1] == state, run.log[-4000:]

    labels, failures = run.xcom("label"), run.xcom("label", "failures")
    everything = {str(path) for path in image_folder.iterdir()}
    labelled, failed = set(labels["image_key"]), list(failures["image_key"])
    assert len(labelled) == 950
    assert len(failed) == len(set(failed)) == 50
    assert labelled | set(failed) == everything
    assert set(failures["code"]) == {"-1102"}

    summary = run.xcom("label", "summary")
    assert (summary["seen"], summary["tagged"], summary["failed"]) == (1000, 950, 50)
    stats = emulator.stats
    assert stats.by_status[500] == summary["retries"]
    assert 20 <= stats.by_status[500] <= 100
    assert stats.billed == 950
    assert max(stats.billed_images.values()) == 1
    too_many = "50 of 1,000 images failed (5.0%), more than max_failure_ratio=0.01 allows"
    assert (too_many in run.log) is (state == "failed")
    assert ("Commonest: ImageDecodeError (-1102) 50" in run.log) is (state == "failed")


def signatures_of(emulator: Emulator) -> set[str]:
    """Return every Authorization header that the emulator got, as many as its counts say."""
    signatures = {str(signature) for signature in emulator._recorder._signatures}
    assert len(signatures) == emulator.stats.signatures_seen
    return signatures


def assert_no_secret(text: str, emulator: Emulator) -> None:
    """Look for the SecretKey, and for every signature as a whole, in its parts and in pieces."""
    assert WRONG_KEY not in text
    for signature in signatures_of(emulator):
        decoded = base64.b64decode(signature)
        digest, signed = decoded[:20], decoded[20:].decode()
        parts = {signature, signed, digest.hex(), base64.b64encode(digest).decode()}
        parts |= {signature[start : start + 16] for start in range(0, len(signature) - 16, 16)}
        assert not [part for part in parts if part in text]


def stored_texts(home: AirflowHome) -> str:
    """Return all XComs and rendered fields."""
    return str(home.query("select * from xcom, rendered_task_instance_fields"))


def test_a_wrong_key_ends_a_test_run_and_leaves_no_secret(new_home, image_folder):
    """With a wrong SecretKey only the first requests are sent; a DEBUG log has no secret."""
    with Emulator(faults=Faults(latency_seconds=0.3)) as emulator:
        uri = connection(emulator, password=WRONG_KEY, max_in_flight=MAX_IN_FLIGHT)
        home = new_home(
            HERE / "dags",
            AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG",
            AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS=str(image_folder),
            AIRFLOW_CONN_IMAGETAG_DEFAULT=uri,
        )
        conf = json.dumps({"folder": str(image_folder)})
        done = home.command("dags", "test", "label_folder", "-c", conf)
    log = done.stdout + done.stderr
    assert "AuthenticationError" in log, log[-4000:]
    assert "debug" in log.lower()

    stats = emulator.stats
    assert 1 <= stats.requests <= MAX_IN_FLIGHT
    assert stats.rejected_signatures == stats.requests
    assert home.xcoms("label_folder")["label", "summary"]["calls"] == stats.requests

    # Airflow 3's stand-in for a supervisor, which only 'dags test' has, writes the secrets of every
    # connection that it is told to mask at DEBUG level. The real supervisor does not: see below.
    ours = [line for line in log.splitlines() if "MaskSecret(value=" not in line]
    assert len(ours) > 100
    assert_no_secret("\n".join(ours) + stored_texts(home), emulator)


def test_a_wrong_key_ends_a_scheduled_task_and_leaves_no_secret(cluster, image_folder):
    """The same holds for a task that a scheduler runs, in every log of every process."""
    cluster.emulator.faults = Faults(latency_seconds=0.3)
    run_id = cluster.trigger("label_folder", {"folder": str(image_folder), "conn_id": "wrong_key"})
    assert cluster.wait(run_id) == "failed"
    log = cluster.task_log(run_id)
    assert "AuthenticationError" in log
    assert "debug" in log.lower()
    stats = cluster.emulator.stats
    assert 1 <= stats.requests <= MAX_IN_FLIGHT
    summary = cluster.home.xcoms("label_folder", run_id)["label", "summary"]
    assert summary["calls"] == stats.requests
    processes = "".join(path.read_text() for path in cluster.home.path.glob("*.log"))
    assert_no_secret(log + processes + stored_texts(cluster.home), cluster.emulator)


class NoLabels(Handler):
    """A service that finds no label for any image."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Answer with no labels."""
        self.body()
        self.respond(b'{"code": 0, "message": "success", "data": [{"items": []}]}')


def test_an_image_without_labels_is_tagged(airflow_host, emulator, image_folder, tmp_path):
    """An answer without labels is an answer: the image is tagged, and did not fail."""
    for name in ("0000.jpg", "0001.jpg", "0002.jpg"):
        (tmp_path / name).symlink_to(image_folder / name)
    with serving(NoLabels) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        uri = connection(emulator, host=host, port=int(port))
        run = airflow_host.run(label_folder, str(tmp_path), 0.0, AIRFLOW_CONN_IMAGETAG_DEFAULT=uri)
    assert run.state == "success", run.log
    assert len(run.xcom("label")) == len(run.xcom("label", "failures")) == 0
    assert run.xcom("label", "summary")["tagged"] == 3
