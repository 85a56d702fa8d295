"""The rule of new images: pure decisions."""

from __future__ import annotations

import itertools

import pytest

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.selection.rules import Retag, Rule, Status, StoredState, parse_rule

EVERY_RULE = [Rule(retag, retry) for retag, retry in itertools.product(Retag, (False, True))]


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_an_unknown_image_is_new(rule: Rule):
    """Under every rule."""
    assert rule.is_pending(None, version="1", has_uri=True)


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_an_unfinished_image_is_new(rule: Rule):
    """An image that failed by the service's fault was not labelled."""
    assert rule.is_pending(StoredState("1", Status.UNFINISHED), version="1", has_uri=True)


@pytest.mark.parametrize(
    ("retag", "same", "changed"),
    [("never", False, False), ("changed", False, True), ("always", True, True)],
)
def test_a_tagged_image(retag: str, same: bool, changed: bool):
    """Its version decides, where the rule asks for it."""
    rule = parse_rule(retag, False)
    stored = StoredState("1", Status.TAGGED)
    assert rule.is_pending(stored, version="1", has_uri=True) is same
    assert rule.is_pending(stored, version="2", has_uri=True) is changed


@pytest.mark.parametrize("version", [None, ""])
def test_no_version_is_an_empty_one(version: str | None):
    """A source without versions labels each image once."""
    assert not Rule().is_pending(StoredState("", Status.TAGGED), version=version, has_uri=True)


def test_a_failed_image_is_tried_again_when_asked():
    """Its own fault would be met again, unless the user knows better."""
    stored = StoredState("1", Status.FAILED)
    assert not Rule().is_pending(stored, version="1", has_uri=True)
    assert Rule(retry_failed=True).is_pending(stored, version="1", has_uri=True)
    assert Rule(Retag.NEVER, retry_failed=True).is_pending(stored, version="2", has_uri=True)
    assert not Rule(Retag.NEVER).is_pending(stored, version="2", has_uri=True)


def test_retrying_failures_leaves_labels_alone():
    """``retry_failed`` pays for no image that has an answer."""
    stored = StoredState("1", Status.TAGGED)
    assert not Rule(retry_failed=True).is_pending(stored, version="1", has_uri=True)


@pytest.mark.parametrize(
    ("had_uri", "has_uri", "expected"),
    [(False, True, True), (False, False, False), (True, False, False), (True, True, False)],
)
def test_a_uri_that_was_filled_in_is_news(had_uri: bool, has_uri: bool, expected: bool):
    """An image that failed for want of a URI is new once it has one."""
    stored = StoredState("", Status.FAILED, had_uri)
    assert Rule().is_pending(stored, version=None, has_uri=has_uri) is expected
    assert Rule(Retag.NEVER).is_pending(stored, version=None, has_uri=has_uri) is expected


@pytest.mark.parametrize(("text", "expected"), [("True", True), ("False", False), (True, True)])
def test_a_template_gives_text(text: bool | str, expected: bool):
    """Parameters may come from templates."""
    assert parse_rule("never", text) == Rule(Retag.NEVER, expected)


@pytest.mark.parametrize(
    ("retag", "retry_failed", "named"),
    [("sometimes", False, "retag"), ("", False, "retag"), ("never", "maybe", "retry_failed")],
)
def test_a_wrong_parameter_is_named(retag: str, retry_failed: str, named: str):
    """The message names the allowed values."""
    with pytest.raises(ConfigurationError, match=named):
        parse_rule(retag, retry_failed)
