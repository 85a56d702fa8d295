"""The request signature of Cloud Object Storage, which Cloud Infinite takes as well.

Source: the vendor's page on it, https://cloud.tencent.com/document/product/436/7778, and the class
that its client signs with. The client writes both times of the signature alike, and so does this.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import quote

ALGORITHM = "sha1"


def sign_cos(
    secret_id: str,
    secret_key: str,
    *,
    method: str,
    path: str,
    params: Mapping[str, str],
    headers: Mapping[str, str],
    begins: int,
    ends: int,
) -> str:
    """Return the value of the ``Authorization`` header.

    The function is pure.

    :param secret_id: the SecretId of the key.
    :param secret_key: the SecretKey of the key.
    :param method: HTTP method.
    :param path: path of the URL, with the slash and without any percent-encoding.
    :param params: parameters of the query that are signed, without any percent-encoding.
    :param headers: headers that are signed, such as ``host``.
    :param begins: begin of the signature's life, in Unix seconds.
    :param ends: end of its life, in Unix seconds.
    """
    times = f"{begins};{ends}"
    signed_params, param_names = _canonical(params)
    signed_headers, header_names = _canonical(headers)
    http_string = f"{method.lower()}\n{path}\n{signed_params}\n{signed_headers}\n"
    digest = hashlib.sha1(http_string.encode(), usedforsecurity=False).hexdigest()
    key = hmac.digest(secret_key.encode(), times.encode(), ALGORITHM).hex()
    text = f"{ALGORITHM}\n{times}\n{digest}\n"
    signature = hmac.digest(key.encode(), text.encode(), ALGORITHM).hex()
    return (
        f"q-sign-algorithm={ALGORITHM}&q-ak={secret_id}&q-sign-time={times}&q-key-time={times}"
        f"&q-header-list={header_names}&q-url-param-list={param_names}&q-signature={signature}"
    )


def encode(text: str) -> str:
    """Return a text with all but letters, digits and ``-_.~`` percent-encoded."""
    return quote(text, safe="-_.~")


def _canonical(pairs: Mapping[str, str]) -> tuple[str, str]:
    """Return pairs as the signature takes them, and the list of their names."""
    encoded = sorted((encode(name).lower(), encode(value)) for name, value in pairs.items())
    together = "&".join(f"{name}={value}" for name, value in encoded)
    return together, ";".join(name for name, _ in encoded)
