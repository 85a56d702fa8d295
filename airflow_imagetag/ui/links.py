"""Private: where the parts of a page lead: to other pages, or nowhere in a file."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from airflow_imagetag.stores.browsing import StoredImage
from airflow_imagetag.ui.thumbnails import NoPicture


class Links(ABC):
    """The targets of a page's links; None where there is none."""

    is_file = False
    """Whether the page is a file of its own."""

    @abstractmethod
    def page(self, name: str, **parameters: Any) -> str | None:
        """Return the target of a page of the store; parameters that are None are left out."""

    @abstractmethod
    def picture(self, image: StoredImage) -> str | None:
        """Return the source of an image's small picture."""

    @abstractmethod
    def no_picture(self, image: StoredImage) -> NoPicture | None:
        """Return why an image has no small picture, if that is known."""

    @abstractmethod
    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str | None:
        """Return the target of a task in a run."""


@dataclass(frozen=True, slots=True)
class WebLinks(Links):
    """Links of a page of a server. They are relative, so they work under any path.

    :param language: kept in each link if the reader has chosen it.
    :param up: leads from the page to the folder of all stores.
    :param is_framed: the page is in a frame, which cannot show Airflow's own pages.
    """

    language: str | None = None
    up: str = "../"
    is_framed: bool = False

    def page(self, name: str, **parameters: Any) -> str:
        """Return the target of a page of the store."""
        return f"{name}{self._query(parameters)}"

    def top(self, name: str = "", **parameters: Any) -> str:
        """Return the target of a page that is of no store."""
        return f"{self.up}{name}{self._query(parameters)}" or "./"

    def static(self, name: str) -> str:
        """Return the target of a file that never changes."""
        return f"{self.up}static/{name}"

    def store(self, name: str) -> str:
        """Return the target of the first page of a store."""
        return f"{self.up}{quote(name)}/overview{self._query({})}"

    def picture(self, image: StoredImage) -> str:
        """Return the source of an image's small picture."""
        return f"thumbnail{self._query({'api': image.api, 'key': image.digest})}"

    def no_picture(self, image: StoredImage) -> NoPicture | None:
        """Return None: the server says so in the place of the picture."""
        del image
        return None

    def gallery(self, store: str, run: Mapping[str, Any]) -> str:
        """Return the target of the images of a run."""
        until = run["until"].isoformat() if run["until"] else None
        given = {"api": run["api"], "since": run["started_at"].isoformat(), "until": until}
        return f"{self.up}{quote(store)}/gallery{self._query(given)}"

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str | None:
        """Return the target of a task in a run, in Airflow's UI."""
        if self.is_framed:
            return None
        parts = f"dags/{quote(dag_id, '')}/runs/{quote(run_id, '')}/tasks/{quote(task_id, '')}"
        mapped = f"/mapped/{map_index}" if map_index is not None and map_index >= 0 else ""
        return f"{self.up}../{parts}{mapped}"

    def _query(self, parameters: Mapping[str, Any]) -> str:
        given = {name: value for name, value in parameters.items() if value not in (None, "")}
        if self.language is not None:
            given.setdefault("lang", self.language)
        return f"?{urlencode(given)}" if given else ""


@dataclass(frozen=True, slots=True)
class FileLinks(Links):
    """Links of a file: its pictures are in it, and nothing leads out of it.

    :param pictures: small pictures by interface and key digest.
    """

    pictures: Mapping[tuple[str, str], bytes | NoPicture] = field(default_factory=dict)

    is_file = True

    def page(self, name: str, **parameters: Any) -> str | None:
        """Return None."""
        del name, parameters
        return None

    def picture(self, image: StoredImage) -> str | None:
        """Return the small picture itself."""
        found = self.pictures.get((image.api, image.digest))
        if not isinstance(found, bytes):
            return None
        return f"data:image/jpeg;base64,{base64.b64encode(found).decode()}"

    def no_picture(self, image: StoredImage) -> NoPicture | None:
        """Return why an image has no small picture."""
        found = self.pictures.get((image.api, image.digest))
        return found if isinstance(found, NoPicture) else None

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> None:
        """Return None."""
        del dag_id, run_id, task_id, map_index
