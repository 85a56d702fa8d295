"""Takes slots in forked processes, see :mod:`forked`."""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import BaseHook
from forked import preload, serve

from airflow_imagetag.engine.flow.rate_limiter import RateLimiter
from airflow_imagetag.quota import sql
from airflow_imagetag.quota.shared import SharedSchedule, open_schedule


def reserve(ledger: SharedSchedule, job: dict[str, Any], output: Path) -> None:
    """Reserve slots as fast as it goes, and write when each begins."""
    moments = []
    for _ in range(job["reserve"]):
        delay = ledger.reserve(1, job["interval_seconds"])
        moments.append(time.time() + delay)
    output.write_text("".join(f"{moment!r}\n" for moment in moments))


def pace(ledger: SharedSchedule, job: dict[str, Any], output: Path) -> None:
    """Take slots as a run does, and write when each was granted."""
    file = output.open("w", buffering=1)

    async def main() -> None:
        with ThreadPoolExecutor(1) as threads:
            pacer = RateLimiter(job["requests_per_second"], ledger, threads=threads)

            async def work() -> None:
                while True:
                    await pacer.acquire()
                    if time.time() >= job["until"]:
                        return
                    file.write(f"{time.time()!r}\n")

            await asyncio.gather(*(work() for _ in range(4)))

    asyncio.run(main())


def hold(job: dict[str, Any], output: Path) -> None:
    """Lock the row of the quota and do nothing, as a process that hangs in the midst does."""
    ledger = sql.SqlSchedule(job["conn_id"], job["name"])
    ledger.reserve(1, 0.01)
    with ledger._engine.begin() as connection:
        connection.execute(ledger._table.update().values(next_at=2**62))
        output.write_text("locked")
        time.sleep(60)


def work(job: dict[str, Any], output: str) -> int:
    """Do what the job says, from the moment that it says."""
    # Beside the log.
    found = Path(output).with_suffix(".found")
    if "hold" in job:
        hold(job, found)
        return 1
    ledger = open_schedule(job["conn_id"], job["name"], fallback_share=None)
    time.sleep(max(job["from"] - time.time(), 0))
    (pace if "requests_per_second" in job else reserve)(ledger, job, found)
    ledger.close()
    return 0


def find_hooks() -> None:
    """Let Airflow find out what hooks there are, which takes seconds."""
    os.environ["AIRFLOW_CONN_FIRST"] = '{"conn_type": "sqlite", "host": "/none.db"}'
    BaseHook.get_connection("first").get_hook()


if __name__ == "__main__":
    preload("airflow.providers.redis.hooks.redis", "airflow_imagetag.quota.redis")
    serve(work, find_hooks)
