"""Measure how processes share one quota through a Redis and through a PostgreSQL.

Each process has the limiter of a run, and sends a datagram for each request. A server in a process
of its own counts the arrivals of all of them in a sliding second, as a service does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

from warehouse import redis, warehouse
from workers import worker_environment

PROCESSES = 16
RATES = (20.0, 500.0)
SECONDS = 20.0
WARM_UP_SECONDS = 1.0
"""Time from the first request of the last process on that is not measured."""

SO_TIMESTAMPNS = 35
"""Option of Linux: the kernel notes when each datagram arrives, whatever the server does then."""

END = b"end"

FORK = multiprocessing.get_context("fork")

Arrival = tuple[float, int]
"""When a request arrived, and the number of the process that sent it."""


def main() -> int:
    """Measure, print a table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="requests per second")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="duration of a measurement")
    parser.add_argument("--servers", nargs="+", default=["redis", "postgres"])
    parser.add_argument("--quick", action="store_true", help="one rate, few processes, a second")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.processes, arguments.rates, arguments.seconds = 3, [100.0], 1.0
    with contextlib.ExitStack() as stack:
        os.environ.update(stack.enter_context(worker_environment()))
        for name in arguments.servers:
            connection = stack.enter_context(_connection_of(name))
            os.environ[f"AIRFLOW_CONN_QUOTA_{name.upper()}"] = connection
        _preload()
        print(
            f"{'server':10}{'quota':>7}{'processes':>11}{'used, %':>9}{'over, %':>9}"
            f"{'most to least':>15}{'leases a second':>17}{'longest lease, ms':>19}"
        )
        for name in arguments.servers:
            for rate in arguments.rates:
                figures = _measure(name, rate, arguments.processes, arguments.seconds)
                print(
                    f"{name:10}{rate:>7g}{arguments.processes:>11}{figures.used * 100:>9.1f}"
                    f"{figures.over * 100:>9.2f}{figures.unfairness:>15.2f}"
                    f"{figures.leases:>17.1f}{figures.longest_lease * 1000:>19.0f}",
                    flush=True,
                )
    return 0


@dataclass(frozen=True, slots=True)
class _Figures:
    """What a measurement has shown.

    :param used: share of the quota that was used.
    :param over: share of the requests that a sliding second of the quota has no room for.
    :param unfairness: requests of the process that sent most, to those of the one that sent least.
    :param leases: transactions or scripts of the server per second.
    :param longest_lease: seconds until the server's slowest answer.
    """

    used: float
    over: float
    unfairness: float
    leases: float
    longest_lease: float


def _measure(name: str, rate: float, processes: int, seconds: float) -> _Figures:
    """Run the processes and return the figures of all requests after the start."""
    with _counting_server() as (port, arrivals_of):
        stop = FORK.Event()
        pipes, started = [], []
        for number in range(processes):
            ours, theirs = FORK.Pipe()
            process = FORK.Process(target=_work, args=(number, name, rate, port, stop, theirs))
            process.start()
            pipes.append(ours)
            started.append(process)
        begun = max(pipe.recv() for pipe in pipes) + WARM_UP_SECONDS
        time.sleep(max(0.0, begun + seconds - time.time()))
        stop.set()
        leases = [pipe.recv() for pipe in pipes]
        for process in started:
            process.join()
        arrivals = arrivals_of()
    measured = [arrival for arrival in arrivals if begun <= arrival[0] < begun + seconds]
    sent = Counter(dict.fromkeys(range(processes), 0))
    sent.update(number for _, number in measured)
    taken = [lease for of_one in leases for lease in of_one if begun <= lease[0] < begun + seconds]
    return _Figures(
        used=len(measured) / (rate * seconds),
        over=_refused(arrivals, rate) / len(arrivals),
        unfairness=max(sent.values()) / max(min(sent.values()), 1),
        leases=len(taken) / seconds,
        longest_lease=max((lasted for _, lasted in taken), default=0.0),
    )


