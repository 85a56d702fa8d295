"""Servers of this machine that give out the keys of a role, as the vendor's own do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from web_servers import Handler, serving

TEMPORARY_KEY = "7emporaryKey"
TOKEN = "7emporaryToken"


class KeyServer:
    """Answers each request by the function ``answer``; hangs while ``goes_on`` is not set."""

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

    class Keys(Handler):
        def answer(self) -> None:
            sent = self.body()
            body = json.loads(sent) if sent else None
            state.requests.append((self.path, body))
            state.asked.set()
            state.goes_on.wait(30)
            answer = state.answer(self.path, body)
            text = answer if isinstance(answer, str) else json.dumps(answer)
            headers = {"Content-Type": "application/json"}
            self.respond(text.encode(), status=state.status, headers=headers)

    with serving(Keys) as url:
        try:
            yield state, url
        finally:
            state.goes_on.set()


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
    """Return a function that answers as STS does to a request that it refuses."""
    error = {"Code": code, "Message": f"no, {TOKEN}"}
    return lambda path, body: {"Response": {"Error": error, "RequestId": "r-1"}}
