"""The files around the package: the commands that they name exist."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
CLASSIFIERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]


def steps() -> Iterator[dict[str, Any]]:
    """Yield the steps of all jobs of the workflow."""
    for job in WORKFLOW["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(step["run"] for step in steps() if "run" in step),
        "\n".join(hook["entry"] for repository in HOOKS["repos"] for hook in repository["hooks"]),
        (ROOT / "CONTRIBUTING.md").read_text(),
        (ROOT / ".ci" / "run").read_text().replace("step ", "make "),
    ],
    ids=["workflow", "hooks", "CONTRIBUTING.md", ".ci/run"],
)
def test_each_make_target_that_a_file_names_exists(text):
    """A file names only targets that the Makefile has."""
    named = set(re.findall(r"(?:^|`)make (?:PYTHON\S* )?([a-z][a-z0-9-]*)", text, re.MULTILINE))
    assert named
    assert named - TARGETS == set()


def test_the_workflow_tests_each_supported_python():
    """The tests run on each Python of the classifiers, those of Airflow 2.11 up to Python 3.12."""
    found = [re.search(r":: (3\.\d+)$", classifier) for classifier in CLASSIFIERS]
    supported = [match[1] for match in found if match]
    pythons = {name: job.get("strategy") for name, job in WORKFLOW["jobs"].items()}
    assert pythons["test"]["matrix"]["python"] == supported
    assert pythons["test-airflow2"]["matrix"]["python"] == ["3.11", "3.12"]


def test_the_workflow_may_only_read():
    """Jobs read the repository and keep no token; actions are pinned to a major version."""
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOW["jobs"].values())
    actions = [step for step in steps() if "uses" in step]
    assert all(re.fullmatch(r"[\w/-]+@v\d+", step["uses"]) for step in actions)
    checkouts = [step for step in actions if step["uses"].startswith("actions/checkout@")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)
