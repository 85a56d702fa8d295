"""Private: the local model of a hook, opened once."""

from __future__ import annotations

import threading
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_imagetag.classifiers.cache import DigestCache, default_folder
from airflow_imagetag.classifiers.settings import LocalModel
from airflow_imagetag.labellers.local import LocalLabeller
from airflow_imagetag.labellers.model_files import ModelFiles
from airflow_imagetag.labellers.model_input import LOCAL_LIMITS
from airflow_imagetag.labellers.model_threads import threads_of
from airflow_imagetag.loading.preflight import ImagePreflight
from airflow_imagetag.services.account import Account
from airflow_imagetag.services.base import Limits

if TYPE_CHECKING:
    from airflow_imagetag.classifiers.classifier import Classifier
    from airflow_imagetag.loading.content import ContentLoader


class HookModel:
    """The model of a connection: its name, its limits, and labellers that share it.

    :param account: the parsed connection, with a local model.
    :param cache_path: folder that keeps models; None for the user's own cache.
    """

    limits: Limits = LOCAL_LIMITS

    def __init__(self, account: Account, cache_path: str | None) -> None:
        self._settings = account.local or LocalModel()
        folder = default_folder() if cache_path is None else Path(cache_path)
        self._files = ModelFiles(self._settings, DigestCache(folder))
        self._lock = threading.Lock()
        self._opened: Classifier | None = None

    @cached_property
    def api(self) -> str:
        """Name of the model in results and stores."""
        return self._files.api()

    def open(self) -> Classifier:
        """Return the model, which is opened by the first call.

        :raises ConfigurationError: it cannot be used.
        :raises StorageError: the storage of a file failed.
        """
        with self._lock:
            if self._opened is None:
                self._opened = self._files.open()
            return self._opened

    def labeller(self, loader: ContentLoader, *, max_connections: int) -> LocalLabeller:
        """Return a labeller, which the caller enters and leaves.

        :param loader: loads images under the rules of trust.
        :param max_connections: maximum number of images that are read at the same time.
        """
        return LocalLabeller(
            self.open,
            self.api,
            loader,
            ImagePreflight(self.api, self.limits),
            threads=threads_of(self._settings),
            max_connections=max_connections,
        )

    def check(self) -> str:
        """Open the model, label a grey picture, and return the facts that a user may want to know.

        :raises ConfigurationError: the model cannot be used.
        """
        from PIL import Image

        classifier = self.open()
        view = classifier.view
        grey = Image.new("RGB", (view.width, view.height), "grey")
        started = time.perf_counter()
        classifier.labels(grey)
        milliseconds = (time.perf_counter() - started) * 1_000
        return (
            f"{self.api} is ready: {len(classifier.names):,} classes, {view.width} x {view.height} "
            f"pixels, {classifier.providers[0]}, {milliseconds:.0f} ms an image, "
            f"{threads_of(self._settings)} labelled at a time"
        )
