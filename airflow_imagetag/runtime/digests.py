"""Digests that tell equal bytes from different ones.

Stores keep SHA-256, on which all runs and machines agree. A run that keeps nothing, such as one
that returns a DataFrame, uses a keyed hash that has a meaning in its own process only, and takes a
fraction of the time.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable

Digest = str | bytes

NONCE_BYTES = 12
"""Length of the nonce for which AES-GCM is specified."""

MAX_TAGGED_BYTES = 2**31 - 1
"""Maximum number of bytes that OpenSSL's interface takes in one call."""


def sha256(content: bytes) -> str:
    """Return the SHA-256 of the bytes, in hex."""
    return hashlib.sha256(content).hexdigest()


def keyed_hasher(*, max_tagged_bytes: int = MAX_TAGGED_BYTES) -> Callable[[bytes], bytes]:
    """Return a function that hashes bytes under a new random key.

    The hash is the tag of AES-GCM for data that is not encrypted (GMAC, NIST SP 800-38D), for which
    processors have instructions. It is a universal hash: two different images of n bytes have the
    same tag with a probability of about n / 2**132, also if they were made to collide, as long as
    the key is secret. So neither the key nor a tag may leave the process.

    :param max_tagged_bytes: size above which the SHA-256 is returned instead.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    # The nonce is the same for all, or equal bytes would have different tags. With one nonce, the
    # key could be computed from the tags; but they stay in this process.
    nonce = secrets.token_bytes(NONCE_BYTES)
    tag = AESGCM(AESGCM.generate_key(128)).encrypt

    def keyed_hash(content: bytes) -> bytes:
        if len(content) > max_tagged_bytes:
            return hashlib.sha256(content).digest()
        return tag(nonce, b"", content)

    return keyed_hash
