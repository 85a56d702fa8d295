"""Private: makes the pages of a server from a store and the parameters of a request. Blocks."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from airflow_imagetag.errors import ImageTagError
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.stores.browsing import (
    CopyProgress,
    Cursor,
    ImageFilter,
    QueryTooSlowError,
    StoreBrowser,
)
from airflow_imagetag.ui import pages
from airflow_imagetag.ui.hub import Cache, CopyIsMadeError, StoreHub
from airflow_imagetag.ui.links import WebLinks
from airflow_imagetag.ui.render import render
from airflow_imagetag.ui.texts import words_of
from airflow_imagetag.ui.thumbnails import NoPicture

log = logging.getLogger(__name__)

PAGE_IMAGES = 48
"""Number of images on a page of the gallery."""

KNOWN_IMAGES = 1_000
"""Number of images whose labels the gallery's field offers: reading them takes little time."""

COPY_REFRESH_SECONDS = 3
"""How often a page is loaded again while its store is copied."""

MAX_RUNS = 2_000
"""Number of runs that are searched for the run of a task."""

SHOWN_RUNS = 200
"""Number of runs on their page."""

FILTERS = ("label", "min", "max", "q", "api", "status", "since", "until", "key")
"""Parameters of the gallery."""

DIGEST = re.compile(r"[0-9a-f]{64}")
"""A digest in hex, as addresses name images."""

_LINE = Markup('<text x="128" y="{}" text-anchor="middle" font-size="13" fill="#6d7681">{}</text>')


class NotFoundError(Exception):
    """There is nothing at this address."""


class _WrongFilterError(Exception):
    """A condition cannot be read; its argument names the word for it."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The values of a request.

    :param parameters: those of its query.
    :param language: language of the page.
    :param chosen: the language, if the reader has chosen it by a link.
    :param up: leads from the page to the folder of all stores.
    :param is_framed: the page is shown in a frame of Airflow.
    """

    parameters: Mapping[str, str]
    language: str
    chosen: str | None
    up: str
    is_framed: bool = False

    @property
    def links(self) -> WebLinks:
        """The targets of the page's links."""
        return WebLinks(self.chosen, self.up, self.is_framed)


@dataclass(frozen=True, slots=True)
class Found:
    """A page with its status."""

    text: str
    status: int = 200


class WebPages:
    """Makes pages.

    :param hub: the stores.
    """

    def __init__(self, hub: StoreHub) -> None:
        self._hub = hub
        self._cache = Cache()

    def stores(self, reader: Reader) -> Found:
        """Show the stores."""
        values = {"stores": self._places(), **self._common(reader, "stores")}
        return Found(render("stores.html", values))

    def run(self, reader: Reader) -> Found:
        """Show the work of a task in a run, in each store that has a record of it."""
        names = ("dag_id", "run_id", "task_id")
        wanted: dict[str, Any] = {name: reader.parameters.get(name) for name in names}
        index = reader.parameters.get("map_index", "")
        wanted["map_index"] = int(index) if index.isdecimal() else None
        found = []
        if all(wanted[name] for name in names):
            for name in self._hub.stores:
                try:
                    runs = self._runs(name)
                except ImageTagError as error:
                    log.warning("The runs of the store %s cannot be read: %s", name, error)
                    continue
                found += [(name, run) for run in runs if pages.is_run(run, wanted)]
        values = {
            "found": found,
            "stores": self._places(),
            **self._common(reader, "run", _query(reader)),
        }
        return Found(render("run.html", values))

    def message(self, reader: Reader, name: str) -> str:
        """Show a sentence."""
        words = words_of(reader.language)
        values = {
            **self._common(reader, "title"),
            "message": words[name],
            "airflow_href": f"{reader.up}../"
            if name == "log_in" and not reader.is_framed
            else None,
        }
        return render("message.html", values)

    def page(self, reader: Reader, store: str, page: str) -> Found:
        """Show a page of a store.

        :raises NotFoundError: the store does not hold the image.
        """
        make: Mapping[str, Callable[[Reader, str, StoreBrowser], dict[str, Any]]] = {
            "overview": self._overview,
            "labels": self._labels,
            "gallery": self._gallery,
            "image": self._image,
            "failures": self._failures,
            "runs": self._runs_page,
        }
        values = self._common(reader, page, _query(reader)) | {"store": store, "active": page}
        words = words_of(reader.language)
        try:
            with self._hub.browser(store) as browser:
                values["made_at"] = browser.made_at
                values |= make[page](reader, store, browser)
        except CopyIsMadeError as error:
            text = _how_far(error.progress, words)
            values |= {"message": text, "refresh": COPY_REFRESH_SECONDS}
            return Found(render("message.html", values))
        except QueryTooSlowError:
            return Found(render("message.html", values | {"message": words["page_too_slow"]}), 503)
        except ImageTagError as error:
            # The message may name hosts and users, which belong into the server's log only.
            log.warning("The store %s cannot be read: %s", store, error)
            return Found(render("message.html", values | {"message": words["not_read"]}), 503)
        return Found(render(f"{page}.html", values))

    def _common(self, reader: Reader, name: str, query: str = "") -> dict[str, Any]:
        words = words_of(reader.language)
        other = "zh" if reader.language == "en" else "en"
        joint = "&" if query else "?"
        return {
            "t": words,
            "language": reader.language,
            "language_href": f"{query}{joint}lang={other}",
            "links": reader.links,
            "heading": words[name],
            "store": None,
            "active": None,
            "made_at": None,
            "refresh": None,
            "airflow_href": None,
        }

    def _places(self) -> list[tuple[str, str]]:
        return [(name, redact(store.asset_uri)) for name, store in self._hub.stores.items()]

    def _runs(self, store: str) -> list[dict[str, Any]]:
        found = self._hub.stores[store]
        return self._cache.get((store, "runs"), lambda: pages.runs_of(found, MAX_RUNS))

    def _overview(self, reader: Reader, store: str, browser: StoreBrowser) -> dict[str, Any]:
        counts = self._cache.get((store, "counts"), browser.day_counts)
        return pages.overview(counts, self._runs(store), words_of(reader.language))

    def _labels(self, reader: Reader, store: str, browser: StoreBrowser) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            counts = self._cache.get((store, "counts"), browser.day_counts)
            sample = browser.label_sample(pages.SAMPLE_IMAGES)
            return pages.labels(sample, counts, words_of(reader.language))

        # The numbers, not the sample: a sample takes megabytes.
        return self._cache.get((store, "labels", reader.language), make)

    def _failures(self, reader: Reader, store: str, browser: StoreBrowser) -> dict[str, Any]:
        del reader

        def make() -> dict[str, Any]:
            return pages.failures(browser.unlabelled(pages.MAX_FAILURES))

        return self._cache.get((store, "failures"), make)

    def _runs_page(self, reader: Reader, store: str, browser: StoreBrowser) -> dict[str, Any]:
        del reader, browser
        return {"runs": self._runs(store)[:SHOWN_RUNS]}

    def _image(self, reader: Reader, store: str, browser: StoreBrowser) -> dict[str, Any]:
        del store
        digest = reader.parameters.get("key", "")
        images = browser.image(digest) if DIGEST.fullmatch(digest) else ()
        if not images:
            raise NotFoundError
        return {"images": images}

    def _gallery(self, reader: Reader, store: str, browser: StoreBrowser) -> dict[str, Any]:
        given = {name: reader.parameters.get(name, "").strip() for name in FILTERS}
        words = words_of(reader.language)
        values: dict[str, Any] = {
            "given": given,
            "statuses": pages.STATUSES,
            "apis": browser.apis(),
            "known": self._label_names(store, browser, KNOWN_IMAGES)[: pages.TOP_LABELS],
            "similar": None,
            "problem": None,
            "is_first": True,
            "page": None,
        }
        try:
            wanted = filter_of(given)
        except _WrongFilterError as error:
            return values | {"problem": words["bad_filter"].format(name=words[str(error)])}
        after = _cursor(reader.parameters)
        values["is_first"] = after is None
        try:
            values["page"] = browser.page(wanted, after, PAGE_IMAGES)
        except QueryTooSlowError:
            return values | {"problem": words["too_slow"]}
        if wanted.label is not None and after is None and not values["page"].images:
            names = self._label_names(store, browser, pages.SAMPLE_IMAGES)
            similar = pages.similar_labels(names, wanted.label)
            values["similar"] = similar and [
                (name, reader.links.page("gallery", **(given | {"label": name})))
                for name in similar
            ]
        return values

    def _label_names(self, store: str, browser: StoreBrowser, max_images: int) -> list[str]:
        """Return the labels of some images, the commonest first; none if they take too long."""

        def make() -> list[str]:
            try:
                return pages.label_names(browser.label_sample(max_images))
            except QueryTooSlowError:
                return []

        return self._cache.get((store, "names", max_images), make)


