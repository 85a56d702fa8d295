"""The command ``airflow-imagetag``: ``airflow-imagetag emulator`` runs the emulator."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_imagetag.testing._api import API_NAMES, STATS_PATH
from airflow_imagetag.testing.emulator import CONNECTION_VARIABLE, Emulator
from airflow_imagetag.testing.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow_imagetag.testing.stats import Stats

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    :param argv: the arguments after the command's name; None takes them from the command line.
    """
    arguments = _parser().parse_args(argv)
    try:
        emulator = _emulator(arguments)
    except ValueError as error:
        return _fail(str(error), 2)
    with _until_signalled() as signalled:
        try:
            emulator.start()
        except ModuleNotFoundError as error:
            return _fail(str(error), 2)
        except OSError as error:
            return _fail(f"cannot listen on {arguments.host}:{arguments.port}: {error}", 1)
        try:
            connection_json = emulator.connection_json_for(arguments.api)
            _announce(emulator.url, connection_json, arguments.ready_file)
            signalled.wait()
        finally:
            emulator.stop()
    _print_counts(emulator.stats)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="airflow-imagetag", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True)
    command = commands.add_parser(
        "emulator", help="run a local stand-in for the label service until Ctrl-C"
    )
    command.add_argument("--host", default="127.0.0.1", help="address to listen on")
    command.add_argument(
        "--port", type=int, default=0, help="port to listen on; 0 takes a free one (default: 0)"
    )
    for name in ("app-id", "secret-id", "secret-key"):
        command.add_argument(f"--{name}", help=f"{name} of the account that must sign requests")
    command.add_argument("--token", help="token of temporary keys, for TIIA")
    command.add_argument(
        "--api",
        choices=API_NAMES,
        default=API_NAMES[0],
        help="API of the printed connection; all are served (default: %(default)s)",
    )
    command.add_argument(
        "--labels",
        choices=("pixels", "model"),
        default="pixels",
        help="what labels images: measured pixels, or the model of the extra 'local' "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--latency-ms", type=float, default=0.0, help="time that each request takes"
    )
    command.add_argument(
        "--requests-per-second",
        type=float,
        help="quota; requests over it get HTTP 429, or RequestLimitExceeded from TIIA",
    )
    command.add_argument(
        "--ready-file",
        type=Path,
        metavar="PATH",
        help="JSON file for url and connection_json, written as soon as the emulator answers",
    )
    return parser


def _emulator(arguments: argparse.Namespace) -> Emulator:
    account = {
        name: getattr(arguments, name)
        for name in ("app_id", "secret_id", "secret_key", "token")
        if getattr(arguments, name) is not None
    }
    faults = Faults(
        latency_seconds=arguments.latency_ms / 1000,
        requests_per_second=arguments.requests_per_second,
    )
    return Emulator(
        host=arguments.host,
        port=arguments.port,
        faults=faults,
        labels=arguments.labels,
        **account,
    )


@contextmanager
def _until_signalled() -> Iterator[threading.Event]:
    """Give an event that SIGINT and SIGTERM set; they do not end the process."""
    signalled = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, lambda *_: signalled.set()) for number in numbers]
    try:
        yield signalled
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def _announce(url: str, connection_json: str, ready_file: Path | None) -> None:
    print(f"The emulator listens on {url}")
    print(f"Its counts: {url}{STATS_PATH}, and here when it ends (Ctrl-C)")
    print(f"export {CONNECTION_VARIABLE}={shlex.quote(connection_json)}", flush=True)
    if ready_file is not None:
        ready = {"url": url, "connection_json": connection_json}
        _write_atomically(ready_file, json.dumps(ready))


def _print_counts(stats: Stats) -> None:
    """Print the counts of each API that got requests, and of all requests."""
    rows = [
        (api, requests, stats.billed_by_api.get(api, 0), stats.refused_by_api.get(api, 0))
        for api, requests in sorted(stats.by_api.items())
    ]
    rows.append(("total", stats.requests, stats.billed, stats.refused))
    lines = [f"{'api':18}{'requests':>10}{'billed':>10}{'refused':>10}"]
    for api, requests, billed, refused in rows:
        lines.append(f"{api:18}{requests:>10,}{billed:>10,}{refused:>10,}")
    try:
        print("", *lines, sep="\n", flush=True)
    except BrokenPipeError:
        # Ctrl-C also ends the process that reads a pipe. Python flushes once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_atomically(path: Path, text: str) -> None:
    """Write a file by a rename, so that a reader never sees a part of it."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    Path(temporary).replace(path)


def _fail(message: str, exit_code: int) -> int:
    print(f"airflow-imagetag: {message}", file=sys.stderr)
    return exit_code
