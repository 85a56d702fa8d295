"""Decode the body of a response, within a limit of bytes."""

from __future__ import annotations

import zlib

_GZIP_WINDOW = 16 + zlib.MAX_WBITS

_MAX_MEMBERS = 16
"""Maximum number of gzip members of one body. zlib copies the rest of the body after each of them,
so that thousands of empty members would cost minutes."""


class BodyError(Exception):
    """A body that cannot be decoded."""


class BodyTooLargeError(BodyError):
    """A body that is larger than the limit, before or after it is decoded."""


class UnknownEncodingError(BodyError):
    """A body in a content encoding that was not asked for and cannot be read here."""


class DamagedBodyError(BodyError):
    """A body that is not in the encoding that its headers name, or ends too early."""


def decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return the body without its content encoding.

    At most ``max_bytes`` and one byte are unpacked, however small the packed body is.

    :param encoding: value of the header Content-Encoding; empty for none.
    :param max_bytes: maximum size of the decoded body.
    :raises BodyTooLargeError: the body is larger.
    :raises UnknownEncodingError: the encoding is none of identity, gzip and deflate, or several.
    :raises DamagedBodyError: the body is not in this encoding.
    """
    encodings = [name for item in encoding.split(",") if (name := item.strip().lower())]
    match [name for name in encodings if name != "identity"]:
        case []:
            unpacked = body
        case ["gzip" | "x-gzip"]:
            unpacked = _inflated(body, _GZIP_WINDOW, max_bytes)
        case ["deflate"]:
            unpacked = _inflated(body, _deflate_window(body), max_bytes)
        case _:
            raise UnknownEncodingError(encoding)
    if len(unpacked) > max_bytes:
        raise BodyTooLargeError
    return unpacked


def _deflate_window(body: bytes) -> int:
    """Return zlib's window for a deflate body, which some servers send without its header."""
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


def _inflated(body: bytes, window: int, max_bytes: int) -> bytes:
    unpacked = bytearray()
    members = 0
    while body:
        members += 1
        if members > _MAX_MEMBERS:
            raise DamagedBodyError
        inflater = zlib.decompressobj(window)
        try:
            unpacked += inflater.decompress(body, max_bytes + 1 - len(unpacked))
        except zlib.error:
            if members > 1:
                # Padding after the last member, which other clients ignore, too.
                break
            raise DamagedBodyError from None
        if len(unpacked) > max_bytes:
            raise BodyTooLargeError
        if not inflater.eof:
            raise DamagedBodyError
        body = inflater.unused_data
    return bytes(unpacked)
