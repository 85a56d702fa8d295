"""The trigger: waits for new images in the triggerer, for a task or for an asset."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.triggers import BaseEventTrigger
from airflow.triggers.base import TriggerEvent

from airflow_imagetag.backends.configuration import DEFAULT_CONN_ID, allowed_local_folders
from airflow_imagetag.errors import ConfigurationError, StorageError
from airflow_imagetag.models import Image
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.sources.object_storage import ObjectStorageImages
from airflow_imagetag.sources.values import ValueImages
from airflow_imagetag.stores.base import LabelStore
from airflow_imagetag.watching import events
from airflow_imagetag.watching.announcement_stores import AnnouncementStore, announcement_store_of
from airflow_imagetag.watching.announcements import (
    MAX_ANNOUNCED,
    Announcement,
    AnnouncementState,
    announce,
)
from airflow_imagetag.watching.decisions import PollDecision, decide, wait_seconds
from airflow_imagetag.watching.packing import Packed, needs_more, pack, unpack_source, unpack_store
from airflow_imagetag.watching.query import (
    Moment,
    NewImagesQuery,
    Number,
    QueryResult,
    parse_moment,
    parse_seconds,
    parse_wait_condition,
)
from airflow_imagetag.watching.query_thread import LOOK_SECONDS, QueryThread

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import Context

    from airflow_imagetag.watching.query import WaitCondition

NOTHING = QueryResult((), is_all=True)

LAST_LOOK_SECONDS = 30.0
"""How long the look at the deadline may take."""

MAX_PAUSE_SECONDS = 600.0
"""Between two looks of a watcher that meets a fault which waiting does not mend."""


class NewImagesTrigger(BaseEventTrigger):
    """Waits until enough images are new, and sends one event.

    A deferred ``NewImagesSensor`` uses it, and so does an asset::

        Asset("photos", watchers=[AssetWatcher(name="new", trigger=NewImagesTrigger(...))])

    For an asset, images that were announced are not announced again, unless they change: the asset
    state store of Airflow 3.3 remembers them across restarts; on Airflow 3.0 to 3.2 the triggerer's
    process does. One announcement at a time, of up to 500 images: the next is made when
    the run that it started has labelled the first of them, or has not for ten minutes. What still
    waits half an hour after it is announced again, then after an hour, and so on up to a day. At
    most 4,000 announced images wait for labels; further ones are announced when runs have labelled
    some.

    :param images: a source, ``SqlImages`` or ``ObjectStorageImages``, or a list as the operator
        takes it.
    :param store: the store that the labels go to; a watcher of an asset needs it.
    :param modified_after: only images that changed then or later; UTC where it has no zone.
    :param min_images: how many are enough.
    :param max_images: images that a watcher announces at a time, at most.
    :param settle_seconds: leaves out images that changed so short a time ago.
    :param imagetag_conn_id: connection of the account that labels them.
    :param retag: ``changed`` or ``never``, as the operator that labels them has it.
    :param poke_interval: seconds between two looks.
    :param exponential_backoff: each wait is twice as long as the one before.
    :param max_wait: seconds of a wait at most.
    :param deadline: when waiting ends, as ISO text with a zone; None for never.
    :param silent_fail: log a fault that waiting does not mend, and wait on.
    :param is_rendered: whether the parameters are data already, in which no template is rendered.
    """

    def __init__(
        self,
        *,
        images: Any,
        store: LabelStore | Packed | None = None,
        modified_after: Moment = None,
        min_images: int | str = 1,
        max_images: int | str = 10_000,
        settle_seconds: Number = 0,
        imagetag_conn_id: str = DEFAULT_CONN_ID,
        retag: str = "changed",
        poke_interval: float | timedelta = 60.0,
        exponential_backoff: bool = False,
        max_wait: float | timedelta | None = None,
        deadline: str | None = None,
        silent_fail: bool = False,
        is_rendered: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.images = _packed_images(images)
        self.store = pack(store) if isinstance(store, LabelStore) else store
        self.modified_after = (
            modified_after.isoformat() if isinstance(modified_after, date) else modified_after
        )
        self.min_images = min_images
        self.max_images = max_images
        self.settle_seconds = settle_seconds
        self.imagetag_conn_id = imagetag_conn_id
        self.retag = retag
        self.poke_interval = _seconds("poke_interval", poke_interval)
        self.exponential_backoff = exponential_backoff
        self.max_wait = None if max_wait is None else _seconds("max_wait", max_wait)
        self.deadline = deadline
        self.silent_fail = silent_fail
        self.is_rendered = is_rendered
        self._images_as_given = self.images

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and parameters, as plain values that are the same each time."""
        names = (
            "images",
            "store",
            "modified_after",
            "min_images",
            "max_images",
            "settle_seconds",
            "imagetag_conn_id",
            "retag",
            "poke_interval",
            "exponential_backoff",
            "max_wait",
            "deadline",
            "silent_fail",
            "is_rendered",
        )
        path = "airflow_imagetag.triggers.imagetag.NewImagesTrigger"
        return path, {name: getattr(self, name) for name in names}

    def render_template_fields(
        self, context: Context, jinja_env: jinja2.Environment | None = None
    ) -> None:
        """Render the parameters where the task has not even begun on a worker."""
        if not self.is_rendered:
            super().render_template_fields(context, jinja_env)

    def __repr__(self) -> str:
        # Not what serialize returns, which may hold the signatures of URLs.
        return f"<NewImagesTrigger for {self._about()}>"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the event."""
        memory = announcement_store_of(self, self._watch_key())
        event = await (self._wait() if memory is None else self._watch(memory))
        yield TriggerEvent(event.payload())  # type: ignore[no-untyped-call]

    async def _wait(self) -> events.Event:
        """Return what a waiting task is to be told."""
        try:
            question = self._question()
            deadline = parse_moment("deadline", self.deadline)
        # Whatever it is, the task raises it: no path may end without an event.
        except Exception as error:
            return events.failed(error)
        min_images = question.min_images
        enough = max(min_images, events.MAX_EVENT_IMAGES + 1)
        looking = QueryThread(question)
        looks = 0
        try:
            while True:
                looks += 1
                try:
                    sighting = await self._look(looking, enough, deadline)
                except Exception as error:
                    if not self.silent_fail:
                        return events.failed(error)
                    self.log.exception("Looking for new images failed; going on")
                    sighting = NOTHING
                found, now = len(sighting.images), datetime.now(UTC)
                verdict = decide(found, min_images=min_images, now=now, deadline=deadline)
                if verdict is PollDecision.READY:
                    return events.found(sighting.images, is_all=sighting.is_all)
                if verdict is PollDecision.TIMED_OUT:
                    return events.Event(events.TIMED_OUT, found)
                self.log.info(
                    "%d of at least %d new images in %s", found, min_images, self._about()
                )
                await self._pause(looks, now, deadline)
        finally:
            looking.close()

    async def _look(
        self, looking: QueryThread, enough: int, deadline: datetime | None
    ) -> QueryResult:
        now = datetime.now(UTC)
        seconds = LOOK_SECONDS
        if deadline is not None:
            # A database that hangs must not outlast the deadline.
            left = max((deadline - now).total_seconds(), 0.0)
            seconds = min(seconds, left + LAST_LOOK_SECONDS)
        look = partial(NewImagesQuery.look, now=now, enough=enough)
        try:
            return await looking.ask(look, seconds=seconds)
        except StorageError as error:
            self.log.warning(
                "Cannot look for new images in %s now, trying again later: %s", self._about(), error
            )
        return NOTHING

    async def _watch(self, memory: AnnouncementStore) -> events.Event:
        """Return what an asset is to be told."""
        faults = 0
        while True:
            try:
                return await self._watch_until_fault(memory)
            # To end would only make the triggerer start the watcher anew at once.
            except Exception:
                faults += 1
                seconds = min(self.poke_interval * 2.0 ** min(faults, 40), MAX_PAUSE_SECONDS)
                self.log.exception(
                    "Watching for new images in %s failed; again in %.0f s", self._about(), seconds
                )
                await asyncio.sleep(seconds)

    async def _watch_until_fault(self, memory: AnnouncementStore) -> events.Event:
        looking = QueryThread(self._watch_question())
        looks = 0
        try:
            remembered = await memory.load()
            while True:
                looks += 1
                now = datetime.now(UTC)
                try:
                    announcement = await looking.ask(
                        partial(self._announce, memory=remembered, now=now),
                        seconds=LOOK_SECONDS,
                    )
                except StorageError as error:
                    self.log.warning(
                        "Cannot look for new images in %s now, trying again: %s",
                        self._about(),
                        error,
                    )
                    announcement = Announcement((), remembered)
                if announcement.memory != remembered:
                    # Before the event is sent: whoever is killed in between knows of it.
                    await memory.save(announcement.memory)
                    remembered = announcement.memory
                if announcement.images:
                    return self._announced(announcement.images)
                await self._pause(looks, now, None)
        finally:
            looking.close()

    def _announce(
        self, lookout: NewImagesQuery, memory: AnnouncementState, now: datetime
    ) -> Announcement:
        choose = partial(
            announce,
            memory=memory,
            min_images=lookout.question.min_images,
            max_images=min(lookout.question.max_images, events.MAX_EVENT_IMAGES),
            now=now,
        )
        announcement = lookout.ask(choose, now)
        if announcement.is_held_back:
            self.log.warning(
                "%d announced images wait for their labels; further ones are announced when runs "
                "have labelled some. If no run is going on, look for one that failed.",
                MAX_ANNOUNCED,
            )
        return announcement

    def _announced(self, images: Sequence[Image]) -> events.Event:
        if lacking := sum(map(needs_more, images)):
            self.log.warning(
                "%d images are left out of the event, which may not hold what is needed to read "
                "them: a signature, a password, or bytes. Give the operator the source itself: "
                "images=..., store=...",
                lacking,
            )
        self.log.info("Announcing %d new images of %s", len(images), self._about())
        return events.found(images, is_all=True)

    async def _pause(self, looks: int, now: datetime, deadline: datetime | None) -> None:
        seconds = wait_seconds(
            looks,
            poke_interval=self.poke_interval,
            is_exponential=self.exponential_backoff,
            max_wait=self.max_wait,
            now=now,
            deadline=deadline,
        )
        await asyncio.sleep(seconds)

    def _question(self) -> WaitCondition:
        source = unpack_source(self.images)
        if isinstance(source, ObjectStorageImages) and self.images != self._images_as_given:
            # Airflow has rendered a template here, so the path is data.
            source.check_folder(allowed_local_folders())
        return parse_wait_condition(
            source=source,
            store=None if self.store is None else unpack_store(self.store),
            imagetag_conn_id=self.imagetag_conn_id,
            retag=self.retag,
            modified_after=self.modified_after,
            settle_seconds=self.settle_seconds,
            min_images=self.min_images,
            max_images=self.max_images,
        )

    def _about(self) -> str:
        """Return what the trigger is about, for a log that all triggers share."""
        try:
            return repr(unpack_source(self.images))
        except ConfigurationError:
            return str(self.images.get("type"))

    def check(self) -> None:
        """Return when the parameters of a watcher can be right; reads nothing.

        :raises ConfigurationError: names the one that cannot.
        """
        self._watch_question()

    def _watch_question(self) -> WaitCondition:
        if self.store is None:
            raise ConfigurationError(
                "A watcher of new images needs store=, the store that the labels go to: what is "
                "not in it is new."
            )
        return self._question()

    def _watch_key(self) -> str:
        """Return what names the watcher: the images that it is about, and not how it waits."""
        about = [self.images, self.store, self.imagetag_conn_id, self.retag, self.modified_after]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def _packed_images(images: Any) -> Packed:
    if isinstance(images, Mapping) and "type" in images:
        return dict(images)
    return pack(images if isinstance(images, ImageSource) else ValueImages(images))


def _seconds(name: str, value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else parse_seconds(name, value)
