"""Bodies of multipart/form-data (RFC 7578), made at once: clients make them piece by piece."""

from __future__ import annotations

import secrets
from collections.abc import Mapping


def multipart(fields: Mapping[str, str], name: str, content: bytes) -> tuple[str, bytes]:
    """Return content type and body of a form with one file.

    :param fields: names and values of the other fields, of plain characters.
    :param name: name of the file's field, and its file name.
    :param content: the file.
    """
    # Drawn at random, it does not occur in the file.
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    head = "".join(parts).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", b"".join((head, content, tail))
