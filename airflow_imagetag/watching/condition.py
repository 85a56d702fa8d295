"""The parameters of sensor and trigger: the images that are waited for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from airflow_imagetag.adapters.descriptions import Packed, unpack
from airflow_imagetag.adapters.numbers import SECONDS, NumberRule
from airflow_imagetag.backends.configuration import allowed_local_folders
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.selection.rules import Retag, Rule, Window, parse_rule
from airflow_imagetag.sources.base import ImageSource
from airflow_imagetag.stores.base import LabelStore

Moment = datetime | str | None
Number = int | float | str

COUNT = NumberRule("a whole number from 1", minimum=1, is_whole=True)


class WaitParameters(Protocol):
    """The parameters of a sensor or trigger; a template may have made a text of each."""

    @property
    def imagetag_conn_id(self) -> str:
        """Connection of the account that labels the images."""
        ...

    @property
    def retag(self) -> str:
        """When an image that the store holds is new: ``changed`` or ``never``."""
        ...

    @property
    def modified_after(self) -> Moment:
        """Only images that changed then or later."""
        ...

    @property
    def settle_seconds(self) -> Number:
        """Images that changed less than this time ago are left out."""
        ...

    @property
    def min_images(self) -> int | str:
        """Number of images that ends the wait."""
        ...

    @property
    def max_images(self) -> int | str:
        """Maximum number of images that are handed on."""
        ...


@dataclass(frozen=True, slots=True)
class WaitCondition:
    """The images that are waited for, and their number.

    :param source: where images are.
    :param store: where labels are kept; None waits for changed images only.
    :param imagetag_conn_id: connection of the account that labels the images.
    :param rule: decides which images are new.
    :param modified_after: only images that changed then or later, with a zone; None for any.
    :param settle_seconds: images that changed less than this time ago are left out.
    :param min_images: number of images that ends the wait.
    :param max_images: maximum number of images that are handed on.
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
        """Return the interval in which an image must have changed; None for any time."""
        before = now - timedelta(seconds=self.settle_seconds) if self.settle_seconds else None
        if before is None and self.modified_after is None:
            return None
        return Window(self.modified_after, before)


def parse_wait_condition(
    source: ImageSource, store: LabelStore | None, parameters: WaitParameters
) -> WaitCondition:
    """Check the parameters of a sensor or trigger, which may come from templates.

    :param source: where images are.
    :param store: where labels are kept.
    :param parameters: the sensor or trigger.
    :raises ConfigurationError: names the parameter and the values that it allows.
    """
    after = parse_moment("modified_after", parameters.modified_after)
    rule = parse_rule(parameters.retag, retry_failed=False)
    if rule.retag is Retag.ALWAYS:
        raise ConfigurationError(
            "retag='always' makes every image new at any time, so there is nothing to wait for. "
            "Use 'changed' or 'never'."
        )
    if store is None and after is None:
        raise ConfigurationError(
            "Without store= and modified_after= every image is new at any time. Give store=, the "
            "store that the labels go to, or modified_after=, such as '{{ data_interval_start }}'."
        )
    return WaitCondition(
        source,
        store,
        parameters.imagetag_conn_id,
        rule,
        after,
        SECONDS.require("settle_seconds", parameters.settle_seconds),
        COUNT.require_whole("min_images", parameters.min_images),
        COUNT.require_whole("max_images", parameters.max_images),
    )


def unpack_wait_condition(
    images: Packed, store: Packed | None, parameters: WaitParameters, *, is_data: bool
) -> WaitCondition:
    """Return the condition of a trigger, which holds source and store as plain values.

    :param images: the packed source.
    :param store: the packed store; None for none.
    :param parameters: the trigger.
    :param is_data: data has changed the source, so that its paths are not the author's.
    :raises ConfigurationError: names what is wrong.
    """
    source: ImageSource = unpack(images, ImageSource)
    if is_data:
        source.check_trusted(allowed_local_folders())
    return parse_wait_condition(
        source, None if store is None else unpack(store, LabelStore), parameters
    )


def parse_moment(name: str, value: Moment) -> datetime | None:
    """Return a time with its zone, UTC if the value has none; None for None or an empty text.

    :raises ConfigurationError: the value is not a time.
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
