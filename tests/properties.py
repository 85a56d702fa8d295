"""Settings that property tests share."""

from __future__ import annotations

from importlib import metadata

from hypothesis import settings

SCALE = 0.2 if metadata.version("apache-airflow").startswith("2.") else 1.0
"""Few properties depend on the version of Airflow: with the older one there are fewer examples."""

property_test = settings(
    max_examples=int(300 * SCALE), deadline=None, database=None, derandomize=True
)
"""The same examples in every run, and no limit on the time of one."""
