"""The XML interface of Google Cloud Storage in front of an emulator of the JSON one.

Libraries that do not come from Google, such as the one for Delta tables, read and write by it.
Small objects only: no upload in parts. Requests of the JSON interface are handed on.
"""

from __future__ import annotations

import email.utils
import json
import re
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit
from xml.sax.saxutils import escape

from web_servers import Handler

JSON_PATHS = re.compile(r"/(b|batch|download|storage|upload)(/|$)")
HANDED_ON = ("Authorization", "Content-Type", "Content-Range", "Host", "Range")
CREATED = threading.Lock()


class XmlInterface(Handler):
    """Answers by either interface; a subclass names the emulator."""

    emulator: str
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        """Answer."""
        self.answer()

    def do_PUT(self) -> None:
        """Answer."""
        self.answer()

    def do_DELETE(self) -> None:
        """Answer."""
        self.answer()

    def answer(self) -> None:
        """Answer by the path."""
        address = urlsplit(self.path)
        bucket, _, name = unquote(address.path).lstrip("/").partition("/")
        if JSON_PATHS.match(address.path):
            headers = {key: self.headers[key] for key in HANDED_ON if key in self.headers}
            status, body, given = self._ask(self.path, self.body(), self.command, headers)
            wanted = ("Content-Type", "Location", "Content-Range")
            self.respond(body, status=status, headers={k: given[k] for k in wanted if k in given})
        elif name:
            getattr(self, f"_{self.command.lower()}")(bucket, name)
        else:
            query = {key: value for key, [value] in parse_qs(address.query).items()}
            self.respond(self._list(bucket, query).encode())

    def _ask(
        self,
        path: str,
        body: bytes | None = None,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes, Mapping[str, str]]:
        request = urllib.request.Request(
            self.emulator + path, body or None, dict(headers or {}), method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), dict(error.headers)

    def _about(self, bucket: str, name: str) -> dict[str, Any] | None:
        status, body, _ = self._ask(_object(bucket, name))
        found: dict[str, Any] | None = json.loads(body) if status == 200 else None
        return found

    def _list(self, bucket: str, query: Mapping[str, str]) -> str:
        wanted = {key: query[key] for key in ("prefix", "delimiter") if key in query}
        _, body, _ = self._ask(f"/storage/v1/b/{bucket}/o?{urlencode(wanted)}")
        found = json.loads(body)
        objects = "".join(
            f"<Contents><Key>{escape(one['name'])}</Key><Size>{one['size']}</Size>"
            f"<LastModified>{one['updated']}</LastModified><ETag>{one['etag']}</ETag></Contents>"
            for one in found.get("items", [])
            if one["name"] > query.get("start-after", "")
        )
        folders = "".join(
            f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>"
            for one in found.get("prefixes", [])
        )
        return f"<ListBucketResult>{objects}{folders}</ListBucketResult>"

    def _get(self, bucket: str, name: str) -> None:
        about = self._about(bucket, name)
        if about is None:
            self.respond(status=404)
            return
        changed = datetime.fromisoformat(about["updated"])
        headers = {
            "ETag": about["etag"],
            "Last-Modified": email.utils.format_datetime(changed, usegmt=True),
        }
        _, content, _ = self._ask(f"{_object(bucket, name)}?alt=media")
        size = len(content)
        if found := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
            first, last = found.groups()
            begin = int(first) if first else size - int(last)
            content = content[begin : int(last) + 1 if first and last else size]
            headers["Content-Range"] = f"bytes {begin}-{begin + len(content) - 1}/{size}"
        self.respond(content, status=206 if found else 200, headers=headers)

    def _head(self, bucket: str, name: str) -> None:
        self._get(bucket, name)

    def _put(self, bucket: str, name: str) -> None:
        content = self.body()
        with CREATED:
            must_be_new = self.headers.get("x-goog-if-generation-match") == "0"
            if must_be_new and self._about(bucket, name) is not None:
                self.respond(status=412)
                return
            status, _, _ = self._ask(f"/{bucket}/{quote(name)}", content, "PUT")
        about = self._about(bucket, name) or {}
        self.respond(status=status, headers={"ETag": str(about.get("etag"))})

    def _delete(self, bucket: str, name: str) -> None:
        status, _, _ = self._ask(_object(bucket, name), method="DELETE")
        self.respond(status=status)


def _object(bucket: str, name: str) -> str:
    return f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
