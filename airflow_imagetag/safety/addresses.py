"""Which hosts are inside a private network, and which are of the internet. No I/O."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import unquote

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PRIVATE_IPV4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        # IANA IPv4 Special-Purpose Address Registry: all that is not globally reachable.
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4"),
        # Multicast (RFC 5771).
        "224.0.0.0/4",
        # Azure's platform, of which a virtual machine asks its settings.
        "168.63.129.16/32",
    )
)
_PUBLIC_IPV4 = tuple(map(ipaddress.IPv4Network, ("192.0.0.9/32", "192.0.0.10/32")))
"""Exceptions in the ranges above: anycast addresses (RFC 7723, RFC 8155)."""

_ALLOCATED_IPV6 = ipaddress.IPv6Network("2000::/3")
"""The only range that IANA gives out for the internet. Outside are loopback, link-local, site-local
and unique local addresses, discard-only ones, SRv6 identifiers, local NAT64 and multicast."""

_PRIVATE_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        # IANA IPv6 Special-Purpose Address Registry: protocol assignments with Teredo, benchmarks
        # and ORCHIDs (which are no addresses of a network), and documentation.
        *("2001::/23", "2001:db8::/32", "3fff::/20"),
    )
)
_PUBLIC_IPV6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        *("2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:3::/32", "2001:4:112::/48"),
    )
)
"""Exceptions in the ranges above: anycast, AMT and AS112."""

_EMBEDDING = tuple(
    (ipaddress.IPv6Network(network), shift)
    for network, shift in (
        # IPv4-mapped, IPv4-translated (RFC 2765), IPv4-compatible.
        *(("::ffff:0:0/96", 0), ("::ffff:0:0:0/96", 0), ("::/96", 0)),
        # NAT64, well-known and local (RFC 6052, RFC 8215).
        *(("64:ff9b::/96", 0), ("64:ff9b:1::/48", 0)),
        # 6to4, and the server of Teredo.
        *(("2002::/16", 80), ("2001::/32", 64)),
    )
)
"""Ranges of IPv6 whose addresses hold one of IPv4, and the number of bits after it."""

_REACHED_AS_IPV4 = tuple(
    map(ipaddress.IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "2002::/16", "::/96"))
)
"""Ranges whose addresses are as public as the IPv4 address inside."""

_ISATAP = 0x5EFE
"""Bits 64 to 96 of an IPv6 address that ends with the IPv4 address of an ISATAP host; the bits for
'global' and 'group' may be set (RFC 5214)."""

REMEMBERED_HOSTS = 1_000
"""Maximum number of hosts whose reading is remembered."""

_PRIVATE_NAMES = ("localhost", "localdomain", "local", "internal", "home.arpa")
"""Domains that are never of the internet (RFC 6761, RFC 6762, RFC 8375, ICANN for 'internal')."""

_PRIVATE_HOSTS = frozenset({"ip6-localhost", "ip6-loopback", "localhost6", "localhost4"})

_FULL_STOPS = re.compile("[\u3002\uff0e\uff61]")
# Zero-width characters and the like, which clients leave out of a name (UTS 46).
_IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u1806\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_NO_HOST = re.compile(r"[\x00-\x20\x7f-\x9f\"#%/:<>?@\[\\\]^`{|}\u2028\u2029\ud800-\udfff]")
"""Characters that no name of a host holds: clients disagree about where such a host ends."""
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_DECIMAL_PARTS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_CONTROL_OR_SPACE = "".join(map(chr, range(0x21)))


def is_private(address: str) -> bool:
    """Tell whether an address is loopback, link-local, private or otherwise not of the internet.

    A text that is no address counts as private, too.
    """
    readings = _addresses(_plain(address))
    return not readings or any(map(_is_special, readings))


def is_address(host: str) -> bool:
    """Tell whether a host is an address and no name, in any form that a client understands."""
    return bool(_addresses(_plain(host)))


def may_be_private_address(host: str) -> bool:
    """Tell whether a host is a private address, or a text that a client may take for one.

    :param host: host of a URL, in any spelling; a plain name is no address.
    """
    plain = _plain(host)
    readings = _addresses(plain)
    return any(map(_is_special, readings)) if readings else _is_undecidable(plain)


def names_private_host(url: str) -> bool:
    """Tell whether a URL itself names a private host, without looking a name up.

    A URL whose host clients may read in several ways counts as private.
    """
    return any(map(_is_private_host, _hosts(url)))


# The URLs of a table have a few hosts, and each takes longer to read than all else in its URL.
@lru_cache(maxsize=REMEMBERED_HOSTS)
def _is_private_host(host: str) -> bool:
    return _is_private_name(_plain(host)) or may_be_private_address(host)


def is_link_local(url: str) -> bool:
    """Tell whether a URL names an address such as that of a cloud's metadata service."""
    return any(map(_is_link_local_host, _hosts(url)))


@lru_cache(maxsize=REMEMBERED_HOSTS)
def _is_link_local_host(host: str) -> bool:
    readings = _addresses(_plain(host))
    return any(
        item.is_link_local for reading in readings for item in (reading, *_embedded(reading))
    )


