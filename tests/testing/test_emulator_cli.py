"""The command that runs the emulator, as a process of its own."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from airflow_imagetag.services.recognition.signature import sign
from airflow_imagetag.testing import Emulator
from airflow_imagetag.testing.cli import main

COMMAND = [
    sys.executable,
    "-W",
    "error",
    "-c",
    "import sys; from airflow_imagetag.testing.cli import main; sys.exit(main())",
    "emulator",
]


@contextmanager
def running(ready_file: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict]]:
    """Run the command until the block ends; gives the process and its ready file."""
    command = [*COMMAND, "--port", "0", "--ready-file", str(ready_file), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            while not ready_file.exists():
                assert process.poll() is None, process.communicate()
                time.sleep(0.02)
            yield process, json.loads(ready_file.read_text())
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end(tmp_path, number):
    """The command prints its URL, serves, and exits with 0 on SIGTERM or SIGINT."""
    with running(tmp_path / "ready.json") as (process, ready):
        assert requests.post(ready["url"], timeout=60).status_code == 404
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == ""
    assert ready["url"] in output
    assert [path.name for path in tmp_path.iterdir()] == ["ready.json"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_counts_when_it_ends(tmp_path, photograph, number):
    """The end of the output is a table by API; GET /_stats had the same counts before."""
    with running(tmp_path / "ready.json") as (process, ready):
        url = ready["url"]
        connection = json.loads(ready["connection_json"])
        answers = [post(url, connection, image) for image in (photograph, photograph, b"text")]
        requests.post(f"{url}/elsewhere", timeout=60)
        counts = requests.get(f"{url}/_stats", timeout=60).json()
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert [answer["code"] for answer in answers] == [0, 0, -1102]
    assert (counts["requests"], counts["billed"], counts["refused"]) == (4, 2, 2)
    assert f"{url}/_stats" in output.splitlines()[1]
    assert [line.split() for line in output.splitlines()[-3:]] == [
        ["api", "requests", "billed", "refused"],
        ["picture_classify", "3", "2", "1"],
        ["total", "4", "2", "2"],
    ]
    assert " at 0x" not in output + str(answers)


def post(url: str, connection: dict, image: bytes) -> dict:
    """Post an image to V2 with a good signature, and return the answer."""
    now = int(time.time())
    app_id = connection["extra"]["app_id"]
    authorization = sign(
        app_id, connection["login"], connection["password"], now=now, expires=now + 600, nonce=1
    )
    response = requests.post(
        f"{url}/imagetag/picture_classify",
        headers={"Authorization": authorization},
        data={"app_id": app_id},
        files={"image": image},
        timeout=60,
    )
    return response.json()


def test_the_end_survives_a_reader_that_is_gone(tmp_path):
    """Ctrl-C also ends the reader of the output; the exit code is 0 all the same."""
    with running(tmp_path / "ready.json") as (process, _):
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_the_printed_line_is_ready_for_a_shell(tmp_path):
    """The export line survives the shell's quoting for any key."""
    with running(tmp_path / "ready.json", "--secret-key", "it's $HOME") as (process, ready):
        process.terminate()
        output, _ = process.communicate(timeout=60)
    line = next(line for line in output.splitlines() if line.startswith("export "))
    _, assignment = shlex.split(line)
    name, _, value = assignment.partition("=")
    assert name == "AIRFLOW_CONN_IMAGETAG_DEFAULT"
    assert value == ready["connection_json"]
    assert json.loads(value)["password"] == "it's $HOME"


def test_options_reach_the_emulator(tmp_path):
    """Account, latency and quota are those of the command line."""
    options = ["--app-id", "5", "--secret-id", "AKIDfive", "--latency-ms", "200"]
    with running(tmp_path / "ready.json", *options, "--requests-per-second", "0.1") as (_, ready):
        connection = json.loads(ready["connection_json"])
        assert connection["extra"] == {"app_id": "5", "api": "picture_classify"}
        assert connection["login"] == "AKIDfive"
        first = requests.get(ready["url"], timeout=60)
        assert first.status_code == 404
        assert first.elapsed.total_seconds() >= 0.2
        assert requests.get(ready["url"], timeout=60).status_code == 429


def test_the_connection_of_another_api(tmp_path):
    """The printed connection has the chosen API, and the token of temporary keys."""
    options = ["--api", "DetectLabel", "--token", "temporary"]
    with running(tmp_path / "ready.json", *options) as (process, ready):
        process.terminate()
        output, _ = process.communicate(timeout=60)
    extra = json.loads(ready["connection_json"])["extra"]
    assert extra == {"api": "DetectLabel", "region": "ap-guangzhou", "token": "temporary"}
    assert shlex.quote(ready["connection_json"]) in output


def test_without_pillow_it_says_what_to_install(tmp_path):
    """A missing extra gives exit code 2 and one line without a traceback."""
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from airflow_imagetag.testing.cli import main; sys.exit(main(['emulator']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert "airflow-provider-imagetag[emulator]" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["unknown"],
        ["emulator", "--port", "x"],
        ["emulator", "--latency-ms", "-1"],
        ["emulator", "--api", "x"],
    ],
)
def test_wrong_arguments(options, capsys):
    """Wrong arguments give exit code 2 and a message."""
    try:
        code: object = main(options)
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert capsys.readouterr().err


def test_a_port_that_is_taken(capsys):
    """A taken address gives exit code 1, and the signal handlers are restored."""
    before = signal.getsignal(signal.SIGTERM)
    with Emulator() as emulator:
        assert main(["emulator", "--port", str(emulator.port)]) == 1
    assert "cannot listen" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before
