"""Stores with photographs, and texts that attack a page."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path

from databases import API, NOON

from airflow_imagetag.models import Failure, Label, TagResult
from airflow_imagetag.stores import LabelStore

HOSTILE = [
    "<script>alert(1)</script>",
    '"><svg onload=alert(1)>',
    "'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "</style><script>alert(1)</script>",
    "</textarea><iframe src=//evil.example>",
    "<img src=//evil.example/x.png srcset=//evil.example/y.png>",
    "</title></svg><style>body{display:none}</style>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<base href=//evil.example/><form action=//evil.example>",
    '" autofocus onfocus=alert(1) x="',
    "{{ 7 * 7 }}{% raw %}",
    "${alert(1)} #{7*7} <%= 7 * 7 %>",
    "&lt;script&gt;",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "a\u202egnp.exe",
    "\u2066right to left\u2069",
    "nul\0byte",
    "bell\x07 and \x1b[31m",
    "line\u2028break",
    "x" * 100_000,
    "W" * 250,
    "\u0301" * 500,
    "猫" * 300,
]
"""Labels, keys and messages that would harm a page that believed them."""


def hostile_texts(count: int) -> list[str]:
    """Return different hostile texts."""
    return [f"{HOSTILE[number % len(HOSTILE)]}{number}" for number in range(count)]


def photographed(paths: Iterable[Path], count: int) -> list[TagResult]:
    """Return the results of images that are files."""
    shown = list(paths)
    return [
        TagResult(
            f"shop/{number:04d}/{shown[number % len(shown)].name}",
            str(shown[number % len(shown)]),
            (
                Label("tabby" if number % 3 == 0 else "dog", round(0.05 + number % 10 / 10, 2)),
                Label("cat", 0.04),
            ),
            API,
            NOON + timedelta(hours=number),
            version="v1",
        )
        for number in range(count)
    ]


def attacked(count: int) -> list[TagResult | Failure]:
    """Return results and failures whose every text is hostile."""
    outcomes: list[TagResult | Failure] = []
    for number, text in enumerate(hostile_texts(count)):
        key = f"{text[:4000]}{number}"
        if number % 3 == 0:
            outcomes.append(Failure(key, text[:4000], "Error", text[:100], text, 1, NOON))
        else:
            outcomes.append(TagResult(key, text[:4000], (Label(text, 0.5, text),), API, NOON))
    return outcomes


def write(store: LabelStore, outcomes: Iterable[TagResult | Failure], api: str = API) -> None:
    """Write outcomes to a store."""
    with store.open(api) as opened:
        opened.write(list(outcomes))


class Page(HTMLParser):
    """Elements and attributes of a page.

    :param text: its HTML.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Take note of a text."""
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        """All texts."""
        return " ".join(self.words)
