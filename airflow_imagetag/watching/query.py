"""Looks for new images: the one question of sensor and trigger, asked by blocking calls."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

from airflow_imagetag.backends.configuration import DEFAULT_CONN_ID
from airflow_imagetag.errors import ConfigurationError, UnknownConnectionError
from airflow_imagetag.hooks.imagetag import ImageTagHook
from airflow_imagetag.models import Image
from airflow_imagetag.selection.difference import new_images
from airflow_imagetag.selection.rules import Retag, Rule, Window, parse_rule
from airflow_imagetag.services.account import DEFAULT_API
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.stores.base import LabelStore, OpenStore

log = logging.getLogger(__name__)

T = TypeVar("T")

Moment = datetime | str | None
Number = int | float | str


@dataclass(frozen=True, slots=True)
class WaitCondition:
    """Which images are asked for, and how many.

    :param source: where images are.
    :param store: where labels are kept; None asks for changed images only.
    :param imagetag_conn_id: the account that is to label them.
    :param rule: what counts as new.
    :param modified_after: only images that changed then or later, with a zone; None for any.
    :param settle_seconds: leaves out images that changed so short a time ago.
    :param min_images: how many are enough.
    :param max_images: how many are handed on, at most.
    """

    source: ImageSource
    store: LabelStore | None
    imagetag_conn_id: str
    rule: Rule
    modified_after: datetime | None
    settle_seconds: float
    min_images: int
    max_images: int

    def window(self, now: datetime) -> Window | None:
        """Return when an image must have changed; None where that does not matter."""
        before = now - timedelta(seconds=self.settle_seconds) if self.settle_seconds else None
        if before is None and self.modified_after is None:
            return None
        return Window(self.modified_after, before)


def parse_wait_condition(
    *,
    source: ImageSource,
    store: LabelStore | None,
    imagetag_conn_id: str,
    retag: str,
    modified_after: Moment,
    settle_seconds: Number,
    min_images: Any,
    max_images: Any,
) -> WaitCondition:
    """Check the parameters, which may come from templates, and return the question.

    :raises ConfigurationError: names the parameter and what it may be.
    """
    after = parse_moment("modified_after", modified_after)
    rule = parse_rule(retag, retry_failed=False)
    if rule.retag is Retag.ALWAYS:
        raise ConfigurationError(
            "retag='always' makes every image new at any time, so there is nothing to wait for. "
            "Use 'changed' or 'never'."
        )
    if store is None and after is None:
        raise ConfigurationError(
            "New compared with what? Give store=, the store that the labels go to, or "
            "modified_after=, such as '{{ data_interval_start }}'."
        )
    return WaitCondition(
        source,
        store,
        imagetag_conn_id,
        rule,
        after,
        parse_seconds("settle_seconds", settle_seconds),
        parse_count("min_images", min_images),
        parse_count("max_images", max_images),
    )


def parse_moment(name: str, value: Moment) -> datetime | None:
    """Return a point in time with its zone, UTC where the value has none.

    :raises ConfigurationError: the value is no point in time.
    """
    if value is None or value in ("", "None"):
        return None
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise ConfigurationError(
            f"{name} must be a point in time such as '2026-07-01T12:00:00+00:00', not {value!r}."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_seconds(name: str, value: Number) -> float:
    """Return a number of seconds from 0.

    :raises ConfigurationError: the value is none.
    """
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f"{name} must be a number of seconds from 0, not {value!r}.")
    return seconds


def parse_count(name: str, value: Any) -> int:
    """Return a whole number from 1.

    :raises ConfigurationError: the value is none.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (1 <= number < math.inf and number == math.floor(number)):
        raise ConfigurationError(f"{name} must be a whole number from 1, not {value!r}.")
    return int(number)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a look has found.

    :param images: new images, in the order of the source, without their bytes.
    :param is_all: whether there were no more than these.
    """

    images: tuple[Image, ...]
    is_all: bool


class NewImagesQuery:
    """Looks for new images any number of times; what a store keeps at hand between, it keeps.

    :param question: which images are asked for.
    """

    def __init__(self, question: WaitCondition) -> None:
        self.question = question
        self._kept = ExitStack()
        self._opened: OpenStore | None = None
        # Whoever waits for a look no longer closes it while another thread is still looking.
        self._lock = threading.Lock()
        self._is_abandoned = False

    def look(self, now: datetime, *, enough: int) -> QueryResult:
        """Return new images, reading no further than is needed to have enough of them.

        :param now: the time, with a zone.
        :param enough: how many images to return at most.
        :raises ConfigurationError: something is wrong that waiting does not mend.
        :raises StorageError: source or store cannot be reached at the moment.
        """
        images = self.ask(lambda found: tuple(islice(found, enough)), now, limit=enough)
        return QueryResult(images, is_all=len(images) < enough)

    def ask(
        self, take: Callable[[Iterator[Image]], T], now: datetime, *, limit: int | None = None
    ) -> T:
        """Return what a function makes of the new images, which are read as it takes them.

        :param take: reads as many images as it wants.
        :param now: the time, with a zone.
        :param limit: how many it takes at most.
        """
        with self._lock:
            try:
                return take(self._images(now, limit))
            finally:
                # A hundred waiting triggers must not keep a hundred connections.
                if self._opened is not None:
                    self._opened.release_connections()
                if self._is_abandoned:
                    self._let_go()

    def _images(self, now: datetime, limit: int | None) -> Iterator[Image]:
        question = self.question
        window = question.window(now)
        if question.store is None:
            return question.source.images(limit=limit, window=window)
        return new_images(
            question.source,
            question.store,
            self._open(question.store),
            question.rule,
            self._api_of_account,
            window=window,
            limit=limit,
        )

    @cached_property
    def _api_of_account(self) -> str:
        return api_of(self.question.imagetag_conn_id)

    def _open(self, store: LabelStore) -> OpenStore:
        if self._opened is None:
            self._opened = self._kept.enter_context(store.open(to_write=False))
        else:
            self._opened.refresh()
        return self._opened

    def close(self) -> None:
        """Let go of what is kept between two looks; a look that hangs does so when it ends."""
        self._is_abandoned = True
        if self._lock.acquire(blocking=False):
            try:
                self._let_go()
            finally:
                self._lock.release()

    def _let_go(self) -> None:
        self._opened = None
        self._kept.close()


def api_of(imagetag_conn_id: str) -> str:
    """Return the interface that the account labels with, under which a store keeps its labels.

    Where the default connection does not exist it is the default interface: looking for images
    needs nothing else of the account.

    :raises ConfigurationError: there is no such connection, or a field of it is wrong.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    try:
        return ImageTagHook(imagetag_conn_id).account.api
    except AirflowNotFoundException as error:
        if imagetag_conn_id != DEFAULT_CONN_ID:
            raise UnknownConnectionError(
                f"{error}. Correct imagetag_conn_id, or create the connection."
            ) from None
        log.warning(
            "There is no connection %r; assuming the interface %s", imagetag_conn_id, DEFAULT_API
        )
        return DEFAULT_API
