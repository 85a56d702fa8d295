"""Help with a release; the release workflow runs it.

python scripts/release.py check --tag v0.2.0 --repository owner/name
python scripts/release.py notes --tag v0.2.0
python scripts/release.py sbom --output sbom.cdx.json
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "airflow-provider-imagetag"
ENTRY = re.compile(r"^## \[(?P<version>[^\]]+)\] - (?P<date>.+)$", re.MULTILINE)


def version_of(root: Path) -> str:
    """Return the version of a checkout."""
    found = re.search(
        r'^__version__ = "(.+)"$', _read(root, "airflow_imagetag/__init__.py"), re.MULTILINE
    )
    if found is None:
        raise SystemExit("airflow_imagetag/__init__.py has no __version__")
    return found[1]


def problems(root: Path, tag: str, repository: str) -> Iterator[str]:
    """Yield what keeps a tag from being released, as what to change.

    :param root: the checkout.
    :param repository: ``owner/name``, from which it is published.
    """
    version = version_of(root)
    if tag != f"v{version}":
        yield f"The tag is {tag} and the version {version}: change __version__, or the tag."
    first = ENTRY.search(_read(root, "CHANGELOG.md"))
    if first is None or first["version"] != version:
        yield f"The top entry of CHANGELOG.md is not [{version}]."
    elif not re.fullmatch(r"\d{4}-\d\d-\d\d", first["date"]):
        yield f"CHANGELOG.md says {first['date']!r} of {version}: write the day of the release."
    urls = tomllib.loads(_read(root, "pyproject.toml"))["project"]["urls"]
    if urls["Source"] != f"https://github.com/{repository}":
        yield f"[project.urls] names {urls['Source']} and not {repository}: correct its addresses."


def notes(root: Path, tag: str) -> str:
    """Return the entry of the changelog for a tag."""
    text = _read(root, "CHANGELOG.md")
    entries = list(ENTRY.finditer(text))
    for number, entry in enumerate(entries):
        if entry["version"] == tag.removeprefix("v"):
            end = entries[number + 1].start() if number + 1 < len(entries) else len(text)
            return text[entry.end() : end].strip()
    raise SystemExit(f"CHANGELOG.md has no entry for {tag}")


def sbom(package: str = PACKAGE) -> dict[str, Any]:
    """Return a CycloneDX list of a package and all that it needs, as they are installed here."""
    found = dict(sorted(_installed(package)))
    own = _component(package, found.pop(package))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own | {"type": "library"}},
        "components": [_component(name, version) for name, version in found.items()],
    }


def _component(name: str, version: str) -> dict[str, str]:
    purl = f"pkg:pypi/{name}@{version}"
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def _installed(package: str) -> Iterator[tuple[str, str]]:
    """Yield a package and all that it needs, with their versions."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    waiting: list[tuple[str, str]] = [(canonicalize_name(package), "")]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        distribution = metadata.distribution(name)
        yield name, distribution.version
        for text in distribution.requires or ():
            needed = Requirement(text)
            if needed.marker is not None and not needed.marker.evaluate({"extra": extra}):
                continue
            for one in ["", *needed.extras]:
                item = (str(canonicalize_name(needed.name)), one)
                if item not in seen:
                    seen.add(item)
                    waiting.append(item)


def _read(root: Path, name: str) -> str:
    return (root / name).read_text(encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Run one of the commands, and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "notes"):
        commands.add_parser(name).add_argument("--tag", required=True)
    commands.choices["check"].add_argument("--repository", required=True)
    commands.add_parser("sbom").add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    if chosen.command == "notes":
        print(notes(ROOT, chosen.tag))
        return 0
    if chosen.command == "sbom":
        chosen.output.write_text(json.dumps(sbom(), indent=1) + "\n", encoding="utf-8")
        return 0
    found = list(problems(ROOT, chosen.tag, chosen.repository))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
