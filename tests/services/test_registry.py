"""Finding the service that a connection names, among ours and those of other packages."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.base import Service
from airflow_imagetag.services.connection_fields import parse_account
from airflow_imagetag.services.registry import BUILT_IN, find_service

GOOD = """
from airflow_imagetag.services.base import Service

class Good(Service):
    api = "good"
    host = "good.example"
    limits = None
    build = read = build_probe = check_probe = None
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that puts a package with entry points where Python finds it."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(entry: str, code: str = "", name: str = "toy") -> None:
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[airflow_imagetag.services]\n{entry}\n")
        (tmp_path / f"{name}_labels.py").write_text(code)
        monkeypatch.delitem(sys.modules, f"{name}_labels", raising=False)

    return put


def parse(api: str):
    """Parse a connection that names an interface."""
    return parse_account(
        conn_id="my_labels",
        login="AKID",
        password="key",
        host=None,
        port=None,
        schema=None,
        extra={"api": api},
        find_service=find_service,
    )


def test_our_own():
    """Each is found by the name that results carry."""
    assert list(BUILT_IN) == [
        "picture_classify",
        "imagetag_detect",
        "DetectLabelPro",
        "DetectLabel",
        "ci_detect_label",
    ]
    for api, service in BUILT_IN.items():
        assert find_service(api) is service
        assert service.api == api
        assert issubclass(service, Service)


def test_one_of_another_package(install):
    """Its entry point is enough; endpoint and api are those of its class."""
    install("good = toy_labels:Good", GOOD)
    account = parse("good")
    assert (account.api, account.endpoint) == ("good", "https://good.example")
    assert find_service("good").__module__ == "toy_labels"


def test_an_unknown_one_lists_all(install):
    """Those of other packages too, and without loading them."""
    install("good = toy_labels:Good", "raise RuntimeError")
    with pytest.raises(ConfigurationError) as caught:
        parse("bad")
    names = ("DetectLabel", "DetectLabelPro", "ci_detect_label", "good", "imagetag_detect")
    assert f"{', '.join(names)}, local, picture_classify, not 'bad'" in caught.value.message


@pytest.mark.parametrize(
    ("entry", "code", "word"),
    [
        ("good = toy_labels:Good", "import no_such_module_of_the_toy", "ModuleNotFoundError"),
        ("good = toy_labels:Good", "1 / 0", "ZeroDivisionError"),
        ("good = toy_labels:Good", "syntax error", "SyntaxError"),
        ("good = toy_labels:Better", GOOD, "AttributeError"),
        ("good = no_such_toy:Good", GOOD, "ModuleNotFoundError"),
        ("good = toy_labels", GOOD, "must be a class derived from"),
        ("good = toy_labels:Good", "Good = 7", "must be a class derived from"),
        ("good = toy_labels:Good", "class Good: api = 'good'", "must be a class derived from"),
        ("good = toy_labels:Good", GOOD.replace('"good"', '"goods"'), "its api, not 'goods'"),
        ("good = toy_labels:Good", GOOD.replace('    api = "good"\n', ""), "its api, not None"),
        ("good = toy_labels:Good", GOOD.replace('    host = "good.example"\n', ""), "host"),
        ("good = toy_labels:Good", GOOD.replace("build = read", "build"), "lacks read"),
        ("good = toy_labels:Service", GOOD, "lacks build, build_probe, check_probe, limits, read"),
    ],
)
def test_a_broken_class_of_another_package(install, entry, code, word):
    """The error names the connection, the service and where it comes from."""
    install(entry, code)
    with pytest.raises(ConfigurationError) as caught:
        parse("good")
    message = caught.value.message
    assert message.startswith("Connection 'my_labels': The service 'good'")
    assert entry.partition("= ")[2] in message
    assert word in message


def test_a_name_that_no_column_holds(install):
    """Stores keep the name in a column of 64 characters."""
    name = "g" * 65
    install(f"{name} = toy_labels:Good", GOOD.replace('"good"', f'"{name}"'))
    with pytest.raises(ConfigurationError, match="up to 64 characters"):
        parse(name)


def test_two_packages_with_the_same_name(install):
    """Neither wins in silence."""
    install("good = toy_labels:Good", GOOD)
    install("good = other_labels:Good", GOOD, name="other")
    with pytest.raises(ConfigurationError, match="more than once: other_labels:Good, toy_labels"):
        parse("good")


def test_a_package_that_is_found_twice(install):
    """As one that is installed and editable; it is the same class."""
    install("good = toy_labels:Good", GOOD)
    install("good = toy_labels:Good", "", name="toy-again")
    assert parse("good").api == "good"


def test_our_own_names_are_ours(install):
    """Another package cannot put itself in the place of a built-in interface."""
    install("picture_classify = toy_labels:Good", GOOD)
    assert find_service("picture_classify") is BUILT_IN["picture_classify"]
