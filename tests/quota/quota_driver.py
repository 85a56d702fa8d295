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


def reserve(schedule: SharedSchedule, job: dict[str, Any], output: Path) -> None:
    """Reserve slots without a pause, and write the time at which each begins."""
    with output.open("w", buffering=1) as file:
        for _ in range(job["reserve"]):
            delay = schedule.reserve(1, job["interval_seconds"])
            file.write(f"{time.time() + delay!r}\n")


def pace(schedule: SharedSchedule, job: dict[str, Any], output: Path) -> None:
    """Take slots as a run does, and write the time at which each was granted."""
    file = output.open("w", buffering=1)

    async def main() -> None:
        with ThreadPoolExecutor(1) as threads:
            limiter = RateLimiter(job["requests_per_second"], schedule, threads=threads)

            async def work() -> None:
                while True:
                    await limiter.acquire()
                    if time.time() >= job["until"]:
                        return
                    file.write(f"{time.time()!r}\n")

            await asyncio.gather(*(work() for _ in range(4)))

    asyncio.run(main())


def hold(job: dict[str, Any], output: Path) -> None:
    """Lock the row of the quota, and hang within the transaction."""
    schedule = sql.SqlSchedule(job["conn_id"], job["name"])
    schedule.reserve(1, 0.01)
    with schedule._engine.begin() as connection:
        connection.execute(schedule._table.update().values(next_at=2**62))
        output.write_text("locked")
        time.sleep(60)


def work(job: dict[str, Any], output: str) -> int:
    """Do the job, from the time that it names."""
    # Beside the log.
    found = Path(output).with_suffix(".found")
    if "hold" in job:
        hold(job, found)
        return 1
    schedule = open_schedule(job["conn_id"], job["name"], fallback_share=None)
    time.sleep(max(job["from"] - time.time(), 0))
    (pace if "requests_per_second" in job else reserve)(schedule, job, found)
    schedule.close()
    return 0


def find_hooks() -> None:
    """Let Airflow discover its hooks, which takes seconds."""
    os.environ["AIRFLOW_CONN_FIRST"] = '{"conn_type": "sqlite", "host": "/none.db"}'
    BaseHook.get_connection("first").get_hook()


if __name__ == "__main__":
    preload("airflow.providers.redis.hooks.redis", "airflow_imagetag.quota.redis")
    serve(work, find_hooks)
