"""Where an asset watcher keeps its announcement state."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.watching.announcements import AnnouncementState

log = logging.getLogger(__name__)

PROCESS_STATES: dict[str, AnnouncementState] = {}
"""The states of this process's watchers, by key; a trigger object does not outlive an event."""


class AnnouncementStore(Protocol):
    """Keeps the announcement state of one watcher."""

    async def load(self) -> AnnouncementState:
        """Return the state that was saved last; an empty state at first.

        :raises Exception: it cannot be read; an empty state instead would announce all images
            again.
        """

    async def save(self, state: AnnouncementState) -> None:
        """Keep the state, which ``load`` returns from now on."""


class ProcessAnnouncementStore:
    """Keeps the state as long as the triggerer runs, for Airflow 3.0 to 3.2.

    :param key: names the watcher.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    async def load(self) -> AnnouncementState:
        """Return the state that was saved last."""
        return PROCESS_STATES.get(self._key, AnnouncementState())

    async def save(self, state: AnnouncementState) -> None:
        """Keep the state."""
        PROCESS_STATES[self._key] = state


class AssetAnnouncementStore:
    """Keeps the state in Airflow's asset state store, from Airflow 3.3 on.

    :param accessor: the store, as Airflow hands it to the watcher.
    :param key: names the watcher among those of the asset.
    """

    def __init__(self, accessor: Any, key: str) -> None:
        self._accessor = accessor
        self._key = f"imagetag_announced_{key}"
        self._process_store = ProcessAnnouncementStore(self._key)
        self._serves_several = False

    async def load(self) -> AnnouncementState:
        """Return the state that was saved last."""
        try:
            value = await self._call("get", self._key)
        except ValueError:
            # Airflow's answer if the watcher serves more than one asset.
            log.warning(
                "This watcher serves several assets, for which Airflow keeps no state: after a "
                "restart of the triggerer, images that still wait are announced again. Give each "
                "asset a watcher of its own."
            )
            self._serves_several = True
            return await self._process_store.load()
        try:
            return AnnouncementState() if value is None else AnnouncementState.load(value)
        except ValueError as error:
            raise ConfigurationError(
                f"The asset state {self._key!r} cannot be read: {error}. Delete it, and all images "
                "that wait for labels are announced once more."
            ) from None

    async def save(self, state: AnnouncementState) -> None:
        """Keep the state."""
        if self._serves_several:
            await self._process_store.save(state)
        else:
            await self._call("set", self._key, state.dump())

    async def _call(self, method: str, *arguments: Any) -> Any:
        # Airflow 3.3.0 and 3.3.1 have the blocking calls only.
        if hasattr(self._accessor, f"a{method}"):
            return await getattr(self._accessor, f"a{method}")(*arguments)
        return await asyncio.to_thread(getattr(self._accessor, method), *arguments)


def announcement_store_of(trigger: Any, key: str) -> AnnouncementStore | None:
    """Return the state store of a trigger that watches an asset; None for the trigger of a task.

    :param trigger: the trigger as the triggerer has prepared it.
    :param key: names the watcher.
    """
    if trigger.task_instance is not None:
        return None
    if hasattr(trigger, "asset_state_store"):
        accessor = trigger.asset_state_store
        return None if accessor is None else AssetAnnouncementStore(accessor, key)
    from airflow_imagetag.adapters.airflow_sdk import airflow_version

    return ProcessAnnouncementStore(key) if airflow_version() >= (3, 0) else None
