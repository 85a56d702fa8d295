"""Watches for new images on behalf of an asset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from airflow_imagetag.errors import StorageError
from airflow_imagetag.models import Image
from airflow_imagetag.watching import events
from airflow_imagetag.watching.announcement_stores import AnnouncementStore, announcement_store_of
from airflow_imagetag.watching.announcements import (
    MAX_ANNOUNCED,
    Announcement,
    AnnouncementState,
    announce,
)
from airflow_imagetag.watching.condition import WaitCondition
from airflow_imagetag.watching.image_lists import needs_more
from airflow_imagetag.watching.logs import Log
from airflow_imagetag.watching.polling import Polling
from airflow_imagetag.watching.query import NewImagesQuery
from airflow_imagetag.watching.query_thread import QueryThread


def watcher_of(
    trigger: Any,
    key: str,
    condition: Callable[[], WaitCondition],
    polling: Polling,
    *,
    about: str,
    log: Log,
) -> Watcher | None:
    """Return the watcher of a trigger that watches an asset; None for the trigger of a task.

    :param trigger: the trigger as the triggerer has prepared it.
    :param key: names the watcher.
    :param condition: returns the images that are watched for, or raises the error of a parameter.
    :param polling: pauses, time limits and clock.
    :param about: names the source in the log, which all triggers share.
    :param log: the trigger's logger.
    """
    store = announcement_store_of(trigger, key)
    return None if store is None else Watcher(store, condition, polling, about=about, log=log)


class Watcher:
    """Queries until there is something to announce.

    :param store: keeps the announcement state.
    :param condition: returns the images that are watched for, or raises the error of a parameter.
    :param polling: pauses, time limits and clock.
    :param about: names the source in the log, which all triggers share.
    :param log: the trigger's logger.
    :param max_announced: maximum number of announced images that wait for labels.
    """

    def __init__(
        self,
        store: AnnouncementStore,
        condition: Callable[[], WaitCondition],
        polling: Polling,
        *,
        about: str,
        log: Log,
        max_announced: int = MAX_ANNOUNCED,
    ) -> None:
        self._store = store
        self._condition = condition
        self._polling = polling
        self._about = about
        self._log = log
        self._max_announced = max_announced

    async def run(self) -> events.Event:
        """Return the event of the next announcement.

        An error does not end the watcher: the triggerer would start it again at once.
        """
        errors = 0
        while True:
            try:
                return await self._run_until_error()
            except Exception:
                errors += 1
                seconds = self._polling.seconds_after_error(errors)
                self._log.exception(
                    "Watching for new images in %s failed; again in %.0f s", self._about, seconds
                )
                await self._polling.sleep(seconds)

    async def _run_until_error(self) -> events.Event:
        thread = QueryThread(self._condition())
        try:
            return await self._run(thread)
        finally:
            thread.close()

    async def _run(self, thread: QueryThread) -> events.Event:
        state = await self._store.load()
        queries = 0
        while True:
            queries += 1
            now = self._polling.now()
            announcement = await self._query(thread, state, now)
            if announcement.state != state:
                # Before the event: if the process is killed between the two, it is not sent twice.
                await self._store.save(announcement.state)
                state = announcement.state
            if announcement.images:
                return self._event(announcement.images)
            await self._polling.pause(queries, now, None)

    async def _query(
        self, thread: QueryThread, state: AnnouncementState, now: datetime
    ) -> Announcement:
        try:
            return await thread.ask(
                partial(self._announce, state=state, now=now),
                seconds=self._polling.query_seconds(now, None),
            )
        except StorageError as error:
            self._log.warning(
                "Cannot query %s for new images now, trying again later: %s", self._about, error
            )
        return Announcement((), state)

    def _announce(
        self, query: NewImagesQuery, state: AnnouncementState, now: datetime
    ) -> Announcement:
        """Select the images to announce; runs in a thread."""
        condition = query.condition
        choose = partial(
            announce,
            state=state,
            min_images=condition.min_images,
            max_images=min(condition.max_images, events.MAX_EVENT_IMAGES),
            now=now,
            max_announced=self._max_announced,
        )
        announcement = query.read(choose, now)
        if announcement.is_held_back:
            self._log.warning(
                "%d announced images wait for their labels; further ones are announced when runs "
                "have labelled some. If no run is going on, check for one that failed.",
                self._max_announced,
            )
        return announcement

    def _event(self, images: Sequence[Image]) -> events.Event:
        if lacking := sum(map(needs_more, images)):
            self._log.warning(
                "%d images are left out of the event: reading them takes a signature, a password "
                "or bytes, which an event must not hold. Give the operator the source itself: "
                "images=..., store=...",
                lacking,
            )
        self._log.info("Announcing %d new images of %s", len(images), self._about)
        return events.found(images, is_all=True)
