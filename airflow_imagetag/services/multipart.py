"""Build bodies of multipart/form-data (RFC 7578) at once: HTTP clients build them in pieces."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

BOUNDARY_BYTES = 16
"""Number of random bytes of a boundary."""

BOUNDARIES_PER_DRAW = 256
"""Number of boundaries of one system call for random bytes, which costs as much for one."""


class Form:
    """A form with one file; it can be filled any number of times.

    :param fields: names and values of the other fields, of plain characters.
    :param name: name of the file's field, and its file name.
    """

    def __init__(self, fields: Mapping[str, str], name: str) -> None:
        others = [
            f'\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n--'
            for field, value in fields.items()
        ]
        file = (
            f'\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        # The text before, between and behind the boundaries.
        self._parts = ("--", *others, file)
        self._boundaries: list[str] = []

    def fill(self, content: bytes) -> tuple[str, tuple[bytes, ...]]:
        """Return content type and body, in pieces, with this file."""
        # A new random boundary for each body: no file can be made to hold it.
        try:
            boundary = self._boundaries.pop()
        except IndexError:
            boundary = self._draw()
        head = boundary.join(self._parts).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        return f"multipart/form-data; boundary={boundary}", (head, content, tail)

    def _draw(self) -> str:
        """Draw boundaries, keep all but one of them, and return that one; safe in threads."""
        random = secrets.token_bytes(BOUNDARY_BYTES * BOUNDARIES_PER_DRAW)
        first, *self._boundaries = random.hex(" ", BOUNDARY_BYTES).split()
        return first
