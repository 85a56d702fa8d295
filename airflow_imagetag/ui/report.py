"""Private: one HTML file of a store, for those who have no Airflow at hand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_imagetag.adapters.numbers import NumberRule
from airflow_imagetag.backends.parameter_files import write_named_file
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_local, local_path
from airflow_imagetag.stores.browsing import (
    MAX_PAGE_IMAGES,
    Cursor,
    ImageFilter,
    ImagePage,
    StoreBrowser,
    StoredImage,
)
from airflow_imagetag.stores.opening import open_browser
from airflow_imagetag.ui import pages
from airflow_imagetag.ui.links import FileLinks
from airflow_imagetag.ui.render import render, static_file
from airflow_imagetag.ui.texts import words_of
from airflow_imagetag.ui.thumbnails import NoPicture, configured_thumbnails

if TYPE_CHECKING:
    from airflow_imagetag.stores.base import LabelStore

MAX_IMAGES = 5_000
"""Largest ``max_images``."""

PICTURE_THREADS = 8
"""Number of images that are read at the same time."""

_IMAGES = NumberRule(
    f"a whole number from 0 to {MAX_IMAGES:,}", minimum=0, maximum=MAX_IMAGES, is_whole=True
)
_MEGABYTES = NumberRule("a number from 0 to 100", minimum=0, maximum=100)


def write_report(
    store: LabelStore,
    path: str,
    *,
    max_images: int = 200,
    max_megabytes: float = 8.0,
    language: str = "en",
) -> list[str]:
    """Write one HTML file with charts, labels, failures and small pictures of a store.

    :param path: the file: a local path, or a URI of a storage.
    :param max_images: maximum number of images that are shown.
    :param max_megabytes: maximum size of all small pictures together.
    :param language: ``en`` or ``zh``.
    :return: the local files whose pictures are left out, since reading them is not allowed.
    :raises ConfigurationError: a parameter or the path is wrong.
    :raises StorageError: the store cannot be read, or the file cannot be written.
    """
    words_of(language)
    images = _IMAGES.require_whole("max_images", max_images)
    megabytes = _MEGABYTES.require("max_megabytes", max_megabytes)
    text, left_out = _report(store, images, megabytes * 1024 * 1024, language)
    write_named_file(path, text.encode("utf-8", "replace"), "The report")
    return left_out


def _report(
    store: LabelStore, max_images: int, max_bytes: float, language: str
) -> tuple[str, list[str]]:
    words = words_of(language)
    runs = pages.runs_of(store)
    with open_browser(store) as browser:
        counts, sample = pages.report_counts(browser)
        page = _first_images(browser, max_images)
        unlabelled = browser.unlabelled(pages.MAX_FAILURES)
    pictures = _pictures(page.images, max_bytes)
    values: dict[str, Any] = {
        **pages.overview(counts, runs, words),
        **pages.failures(unlabelled),
        **pages.labels(sample, counts, words),
        "page": page,
        "runs": runs,
        "t": words,
        "language": language,
        "links": FileLinks(pictures),
        "store": redact(store.asset_uri),
        "made": datetime.now(UTC),
        "style": static_file("style.css").decode(),
    }
    return render("report.html", values), list(_not_allowed(page.images, pictures))


def _not_allowed(
    images: Iterable[StoredImage], pictures: Mapping[tuple[str, str], bytes | NoPicture]
) -> Iterator[str]:
    """Yield the local files that may not be read."""
    for image in images:
        is_refused = pictures.get((image.api, image.digest)) is NoPicture.NOT_ALLOWED
        if is_refused and image.image_uri and is_local(image.image_uri):
            yield local_path(image.image_uri)


def _first_images(browser: StoreBrowser, count: int) -> ImagePage:
    found: list[StoredImage] = []
    after: Cursor | None = None
    while len(found) < count:
        page = browser.page(ImageFilter(), after, min(count - len(found), MAX_PAGE_IMAGES))
        found += page.images
        after = page.after
        if after is None:
            break
    return ImagePage(found, after)


def _pictures(
    images: Iterable[StoredImage], max_bytes: float
) -> dict[tuple[str, str], bytes | NoPicture]:
    """Return small pictures until they have as many bytes as the file may hold."""
    maker = configured_thumbnails()
    found: dict[tuple[str, str], bytes | NoPicture] = {}
    used = 0
    with ThreadPoolExecutor(PICTURE_THREADS, "imagetag-report") as executor:
        shown = list(images)
        for image, picture in zip(shown, executor.map(maker.picture, shown), strict=True):
            # Base64 takes a third more.
            used += len(picture) * 4 // 3 if isinstance(picture, bytes) else 0
            if used <= max_bytes or isinstance(picture, NoPicture):
                found[image.api, image.digest] = picture
    return found
