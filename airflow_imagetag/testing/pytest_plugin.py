"""Fixtures that pytest finds once this package is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_imagetag.testing.emulator import CONNECTION_VARIABLE, Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_imagetag.adapters.airflow_sdk import Connection
    from airflow_imagetag.testing._api import ApiName

__all__ = ["imagetag_api", "imagetag_connection", "imagetag_emulator"]


@pytest.fixture
def imagetag_emulator() -> Iterator[Emulator]:
    """Run an emulator of the label service for one test."""
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def imagetag_api() -> ApiName:
    """Return the API of ``imagetag_connection``; override or parametrize it for another."""
    return "picture_classify"


@pytest.fixture
def imagetag_connection(
    imagetag_emulator: Emulator, imagetag_api: ApiName, monkeypatch: pytest.MonkeyPatch
) -> Connection:
    """Connect ``imagetag_default`` to the emulator for one test, and return the connection."""
    monkeypatch.setenv(CONNECTION_VARIABLE, imagetag_emulator.connection_json_for(imagetag_api))
    return imagetag_emulator.connection_for(imagetag_api)
