"""A Redis protocol server, measured from INFO under redis_exporter's names."""

import socket
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from apps.core import http as door
from apps.core.telemetry import Reading
from apps.metrics.collectors import redis as own
from apps.sources.probes import host_and_port
from apps.sources.servers import Access, reasons

PORT: Final = 6379
UP: Final = Reading("redis_up", 0.0, help="Whether the server answered.")


class _Guarded(redis.Connection):
    """Connects through the guarded door."""

    def _connect(self) -> socket.socket:
        return door.connect(self.host, self.port, timeout=self.seconds, allow_private=True, allow_loopback=True)

    @property
    def seconds(self) -> float:
        """The time-out of everything."""
        return float(self.socket_timeout or 10.0)


class _GuardedTLS(redis.SSLConnection, _Guarded):
    """The same with TLS over it: SSLConnection asks the next in line for the connection that it encrypts."""


def measure(access: Access) -> list[Reading]:
    """Return everything that the server tells of itself. Raises Away."""
    with reasons(redis.RedisError, door.OutboundError, OSError, ValueError):
        host, port = host_and_port(access.address, PORT)
        tls: dict[str, Any] = {}
        if access.tls != "prefer":
            is_checked = access.tls == "verify-full"
            tls = {"ssl_cert_reqs": "required" if is_checked else "none", "ssl_check_hostname": is_checked}
        line = redis.Redis(
            connection_pool=redis.ConnectionPool(
                _GuardedTLS if tls else _Guarded,
                host=host,
                port=port,
                username=access.user or None,
                password=access.password or None,
                socket_timeout=access.seconds,
                retry=Retry(NoBackoff(), 0),
                **tls,
            )
        )
        with line:
            info = line.info()
    return list(own.parse(info))
