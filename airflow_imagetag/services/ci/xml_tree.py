"""Read small XML documents, without entities and with a limit of nesting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

MAX_DEPTH = 16
"""Maximum nesting of elements; the vendor's answers have four levels."""


@dataclass(slots=True)
class Element:
    """An element of a document.

    :param name: its name, without the prefix of a name space.
    :param text: the text right in it.
    """

    name: str
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def find_all(self, name: str) -> Iterator[Element]:
        """Yield the children of this name."""
        return (child for child in self.children if child.name == name)

    def text_of(self, name: str) -> str | None:
        """Return the text of the first child of this name, without margins; None without one."""
        return next((child.text.strip() for child in self.find_all(name)), None)


def parse(body: bytes) -> Element | None:
    """Return the root of a document; None for a body that is none, or that is nested too deeply."""
    builder = _Builder()
    parser = expat.ParserCreate()
    # Of a text that entities interrupt, one call brings all.
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.add_text
    # Entities are declared there; none of the vendor's answers has any.
    parser.StartDoctypeDeclHandler = builder.refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, _RefusedError, LookupError, ValueError):
        return None
    return builder.root


class _RefusedError(Exception):
    """The document is not read to its end."""


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        del attributes
        if len(self._open) >= MAX_DEPTH:
            raise _RefusedError
        element = Element(name.rpartition(":")[2])
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, name: str) -> None:
        del name
        self._open.pop()

    def add_text(self, text: str) -> None:
        self._open[-1].text += text

    def refuse(self, *declaration: object) -> None:
        del declaration
        raise _RefusedError
