"""A labeller for a model in this process: decodes an image and classifies it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_imagetag.errors import ImageEmptyError
from airflow_imagetag.labellers.base import Prepared
from airflow_imagetag.labellers.loading import LoadingLabeller, in_thread
from airflow_imagetag.labellers.model_input import decode
from airflow_imagetag.loading.content import ContentLoader
from airflow_imagetag.loading.preflight import ImagePreflight
from airflow_imagetag.models import TagResult
from airflow_imagetag.runtime.threads import DaemonExecutor
from airflow_imagetag.services.messages import Payload

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from airflow_imagetag.classifiers.classifier import Classifier


# As ``Prepared``: one is made for every image.
@dataclass(slots=True)
class Decoded(Prepared):
    """An image whose bytes are decoded and dropped.

    :param picture: in the size of the model's input.
    """

    picture: Picture


class LocalLabeller(LoadingLabeller):
    """Label images with a model in this process; an async context, entered once.

    Decoding and labelling share one pool of threads, so that no more cores are taken than asked
    for; reading and hashing have threads of their own, which mostly wait.

    :param open_classifier: returns the model; called in a thread when the labeller is entered.
    :param api: name of the model in the results.
    :param loader: loads images under the rules of trust, and downloads http(s) URLs.
    :param preflight: checks images against ``LOCAL_LIMITS``.
    :param threads: number of images that are decoded or labelled at the same time.
    :param max_connections: maximum number of images that are read at the same time.
    """

    def __init__(
        self,
        open_classifier: Callable[[], Classifier],
        api: str,
        loader: ContentLoader,
        preflight: ImagePreflight,
        *,
        threads: int,
        max_connections: int,
    ) -> None:
        super().__init__(loader, max_connections=max_connections)
        self._open_classifier = open_classifier
        self._api = api
        self._preflight = preflight
        self._working = DaemonExecutor(threads, "imagetag-model")
        self._classifier: Classifier | None = None

    async def open_resources(self, resources: AsyncExitStack) -> None:
        """Open the model.

        :raises ConfigurationError: it cannot be used.
        """
        resources.callback(self._working.shutdown)
        self._classifier = await in_thread(self._working, self._open_classifier)

    @property
    def classifier(self) -> Classifier:
        """The model, while the labeller is open.

        :raises RuntimeError: the labeller is not open.
        """
        if self._classifier is None:
            raise RuntimeError("The labeller is not open. Use 'async with'.")
        return self._classifier

    async def fit(self, prepared: Prepared) -> Prepared:
        """Decode the image into the size of the model's input; its bytes are no longer needed.

        :raises ImageError: the image cannot be decoded, or has too many pixels.
        """
        image, payload = prepared.image, prepared.payload
        self._preflight.fit(image, payload)
        if not payload.content:
            raise ImageEmptyError("The image is empty: it has zero bytes. Replace it.")
        picture = await in_thread(self._working, decode, payload.content, self.classifier.view)
        return Decoded(image, Payload(digest=payload.digest), picture)

    async def call(self, prepared: Prepared) -> TagResult:
        """Return the labels of a decoded image.

        :raises ImageRefusedError: the model has no answer for the image.
        :raises ConfigurationError: the model failed.
        """
        if not isinstance(prepared, Decoded):
            raise TypeError("fit must go before call.")
        image = prepared.image
        labels = await in_thread(self._working, self.classifier.labels, prepared.picture)
        return TagResult(
            image_key=image.key,
            image_uri=image.display_uri,
            labels=labels,
            api=self._api,
            tagged_at=datetime.now(UTC),
            version=image.version,
            content_sha256=prepared.payload.sha256,
        )
