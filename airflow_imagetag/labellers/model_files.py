"""The model and the classes that a connection names: found, read, and named by their contents."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from airflow_imagetag.backends.parameter_files import (
    named_file_errors,
    named_place,
    read_named_file,
)
from airflow_imagetag.backends.places import Place, read_start
from airflow_imagetag.classifiers.cache import DigestCache
from airflow_imagetag.classifiers.classes import IMAGENET, imagenet_names, parse_names
from airflow_imagetag.classifiers.classifier import Classifier
from airflow_imagetag.classifiers.default_model import DEFAULT_MODEL, default_classifier
from airflow_imagetag.classifiers.settings import DEFAULT_CROP, LOCAL_API, LocalModel
from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.safety.local_files import open_local
from airflow_imagetag.safety.redaction import redact
from airflow_imagetag.safety.uris import is_local, local_path

MAX_MODEL_BYTES: Final = 2 * 1024**3
"""Maximum size of a model: that of an ONNX file without files beside it."""

MAX_CLASSES_BYTES: Final = 16 * 1024**2

_PIECE_BYTES: Final = 1024**2
_MAX_STEM: Final = 40
_DIGEST_CHARACTERS: Final = 8

_DIGESTS: dict[tuple[object, ...], str] = {}
"""Digests of local files by path, size and times: a sensor asks every minute."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a local model.

    :param settings: names the files.
    :param cache: keeps models of object storages.
    """

    settings: LocalModel
    cache: DigestCache

    def api(self) -> str:
        """Return the name under which the labels of the model are kept.

        It changes with each change that may change labels: of the model, of its classes, and of how
        it sees pictures.

        :raises ConfigurationError: a file is missing.
        :raises StorageError: its storage failed.
        """
        settings = self.settings
        if settings.model is None and settings.crop == DEFAULT_CROP:
            return f"{LOCAL_API}:{DEFAULT_MODEL}"
        parts = json.dumps(
            [self._model_digest(), self._classes_digest(), settings.view], sort_keys=True
        )
        digest = hashlib.sha256(parts.encode()).hexdigest()[:_DIGEST_CHARACTERS]
        return f"{LOCAL_API}:{_stem(settings.model or DEFAULT_MODEL)}-{digest}"

    def open(self) -> Classifier:
        """Return the model, ready to label.

        :raises ConfigurationError: a file is missing or wrong, or the extra ``local`` is.
        :raises StorageError: the storage of a file failed.
        """
        settings = self.settings
        if settings.model is None:
            return default_classifier(settings, self.cache)
        what = f"model in extra, {redact(settings.model)}"
        content = self._local_path() or self._stored(settings.model)[0]
        return Classifier(content, settings, self._names(), what)

    def _local_path(self) -> str | None:
        """Return the path of a local model, which must exist; None for one of a storage."""
        uri = self.settings.model or ""
        if not is_local(uri):
            return None
        path = local_path(uri)
        with named_file_errors(uri, "model in extra,"), open_local(path, None):
            return path

    def _names(self) -> Sequence[str] | None:
        classes = self.settings.classes
        if classes is None:
            return None
        if classes.lower() == IMAGENET:
            return imagenet_names()
        return parse_names(self._classes(classes), f"classes in extra, {redact(classes)}")

    def _model_digest(self) -> str:
        uri = self.settings.model
        if uri is None:
            return DEFAULT_MODEL
        if is_local(uri):
            return _local_digest(uri)
        return (
            self.cache.digest_of(self._kept_name(uri, named_place(uri, None, "model in extra,")))
            or self._stored(uri)[1]
        )

    def _classes_digest(self) -> str:
        classes = self.settings.classes
        if classes is None or classes.lower() == IMAGENET:
            return classes or ""
        return hashlib.sha256(self._classes(classes)).hexdigest()

    def _classes(self, uri: str) -> bytes:
        content = read_named_file(uri, None, "classes in extra,", MAX_CLASSES_BYTES)
        if len(content) > MAX_CLASSES_BYTES:
            raise ConfigurationError(
                f"classes in extra, {redact(uri)} is larger than {MAX_CLASSES_BYTES // 1024**2} "
                "MB. Is it a file of names?"
            )
        return content

    def _stored(self, uri: str) -> tuple[bytes, str]:
        """Return the bytes and the SHA-256 of a model of an object storage."""
        place = named_place(uri, None, "model in extra,")

        def read() -> bytes:
            with named_file_errors(uri, "model in extra,"):
                content = read_start(place, MAX_MODEL_BYTES + 1)
            if len(content) > MAX_MODEL_BYTES:
                raise ConfigurationError(
                    f"model in extra, {redact(uri)} is larger than "
                    f"{MAX_MODEL_BYTES // 1024**3} GB. Give the worker a local copy of it."
                )
            return content

        return self.cache.get(self._kept_name(uri, place), read)

    def _kept_name(self, uri: str, place: Place) -> str:
        """Return the name of a copy: it changes when the object does."""
        with named_file_errors(uri, "model in extra,"):
            # A cached listing has the facts of an earlier version of the object.
            place.file_system.invalidate_cache()
            facts = place.file_system.info(place.path)
        told = {name: str(value) for name, value in facts.items() if name in _FACTS}
        text = json.dumps([uri, told], sort_keys=True)
        return f"model-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


_FACTS: Final = frozenset(
    {"size", "ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "generation"}
)
"""Facts of an object, by the names of the storages' libraries, that tell its versions apart."""


def _local_digest(uri: str) -> str:
    with named_file_errors(uri, "model in extra,"), open_local(local_path(uri), None) as file:
        found = os.fstat(file.fileno())
        key = (uri, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if key not in _DIGESTS:
            digest = hashlib.sha256()
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
            _DIGESTS[key] = digest.hexdigest()
        return _DIGESTS[key]


def _stem(uri: str) -> str:
    """Return a short name of a model, of letters that every table and file name takes."""
    stem = PurePosixPath(uri.partition("?")[0]).name.removesuffix(".onnx")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:_MAX_STEM] or "model"
