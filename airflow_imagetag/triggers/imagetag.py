"""The trigger: waits for new images in the triggerer, for a task or for an asset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TriggerEvent

from airflow_imagetag.adapters.airflow_sdk import BaseEventTrigger, airflow_version
from airflow_imagetag.adapters.descriptions import Description, Packed, is_template, unpack
from airflow_imagetag.backends.configuration import DEFAULT_CONN_ID
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.runtime.background_import import import_in_thread
from airflow_imagetag.safety.redaction import has_secrets
from airflow_imagetag.watching.polling import Polling, PollTuning, parse_seconds

# A triggerer imports this module on its event loop, so it imports all others in a thread.
if TYPE_CHECKING:
    import jinja2

    from airflow_imagetag.adapters.airflow_sdk import Context
    from airflow_imagetag.stores.base import LabelStore
    from airflow_imagetag.watching.condition import Moment, Number, WaitCondition

MODULES = (
    "airflow_imagetag.hooks.imagetag",
    "airflow_imagetag.watching.waiter",
    "airflow_imagetag.watching.watcher",
)
"""Modules that a running trigger needs, apart from those of its source and store."""

__all__ = ["NewImagesTrigger"]


class NewImagesTrigger(BaseEventTrigger):
    """Waits until enough images are new, and sends one event.

    A deferred ``NewImagesSensor`` uses it, and so does an asset::

        Asset("photos", watchers=[AssetWatcher(name="new", trigger=NewImagesTrigger(...))])

    For an asset, announced images are not announced again, unless they change: the asset state
    store of Airflow 3.3 remembers them across restarts; on Airflow 3.0 to 3.2 the triggerer's
    process does. There is one announcement at a time, of up to 500 images: the next is made when
    the run that it started has labelled the first of them, or has not for ten minutes. Images that
    still wait after half an hour are announced again, then after an hour, and so on up to a day. At
    most 4,000 announced images wait for labels; further ones are announced when runs have labelled
    some.

    :param images: a source, ``SqlImages`` or ``ObjectStorageImages``, or a list as the operator
        takes it.
    :param store: the store that the labels go to; a watcher of an asset needs it.
    :param modified_after: only images that changed then or later; UTC where it has no zone.
    :param min_images: number of new images that is enough.
    :param max_images: maximum number of images that a watcher announces at a time.
    :param settle_seconds: images that changed less than this time ago are left out.
    :param imagetag_conn_id: connection of the account that labels them.
    :param retag: ``changed`` or ``never``, as the operator that labels them has it.
    :param poke_interval: seconds between two queries.
    :param exponential_backoff: each wait is twice as long as the one before.
    :param max_wait: maximum seconds of a wait.
    :param deadline: when waiting ends, as ISO text with a zone; None for never.
    :param silent_fail: log an error that waiting does not cure, and wait on.
    :param is_rendered: whether the parameters are data, in which no template is rendered.
    """

    tuning: ClassVar[PollTuning] = PollTuning()

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
        self.store = store.pack() if isinstance(store, Description) else store
        self.modified_after = (
            modified_after.isoformat() if isinstance(modified_after, date) else modified_after
        )
        self.min_images = min_images
        self.max_images = max_images
        self.settle_seconds = settle_seconds
        self.imagetag_conn_id = imagetag_conn_id
        self.retag = retag
        self.poke_interval = parse_seconds("poke_interval", poke_interval)
        self.exponential_backoff = exponential_backoff
        self.max_wait = None if max_wait is None else parse_seconds("max_wait", max_wait)
        self.deadline = deadline
        self.silent_fail = silent_fail
        self.is_rendered = is_rendered
        self._images_as_given = self.images

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the parameters as plain values, the same each time.

        :raises ConfigurationError: a DAG file has made the trigger, whose serialized form would
            hold a password or a signature of a URL.
        """
        self._check_secrets()
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
        """Render the parameters of a task that no worker has started."""
        if not self.is_rendered:
            super().render_template_fields(context, jinja_env)

    def __repr__(self) -> str:
        # Not the values of serialize(), which may hold the signatures of URLs.
        return f"<NewImagesTrigger for {self._about()}>"

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield the event."""
        await self._import_modules()
        from airflow_imagetag.watching.waiter import wait_for_event
        from airflow_imagetag.watching.watcher import watcher_of

        polling, about = self._polling, self._about()
        watcher = watcher_of(
            self, self._watch_key(), self._watch_condition, polling, about=about, log=self.log
        )
        if watcher is not None:
            event = await watcher.run()
        else:
            event = await wait_for_event(
                self._condition,
                self.deadline,
                polling,
                about=about,
                silent_fail=self.silent_fail,
                log=self.log,
            )
        yield TriggerEvent(event.payload())  # type: ignore[no-untyped-call]

    async def _import_modules(self) -> None:
        packed = [self.images] if self.store is None else [self.images, self.store]
        classes = [str(place.get("type")).rpartition(".")[0] for place in packed]
        await import_in_thread(*MODULES, *classes)

    @property
    def _polling(self) -> Polling:
        return Polling(self.poke_interval, self.exponential_backoff, self.max_wait, self.tuning)

    def _condition(self) -> WaitCondition:
        from airflow_imagetag.watching.condition import unpack_wait_condition

        # If Airflow has rendered a template here, a path is data.
        is_data = self.images != self._images_as_given
        return unpack_wait_condition(self.images, self.store, self, is_data=is_data)

    def _about(self) -> str:
        """Return the source as the log shows it."""
        try:
            return repr(unpack(self.images, Description))
        except ConfigurationError:
            return str(self.images.get("type"))

    def _check_secrets(self) -> None:
        # Airflow encrypts the parameters that a running task hands over, but not those of a DAG.
        if not self.is_rendered and has_secrets([self.images, self.store]):
            raise ConfigurationError(
                f"{self!r} would be kept in the serialized DAG with a password or a signature of a "
                "URL in plain text. Name the images in a table or a bucket, whose connection holds "
                "the secret, or wait for them with a sensor without start_from_trigger."
            )

    def check(self) -> None:
        """Check the parameters of a watcher; reads nothing.

        :raises ConfigurationError: names the parameter that is wrong.
        """
        self._check_secrets()
        self._watch_condition()

    def _watch_condition(self) -> WaitCondition:
        if self.store is None:
            raise ConfigurationError(
                "A watcher of new images needs store=, the store that the labels go to: an image "
                "that is not in it is new."
            )
        return self._condition()

    def _watch_key(self) -> str:
        """Return the name of the watcher: a digest of the images that it is about."""
        about = [self.images, self.store, self.imagetag_conn_id, self.retag, self.modified_after]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


def start_arguments(kwargs: Mapping[str, Any], timeout: timedelta) -> StartTriggerArgs | None:
    """Return the arguments with which a sensor starts in the triggerer; None if it cannot.

    :param kwargs: the arguments of the trigger.
    :param timeout: maximum time of the task.
    """
    trigger = NewImagesTrigger(**kwargs)
    if has_secrets([trigger.images, trigger.store]):
        # Airflow would keep them in plain text, with the DAG. A worker's are encrypted.
        return None
    path, serialized = trigger.serialize()
    if not hasattr(BaseTrigger, "render_template_fields") and (
        airflow_version() >= (3, 0) or is_template(str(serialized))
    ):
        # Before Airflow 3.3 only a worker can render them, and on 3.0 to 3.2 the scheduler gives
        # the task to a worker in any case.
        return None
    return StartTriggerArgs(
        trigger_cls=path,
        trigger_kwargs=serialized,
        next_method="execute_complete",
        next_kwargs=None,
        timeout=timeout,
    )


def _packed_images(images: Any) -> Packed:
    if isinstance(images, Mapping) and "type" in images:
        return dict(images)
    from airflow_imagetag.sources.images_field import as_source

    return as_source(images).pack()
