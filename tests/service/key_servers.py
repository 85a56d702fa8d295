"""Servers of this machine that give out the keys of a role, as the vendor's own do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TEMPORARY_KEY = "7emporaryKey"
TOKEN = "7emporaryToken"


class KeyServer:
    """Answers each request with what ``answer`` returns; hangs while ``goes_on`` is not set."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.answer: Callable[[str, Any], Any] = lambda path, body: {}
        self.status = 200
        self.asked = threading.Event()
        self.goes_on = threading.Event()
        self.goes_on.set()


@contextmanager
def running_key_server() -> Iterator[tuple[KeyServer, str]]:
    """Run a server for a ``with`` block; it comes with its URL."""
    state = KeyServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.respond(None)

        def do_POST(self) -> None:
            self.respond(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def respond(self, body: Any) -> None:
            state.requests.append((self.path, body))
            state.asked.set()
            state.goes_on.wait(30)
            answer = state.answer(self.path, body)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            self.send_response(state.status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state, f"http://127.0.0.1:{server.server_port}"
        finally:
            state.goes_on.set()
            server.shutdown()
            thread.join()


def metadata_answer(path: str, body: Any, seconds: float = 3600) -> Any:
    """Answer as the metadata server of a machine with the role ``labeller``."""
    if not path.endswith("/labeller"):
        return "labeller"
    return {
        "Code": "Success",
        "TmpSecretId": "AKIDtemporary",
        "TmpSecretKey": TEMPORARY_KEY,
        "Token": TOKEN,
        "ExpiredTime": int(time.time() + seconds),
    }


def sts_answer(path: str, body: Any) -> Any:
    """Answer as STS."""
    keys = {"TmpSecretId": "AKIDtemporary", "TmpSecretKey": TEMPORARY_KEY, "Token": TOKEN}
    return {
        "Response": {
            "Credentials": keys,
            "ExpiredTime": int(time.time() + 7200),
            "RequestId": "r-1",
        }
    }


def sts_error(code: str) -> Callable[[str, Any], Any]:
    """Return what answers as STS does to a request that it refuses."""
    error = {"Code": code, "Message": f"no, {TOKEN}"}
    return lambda path, body: {"Response": {"Error": error, "RequestId": "r-1"}}
