"""A schedule of slots in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_imagetag.errors import ConfigurationError, QuotaUnavailableError
from airflow_imagetag.quota import DEFAULT_TIMING, REMEDY

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT_MILLISECONDS = 3_600_000
"""Time after its last slot for which a schedule is kept."""

# The server's clock counts, so the clocks of the workers need not agree.
_RESERVE = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local start = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local ended = start + ARGV[1]
local kept = math.ceil((ended - now) / 1000) + ARGV[2]
redis.call('SET', KEYS[1], string.format('%.0f', ended), 'PX', string.format('%.0f', kept))
return string.format('%.0f', start - now)
"""


class RedisSchedule:
    """Slots shared by all processes that use the same Redis and name.

    :param conn_id: an Airflow connection of type ``redis``.
    :param name: name of the quota.
    :param timeout_seconds: maximum time in which the server connects, and in which it answers.
    :raises ConfigurationError: the provider for Redis is not installed.
    """

    def __init__(
        self,
        conn_id: str,
        name: str,
        *,
        timeout_seconds: float = DEFAULT_TIMING.redis_timeout_seconds,
    ) -> None:
        try:
            from airflow.providers.redis.hooks.redis import RedisHook
        except ImportError:
            raise ConfigurationError(
                f"The quota's connection {conn_id!r} is a Redis: install the extra [redis] of this "
                "package."
            ) from None
        from redis.exceptions import RedisClusterException, RedisError

        try:
            client = RedisHook(redis_conn_id=conn_id).get_conn()  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ConfigurationError(f"The quota's connection {conn_id!r}: {error}") from None
        except (RedisError, RedisClusterException) as error:
            # The client of a cluster asks for the nodes at once.
            raise _unavailable(conn_id, error) from None
        _limit_waits(client, timeout_seconds)
        self._conn_id = conn_id
        self._key = f"imagetag:quota:{name}"
        self._client = client
        self._script: Callable[..., Any] = client.register_script(_RESERVE)

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return the seconds until the first of some consecutive slots.

        :raises QuotaUnavailableError: the server does not answer, or refuses.
        """
        from redis.exceptions import RedisClusterException, RedisError

        width = round(count * interval_seconds * 1_000_000)
        try:
            return int(self._script(keys=[self._key], args=[width, KEPT_MILLISECONDS])) / 1_000_000
        except (RedisError, RedisClusterException) as error:
            raise _unavailable(self._conn_id, error) from None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _limit_waits(client: Any, timeout_seconds: float) -> None:
    """Let a server that hangs or is away fail soon: the caller decides whether to ask again."""
    from redis.backoff import NoBackoff
    from redis.cluster import RedisCluster
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.retry import Retry

    # One immediate retry: an idle connection may be dead although the server is up.
    client.set_retry(Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)))
    clients = [client]
    if isinstance(client, RedisCluster):
        nodes = client.get_nodes()  # type: ignore[no-untyped-call]
        clients += [node.redis_connection for node in nodes if node.redis_connection is not None]
    # Airflow's hook passes no time limit on; these are the arguments of connections to come.
    for each in clients:
        each.get_connection_kwargs().update(
            socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
        )


def _unavailable(conn_id: str, error: Exception) -> QuotaUnavailableError:
    return QuotaUnavailableError(
        f"The shared quota in Redis cannot be asked through connection {conn_id!r}: "
        f"{type(error).__name__}: {error}. {REMEDY}"
    )
