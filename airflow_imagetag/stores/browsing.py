"""Private: the queries of the report and the pages, with bounds of time and rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from airflow_imagetag.errors import StorageError

MAX_PAGE_IMAGES = 200
"""Maximum number of images on one page."""


class QueryTooSlowError(StorageError):
    """A query took longer than a page may wait."""


@dataclass(frozen=True, slots=True)
class StoredLabel:
    """A label of an image, as the store holds it.

    :param original: the service's own name of a label that was renamed.
    """

    label: str
    probability: float
    category: str | None = None
    subcategory: str | None = None
    scene: str | None = None
    original: str | None = None


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of one interface, with its labels.

    :param digest: SHA-256 of its key, in hex.
    :param labels_count: number of its labels, which ``labels`` may not hold all.
    :param tagged_at: when its answer came, or when its last try failed.
    :param missing_since: since when its source does not have it; None if it has.
    """

    api: str
    digest: str
    image_key: str
    image_uri: str | None
    version: str
    status: str
    content_sha256: str | None
    labels_count: int
    error: str | None
    code: str | None
    message: str | None
    tries: int | None
    first_failed_at: datetime | None
    next_try_at: datetime | None
    tagged_at: datetime
    missing_since: datetime | None = None
    labels: tuple[StoredLabel, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Conditions on images; None sets none.

    :param label: name of a label that the image has: as written, in small letters, or with a
        capital at the beginning or at that of each word.
    :param text: a part of the image's key or of one of its labels, whatever its case.
    :param min_probability: least probability of that label, or of some label of the image.
    :param max_probability: greatest probability of that label, or of some label of the image.
    :param api: the interface.
    :param status: ``tagged``, ``failed``, ``waiting`` or ``gave_up``.
    :param since: earliest time of the answer or of the last try, with a zone.
    :param until: latest such time, exclusive.
    :param key: the whole key of the image.
    """

    label: str | None = None
    text: str | None = None
    min_probability: float | None = None
    max_probability: float | None = None
    api: str | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    key: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it sets no condition."""
        return self == ImageFilter()

    @property
    def needs_label(self) -> bool:
        """Whether some label of the image must meet a condition."""
        values = (self.label, self.min_probability, self.max_probability)
        return any(value is not None for value in values)


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last image of a page; the next page begins behind it."""

    api: str
    digest: str


@dataclass(frozen=True, slots=True)
class ImagePage:
    """Some images in the order of interface and key digest.

    :param after: where the next page begins; None at the end.
    :param is_cut: the time was over before the page was full: more images may follow.
    """

    images: Sequence[StoredImage]
    after: Cursor | None
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class DayCount:
    """The images of one interface, status and day.

    :param labels: number of their labels.
    """

    api: str
    status: str
    day: date
    images: int
    labels: int


@dataclass(frozen=True, slots=True)
class DayCounts:
    """The images of a store by interface, status and day.

    :param is_estimate: the numbers are scaled from a random sample, since counting all took too
        long.
    """

    rows: Sequence[DayCount]
    is_estimate: bool = False


@dataclass(frozen=True, slots=True)
class LabelSample:
    """The labels of some or all images of a store.

    The images are those with the smallest digests of their keys, so they are a random sample.

    :param rows: digest of the image's key with its interface, label and probability.
    :param images: number of images whose labels these are.
    :param is_all: they are all images of the store.
    """

    rows: Sequence[tuple[str, str, float]]
    images: int
    is_all: bool


@dataclass(slots=True)
class CopyProgress:
    """How far a copy is; read by other threads.

    :param images: number of rows of images that were read.
    :param with_labels: number of images with labels; None until all images were read.
    :param labelled: number of images whose labels were read.
    """

    images: int = 0
    with_labels: int | None = None
    labelled: int = 0


class StoreBrowser(ABC):
    """A store while its pages are made. Its methods block, and several threads may call them.

    :raises StorageError: each method, if the store cannot be read, or not in time.
    """

    @property
    def made_at(self) -> datetime | None:
        """When the rows were copied, with a zone; None if they are read from the store itself."""
        return None

    @abstractmethod
    def apis(self) -> Sequence[str]:
        """Return the interfaces whose images the store holds, sorted."""

    @abstractmethod
    def day_counts(self) -> DayCounts:
        """Return the numbers of images by interface, status and day."""

    @abstractmethod
    def label_sample(self, max_images: int) -> LabelSample:
        """Return the labels of at most so many images."""

    @abstractmethod
    def page(self, wanted: ImageFilter, after: Cursor | None, size: int) -> ImagePage:
        """Return the images that meet the conditions, with their labels.

        :param after: the last image of the page before; None for the first page.
        :param size: maximum number of images, up to ``MAX_PAGE_IMAGES``.
        """

    @abstractmethod
    def image(self, digest: str) -> Sequence[StoredImage]:
        """Return the rows of the image with this key digest, one for each interface."""

    @abstractmethod
    def unlabelled(self, max_images: int) -> Sequence[StoredImage]:
        """Return images without labels through an error: at most so many, without their labels."""
