"""The label services of the comparisons, each a process of its own.

``python server.py canned '{"latency_seconds": 0.3}'`` gives every request the same answer, fast
enough not to limit the contenders. ``python server.py emulator '{"requests_per_second": 20}'`` is
the emulator, which checks, counts and refuses. The first line of output is the Airflow connection;
each line of input gets the counts since the last one; the end of the input ends the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from airflow_imagetag.testing import Emulator, Faults


def main() -> int:
    """Serve until the input ends, and return the exit code."""
    kind, settings = sys.argv[1], json.loads(sys.argv[2])
    services: dict[str, Callable[..., Any]] = {
        "canned": CannedService,
        "emulator": _emulator,
    }
    with services[kind](**settings) as service:
        print(service.connection_json, flush=True)
        for _ in sys.stdin:
            stats = service.stats
            service.reset_stats()
            print(json.dumps({"requests": stats.requests, "over_limit": stats.over_limit}))
            sys.stdout.flush()
    return 0


def _emulator(**faults: Any) -> Emulator:
    # JSON has only text keys.
    rates = {int(status): share for status, share in faults.pop("error_rates", {}).items()}
    return Emulator(faults=Faults(**faults, error_rates=rates))


# -- canned answers ---------------------------------------------------------------------------


def _answer(document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


PICTURE_CLASSIFY = _answer(
    {
        "code": 0,
        "message": "success",
        "data": [
            {
                "items": [
                    {"label_name": "cat", "probability": 0.9},
                    {"label_name": "dog", "probability": 0.5},
                ]
            }
        ],
    }
)
LABELS = [
    {"Name": name, "Confidence": confidence, "FirstCategory": "animal", "SecondCategory": "pet"}
    for name, confidence in (("cat", 90), ("dog", 50))
]
DETECT_LABEL_PRO = _answer({"Response": {"Labels": LABELS, "RequestId": "canned"}})

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclasses.dataclass
class _Counts:
    requests: int = 0
    over_limit: int = 0


class CannedService:
    """Answer each request with the same labels, without checks.

    It has the part of the emulator's interface that the benchmarks use.

    :param latency_seconds: time between a request and its answer.
    """

    def __init__(self, latency_seconds: float = 0.0) -> None:
        self.latency_seconds = latency_seconds
        self.stats = _Counts()
        self._loop = asyncio.new_event_loop()
        self._port: Future[int] = Future()

    def __enter__(self) -> CannedService:
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def reset_stats(self) -> None:
        """Set the counts to zero."""
        self.stats = _Counts()

    @property
    def connection_json(self) -> str:
        """The Airflow connection as JSON."""
        fields = {"host": "127.0.0.1", "port": self._port.result(), "schema": "http"}
        account = {
            "login": "AKIDcanned",
            "password": "no-secret",
            "extra": {"app_id": "1250000001"},
        }
        return json.dumps({"conn_type": "imagetag", **fields, **account})

    def _run(self) -> None:
        listening = self._loop.create_server(lambda: _Answering(self), "127.0.0.1", backlog=1024)
        server = self._loop.run_until_complete(listening)
        self._port.set_result(server.sockets[0].getsockname()[1])
        self._loop.run_forever()


class _Answering(asyncio.BufferedProtocol):
    """One connection; its client waits for each answer before the next request."""

    # Shared by all connections: the loop fills it and hands it over in one step.
    _buffer = bytearray(1 << 18)

    def __init__(self, service: CannedService) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._missing_bytes = 0
        self._answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write: Callable[[bytes], None] = transport.write  # type: ignore[attr-defined]

    def get_buffer(self, sizehint: int) -> bytearray:
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._missing_bytes:
            self._missing_bytes -= nbytes
        else:
            self._head += self._buffer[:nbytes]
            head, end, body = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            found = _LENGTH.search(head)
            self._missing_bytes = (int(found[1]) if found else 0) - len(body)
            # TIIA's path is the root.
            self._answer = DETECT_LABEL_PRO if head.startswith(b"POST / ") else PICTURE_CLASSIFY
            self._head = b""
        if not self._missing_bytes:
            self._service.stats.requests += 1
            self._reply()

    def _reply(self) -> None:
        if self._service.latency_seconds:
            self._loop.call_later(self._service.latency_seconds, self._write, self._answer)
        else:
            self._write(self._answer)


# -- the benchmark's end ----------------------------------------------------------------------


@dataclasses.dataclass
class Server:
    """A service in a process of its own.

    :param process: process of the service.
    :param connection: Airflow connection to the service.
    """

    process: subprocess.Popen[str]
    connection: dict[str, Any]

    def counts(self) -> dict[str, int]:
        """Return ``requests`` and ``over_limit`` since the last call."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


@contextlib.contextmanager
def serving(kind: str, **settings: Any) -> Iterator[Server]:
    """Run a service for a ``with`` block.

    :param kind: ``canned`` or ``emulator``.
    :param settings: ``latency_seconds``; for the emulator all fields of its ``Faults``.
    """
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), kind, json.dumps(settings)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    server = Server(process, {})
    with process:
        try:
            server.connection = server._read()
            yield server
        finally:
            process.kill()


if __name__ == "__main__":
    sys.exit(main())
