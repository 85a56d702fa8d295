"""Values that are equal for equal bytes, and for no others.

SHA-256 is what a store keeps, and what runs and machines agree upon. Where nothing is kept, as in a
run that returns a DataFrame, a value that means something in this process only is made in a tenth
of the time.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

Digest = str | bytes

NONCE_BYTES = 12

MAX_TAGGED_BYTES = 2**31 - 1
"""OpenSSL's interface takes no more at once."""


def sha256(content: bytes) -> str:
    """Return the SHA-256 of the bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def keyed_hasher() -> Callable[[bytes], bytes]:
    """Return a function that makes a few bytes of any bytes, under a random key of its own.

    They are the tag of AES-GCM for data that is not encrypted (GMAC, NIST SP 800-38D), for which
    processors have instructions. It is a universal hash: two different images of n bytes have the
    same tag with a chance of some n / 2**132, whoever made them, as long as nobody knows the key.
    So neither it nor a tag may leave the process.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    # One nonce for all: a tag under a new one would not be equal for equal bytes. Who saw tags
    # could then compute the key, and nobody does.
    nonce = secrets.token_bytes(NONCE_BYTES)
    tag = AESGCM(AESGCM.generate_key(128)).encrypt

    def fingerprint(content: bytes) -> bytes:
        if len(content) > MAX_TAGGED_BYTES:
            return hashlib.sha256(content).digest()
        return tag(nonce, b"", content)

    return fingerprint
