"""Running the service on an event loop until it is told to stop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import web

from airflow_imagetag.testing.service import Service

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

    from airflow_imagetag.testing.account import Account
    from airflow_imagetag.testing.api import AnswerForm
    from airflow_imagetag.testing.chance import Chance
    from airflow_imagetag.testing.stats import Recorder

_STOP_SECONDS: Final = 0.05
"""How long requests under way may take to end by themselves once the server stops."""


@asynccontextmanager
async def serve(
    *,
    account: Account,
    chance: Callable[[], Chance],
    recorder: Recorder,
    clock: Callable[[], float],
    answer_form: AnswerForm,
    fetch_timeout_seconds: float,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
) -> AsyncIterator[int]:
    """Serve while the context lasts; the value is the port that the server listens on.

    The other parameters are those of :class:`airflow_imagetag.testing.emulator.Emulator` and of
    :class:`airflow_imagetag.testing.service.Service`.

    :raises OSError: when the address cannot be listened on.
    """
    timeout = aiohttp.ClientTimeout(total=fetch_timeout_seconds)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        service = Service(
            account=account,
            chance=chance,
            recorder=recorder,
            clock=clock,
            session=session,
            answer_form=answer_form,
        )
        # A compressed body is no documented form, and could unpack to more than fits in memory.
        server = web.Server(service.handle, access_log=None, auto_decompress=False)
        runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        try:
            await runner.setup()
            site = web.TCPSite(runner, host, port, ssl_context=ssl_context, backlog=1024)
            await site.start()
            yield int(runner.addresses[0][1])
        finally:
            await _close(server, runner)
            service.close()


async def _close(server: web.Server, runner: web.ServerRunner) -> None:
    """Stop listening and close every connection, without waiting for the clients."""
    transports = [protocol.transport for protocol in server.connections]
    await runner.cleanup()
    # Closing TLS politely takes the client's help, and the loop ends before that could come.
    for transport in transports:
        if transport is not None:
            transport.abort()
    await asyncio.sleep(0)
