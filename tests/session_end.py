"""The end of what all tests of a session share.

``conftest.py`` registers this module as a plugin.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

_CLEANUPS = pytest.StashKey[contextlib.ExitStack]()


def at_session_end(config: pytest.Config, cleanup: Callable[[], object]) -> None:
    """Call a function when the tests have ended; the last one that is given is called first."""
    config.stash.setdefault(_CLEANUPS, contextlib.ExitStack()).callback(cleanup)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Clean up before the summary.

    pytest-xdist interrupts a process whose summary takes longer than five seconds, and then pytest
    does not call the functions of ``Config.add_cleanup``.
    """
    session.config.stash.setdefault(_CLEANUPS, contextlib.ExitStack()).close()