def _how_far(progress: CopyProgress, words: Mapping[str, str]) -> str:
    """Return the sentences about a copy that is not finished."""
    if progress.with_labels is None:
        done = words["copied_images"].format(images=f"{progress.images:,}")
    else:
        done = words["copied_labels"].format(
            labelled=f"{progress.labelled:,}", images=f"{progress.with_labels:,}"
        )
    return words["copying"].format(done=done)


def filter_of(given: Mapping[str, str]) -> ImageFilter:
    """Return the conditions that the parameters of the gallery set.

    :raises _WrongFilterError: one cannot be read.
    """
    status = given["status"] or None
    if status is not None and status not in pages.STATUSES:
        raise _WrongFilterError("status")
    return ImageFilter(
        label=given["label"] or None,
        text=given["q"] or None,
        min_probability=_share(given["min"]),
        max_probability=_share(given["max"]),
        api=given["api"] or None,
        status=status,
        since=_moment(given["since"], "since"),
        until=_moment(given["until"], "until"),
        key=given["key"] or None,
    )


def _share(text: str) -> float | None:
    if not text:
        return None
    try:
        share = float(text.replace(",", "."))
    except ValueError:
        raise _WrongFilterError("probability") from None
    if not 0 <= share <= 1:
        raise _WrongFilterError("probability")
    return share


def _moment(text: str, name: str) -> datetime | None:
    """Return the beginning of a day, its end for ``until``, or a point in time."""
    if not text:
        return None
    is_last_day = name == "until" and len(text) <= len("2026-01-31")
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC) + timedelta(days=is_last_day)
    except (ValueError, OverflowError):
        raise _WrongFilterError(name) from None


def _cursor(parameters: Mapping[str, str]) -> Cursor | None:
    api, digest = parameters.get("after_api"), parameters.get("after")
    return Cursor(api, digest) if api and digest and DIGEST.fullmatch(digest) else None


def _query(reader: Reader) -> str:
    given = {name: value for name, value in reader.parameters.items() if name != "lang"}
    return f"?{urlencode(given)}" if given else ""


def placeholder(reason: NoPicture, language: str) -> str:
    """Return a picture that says why there is none."""
    text = words_of(language)[f"picture_{reason.value}"]
    head, colon, rest = text.partition(":" if ":" in text else "\uff1a")
    lines = Markup().join(
        _LINE.format(y, line.strip()) for y, line in ((92, f"{head}{colon}"), (114, rest))
    )
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 256 192" role="img" '
        'font-family="sans-serif"><title>{}</title>{}</svg>'
    ).format(text, lines)
