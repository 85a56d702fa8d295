"""Images, labels, results and failures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_imagetag.errors import ImageError
from airflow_imagetag.safety.redaction import output_uri, redact

__all__ = [
    "Entry",
    "Failure",
    "Image",
    "Label",
    "RejectedImage",
    "SkippedImage",
    "TagResult",
]

if TYPE_CHECKING:
    from dataclasses import dataclass as _value_class
else:

    def _value_class(*, frozen, slots):
        """Make a dataclass that only type checkers treat as frozen.

        An image, its result and its labels are made for each call. Frozen at run time, they take
        five times as long to make, and so a twentieth of all the time that an image takes.
        """
        return dataclass(slots=slots, unsafe_hash=frozen)


@_value_class(frozen=True, slots=True)
class Image:
    """One image to label.

    Key, URI and version are taken exactly as they are. Each may have 4,096 characters.

    :param key: names the image in every output; unique within a source.
    :param uri: where the image is: an http(s) URL, an object-storage URI (``s3://...``) or a local
        path. Its credentials are never shown.
    :param content: the bytes of the image, if the source has them; preferred to ``uri``.
    :param version: changes when the image behind the key changes, such as an ETag or a timestamp.
    """

    key: str
    uri: str | None = None
    content: bytes | None = None
    version: str | None = None

    @property
    def display_uri(self) -> str | None:
        """The URI as outputs and stores hold it: without passwords and signatures."""
        return None if self.uri is None else output_uri(self.uri)

    def as_dict(self) -> dict[str, str | None]:
        """Return the image without its bytes as the dict that the operator's ``images`` takes."""
        return {"image_key": self.key, "image_uri": self.uri, "version": self.version}

    def __repr__(self) -> str:
        size = "" if self.content is None else f", content=<{len(self.content)} bytes>"
        version = "" if self.version is None else f", version={self.version!r}"
        uri = None if self.uri is None else redact(self.uri)
        return f"Image(key={redact(self.key)!r}, uri={uri!r}{size}{version})"


@dataclass(frozen=True, slots=True)
class RejectedImage:
    """An entry of a source that is not sent, because the entry itself is wrong.

    :param key: names the entry in the failures.
    :param uri: its URI, if it has one.
    :param error: the fault.
    :param version: its version, if it has one.
    :param is_tolerated: such entries are normal for the source, as a product without a photograph
        is, so they are reported and do not make a task fail.
    """

    key: str
    uri: str | None
    error: ImageError
    version: str | None = None
    is_tolerated: bool = False


@dataclass(frozen=True, slots=True)
class SkippedImage:
    """An entry of a source that needs no work, such as the second of two equal ones.

    :param key: names the entry.
    """

    key: str


Entry = Image | RejectedImage | SkippedImage
"""An entry of a source."""


def content_bytes(entry: Entry) -> int:
    """Return the size of the bytes that an entry holds in memory; 0 for one without bytes."""
    return len(entry.content) if isinstance(entry, Image) and entry.content is not None else 0


@_value_class(frozen=True, slots=True)
class Label:
    """One label of an image.

    :param name: the label, in the service's language unless it was renamed.
    :param probability: from 0 to 1.
    :param category: first-level category, from the services that give one.
    :param subcategory: second-level category, likewise.
    :param scene: the scene that the label was asked for, from the services that have scenes.
    :param original: the service's name of a label that a label map renamed.
    """

    name: str
    probability: float
    category: str | None = None
    subcategory: str | None = None
    scene: str | None = None
    original: str | None = None


@_value_class(frozen=True, slots=True)
class TagResult:
    """The labels of one image, the most probable first; there may be none.

    :param image_key: key of the image.
    :param image_uri: URI of the image without credentials; None for bytes without one.
    :param labels: most probable first.
    :param api: the service's interface that answered, such as ``picture_classify``.
    :param tagged_at: when the answer came, in UTC.
    :param request_id: the service's id of the call, if it gives one.
    :param reused: the labels are those of another image with equal bytes, so no call was made.
    :param version: version of the image, if its source has one.
    :param content_sha256: digest of the bytes, in hex; None if the service fetched a URL.
    :param attempts: requests sent for this image.
    """

    image_key: str
    image_uri: str | None
    labels: tuple[Label, ...]
    api: str
    tagged_at: datetime
    request_id: str | None = None
    reused: bool = False
    version: str | None = None
    content_sha256: str | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Failure:
    """An image without labels, and the reason.

    :param image_key: key of the image.
    :param image_uri: URI of the image without credentials.
    :param error: class name of the error.
    :param code: the service's code or HTTP status as text; None if it was not asked.
    :param message: the problem, in words.
    :param attempts: requests sent for this image.
    :param failed_at: when the last of them failed, in UTC.
    :param version: version of the image, if its source has one.
    :param content_sha256: digest of the bytes, in hex, if they were read.
    :param is_final: the bytes or the form of the image are at fault: another try would fail alike.
    :param is_of_image: False where the failure is that of an extra entry for the same key.
    :param is_tolerated: reported, and not counted against ``max_failure_ratio``.
    :param tries: number of runs in which this version of the image failed, this one included.
    :param first_failed_at: when this version failed first, in UTC; None for a fault of the image.
    :param next_try_at: when a run tries the image again, in UTC; None for the next run.
    :param has_given_up: the fault did not pass for a long time, so no run tries the image again.
    :param is_again: the image had failed in an earlier run, too: it is not counted against
        ``max_failure_ratio``.
    """

    image_key: str
    image_uri: str | None
    error: str
    code: str | None
    message: str
    attempts: int
    failed_at: datetime
    version: str | None = None
    content_sha256: str | None = None
    is_final: bool = True
    is_of_image: bool = True
    is_tolerated: bool = False
    tries: int = 1
    first_failed_at: datetime | None = None
    next_try_at: datetime | None = None
    has_given_up: bool = False
    is_again: bool = False
