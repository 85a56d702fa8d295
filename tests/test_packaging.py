"""The distributions: their files, their metadata, and the build of one from the other."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from datetime import date
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest

import airflow_imagetag

ROOT = Path(__file__).resolve().parents[1]
VERSION = airflow_imagetag.__version__
FOLDERS_OF_SDIST = {"airflow_imagetag", "dags_examples", "docs", "tests"}
# The backend always adds .gitignore, so that a build from the sdist ignores the same files.
FILES_OF_SDIST = {
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "PKG-INFO",
    "README.md",
    "README.zh-CN.md",
    "pyproject.toml",
}


def build(tree: Path, kind: str, into: Path) -> Path:
    """Build one distribution with the backend that pyproject.toml names, without a network."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(into)],
        cwd=tree,
        check=True,
        capture_output=True,
        timeout=120,
    )
    [built] = into.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return built


def package_files(root: Path) -> set[str]:
    """Return the files of the package in a source tree, as the wheel names them."""
    return {
        path.relative_to(root).as_posix()
        for path in (root / "airflow_imagetag").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Build the source distribution once."""
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory) -> Path:
    """Unpack the source distribution and return its one folder."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    [top] = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def wheel_path(unpacked, tmp_path_factory) -> Path:
    """Build the wheel from the source distribution and not from the checkout."""
    return build(unpacked, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel(wheel_path) -> Iterator[zipfile.ZipFile]:
    """Open the wheel."""
    with zipfile.ZipFile(wheel_path) as archive:
        yield archive


@pytest.fixture(scope="module")
def wheel_metadata(wheel) -> Message:
    """Return the wheel's METADATA."""
    return message_from_bytes(wheel.read(f"{dist_info()}/METADATA"))


def dist_info() -> str:
    """Return the name of the wheel's folder of metadata."""
    return f"airflow_provider_imagetag-{VERSION}.dist-info"


def test_sdist_holds_the_sources_and_nothing_else(unpacked):
    """The source distribution has package, tests, docs and examples, and no file of a tool."""
    entries = list(unpacked.iterdir())
    assert {entry.name for entry in entries if entry.is_file()} == FILES_OF_SDIST
    assert {entry.name for entry in entries if entry.is_dir()} == FOLDERS_OF_SDIST
    assert package_files(unpacked) == package_files(ROOT)
    left_over = re.compile(r"__pycache__|\.py[co]$|_build|\.db$|\.log$|/\.[^/]*$")
    names = [path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")]
    assert [name for name in names if left_over.search("/" + name)] == [".gitignore"]


def test_wheel_holds_the_package_and_its_licence_and_nothing_else(wheel):
    """An installation adds one importable package, typed, and no tests or documents."""
    info = {
        f"{dist_info()}/{name}"
        for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert set(wheel.namelist()) == package_files(ROOT) | info
    assert "airflow_imagetag/py.typed" in wheel.namelist()


def test_wheel_declares_name_version_and_extras(wheel_metadata):
    """Name, version, licence, Python floor and extras are those of this checkout."""
    assert wheel_metadata["Name"] == "airflow-provider-imagetag"
    assert wheel_metadata["Version"] == VERSION
    assert wheel_metadata["License-Expression"] == "Apache-2.0"
    assert wheel_metadata["Requires-Python"] == ">=3.11"
    assert set(wheel_metadata.get_all("Provides-Extra")) == {
        "downscale",
        "emulator",
        "local",
        "openlineage",
        "parquet",
        "redis",
        "roles",
        "s3",
        "delta",
        "tiia",
    }


def test_every_dependency_has_a_floor(wheel_metadata):
    """No requirement is open downwards, and none is pinned."""
    for requirement in wheel_metadata.get_all("Requires-Dist"):
        specifier = requirement.partition(";")[0]
        assert ">=" in specifier, requirement
        assert "==" not in specifier, requirement


def test_entry_points_are_declared(wheel):
    """Airflow, pytest and the shell each find their entry point."""
    text = wheel.read(f"{dist_info()}/entry_points.txt").decode()
    sections = {
        section.group(1): section.group(2).strip()
        for section in re.finditer(r"\[(.+?)\]\n([^\[]*)", text)
    }
    assert sections == {
        "airflow.plugins": "imagetag = airflow_imagetag.ui.plugin:ImageTagPlugin",
        "apache_airflow_provider": (
            "provider_info = airflow_imagetag.get_provider_info:get_provider_info"
        ),
        "console_scripts": "airflow-imagetag = airflow_imagetag.cli.main:main",
        "pytest11": "imagetag = airflow_imagetag.testing.pytest_plugin",
    }


def test_every_entry_point_leads_into_the_wheel(wheel):
    """The module behind each entry point is a file of the wheel that defines its name."""
    text = wheel.read(f"{dist_info()}/entry_points.txt").decode()
    found = re.findall(r"= ([\w.]+)(?::(\w+))?$", text, re.MULTILINE)
    assert len(found) == 4
    for module, name in found:
        source = wheel.read(f"{module.replace('.', '/')}.py").decode()
        assert not name or re.search(rf"^(def|class) {name}\b", source, re.MULTILINE)


def test_the_same_files_come_out_of_every_build(wheel_path, sdist, tmp_path):
    """A second build has the same bytes, and so has a wheel that is built from the checkout."""
    again = build(ROOT, "sdist", tmp_path / "sdist")
    assert again.read_bytes() == sdist.read_bytes()
    from_checkout = build(ROOT, "wheel", tmp_path / "wheel")
    assert from_checkout.name == wheel_path.name
    assert from_checkout.read_bytes() == wheel_path.read_bytes()


def test_the_wheel_is_small(wheel, wheel_path):
    """No data, model or picture has slipped in: less than a megabyte, no file over 100 KB."""
    assert wheel_path.stat().st_size < 1_000_000
    assert [one.filename for one in wheel.infolist() if one.file_size > 100_000] == []


def test_the_wheel_names_where_it_comes_from(wheel_metadata):
    """The index and Airflow's page of providers lead to documentation, source and changelog."""
    pairs = [entry.split(", ", 1) for entry in wheel_metadata.get_all("Project-URL")]
    assert {name for name, _ in pairs} >= {"Changelog", "Documentation", "Issues", "Source"}
    assert all(url.startswith("https://") for _, url in pairs)


def test_the_changelogs_top_entry_is_the_version():
    """The built version is the latest released entry; at most one unreleased entry is above it."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## \[([0-9][^\]]*)\] - (\S+)$", changelog, re.MULTILINE)
    if entries[0][1] == "unreleased":
        del entries[0]
    version, released = entries[0]
    assert version == VERSION
    assert str(date.fromisoformat(released)) == released


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-airflow2.txt"])
def test_constraints_pin_and_name_no_address(name):
    """A constraints file holds exact versions only, so that it works with any package index."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) > 100
    assert [line for line in lines if not re.match(r"[a-z0-9.-]+==[^\s/]+( ; .+)?$", line)] == []
