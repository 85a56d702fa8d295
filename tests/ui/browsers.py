"""Debian's chromium without a window, behind the WebDriver protocol.

It needs the packages ``chromium`` and ``chromium-driver``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import requests

PROGRAMS = ("chromium", "chromedriver")

MAX_SECONDS = 20.0
"""How long an element of a page is waited for."""

ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    # It asks nothing of its own accord.
    *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
)


def missing_program() -> str | None:
    """Return the name of a program that is not installed; None if all are."""
    return next((name for name in PROGRAMS if shutil.which(name) is None), None)


def free_port() -> int:
    """Return a port that no server uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def started(command: Sequence[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run a server during a ``with`` block; it ends with all processes that it has started."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 15)
            process.wait(30)


def wait_for(url: str, log: Path, seconds: float = 180) -> None:
    """Wait until a server answers."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(url, timeout=10).ok:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer; see {log}")


class MissingElementError(RuntimeError):
    """A page does not have an element."""


class Browser:
    """A browser. Each method fails if a page has opened a dialog.

    :param url: of the driver.
    """

    def __init__(self, url: str) -> None:
        wanted = {
            "goog:chromeOptions": {"args": list(ARGUMENTS)},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
            "unhandledPromptBehavior": "dismiss and notify",
        }
        answer = self._post(f"{url}/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"{url}/session/{answer['sessionId']}"
        self.resize(1280, 900)

    def _post(self, url: str, values: dict[str, Any]) -> Any:
        return self._answer(requests.post(url, json=values, timeout=120))

    def _answer(self, response: requests.Response) -> Any:
        answer = response.json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            is_missing = answer["error"] in ("no such element", "element not interactable")
            kind = MissingElementError if is_missing else RuntimeError
            raise kind(f"{response.url}: {answer['message'][:300]}")
        return answer

    def resize(self, width: int, height: int) -> None:
        """Set the size of the window."""
        self._post(f"{self._session}/window/rect", {"width": width, "height": height})

    def open(self, url: str, seconds: float = 0.0) -> None:
        """Open a page, and wait until its parts are there.

        :param seconds: further time for what scripts load.
        """
        self._post(f"{self._session}/url", {"url": url})
        time.sleep(seconds)

    def run(self, script: str) -> Any:
        """Run a script in the page, and return its result."""
        return self._post(f"{self._session}/execute/sync", {"script": script, "args": []})

    def click(self, selector: str, using: str = "css selector") -> None:
        """Click on the first element of a selector.

        :param using: its kind, as WebDriver names it.
        """
        [element] = self._element(selector, using).values()
        self._post(f"{self._session}/element/{element}/click", {})

    def write(self, selector: str, text: str) -> None:
        """Type a text into the first element of a CSS selector."""
        [element] = self._element(selector, "css selector").values()
        self._post(f"{self._session}/element/{element}/value", {"text": text})

    def enter(self, selector: str) -> None:
        """Go on in the first frame of a CSS selector."""
        self._post(f"{self._session}/frame", {"id": self._element(selector, "css selector")})

    def _element(self, selector: str, using: str) -> dict[str, str]:
        ends = time.monotonic() + MAX_SECONDS
        while True:
            try:
                return dict(
                    self._post(f"{self._session}/element", {"using": using, "value": selector})
                )
            except MissingElementError:
                if time.monotonic() > ends:
                    raise
                time.sleep(0.1)

    def arrive(self, part: str) -> str:
        """Return the address of the page, or of the frame, once it holds a part."""
        ends = time.monotonic() + MAX_SECONDS
        while part not in (address := str(self.run("return location.href"))):
            if time.monotonic() > ends:
                raise RuntimeError(f"The page is {address}, without {part}.")
            time.sleep(0.05)
        return address

    def picture(self) -> bytes:
        """Return a PNG of what the window shows."""
        shown = self._answer(requests.get(f"{self._session}/screenshot", timeout=120))
        return base64.b64decode(shown)

    def console(self) -> list[str]:
        """Return the lines of the console since the last call."""
        return [str(entry["message"]) for entry in self._log("browser")]

    def requested(self) -> list[str]:
        """Return the addresses that were asked for since the last call, by pages and frames."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            str(event["params"]["request"]["url"])
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        return list(self._post(f"{self._session}/se/log", {"type": kind}))

    def end(self) -> None:
        """Close it."""
        requests.delete(self._session, timeout=60)


@contextlib.contextmanager
def opened_browser(folder: Path) -> Iterator[Browser]:
    """Run a browser during a ``with`` block.

    :param folder: where its driver writes its log.
    """
    port, log = free_port(), folder / "driver.log"
    with started(["chromedriver", f"--port={port}"], dict(os.environ), log):
        wait_for(f"http://127.0.0.1:{port}/status", log)
        browser = Browser(f"http://127.0.0.1:{port}")
        try:
            yield browser
        finally:
            browser.end()
