"""Settings that property tests share."""

from __future__ import annotations

from hypothesis import settings

property_test = settings(max_examples=300, deadline=None, database=None, derandomize=True)
"""The same examples in every run, and no limit on the time of one."""
