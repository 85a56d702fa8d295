"""The rule of new images: pure decisions."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.selection.rules import (
    Need,
    Retag,
    Rule,
    Status,
    StoredState,
    parse_rule,
)

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
EVERY_RULE = [Rule(retag, retry) for retag, retry in itertools.product(Retag, (False, True))]


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_an_unknown_image_is_new(rule: Rule):
    """Under every rule."""
    assert rule.is_pending(None, version="1", has_uri=True)


@pytest.mark.parametrize("rule", EVERY_RULE)
@pytest.mark.parametrize("next_try_at", [None, NOW - HOUR, NOW])
def test_a_waiting_image_is_due_when_its_time_has_come(rule: Rule, next_try_at: datetime | None):
    """An image of version 0.1.0 has no time, and is due."""
    stored = StoredState("1", Status.WAITING, next_try_at=next_try_at)
    need = Need.NEW if rule.retag is Retag.ALWAYS else Need.DUE
    assert replace(rule, now=NOW).need_of(stored, version="1", has_uri=True) is need


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_a_waiting_image_is_left_alone_until_then(rule: Rule):
    """Another call would fail alike; a rule without a time takes all as due."""
    stored = StoredState("1", Status.WAITING, next_try_at=NOW + HOUR)
    is_always = rule.retag is Retag.ALWAYS
    assert replace(rule, now=NOW).is_pending(stored, version="1", has_uri=True) is is_always
    assert rule.is_pending(stored, version="1", has_uri=True)


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_a_waiting_image_that_changes_is_new(rule: Rule):
    """The new version was not tried, and the image has no labels."""
    stored = StoredState("1", Status.WAITING, next_try_at=NOW + HOUR)
    assert replace(rule, now=NOW).need_of(stored, version="2", has_uri=True) is Need.NEW


def test_an_image_that_was_given_up_is_as_one_that_failed():
    """It is tried again when its version changes, or when asked."""
    stored = StoredState("1", Status.GAVE_UP)
    assert not Rule(now=NOW).is_pending(stored, version="1", has_uri=True)
    assert Rule(now=NOW).need_of(stored, version="2", has_uri=True) is Need.NEW
    assert Rule(retry_failed=True).need_of(stored, version="1", has_uri=True) is Need.DUE


@pytest.mark.parametrize("status", Status)
def test_only_failed_takes_what_has_no_labels(status: Status):
    """Whether it is due or not, and no image that was never tried."""
    rule = Rule(only_failed=True, now=NOW)
    stored = StoredState("1", status, next_try_at=NOW + HOUR)
    assert rule.is_pending(stored, version="1", has_uri=True) is (status is not Status.TAGGED)
    assert not rule.is_pending(None, version="1", has_uri=True)


@pytest.mark.parametrize("need", Need)
def test_a_rule_for_one_need_takes_no_other(need: Need):
    """A run takes new images first, and then those that are due."""
    rule = Rule(now=NOW, need=need)
    waiting = StoredState("1", Status.WAITING)
    assert rule.is_pending(None, version="1", has_uri=True) is (need is Need.NEW)
    assert rule.is_pending(waiting, version="1", has_uri=True) is (need is Need.DUE)


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
