"""Reading a multipart/form-data body that is already in memory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_PARAMETER: Final = re.compile(r';\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')


class MultipartError(ValueError):
    """The body is not multipart/form-data."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of the form.

    :param is_file: whether the part names a file, as the part of an upload does.
    """

    content: bytes
    is_file: bool


def read_form(content_type: str, body: bytes) -> dict[str, Part]:
    """Return the fields of the form by name; of a repeated name the last.

    :param content_type: value of the Content-Type header, which holds the boundary.
    :param body: the whole body.
    :raises MultipartError: when the boundary is missing or the body does not keep to it.
    """
    boundary = _parameters(content_type).get("boundary", "")
    if not boundary:
        raise MultipartError("Content-Type names no boundary")
    delimiter = b"\r\n--" + boundary.encode()
    # The first delimiter has no line before it; a line break in front makes it like the others.
    _preamble, *sections = (b"\r\n" + body).split(delimiter)
    if not sections or not sections.pop().startswith(b"--"):
        raise MultipartError("the closing boundary is missing")
    return dict(_read_part(section) for section in sections)


def _read_part(section: bytes) -> tuple[str, Part]:
    head, separator, content = section.partition(b"\r\n\r\n")
    if not separator:
        raise MultipartError("a part has no end of headers")
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            parameters = _parameters(value)
            if "name" not in parameters:
                raise MultipartError("a part has no name")
            return parameters["name"], Part(content, "filename" in parameters)
    raise MultipartError("a part has no Content-Disposition")


def _parameters(value: str) -> dict[str, str]:
    return {
        match[1].lower(): match[2] if match[2] is not None else match[3]
        for match in _PARAMETER.finditer(value)
    }
