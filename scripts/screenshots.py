"""Make the screenshots of docs/images: a real Airflow, its pages of labels, and Debian's chromium.

It needs the packages ``chromium`` and ``chromium-driver``. Nothing is left running.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build" / "screenshots"
IMAGES = ROOT / "docs" / "images"
LABELS = ("cat", "tabby", "dog", "person", "sky", "street", "tree", "food", "coffee", "rocket")


def main() -> int:
    """Write a file for each page, and print what the browser's console says."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            sys.stderr.write(f"There is no {program}: apt-get install chromium chromium-driver\n")
            return 1
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="photographs-") as folder:
        return _shot(_photographs(Path(folder)))


def _shot(photographs: list[Path]) -> int:
    port = _free_port()
    environment = _environment(photographs, port)
    os.environ.update(environment)
    _fill(photographs)
    with _airflow(environment, port) as url, _browser() as browser:
        _pages(browser, url)
        problems = browser.console()
    for problem in problems:
        print(problem)
    print(f"Written: {IMAGES}")
    return 0


def _photographs(into: Path) -> list[Path]:
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("scikit-image is not installed: run 'make venv'")
    folder = Path(spec.origin).parent / "data"
    names = ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png")
    every = (*names, "gravel.png", "moon.png", "rocket.jpg")
    return [Path(shutil.copy(folder / name, into)) for name in every]


def _environment(photographs: list[Path], port: int) -> dict[str, str]:
    connection = {"conn_type": "sqlite", "host": str(WORK / "warehouse.db")}
    return {
        **os.environ,
        "AIRFLOW_HOME": str(WORK / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__IMAGETAG__UI_STORES": "products = warehouse:product_labels",
        "AIRFLOW__IMAGETAG__ALLOWED_LOCAL_PATHS": str(photographs[0].parent),
        "AIRFLOW_CONN_WAREHOUSE": json.dumps(connection),
    }


def _fill(photographs: list[Path]) -> None:
    from airflow_imagetag.models import Failure, Label, TagResult
    from airflow_imagetag.stores import SqlLabelStore

    chance = random.Random(4)
    outcomes: list[TagResult | Failure] = []
    for number in range(2_000):
        path = photographs[number % len(photographs)]
        key, uri = f"shop/{number:05d}/{path.name}", str(path)
        at = datetime(2026, 6, 1, tzinfo=UTC) + timedelta(minutes=20 * number)
        if number % 90 == 0:
            error = ("ImageDecodeError", "-1301", "The image cannot be decoded.")
            outcomes.append(Failure(key, uri, *error, 1, at))
            continue
        names = chance.sample(LABELS, chance.randint(2, 6))
        shares = sorted((round(chance.random(), 2) for _ in names), reverse=True)
        labels = tuple(map(Label, names, shares))
        outcomes.append(TagResult(key, uri, labels, "DetectLabelPro", at))
    store = SqlLabelStore("warehouse", "product_labels")
    with store.open("DetectLabelPro") as opened:
        for start in range(0, len(outcomes), 500):
            opened.write(outcomes[start : start + 500])


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def _started(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
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


@contextlib.contextmanager
def _airflow(environment: dict[str, str], port: int) -> Iterator[str]:
    command = [sys.executable, "-m", "airflow"]
    with (WORK / "migrate.log").open("w") as log:
        subprocess.run([*command, "db", "migrate"], env=environment, stdout=log, check=True)
    server = [*command, "api-server", "--port", str(port), "--host", "127.0.0.1", "--workers", "1"]
    with _started(server, environment, WORK / "server.log"):
        _wait(f"http://127.0.0.1:{port}/api/v2/version")
        yield f"http://127.0.0.1:{port}"


def _wait(url: str) -> None:
    ends = time.monotonic() + 180
    while time.monotonic() < ends:
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(url, timeout=10).ok:
                return
        time.sleep(0.5)
    raise SystemExit(f"{url} does not answer; see {WORK}")


class _Browser:
    """A browser behind the WebDriver protocol."""

    def __init__(self, url: str, size: str = "1280,900") -> None:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={size}"]
        wanted = {
            "goog:chromeOptions": {"args": [*arguments, "--hide-scrollbars"]},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        answer = self._post(f"{url}/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"{url}/session/{answer['sessionId']}"

    def _post(self, url: str, values: dict[str, Any]) -> Any:
        answer = requests.post(url, json=values, timeout=120).json()["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise SystemExit(f"{url}: {answer['message'][:300]}")
        return answer

    def open(self, url: str, seconds: float = 2.0) -> None:
        """Open a page and give its parts time to come."""
        self._post(f"{self._session}/url", {"url": url})
        time.sleep(seconds)

    def run(self, script: str) -> Any:
        """Run a script in the page."""
        return self._post(f"{self._session}/execute/sync", {"script": script, "args": []})

    def shoot(self, name: str) -> None:
        """Write a picture of the page."""
        answer = requests.get(f"{self._session}/screenshot", timeout=120).json()["value"]
        (IMAGES / f"ui-{name}.png").write_bytes(base64.b64decode(answer))

    def console(self) -> list[str]:
        """Return what the console says of the pages of labels."""
        entries = self._post(f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if "imagetag" in entry["message"]]

    def end(self) -> None:
        """Close it."""
        requests.delete(self._session, timeout=60)


@contextlib.contextmanager
def _browser() -> Iterator[_Browser]:
    port = _free_port()
    command = ["chromedriver", f"--port={port}"]
    with _started(command, dict(os.environ), WORK / "driver.log"):
        _wait(f"http://127.0.0.1:{port}/status")
        browser = _Browser(f"http://127.0.0.1:{port}")
        try:
            yield browser
        finally:
            browser.end()


def _pages(browser: _Browser, url: str) -> None:
    # Airflow's own page logs the only user in.
    browser.open(f"{url}/", 8)
    browser.open(f"{url}/plugin/image-labels", 8)
    browser.shoot("airflow")
    top = f"{url}/imagetag/products"
    for name in ("overview", "labels", "failures", "runs"):
        browser.open(f"{top}/{name}")
        browser.shoot(name)
    browser.open(f"{top}/gallery?label=tabby&max=0.3", 5)
    browser.shoot("gallery")
    found = re.search(r"image\?key=[0-9a-f]{64}", browser.run("return document.body.innerHTML"))
    if found is None:
        raise SystemExit("The gallery shows no image.")
    browser.open(f"{top}/{found[0]}", 3)
    browser.shoot("image")


if __name__ == "__main__":
    sys.exit(main())
