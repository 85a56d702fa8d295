"""A PostgreSQL that answers as Amazon Redshift does where the two differ.

It is a proxy: the driver's messages go to a real PostgreSQL, but those that Redshift refuses become
statements that fail. The version is Redshift's. What it does not know stays PostgreSQL's, so it
shows which statements are sent, and not that Redshift's own answers are those that are expected.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from typing import Any

VERSION = (
    "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 "
    "(Red Hat 3.4.2-6.fc3), Redshift 1.0.117891"
)

REQUESTS_OF_ENCRYPTION = (80877103, 80877104)
"""Numbers of the first message of a client that asks for TLS or GSSAPI."""

REWRITTEN = (
    (
        re.compile(r"^show standard_conforming_strings", re.IGNORECASE),
        "show setting_of_later_servers",
    ),
    (re.compile(r"(pg_catalog\.)?version\(\)", re.IGNORECASE), f"CAST('{VERSION}' AS text)"),
)
"""Statements that become others."""

REFUSED = re.compile(
    r"\b(SAVEPOINT|ON CONFLICT|RETURNING|CREATE (UNIQUE )?INDEX|DEALLOCATE|PRIMARY KEY|hashtext"
    r"|FETCH FORWARD (?!1000\b)\d{4,}|to_regclass|to_regtype|clock_timestamp|statement_timeout)\b",
    re.IGNORECASE,
)
"""What Redshift does not have, or what would tell that the statement is PostgreSQL's."""

REFUSAL = "DO 'BEGIN RAISE EXCEPTION USING ERRCODE = ''0A000'', MESSAGE = ''Redshift: {}''; END'"


class RedshiftServer(socketserver.ThreadingTCPServer):
    """The proxy.

    :param upstream: the socket of a PostgreSQL.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.upstream = upstream
        self.statements: list[str] = []
        """Statements that came."""
        self.refused: list[str] = []
        """Those of them that were refused."""

    @property
    def port(self) -> int:
        """The port on which it listens."""
        return int(self.server_address[1])

    def rewritten(self, statement: str) -> str:
        """Return the statement that PostgreSQL is given."""
        self.statements.append(statement)
        if found := REFUSED.search(statement):
            self.refused.append(statement)
            return REFUSAL.format(found[0])
        for pattern, replacement in REWRITTEN:
            statement = pattern.sub(replacement, statement)
        return statement


@contextlib.contextmanager
def redshift_server(upstream: str) -> Iterator[RedshiftServer]:
    """Run the proxy in front of a PostgreSQL.

    :param upstream: the socket of the PostgreSQL.
    """
    with RedshiftServer(upstream) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Session(socketserver.BaseRequestHandler):
    """A session of a client."""

    server: RedshiftServer

    def handle(self) -> None:
        client: socket.socket = self.request
        with socket.socket(socket.AF_UNIX) as upstream, contextlib.suppress(ConnectionError):
            upstream.connect(self.server.upstream)
            upstream.sendall(self._startup(client))
            answers = threading.Thread(target=_answer, args=(upstream, client), daemon=True)
            answers.start()
            while (kind := client.recv(1)) != b"":
                body = _body(client)
                if kind == b"Q":
                    body = self._statement(body[:-1]) + b"\0"
                elif kind == b"P":
                    name, statement, types = body.split(b"\0", 2)
                    body = b"\0".join((name, self._statement(statement), types))
                upstream.sendall(_message(kind, body))

    def _startup(self, client: socket.socket) -> bytes:
        while struct.unpack("!I", (body := _body(client))[:4])[0] in REQUESTS_OF_ENCRYPTION:
            client.sendall(b"N")
        return _message(b"", body)

    def _statement(self, statement: bytes) -> bytes:
        return self.server.rewritten(statement.decode()).encode()


def _answer(upstream: socket.socket, client: socket.socket) -> None:
    """Send the answers of PostgreSQL to a client, with the version of Redshift."""
    with contextlib.suppress(OSError):
        while (kind := upstream.recv(1)) != b"":
            body = _body(upstream)
            if kind == b"S" and body.startswith(b"server_version\0"):
                body = b"server_version\x008.0.2\0"
            client.sendall(_message(kind, body))
        client.shutdown(socket.SHUT_RDWR)


def _body(source: socket.socket) -> bytes:
    (length,) = struct.unpack("!I", _read(source, 4))
    return _read(source, length - 4)


def _read(source: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        part: Any = source.recv(length - len(content))
        if not part:
            raise ConnectionResetError
        content += part
    return content


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body
