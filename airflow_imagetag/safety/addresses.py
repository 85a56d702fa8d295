"""Tells hosts of private networks from hosts of the internet. No I/O."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses that a NAT64 gateway translates into IPv4 (RFC 6052)."""
_COMPATIBLE = ipaddress.IPv6Network("::/96")
"""An older form of IPv4 addresses, except ``::`` and ``::1``."""


def is_private(address: str) -> bool:
    """Tell whether an address is loopback, link-local, private or otherwise not global.

    A text that is not an address counts as private.
    """
    parsed = _parsed(address)
    return parsed is None or not parsed.is_global or parsed.is_multicast


def is_address(host: str) -> bool:
    """Tell whether a host is an address, in any form that the system accepts, and not a name."""
    return _parsed(host) is not None


def names_private_host(url: str) -> bool:
    """Tell whether a URL contains a private address or name; names are not looked up."""
    host = _host(url)
    if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
        return True
    return is_address(host) and is_private(host)


def is_link_local(url: str) -> bool:
    """Tell whether a URL names a link-local address, such as a cloud's metadata service."""
    parsed = _parsed(_host(url))
    return parsed is not None and parsed.is_link_local


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").rstrip(".").lower()
    except ValueError:
        return ""


def _parsed(host: str) -> Address | None:
    try:
        address: Address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            # The parser of connections takes '2130706433' and '0x7f.1' for loopback.
            address = ipaddress.IPv4Address(socket.inet_aton(host))
        # A zero byte raises a ValueError.
        except (OSError, ValueError):
            return None
    return address if isinstance(address, ipaddress.IPv4Address) else _inner(address)


def _inner(address: ipaddress.IPv6Address) -> Address:
    """Return the IPv4 address that an IPv6 address embeds, or the address itself."""
    if inner := address.ipv4_mapped or address.sixtofour:
        return inner
    if address in _TRANSLATED or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
