"""The sensor: waits until a source holds new images, and returns them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow_imagetag.adapters.airflow_sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
    timezone,
)
from airflow_imagetag.adapters.final_errors import certain_errors_are_final
from airflow_imagetag.backends.configuration import DEFAULT_CONN_ID
from airflow_imagetag.links.imagetag import ImageLabelsLink
from airflow_imagetag.sources.images_field import ImagesField, as_source, known_source, wrap_images
from airflow_imagetag.stores.base import LabelStore, as_store

if TYPE_CHECKING:
    from airflow_imagetag.adapters.airflow_sdk import Context
    from airflow_imagetag.watching.condition import Moment, Number, WaitCondition
    from airflow_imagetag.watching.query import NewImagesQuery

__all__ = ["NewImagesSensor"]

DEFERRAL_GRACE = timedelta(minutes=2)
"""Added to Airflow's own timeout of a deferred task: the trigger keeps the deadline itself, and the
timeout only covers the time in which no triggerer runs."""


class NewImagesSensor(ImagesField, BaseSensorOperator):
    """Waits until images are new, and returns them as a list that ``ImageTagOperator`` takes.

    With a store, an image is new if the store does not hold it; without one, if it changed at
    ``modified_after`` or later. An entry without an image that can be labelled, such as an empty
    file or a row without a URI, is never new. A source or store that cannot be reached is tried
    again; a wrong password, table or bucket fails the task at once.

    :param images: a source, ``SqlImages`` or ``ObjectStorageImages``, or a list as the operator
        takes it. (templated)
    :param store: the store that the labels go to. (templated)
    :param modified_after: only images that changed then or later, such as
        ``{{ data_interval_start }}``; UTC where it has no zone. The source must know when an image
        changed: a storage does, a table by its column ``version``. (templated)
    :param min_images: number of new images that ends the wait. (templated)
    :param max_images: maximum number of images that are returned; if there are more, the log says
        so and the next run finds them. (templated)
    :param settle_seconds: images that changed less than this time ago are left out: they may not
        be written completely yet. (templated)
    :param imagetag_conn_id: connection of the account that labels the images: a store keeps the
        labels of each interface apart. (templated)
    :param retag: ``changed`` or ``never``, as the operator that labels them has it. (templated)
    :param deferrable: wait in the triggerer, without a worker.
    :param start_from_trigger: with ``deferrable``, the task does not start on a worker: the
        triggerer makes the first query, too. It has no effect on Airflow 3.0 to 3.2, and on 2.11 if
        a parameter holds a template.
    :return: a list of dicts with ``image_key``, ``image_uri`` and ``version``.
    :raises ConfigurationError: a parameter or connection is wrong; waiting does not help.
    """

    template_fields: Sequence[str] = (
        "images",
        "store",
        "modified_after",
        "min_images",
        "max_images",
        "settle_seconds",
        "imagetag_conn_id",
        "retag",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"images": "json"}
    operator_extra_links = (ImageLabelsLink(),)
    ui_color = "#d8e8f0"

    def __init__(
        self,
        *,
        images: Any,
        store: LabelStore | None = None,
        modified_after: Moment = None,
        min_images: int | str = 1,
        max_images: int | str = 10_000,
        settle_seconds: Number = 0,
        imagetag_conn_id: str = DEFAULT_CONN_ID,
        retag: str = "changed",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        start_from_trigger: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.images = wrap_images(images)
        self.store = as_store(store)
        self.modified_after = modified_after
        self.min_images = min_images
        self.max_images = max_images
        self.settle_seconds = settle_seconds
        self.imagetag_conn_id = imagetag_conn_id
        self.retag = retag
        self.deferrable = deferrable
        # At most one, and none between two executions: its locks cannot be copied with the task.
        self._open_queries: list[NewImagesQuery] = []
        if deferrable and start_from_trigger:
            self._start_from_trigger()

    def execute(self, context: Context) -> Any:
        """Wait, and return the new images."""
        with certain_errors_are_final():
            return self._execute(context)

    def _execute(self, context: Context) -> Any:
        started = timezone.utcnow()
        with self._open_query():
            if not self.deferrable:
                return super().execute(context)
            found = self._poke_once(context)
        return found.xcom_value if found else self._defer(started + timedelta(seconds=self.timeout))

    def poke(self, context: Context) -> PokeReturnValue:
        """Query source and store once."""
        del context
        from airflow_imagetag.watching.poke import poke

        with self._open_query() as query:
            images = poke(query, timezone.utcnow(), self.log)
        return PokeReturnValue(images is not None, xcom_value=images)

    @contextmanager
    def _open_query(self) -> Iterator[NewImagesQuery]:
        """Yield a query that stays open between the pokes of an execution."""
        from airflow_imagetag.watching.query import NewImagesQuery

        if self._open_queries:
            yield self._open_queries[0]
            return
        with closing(NewImagesQuery(self._condition())) as query:
            self._open_queries.append(query)
            try:
                yield query
            finally:
                self._open_queries.clear()

    def execute_complete(
        self, context: Context, event: Any = None, deadline: str | None = None
    ) -> Any:
        """Return the images that the trigger has found, or raise its error.

        :param event: the event of the trigger.
        :param deadline: when waiting ends, as ISO text.
        """
        if self.soft_fail or self.never_fail:
            # Airflow would take an error of its own for one of a query, and skip the task.
            return self._complete(context, event, deadline)
        with certain_errors_are_final():
            return self._complete(context, event, deadline)

    def _complete(self, context: Context, event: Any, deadline: str | None) -> Any:
        from airflow_imagetag.watching import events

        parsed = events.parse_event(event)
        # First, as `execute` does: the error of a parameter is the same in every mode.
        condition = self._condition()
        if parsed.status == events.TIMED_OUT:
            raise self._timed_out(parsed.count)
        if parsed.status == events.FAILED:
            self._fail(parsed.exception())
        if parsed.is_complete and parsed.count <= condition.max_images:
            self.log.info("New images: %d", parsed.count)
            return list(parsed.images)
        # There are more than an event holds. Some may have been labelled since, so query again.
        found = self._poke_once(context)
        if found:
            return found.xcom_value
        ends_at = self._deadline(context, deadline)
        if timezone.utcnow() >= ends_at:
            raise self._timed_out(0)
        return self._defer(ends_at)

    def _timed_out(self, found: int) -> AirflowSensorTimeout:
        return AirflowSensorTimeout(
            f"Sensor has timed out: {found} of at least {self.min_images} new images after the "
            f"specified timeout of {self.timeout:g} seconds."
        )

    def _poke_once(self, context: Context) -> PokeReturnValue:
        """Poke once, and handle errors as the base class does between two pokes."""
        try:
            return self.poke(context)
        except Exception as error:
            if self.silent_fail:
                self.log.exception("Sensor poke failed")
                return PokeReturnValue(False)
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        """Raise the error; with never_fail, raise a skip instead."""
        if self.never_fail:
            raise AirflowSkipException("Skipping due to never_fail is set to True.") from error
        raise error

    def _condition(self) -> WaitCondition:
        from airflow_imagetag.backends.configuration import allowed_local_folders
        from airflow_imagetag.watching.condition import parse_wait_condition

        source = as_source(self.images)
        source.check_trusted([*allowed_local_folders(), *source.trust().folders])
        return parse_wait_condition(source, self.store, self)

    def _deadline(self, context: Context, deadline: str | None) -> datetime:
        if deadline is not None:
            return datetime.fromisoformat(deadline)
        # Started by the triggerer: waiting began when the task did.
        started: datetime = context["ti"].start_date
        return started + timedelta(seconds=self.timeout)

    def _defer(self, deadline: datetime) -> None:
        from airflow_imagetag.triggers.imagetag import NewImagesTrigger

        left = max(deadline - timezone.utcnow(), timedelta(0))
        trigger = NewImagesTrigger(
            **self._trigger_kwargs(), deadline=deadline.isoformat(), is_rendered=True
        )
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            kwargs={"deadline": deadline.isoformat()},
            timeout=left + DEFERRAL_GRACE,
        )

    def _trigger_kwargs(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in NewImagesSensor.template_fields},
            "poke_interval": self.poke_interval,
            "exponential_backoff": self.exponential_backoff,
            # Airflow's sensor applies it only to a wait that grows.
            "max_wait": self.max_wait if self.exponential_backoff else None,
            "silent_fail": self.silent_fail,
        }

    def _start_from_trigger(self) -> None:
        from airflow_imagetag.triggers.imagetag import start_arguments

        known_source(self.images, "start_from_trigger")
        arguments = start_arguments(self._trigger_kwargs(), timedelta(seconds=self.timeout))
        if arguments is not None:
            self.start_trigger_args = arguments
            self.start_from_trigger = True
