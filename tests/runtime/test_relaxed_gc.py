"""What the garbage collector does during a run."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from airflow_imagetag.runtime.relaxed_gc import NEW_OBJECTS, relaxed_gc


class Node:
    """Something that can be part of a cycle."""


@pytest.fixture(autouse=True)
def as_found() -> Iterator[None]:
    """Begin with nothing frozen, as a trigger's test may leave it; give the thresholds back."""
    threshold = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_old_objects_are_left_alone():
    """What was there before is not looked through; afterwards it is again."""
    gc.set_threshold(700, 10, 10)
    old = Node()
    with relaxed_gc():
        assert gc.get_threshold() == (NEW_OBJECTS, 10, 10)
        assert not any(item is old for item in gc.get_objects())
    assert gc.get_threshold() == (700, 10, 10)
    assert any(item is old for item in gc.get_objects())


def test_new_garbage_is_found():
    """Cycles that a run makes do not stay."""
    with relaxed_gc():
        node = Node()
        node.itself = node  # type: ignore[attr-defined]
        is_alive = weakref.ref(node)
        del node
        gc.collect()
        assert is_alive() is None


def test_an_error_passes():
    """The collector is as before, whatever happens in between."""
    gc.set_threshold(700, 10, 10)
    with pytest.raises(KeyError), relaxed_gc():
        raise KeyError
    assert (gc.get_threshold(), gc.get_freeze_count()) == ((700, 10, 10), 0)


@pytest.mark.parametrize("threshold", [0, NEW_OBJECTS, 50_000])
def test_who_collects_seldom_already(threshold):
    """A process that has its own ways with the collector keeps them."""
    gc.set_threshold(threshold, 5, 5)
    with relaxed_gc(), relaxed_gc():
        assert gc.get_threshold() == (threshold, 5, 5)
        assert gc.get_freeze_count() == 0


def test_what_another_has_frozen_stays():
    """A process that froze its objects to fork keeps them frozen."""
    gc.set_threshold(700, 10, 10)
    gc.freeze()
    with relaxed_gc():
        pass
    assert gc.get_freeze_count() > 0