def _hosts(url: str) -> Iterator[str]:
    """Yield the hosts that clients may find in a URL.

    Browsers leave out tabs and line breaks, take a backslash for a slash and any number of slashes
    for two.
    """
    text = re.sub(r"[\t\r\n]", "", url.strip(_CONTROL_OR_SPACE))
    scheme, colon, rest = text.partition(":")
    if not colon or not scheme.isalnum():
        return
    for location in {rest, rest.replace("\\", "/")}:
        authority = re.split(r"[/?#]", location.lstrip("/"), maxsplit=1)[0]
        # Some clients end the user at the first '@', others at the last.
        for part in authority.split("@")[1:] or [authority]:
            yield _without_port(part)


def _without_port(authority: str) -> str:
    host, colon, port = authority.rpartition(":")
    if authority.startswith("["):
        return authority.rpartition("]")[0] + "]" if "]" in authority else authority
    return host if colon and (not port or port.isdecimal()) else authority


def _plain(host: str) -> str:
    """Return a host as a client may read it: decoded, in plain letters and digits (UTS 46)."""
    text = host
    # What is decoded may be encoded again, or come to need the other step.
    for _ in range(3):
        text = unquote(text, errors="replace")
        text = unicodedata.normalize("NFKC", _FULL_STOPS.sub(".", _IGNORED.sub("", text)))
        text = text.casefold()
    digits = (str(unicodedata.decimal(character, character)) for character in text)
    text = "".join(digits)
    if text.startswith("[") and text.endswith("]"):
        return text[1:-1]
    return text.rstrip(".")


def _is_private_name(plain: str) -> bool:
    return plain in _PRIVATE_HOSTS or any(
        plain == name or plain.endswith(f".{name}") for name in _PRIVATE_NAMES
    )


def _is_undecidable(plain: str) -> bool:
    """Tell whether clients may disagree about a host that is no address."""
    labels = plain.split(".")
    return (
        not all(labels)
        or _NO_HOST.search(plain) is not None
        # Clients take a host that ends in a number for an address, or refuse it.
        or _NUMBER.fullmatch(labels[-1]) is not None
        or any(map(_hides_plain_text, labels))
    )


def _hides_plain_text(label: str) -> bool:
    """Tell whether a label in Punycode stands for plain letters and digits."""
    if not label.startswith("xn--"):
        return False
    try:
        return _plain(label[4:].encode().decode("punycode")).isascii()
    except UnicodeError:
        return True


def _addresses(plain: str) -> list[Address]:
    """Return the addresses that clients may read in a host; none in a name."""
    if ":" in plain:
        try:
            # The zone of a link-local address follows the '%'.
            return [ipaddress.IPv6Address(plain.partition("%")[0])]
        except ValueError:
            return []
    found: list[Address] = []
    # A zero byte is no OSError.
    with contextlib.suppress(OSError, ValueError):
        # '2130706433' and '0x7f.1' are loopback to the parser that connections use.
        found.append(ipaddress.IPv4Address(socket.inet_aton(plain)))
    # A leading zero means an octal number to one client, and nothing to another.
    if _DECIMAL_PARTS.fullmatch(plain) and all(int(part) < 256 for part in plain.split(".")):
        found.append(ipaddress.IPv4Address(bytes(map(int, plain.split(".")))))
    return found


def _is_special(address: Address) -> bool:
    """Tell whether an address is not of the internet."""
    if isinstance(address, ipaddress.IPv4Address):
        is_exception = any(address in network for network in _PUBLIC_IPV4)
        return not is_exception and any(address in network for network in _PRIVATE_IPV4)
    inner = _embedded(address)
    if any(address in network for network in _REACHED_AS_IPV4):
        return any(map(_is_special, inner))
    if address not in _ALLOCATED_IPV6 or any(map(_is_special, inner)):
        return True
    is_exception = any(address in network for network in _PUBLIC_IPV6)
    return not is_exception and any(address in network for network in _PRIVATE_IPV6)


def _embedded(address: Address) -> list[ipaddress.IPv4Address]:
    """Return the IPv4 addresses that an IPv6 address may lead to, where it is made of one."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    number = int(address)
    shifts = [shift for network, shift in _EMBEDDING if address in network]
    if (number >> 32) & 0xFCFFFFFF == _ISATAP:
        shifts.append(0)
    found = [(number >> shift) & 0xFFFFFFFF for shift in shifts]
    if address in ipaddress.IPv6Network("2001::/32"):
        # The client of Teredo has all bits of its address inverted.
        found.append(~number & 0xFFFFFFFF)
    if address in ipaddress.IPv6Network("64:ff9b:1::/48"):
        # A prefix of 48 bits has the address in two parts, around eight zero bits.
        found.append(((number >> 64) & 0xFFFF) << 16 | (number >> 40) & 0xFFFF)
    return [ipaddress.IPv4Address(item) for item in found]
