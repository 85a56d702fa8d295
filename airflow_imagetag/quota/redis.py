"""A ledger of slots in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_imagetag.errors import ConfigurationError, QuotaUnavailableError
from airflow_imagetag.quota import REMEDY

if TYPE_CHECKING:
    from collections.abc import Callable

SOCKET_SECONDS = 2.0
"""A Redis that takes longer to connect or to answer counts as out of reach."""

KEPT_MILLISECONDS = 3_600_000
"""A ledger is forgotten so long after its last slot."""

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
    """Slots that all processes share which use the same Redis and name.

    :param conn_id: an Airflow connection of type ``redis``.
    :param name: names the quota.
    :raises ConfigurationError: the provider for Redis is not installed.
    """

    def __init__(self, conn_id: str, name: str) -> None:
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
            # A cluster is asked for its nodes at once.
            raise _unavailable(conn_id, error) from None
        _be_brief(client)
        self._conn_id = conn_id
        self._key = f"imagetag:quota:{name}"
        self._client = client
        self._script: Callable[..., Any] = client.register_script(_RESERVE)

    def reserve(self, count: int, interval_seconds: float) -> float:
        """Return in how many seconds the first of some slots begins.

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


def _be_brief(client: Any) -> None:
    """Let a server that hangs or is away be known soon: who asks decides whether to ask again."""
    from redis.backoff import NoBackoff
    from redis.exceptions import ConnectionError as RedisConnectionError
    from redis.retry import Retry

    # Once, at once: a connection that stood idle may be dead though the server is not.
    client.set_retry(Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)))
    pool = getattr(client, "connection_pool", None)
    # A cluster keeps the library's own times.
    if pool is not None:
        pool.connection_kwargs |= {
            "socket_timeout": SOCKET_SECONDS,
            "socket_connect_timeout": SOCKET_SECONDS,
        }


def _unavailable(conn_id: str, error: Exception) -> QuotaUnavailableError:
    return QuotaUnavailableError(
        f"The shared quota in Redis cannot be asked through connection {conn_id!r}: "
        f"{type(error).__name__}: {error}. {REMEDY}"
    )