def _refused(arrivals: list[Arrival], rate: float) -> int:
    """Return the number of requests that a service with this quota would have refused."""
    seen: deque[float] = deque()
    refused = 0
    for at, _ in sorted(arrivals):
        while seen and seen[0] <= at - 1:
            seen.popleft()
        if len(seen) < rate:
            seen.append(at)
        else:
            refused += 1
    return refused


def _work(number: int, name: str, rate: float, port: int, stop: Event, pipe: Connection) -> None:
    """Send requests as fast as the shared quota allows; runs in a process of its own."""
    from airflow_imagetag.quota.shared import open_schedule

    schedule = _TimedSchedule(
        open_schedule(f"quota_{name}", f"benchmark {name} {rate:g}", fallback_share=None)
    )
    asyncio.run(_send(number, rate, schedule, port, stop, pipe))
    pipe.send(schedule.leases)
    # Without the clean-up of what the parent has opened.
    os._exit(0)


async def _send(
    number: int, rate: float, schedule: Any, port: int, stop: Event, pipe: Connection
) -> None:
    from airflow_imagetag.engine.flow.rate_limiter import RateLimiter
    from airflow_imagetag.runtime.threads import DaemonExecutor

    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def wait_for_stop() -> None:
        stop.wait()
        loop.call_soon_threadsafe(stopping.set)

    threading.Thread(target=wait_for_stop, daemon=True).start()
    threads = DaemonExecutor(1, "quota")
    limiter = RateLimiter(rate, schedule, threads=threads, stopping=stopping)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        is_first = True
        while True:
            await limiter.acquire()
            if stopping.is_set():
                return
            sender.send(bytes([number]))
            if is_first:
                pipe.send(time.time())
                is_first = False


class _TimedSchedule:
    """A schedule that records when each lease was taken, and how long the answer took.

    :param schedule: the shared one.
    """

    def __init__(self, schedule: Any) -> None:
        self._schedule = schedule
        self.leases: list[tuple[float, float]] = []

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return the seconds until the first of some consecutive slots."""
        begun = time.time()
        seconds: float = self._schedule.reserve(count, interval_seconds)
        self.leases.append((begun, time.time() - begun))
        return seconds


@contextlib.contextmanager
def _counting_server() -> Iterator[tuple[int, Callable[[], list[Arrival]]]]:
    """Run a server in a process of its own.

    The value is its port, and a function that ends it and returns what has arrived.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
        receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        port = receiver.getsockname()[1]
        ours, theirs = FORK.Pipe()
        process = FORK.Process(target=_count, args=(receiver, theirs))
        process.start()

        def arrivals() -> list[Arrival]:
            receiver.sendto(END, ("127.0.0.1", port))
            received: list[Arrival] = ours.recv()
            return received

        try:
            yield port, arrivals
        finally:
            process.kill()
            process.join()


def _count(receiver: socket.socket, pipe: Connection) -> None:
    arrivals: list[Arrival] = []
    while True:
        request, [(_, _, stamp)], _, _ = receiver.recvmsg(16, 64)
        if request == END:
            break
        seconds, nanoseconds = struct.unpack("qq", stamp)
        arrivals.append((seconds + nanoseconds / 1e9, request[0]))
    pipe.send(arrivals)


def _preload() -> None:
    """Import once what each process would import."""
    from importlib import import_module

    for name in ("quota.redis", "quota.sql", "quota.shared", "engine.flow.rate_limiter"):
        import_module(f"airflow_imagetag.{name}")
    import_module("airflow.providers.redis.hooks.redis")
    import_module("airflow.providers.postgres.hooks.postgres")


@contextlib.contextmanager
def _connection_of(name: str) -> Iterator[str]:
    """Run a server for a ``with`` block, whose value is the Airflow connection to it."""
    if name == "redis":
        with redis() as connection:
            yield connection
    else:
        with warehouse() as (_, environment):
            yield environment["AIRFLOW_CONN_WAREHOUSE"]


if __name__ == "__main__":
    sys.exit(main())
