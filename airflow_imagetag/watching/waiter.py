"""Waits for new images on behalf of a deferred task."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from airflow_imagetag.errors import StorageError
from airflow_imagetag.watching import events
from airflow_imagetag.watching.condition import Moment, WaitCondition, parse_moment
from airflow_imagetag.watching.decisions import PollDecision, decide
from airflow_imagetag.watching.logs import Log
from airflow_imagetag.watching.polling import Polling
from airflow_imagetag.watching.query import NewImagesQuery, QueryResult
from airflow_imagetag.watching.query_thread import QueryThread

NOTHING = QueryResult((), is_all=True)


async def wait_for_event(
    condition: Callable[[], WaitCondition],
    deadline: Moment,
    polling: Polling,
    *,
    about: str,
    silent_fail: bool,
    log: Log,
) -> events.Event:
    """Return the event for a waiting task; the event of an error if a parameter is wrong.

    :param condition: returns the images that are waited for, or raises the parameter's error.
    :param deadline: when waiting ends, perhaps as text; None for never.
    :param polling: pauses, time limits and clock.
    :param about: names the source in the log, which all triggers share.
    :param silent_fail: log an error that waiting does not cure, and wait on.
    :param log: the trigger's logger.
    """
    try:
        found = condition()
        ends_at = parse_moment("deadline", deadline)
    # The task raises every error: the trigger must not end without an event.
    except Exception as error:
        return events.failed(error)
    waiter = Waiter(found, ends_at, polling, about=about, silent_fail=silent_fail, log=log)
    return await waiter.run()


class Waiter:
    """Queries until enough images are new, or the deadline has passed.

    :param condition: the images that are waited for.
    :param deadline: when waiting ends; None for never.
    :param polling: pauses, time limits and clock.
    :param about: names the source in the log, which all triggers share.
    :param silent_fail: log an error that waiting does not cure, and wait on.
    :param log: the trigger's logger.
    """

    def __init__(
        self,
        condition: WaitCondition,
        deadline: datetime | None,
        polling: Polling,
        *,
        about: str,
        silent_fail: bool,
        log: Log,
    ) -> None:
        self._condition = condition
        self._deadline = deadline
        self._polling = polling
        self._about = about
        self._silent_fail = silent_fail
        self._log = log

    async def run(self) -> events.Event:
        """Return the event for the task: images, a timeout, or an error."""
        thread = QueryThread(self._condition)
        try:
            return await self._run(thread)
        # The task raises it: the trigger must not end without an event.
        except Exception as error:
            return events.failed(error)
        finally:
            thread.close()

    async def _run(self, thread: QueryThread) -> events.Event:
        queries = 0
        while True:
            queries += 1
            result = await self._query(thread)
            now = self._polling.now()
            event = self._event(result, now)
            if event is not None:
                return event
            await self._polling.pause(queries, now, self._deadline)

    async def _query(self, thread: QueryThread) -> QueryResult:
        """Return the result of a query; an empty one if it failed and waiting goes on."""
        now = self._polling.now()
        enough = max(self._condition.min_images, events.MAX_EVENT_IMAGES + 1)
        query = partial(NewImagesQuery.run, now=now, enough=enough)
        try:
            return await thread.ask(query, seconds=self._polling.query_seconds(now, self._deadline))
        except StorageError as error:
            self._log.warning(
                "Cannot query %s for new images now, trying again later: %s", self._about, error
            )
        except Exception:
            if not self._silent_fail:
                raise
            self._log.exception("The query for new images failed; waiting goes on")
        return NOTHING

    def _event(self, result: QueryResult, now: datetime) -> events.Event | None:
        """Return the event that ends the wait; None to wait on."""
        found, min_images = len(result.images), self._condition.min_images
        decision = decide(found, min_images=min_images, now=now, deadline=self._deadline)
        if decision is PollDecision.READY:
            return events.found(result.images, is_all=result.is_all)
        if decision is PollDecision.TIMED_OUT:
            return events.Event(events.TIMED_OUT, found)
        self._log.info("%d of at least %d new images in %s", found, min_images, self._about)
        return None
