"""The garbage collector during a run."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from airflow_imagetag.runtime.relaxed_gc import NEW_OBJECTS, relaxed_gc


class Node:
    """An object that can be part of a reference cycle."""


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """Begin with no frozen object, which another test may have left; restore the thresholds."""
    threshold = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_present_objects_are_not_scanned():
    """Those that were there before; afterwards they are again."""
    gc.set_threshold(700, 10, 10)
    old = Node()
    with relaxed_gc():
        assert gc.get_threshold() == (NEW_OBJECTS, 10, 10)
        assert not any(item is old for item in gc.get_objects())
    assert gc.get_threshold() == (700, 10, 10)
    assert any(item is old for item in gc.get_objects())


def test_new_garbage_is_found():
    """Cycles that a run makes are collected."""
    with relaxed_gc():
        node = Node()
        node.itself = node  # type: ignore[attr-defined]
        is_alive = weakref.ref(node)
        del node
        gc.collect()
        assert is_alive() is None


def test_an_error_passes():
    """The collector's state is restored."""
    gc.set_threshold(700, 10, 10)
    with pytest.raises(KeyError), relaxed_gc():
        raise KeyError
    assert (gc.get_threshold(), gc.get_freeze_count()) == ((700, 10, 10), 0)


@pytest.mark.parametrize("threshold", [0, NEW_OBJECTS, 50_000])
def test_a_threshold_of_the_process_stays(threshold):
    """A process that collects seldom already, or never, keeps its settings."""
    gc.set_threshold(threshold, 5, 5)
    with relaxed_gc(), relaxed_gc():
        assert gc.get_threshold() == (threshold, 5, 5)
        assert gc.get_freeze_count() == 0


def test_objects_that_were_frozen_before_stay_frozen():
    """A process that froze its objects before a fork; no others are added to them."""
    gc.set_threshold(700, 10, 10)
    gc.freeze()
    new = Node()
    frozen = gc.get_freeze_count()
    with relaxed_gc():
        assert gc.get_threshold() == (NEW_OBJECTS, 10, 10)
        assert any(item is new for item in gc.get_objects())
        assert 0 < gc.get_freeze_count() <= frozen
    assert gc.get_threshold() == (700, 10, 10)
    assert any(item is new for item in gc.get_objects())
    assert 0 < gc.get_freeze_count() <= frozen


def test_a_process_with_other_tasks_may_freeze_nothing():
    """Only the threshold is raised, and restored."""
    gc.set_threshold(700, 10, 10)
    with relaxed_gc(freezes=False):
        assert gc.get_threshold() == (NEW_OBJECTS, 10, 10)
        assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == (700, 10, 10)
