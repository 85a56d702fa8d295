"""The URL of a request, byte for byte as it was given.

A signature of a URL is over its text: a client that writes ``%2F``, ``%28`` or ``%e5`` in another
way gets an answer of 403.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin

if TYPE_CHECKING:
    from yarl import URL

_PARTS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?P<authority>[^/?#]*)(?P<target>.*)")
_AUTHORITY = re.compile(
    r"(?:.*@)?(?P<host>\[[^\[\]@]*\]|[^:@\[\]\\]*)(?::(?P<port>[0-9]*))?", re.DOTALL
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ASCII_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class RequestUrl:
    """The parts of a URL that a request needs; a user and a password are left out.

    :param host: the host as it is connected to, in ASCII.
    :param page: the URL with path and query apart, for cookies.
    :param wire: the URL to give to aiohttp, which sends its path as it is.
    """

    host: str
    page: URL
    wire: URL


def parsed(url: str) -> RequestUrl:
    """Return the parts of a URL, whose path and query stay as they are.

    Only spaces and characters outside ASCII are percent-encoded: no request line can hold them.

    :raises ValueError: the text is not a URL, or holds control characters.
    """
    from yarl import URL

    parts = _PARTS.fullmatch(url)
    authority = _AUTHORITY.fullmatch(parts["authority"]) if parts else None
    if parts is None or authority is None or _CONTROL.search(url):
        raise ValueError(url)
    scheme = parts["scheme"].lower()
    # yarl writes names in other scripts as name servers know them.
    host = URL(f"{scheme}://{authority['host']}/").raw_host or ""
    port = int(authority["port"]) if authority["port"] else None
    if port is not None and port > _MAX_PORT:
        raise ValueError(url)
    target = _encoded(parts["target"].partition("#")[0])
    if not target.startswith("/"):
        target = f"/{target}"
    place = URL.build(scheme=scheme, host=host, port=port).raw_authority
    path, _, query = target.partition("?")
    return RequestUrl(
        host,
        page=URL.build(scheme=scheme, authority=place, path=path, query_string=query, encoded=True),
        # As one path: yarl leaves out the mark of an empty query.
        wire=URL.build(scheme=scheme, authority=place, path=target, encoded=True),
    )


def joined(url: str, location: str) -> str:
    """Return the URL that a redirect leads to; what the location says stays as it is.

    :param url: the URL that answered.
    :param location: the header Location.
    """
    location = location.strip(" \t")
    base = url.partition("#")[0]
    if _SCHEME.match(location):
        return location
    scheme, _, rest = base.partition("://")
    if location.startswith("//"):
        return f"{scheme}:{location}"
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if location.startswith("/"):
        return f"{scheme}://{authority}{location}"
    page = base.partition("?")[0]
    if location.startswith("?"):
        return f"{page}{location}"
    if not location.partition("#")[0]:
        return base
    path, mark, query = location.partition("#")[0].partition("?")
    # A stand-in for the host: user data there would make the parser refuse the whole.
    folder = page[len(f"{scheme}://{authority}") :]
    merged = urljoin(f"http://host{folder or '/'}", f"./{path}").removeprefix("http://host")
    return f"{scheme}://{authority}{merged}{mark}{query}"


def _encoded(target: str) -> str:
    """Return path and query with nothing but spaces and characters outside ASCII encoded.

    Bytes of a header that are no UTF-8 were decoded as surrogates and come back as they were.
    """
    return quote(target, safe=_ASCII_PRINTABLE, errors="surrogateescape")
