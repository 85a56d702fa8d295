"""Tests of a project that uses the emulator and the fixtures of the pytest plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.testing import Emulator, Faults, Stats

if TYPE_CHECKING:
    from airflow.models.connection import Connection


def test_labels(imagetag_emulator: Emulator, imagetag_connection: Connection) -> None:
    """Label an image of the project."""
    imagetag_emulator.faults = Faults(latency_seconds=(0.1, 0.2), error_rates={503: 0.1})
    hook = ImageTagHook(imagetag_connection.conn_id or "imagetag_default")
    assert hook.tag(b"image").labels
    assert_type(imagetag_emulator.stats, Stats)
    assert imagetag_emulator.stats.billed == 1


def test_drops() -> None:
    """Label while the service drops connections."""
    with Emulator(app_id="1250000001", seed=3, faults=Faults(drop_rate=0.5)) as emulator:
        assert_type(emulator.url, str)
        assert_type(emulator.connection_json, str)
        assert emulator.stats.requests == 0
