"""The help with a release: what it refuses, the notes, and the list of what is installed."""

from __future__ import annotations

import json
import runpy
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from airflow_imagetag.get_provider_info import get_provider_info

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "release.py"))
URLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]

CHANGELOG = """# Changelog

## [0.3.0] - 2027-01-02

### Added

- A thing.

## [0.2.0] - 2026-12-01

- Another.
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Make the files of a checkout that can be released as version 0.3.0."""
    (tmp_path / "airflow_imagetag").mkdir()
    (tmp_path / "airflow_imagetag" / "__init__.py").write_text('__version__ = "0.3.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "pyproject.toml").write_text(
        '[project.urls]\nSource = "https://github.com/shop/labels"\n'
    )
    return tmp_path


def test_a_tag_that_fits_is_released(checkout: Path) -> None:
    """Tag, version, changelog and repository agree."""
    assert list(SCRIPT["problems"](checkout, "v0.3.0", "shop/labels")) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "tag", "repository", "says"),
    [
        ("CHANGELOG.md", "", "", "v0.3.1", "shop/labels", "change __version__"),
        ("CHANGELOG.md", "2027-01-02", "unreleased", "v0.3.0", "shop/labels", "day of the release"),
        ("CHANGELOG.md", "[0.3.0]", "[0.4.0]", "v0.3.0", "shop/labels", "top entry"),
        ("CHANGELOG.md", "", "", "v0.3.0", "fork/labels", "correct its addresses"),
    ],
)
def test_what_does_not_fit_is_refused(
    checkout: Path, file: str, old: str, new: str, tag: str, repository: str, says: str
) -> None:
    """Each fault is named with what to change."""
    path = checkout / file
    path.write_text(path.read_text().replace(old, new) if old else path.read_text())
    [found] = SCRIPT["problems"](checkout, tag, repository)
    assert says in found


def test_notes_are_the_entry_of_the_changelog(checkout: Path) -> None:
    """Nothing of other versions; a version without an entry is refused."""
    assert SCRIPT["notes"](checkout, "v0.3.0") == "### Added\n\n- A thing."
    assert SCRIPT["notes"](checkout, "v0.2.0") == "- Another."
    with pytest.raises(SystemExit):
        SCRIPT["notes"](checkout, "v9.9.9")


def test_the_list_has_all_that_an_installation_brings_along(tmp_path: Path) -> None:
    """Each component is installed in that version; direct and indirect ones are there, once."""
    path = tmp_path / "sbom.json"
    assert SCRIPT["main"](["sbom", "--output", str(path)]) == 0
    listed = json.loads(path.read_text())
    assert (listed["bomFormat"], listed["specVersion"]) == ("CycloneDX", "1.5")
    versions = {one["name"]: one["version"] for one in listed["components"]}
    assert len(versions) == len(listed["components"])
    # aiohttp is asked for, and aiosignal by aiohttp; nothing installs pytest.
    assert {"apache-airflow", "pandas", "aiohttp", "aiosignal"} <= set(versions)
    assert "pytest" not in versions
    assert versions == {name: metadata.version(name) for name in versions}
    assert listed["metadata"]["component"]["name"] == "airflow-provider-imagetag"


def test_the_addresses_are_said_in_one_way() -> None:
    """Airflow is told the documentation of the metadata, and the logo is a file of it."""
    info = get_provider_info()
    assert info["documentation-url"] == URLS["Documentation"]
    logo = info["integrations"][0]["logo"]
    assert logo.startswith(URLS["Documentation"])
    assert (ROOT / "docs" / "images" / Path(logo).name).exists()
    assert all(
        URLS[name].startswith(URLS["Source"]) for name in ("Issues", "Changelog", "Security")
    )
