"""A sensor run to its end in each mode, as Airflow does it, by a clock that the test holds."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import airflow
import pytest
from airflow.models.trigger import Trigger
from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

from airflow_imagetag.sensors.imagetag import NewImagesSensor
from airflow_imagetag.triggers.imagetag import NewImagesTrigger
from airflow_imagetag.watching.polling import PollTuning

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:
    from airflow.exceptions import AirflowRescheduleException

AIRFLOW_2 = airflow.__version__.startswith("2.")
MODES = ("poke", "reschedule", "deferrable")

base = importlib.import_module("airflow.sensors.base" if AIRFLOW_2 else "airflow.sdk.bases.sensor")


class Clock:
    """The time of a test, which passes in a pause only; then the world may change.

    It begins now, since a storage keeps the true time of each file.
    """

    def __init__(self) -> None:
        self._began = datetime.now(UTC)
        self.passed = 0.0
        self._changes: list[tuple[float, Callable[[], Any]]] = []

    def at(self, second: float, change: Callable[[], Any]) -> None:
        """Let the world change when this number of seconds has passed."""
        self._changes.append((second, change))
        self._changes.sort(key=lambda entry: entry[0])

    def now(self) -> datetime:
        """Return the time."""
        return self._began + timedelta(seconds=self.passed)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        assert self.passed < 1e6, "It waits without end."
        # A time is rounded on its way through a text.
        self.passed = round(self.passed + seconds, 3)
        while self._changes and self._changes[0][0] <= self.passed:
            self._changes.pop(0)[1]()

    async def _sleep_async(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.sleep(seconds)

    def _monotonic(self) -> float:
        return self.passed

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Make it the clock of Airflow's sensors and of the trigger."""
        patch.setattr(NewImagesTrigger, "tuning", PollTuning(now=self.now, sleep=self._sleep_async))
        patch.setattr(base, "time", SimpleNamespace(sleep=self.sleep, monotonic=self._monotonic))
        patch.setattr(base.timezone, "utcnow", self.now)


class Outcome:
    """The outcome of a task.

    :param xcom: its return value.
    :param error: its error.
    """

    def __init__(self, xcom: Any = None, error: BaseException | None = None) -> None:
        self.xcom, self.error = xcom, error

    @property
    def kind(self) -> str:
        """``returned``, ``skipped`` or the error's class."""
        if self.error is None:
            return "returned"
        return (
            "skipped" if isinstance(self.error, AirflowSkipException) else type(self.error).__name__
        )


class _TaskInstance:
    """The part of a task instance that a sensor uses."""

    dag_id, task_id, run_id, map_index, max_tries = "watch", "wait", "manual", -1, 0

    def __init__(self, start_date: datetime) -> None:
        self.start_date = start_date
        self.first_rescheduled: datetime | None = None

    def get_first_reschedule_date(self, context: Any) -> datetime | None:
        """Return the start of the first try that was rescheduled."""
        return self.first_rescheduled


class Task:
    """A task that waits.

    :param mode: one of ``MODES``.
    :param clock: the time.
    :param patch: the test's.
    :param values: for templates.
    """

    def __init__(self, mode: str, clock: Clock, patch: pytest.MonkeyPatch, **values: Any) -> None:
        self.mode, self.clock = mode, clock
        self.deferrals = 0
        self.instance = _TaskInstance(clock.now())
        self.context: Any = {"ti": self.instance, **values}
        if AIRFLOW_2:
            # It asks Airflow's database.
            patch.setattr(base, "_orig_start_date", lambda **_: self.instance.first_rescheduled)

    def run(self, make: Callable[..., NewImagesSensor]) -> Outcome:
        """Run it to its end.

        :param make: makes the task in a mode, as each process does of the DAG file.
        """
        try:
            return Outcome(self._started(make))
        except TaskDeferred as deferred:
            return self._deferred(make, deferred)
        except Exception as error:
            return Outcome(error=error)

    def _sensor(self, make: Callable[..., NewImagesSensor]) -> NewImagesSensor:
        if self.mode == "deferrable":
            sensor = make(deferrable=True)
        else:
            sensor = make(deferrable=False, mode=self.mode)
        sensor.render_template_fields(self.context)
        return sensor

    def _started(self, make: Callable[..., NewImagesSensor]) -> Any:
        while True:
            try:
                return self._sensor(make).execute(self.context)
            except AirflowRescheduleException as again:
                assert self.mode == "reschedule"
                self.instance.first_rescheduled = (
                    self.instance.first_rescheduled or self.instance.start_date
                )
                self.clock.sleep((again.reschedule_date - self.clock.now()).total_seconds())

    def _deferred(self, make: Callable[..., NewImagesSensor], deferred: TaskDeferred) -> Outcome:
        while True:
            self.deferrals += 1
            [event] = run_to_end(rebuilt(deferred.trigger))
            keywords = json.loads(json.dumps({**(deferred.kwargs or {}), "event": event}))
            sensor = self._sensor(make)
            try:
                return Outcome(
                    sensor.resume_execution(deferred.method_name, keywords, self.context)
                )
            except TaskDeferred as again:
                deferred = again
            except Exception as error:
                return Outcome(error=error)


def rebuilt(trigger: Any) -> NewImagesTrigger:
    """Return the trigger as the triggerer makes it of the values in Airflow's database."""
    row = Trigger.from_object(trigger)
    assert row.classpath == "airflow_imagetag.triggers.imagetag.NewImagesTrigger"
    made = NewImagesTrigger(**row.kwargs)
    assert made.serialize() == trigger.serialize()
    return made


def run_to_end(trigger: NewImagesTrigger) -> list[Any]:
    """Return the payloads of all its events."""
    # The triggerer sets it for a trigger that a task waits for.
    trigger.task_instance = SimpleNamespace(task_id="wait")  # type: ignore[assignment]

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    return asyncio.run(events())
