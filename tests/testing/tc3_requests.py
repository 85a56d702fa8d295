"""Requests of TIIA built by hand, including invalid ones."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

import requests
from requests.structures import CaseInsensitiveDict

from airflow_imagetag.testing import Emulator

SECRET_ID = "AKIDemulator0000000000000000000000"
SECRET_KEY = "emulatorSecretKey000000000000000"


def sign(
    headers: CaseInsensitiveDict[str],
    body: bytes,
    *,
    signed: str = "content-type;host",
    secret_id: str = SECRET_ID,
    secret_key: str = SECRET_KEY,
    date: str | None = None,
    service: str = "tiia",
    path: str = "/",
) -> str:
    """Return an Authorization value whose signature fits its fields, even if those are wrong."""
    timestamp = headers["X-TC-Timestamp"]
    date = date or datetime.fromtimestamp(int(timestamp), UTC).strftime("%Y-%m-%d")
    canonical = "".join(f"{name}:{headers.get(name, '').lower()}\n" for name in signed.split(";"))
    digest = hashlib.sha256(body).hexdigest()
    request = f"POST\n{path}\n\n{canonical}\n{signed}\n{digest}"
    scope = f"{date}/{service}/tc3_request"
    text = f"TC3-HMAC-SHA256\n{timestamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"TC3{secret_key}".encode()
    for part in (date, service, "tc3_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return (
        f"TC3-HMAC-SHA256 Credential={secret_id}/{scope}, "
        f"SignedHeaders={signed}, Signature={signature}"
    )


def good_headers(host: str, body: bytes, *, now: float | None = None) -> CaseInsensitiveDict[str]:
    """Return the headers of a good request for DetectLabelPro."""
    headers = CaseInsensitiveDict(
        {
            "Host": host,
            "Content-Type": "application/json",
            "X-TC-Action": "DetectLabelPro",
            "X-TC-Version": "2019-05-29",
            "X-TC-Timestamp": str(int(time.time() if now is None else now)),
            "X-TC-Region": "ap-guangzhou",
        }
    )
    headers["Authorization"] = sign(headers, body)
    return headers


class TiiaClient:
    """Posts to an emulator, with a good signature by default."""

    def __init__(self, emulator: Emulator, session: requests.Session) -> None:
        self.emulator = emulator
        self.session = session

    def send(
        self,
        body: bytes | dict[str, Any],
        action: str = "DetectLabelPro",
        *,
        method: str = "POST",
        changes: dict[str, str | None] | None = None,
    ) -> requests.Response:
        """Send a body; changes of headers precede the signature.

        A change to None removes the header. A given Authorization is sent unchanged.
        """
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = good_headers(f"127.0.0.1:{self.emulator.port}", sent)
        changed = {"X-TC-Action": action, **(changes or {})}
        headers.update({name: value for name, value in changed.items() if value is not None})
        if "Authorization" not in changed:
            headers["Authorization"] = sign(headers, sent)
        kept = {name: value for name, value in headers.items() if changed.get(name, "") is not None}
        return self.session.request(method, self.emulator.url, data=sent, headers=kept, timeout=60)


def code_of(response: requests.Response) -> str:
    """Return the code of an error, after a check of status, message and request id."""
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()["Response"]
    assert set(answer) == {"Error", "RequestId"}
    assert answer["Error"]["Message"]
    return answer["Error"]["Code"]
