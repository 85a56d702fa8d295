"""Choose proxy and certificates for both HTTP clients, so that they behave alike.

Both clients ignore the environment otherwise: each has its own precedence, and both would let an
entry in a ``.netrc`` file replace the signature.
"""

from __future__ import annotations

import os
import ssl
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from airflow_imagetag.errors import ConfigurationError
from airflow_imagetag.services.account import Account

_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def proxy_url(account: Account) -> str | None:
    """Return the proxy for the account's endpoint; None to connect directly.

    The connection's ``proxy`` goes first, then ``HTTP_PROXY`` and ``HTTPS_PROXY`` unless
    ``NO_PROXY`` names the host.
    """
    if account.proxy is not None:
        return account.proxy
    endpoint = urlsplit(account.endpoint)
    if urllib.request.proxy_bypass(endpoint.netloc):
        return None
    proxy = urllib.request.getproxies().get(endpoint.scheme)
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def ca_file(account: Account) -> str | bool:
    """Return the authorities to check certificates with, in the form that requests takes.

    The connection's ``verify`` goes first, then the environment variables that requests and curl
    know, so that both clients trust the same authorities; without either, those of certifi.
    """
    if account.verify is not True:
        return account.verify
    for variable in _CA_VARIABLES:
        if path := os.environ.get(variable):
            return path
    return True


def ssl_context(account: Account) -> ssl.SSLContext | bool:
    """Return the authorities to check certificates with, in the form that aiohttp takes.

    :raises ConfigurationError: the file of certificate authorities cannot be read.
    """
    verify = ca_file(account)
    if verify is False:
        return False
    if verify is True:
        import certifi

        verify = certifi.where()
    try:
        if Path(verify).is_dir():
            return ssl.create_default_context(capath=verify)
        return ssl.create_default_context(cafile=verify)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"The file of certificate authorities {verify!r} cannot be read: {error}"
        ) from None
