"""Files that are built once and kept: damaged ones, many processes, folders that cannot be used."""

from __future__ import annotations

import hashlib
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from airflow_imagetag.classifiers.cache import DigestCache, default_folder

CONTENT = b"a graph" * 100_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def make() -> bytes:
    return CONTENT


def fail() -> bytes:
    raise AssertionError("it is made again")


def get(folder: Path) -> tuple[int, str]:
    """Return size and digest of the file, in a process of its own."""
    content, digest = DigestCache(folder).get("graph", make)
    return len(content), digest


def test_a_file_is_made_once(tmp_path):
    """The second time, it is read, and its digest is known without reading it."""
    cache = DigestCache(tmp_path / "new")
    assert cache.digest_of("graph") is None
    assert cache.get("graph", make) == (CONTENT, DIGEST)
    assert cache.get("graph", fail) == (CONTENT, DIGEST)
    assert cache.digest_of("graph") == DIGEST


def test_a_damaged_file_is_made_again(tmp_path):
    """Half a file, as a full disk leaves it, does not match its name."""
    cache = DigestCache(tmp_path)
    cache.get("graph", make)
    [path] = tmp_path.iterdir()
    path.write_bytes(CONTENT[:100])
    assert cache.get("graph", make) == (CONTENT, DIGEST)
    assert path.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_used_only_costs_time(tmp_path):
    """A worker may have no place to write to."""
    (tmp_path / "file").write_text("no folder")
    assert DigestCache(tmp_path / "file").get("graph", make) == (CONTENT, DIGEST)


def test_several_processes_share_a_folder(tmp_path):
    """Each gets the whole file, and one file is left."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        found = set(pool.map(get, [tmp_path] * 12))
    assert found == {(len(CONTENT), DIGEST)}
    assert len(list(tmp_path.iterdir())) == 1


def test_the_default_folder_is_that_of_the_user(monkeypatch, tmp_path):
    """XDG_CACHE_HOME moves it, unless it is relative."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder().parent == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_folder().is_absolute()
