"""The files around the package: the commands that they name exist; docstrings name values."""

from __future__ import annotations

import ast
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
RELEASE = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
HOOKS = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
CLASSIFIERS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]


def steps(workflow: dict[str, Any] = WORKFLOW) -> Iterator[dict[str, Any]]:
    """Yield the steps of all jobs of a workflow."""
    for job in workflow["jobs"].values():
        yield from job["steps"]


def commands(workflow: dict[str, Any]) -> str:
    """Return the commands of the steps of a workflow, a line for each command."""
    return "\n".join(step["run"] for step in steps(workflow) if "run" in step)


@pytest.mark.parametrize(
    "text",
    [
        commands(WORKFLOW),
        commands(RELEASE),
        "\n".join(hook["entry"] for repository in HOOKS["repos"] for hook in repository["hooks"]),
        (ROOT / "CONTRIBUTING.md").read_text(),
        (ROOT / ".ci" / "run").read_text().replace("step ", "make "),
    ],
    ids=["workflow", "release", "hooks", "CONTRIBUTING.md", ".ci/run"],
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


def test_a_release_is_built_once_and_only_then_may_publish():
    """One job builds and may only read; the others take its files, with the rights they need."""
    jobs = RELEASE["jobs"]
    assert RELEASE["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if "make build" in str(job)] == ["build"]
    rights = {name: job.get("permissions") for name, job in jobs.items()}
    assert rights == {
        "build": None,
        "publish": {"id-token": "write", "attestations": "write"},
        "release": {"contents": "write"},
    }
    assert (jobs["publish"]["needs"], jobs["release"]["needs"]) == ("build", "publish")
    used = [step["uses"] for step in steps(RELEASE) if "uses" in step]
    assert all(re.fullmatch(r"[\w/-]+@(v\d+|release/v\d+)", action) for action in used)
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()


def test_scripts_that_the_workflows_run_exist():
    """Each path of a script that a step names is in the repository."""
    named = set(re.findall(r"scripts/\w+\.py", commands(WORKFLOW) + commands(RELEASE)))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda p: p.name)
def test_files_of_the_forge_can_be_read(path):
    """Each is YAML with a name; a form asks for something."""
    content = yaml.safe_load(path.read_text())
    assert {"name", "blank_issues_enabled"} & set(content)
    ids = [field["id"] for field in content.get("body", []) if "id" in field]
    assert len(ids) == len(set(ids))
    assert bool(ids) == ("body" in content)


def test_each_make_target_is_in_the_help_and_in_the_table():
    """The help has a line for each target, and CONTRIBUTING.md names it."""
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: ((?:.+\\\n)*.+)$", text, re.MULTILINE)
    assert phony is not None
    targets = set(phony[1].replace("\\", "").split())
    helped = set(re.findall(r"^([a-z0-9-]+):[^#\n]*## ", text, re.MULTILINE))
    assert targets == helped
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    unnamed = {name for name in targets if f"make {name}" not in contributing}
    assert unnamed - {"help", "clean"} == set()


def test_each_test_that_the_makefile_names_exists():
    """A file that was renamed is not left out of the quick tests in silence."""
    named = set(re.findall(r"\btests/[\w/]+\.py\b", (ROOT / "Makefile").read_text()))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield the docstrings of the repository, each with its file."""
    for folder in ("airflow_imagetag", "benchmarks", "dags_examples", "scripts", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(
                    node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
                ):
                    yield str(path.relative_to(ROOT)), ast.get_docstring(node) or ""


def test_a_docstring_names_the_value_that_is_returned():
    """None begins with "Return what" or "Return when", which tell nothing of its type."""
    vague = [found for found in docstrings() if re.match(r"Return (what|when)\b", found[1])]
    assert vague == []
