"""Files that data names: what is opened is what was checked."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airflow_imagetag.safety.local_files import (
    NoRegularFileError,
    OutsideFoldersError,
    open_local,
)

SECRET = b"a file outside"
NOBODY = 65534


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make an allowed folder, and a file outside of it."""
    (tmp_path / "allowed" / "below" / "deep").mkdir(parents=True)
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "allowed" / "below" / "deep" / "a.jpg").write_bytes(b"an image")
    (tmp_path / "outside" / "deep" / "a.jpg").write_bytes(SECRET)
    return tmp_path


def read(path: Path, folders: list[str] | None) -> bytes:
    """Return the bytes of a file."""
    with open_local(str(path), folders) as file:
        return file.read()


def allowed(tree: Path) -> list[str]:
    """Return the folders that are allowed."""
    return [str(tree / "allowed")]


@pytest.mark.parametrize("link", ["allowed/link.jpg", "allowed/below/link.jpg"])
def test_a_link_within_the_folder_is_followed(tree, link):
    """It stays inside."""
    (tree / link).symlink_to(tree / "allowed" / "below" / "deep" / "a.jpg")
    assert read(tree / link, allowed(tree)) == b"an image"


def test_a_folder_that_may_not_be_left(tree):
    """Neither by a link nor by two dots; without folders any file may be read."""
    (tree / "allowed" / "link").symlink_to(tree / "outside")
    for path in ("allowed/link/deep/a.jpg", "allowed/../outside/deep/a.jpg"):
        with pytest.raises(OutsideFoldersError):
            read(tree / path, allowed(tree))
        assert read(tree / path, None) == SECRET


def test_a_file_may_be_the_allowed_path_itself(tree):
    """What is allowed need not be a folder; and a folder is no file."""
    path = tree / "allowed" / "below" / "deep" / "a.jpg"
    assert read(path, [str(path)]) == b"an image"
    for folder in (tree / "allowed", Path("/")):
        with pytest.raises(NoRegularFileError):
            read(folder, [str(folder)])


def swap_file(tree: Path) -> Iterator[None]:
    """Put a link out of the folder in the place of the file, and the file back."""
    place = tree / "allowed" / "below" / "deep" / "a.jpg"
    link, file = place.with_name("link"), place.with_name("file")
    while True:
        link.symlink_to(tree / "outside" / "deep" / "a.jpg")
        link.replace(place)
        yield
        file.write_bytes(b"an image")
        file.replace(place)
        yield


def swap_folder(tree: Path) -> Iterator[None]:
    """Put a link out of the folder in the place of a folder, and the folder back."""
    place, aside = tree / "allowed" / "below", tree / "allowed" / "aside"
    while True:
        place.rename(aside)
        place.symlink_to(tree / "outside")
        yield
        place.unlink()
        aside.rename(place)
        yield


@contextmanager
def swapping(swaps: Iterator[None]) -> Iterator[None]:
    """Swap for a ``with`` block in another thread."""
    is_over = threading.Event()

    def run() -> None:
        while not is_over.is_set():
            next(swaps)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("swap", [swap_file, swap_folder])
def test_nothing_outside_is_read_while_links_come_and_go(
    tree: Path, swap: Callable[[Path], Iterator[None]]
):
    """The check is of the file that is opened, however fast its name gets another meaning."""
    path, seen = tree / "allowed" / "below" / "deep" / "a.jpg", Counter[str]()
    ends = time.monotonic() + 1.5
    with swapping(swap(tree)):
        while time.monotonic() < ends or seen.total() < 1_000:
            try:
                content = read(path, allowed(tree))
            except OutsideFoldersError:
                seen["refused"] += 1
            except OSError as error:
                seen[type(error).__name__] += 1
            else:
                assert content != SECRET
                seen["read"] += 1
    assert seen["refused"]
    assert seen["read"]


def test_a_folder_that_may_only_be_passed_through(tree):
    """A file in it can be read by a user who may not list the folder."""
    (tree / "allowed").chmod(0o711)
    for folder in (tree, *tree.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    code = (
        "import os, sys\n"
        "from airflow_imagetag.safety.local_files import open_local\n"
        f"if os.getuid() == 0: os.setuid({NOBODY})\n"
        "with open_local(sys.argv[1], sys.argv[2:]) as file: print(file.read().decode())"
    )
    path = tree / "allowed" / "below" / "deep" / "a.jpg"
    run = subprocess.run(
        [sys.executable, "-c", code, str(path), *allowed(tree)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "an image\n"
