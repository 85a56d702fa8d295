"""Bodies of multipart/form-data (RFC 7578), made at once: clients make them piece by piece."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

BOUNDARY_BYTES = 16

DRAWN = 256
"""Boundaries that are drawn together: the system's chance costs as much for one."""


class Form:
    """A form with one file, for any number of files.

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
        # What stands before, between and behind the boundaries.
        self._parts = ("--", *others, file)
        self._boundaries: list[str] = []

    def fill(self, content: bytes) -> tuple[str, tuple[bytes, ...]]:
        """Return content type and body, in pieces, with this file."""
        # Drawn at random for each form, it does not occur in the file, whoever made that.
        boundary = self._boundary()
        head = boundary.join(self._parts).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        return f"multipart/form-data; boundary={boundary}", (head, content, tail)

    def _boundary(self) -> str:
        try:
            return self._boundaries.pop()
        except IndexError:
            drawn = secrets.token_bytes(BOUNDARY_BYTES * DRAWN).hex(" ", BOUNDARY_BYTES).split()
            self._boundaries = drawn[1:]
            return drawn[0]
