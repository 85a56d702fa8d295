"""Private: endings of the names of images, and the objects that have others."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable

log = logging.getLogger(__name__)

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
"""By format, as Pillow names it."""

SHOWN = 5
"""Maximum number of different endings that the log shows."""

_SUFFIX = re.compile(r"[^/](\.[^./]{1,8})$")

_TOLD: dict[str, Counter[str]] = {}
"""What the log has said of each path: a sensor lists the same objects every minute."""


def suffixes_of(formats: Iterable[str] | None) -> tuple[str, ...]:
    """Return the endings, in lower case, of the names of images in these formats.

    :param formats: as Pillow names them; None for all that are usual.
    """
    chosen = SUFFIXES if formats is None else formats
    return tuple(suffix for name in sorted(chosen) for suffix in _of_format(name))


def _of_format(name: str) -> tuple[str, ...]:
    return SUFFIXES.get(name, (f".{name.lower()}",))


class LeftOut:
    """The objects below a path that are no images by name.

    :param path: the path as the log shows it.
    :param advice: what brings them in, for the log.
    """

    def __init__(self, path: str, advice: str) -> None:
        self._path = path
        self._advice = advice
        self._counts: Counter[str] = Counter()

    def add(self, name: str) -> None:
        """Count an object."""
        found = _SUFFIX.search(name)
        self._counts[found[1].lower() if found else "no suffix"] += 1

    def report(self) -> None:
        """Log the numbers by ending, unless they are those that were logged last for this path."""
        counts = self._counts
        if not counts or _TOLD.get(self._path) == counts:
            return
        _TOLD[self._path] = counts
        first = dict(counts.most_common(SHOWN))
        shown = [f"{suffix}: {count:,}" for suffix, count in first.items()]
        if rest := counts.total() - sum(first.values()):
            shown.append(f"others: {rest:,}")
        log.warning(
            "%s: left out %d objects by their names (%s). %s",
            self._path,
            counts.total(),
            ", ".join(shown),
            self._advice,
        )
