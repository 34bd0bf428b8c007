"""The portal's own Redis protocol server, from INFO, under redis_exporter's names."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import redis
from django.conf import settings

from apps.core.telemetry import Reading
from apps.metrics.collectors import OWN, Collector, as_number

FIELDS: dict[str, tuple[str, Literal["counter", "gauge"], str]] = {
    "connected_clients": ("connected_clients", "gauge", "Clients connected."),
    "blocked_clients": ("blocked_clients", "gauge", "Clients that wait in a blocking command."),
    "maxclients": ("config_maxclients", "gauge", "Clients that the server accepts."),
    "used_memory": ("memory_used_bytes", "gauge", "Bytes in use."),
    "used_memory_rss": ("memory_used_rss_bytes", "gauge", "Bytes in use as the operating system counts."),
    "used_memory_peak": ("memory_used_peak_bytes", "gauge", "The most bytes that were ever in use."),
    "maxmemory": ("memory_max_bytes", "gauge", "Bytes allowed; 0 means without limit."),
    "mem_fragmentation_ratio": ("mem_fragmentation_ratio", "gauge", "Resident over used memory."),
    "keyspace_hits": ("keyspace_hits_total", "counter", "Reads of a key that existed."),
    "keyspace_misses": ("keyspace_misses_total", "counter", "Reads of a key that did not exist."),
    "expired_keys": ("expired_keys_total", "counter", "Keys that expired."),
    "evicted_keys": ("evicted_keys_total", "counter", "Keys thrown out for want of memory."),
    "total_connections_received": ("connections_received_total", "counter", "Connections accepted."),
    "rejected_connections": ("rejected_connections_total", "counter", "Connections refused at the limit."),
    "total_commands_processed": ("commands_processed_total", "counter", "Commands executed."),
    "total_net_input_bytes": ("net_input_bytes_total", "counter", "Bytes received."),
    "total_net_output_bytes": ("net_output_bytes_total", "counter", "Bytes sent."),
    "used_cpu_sys": ("cpu_sys_seconds_total", "counter", "Processor seconds in the kernel."),
    "used_cpu_user": ("cpu_user_seconds_total", "counter", "Processor seconds of the server itself."),
    "pubsub_channels": ("pubsub_channels", "gauge", "Channels that somebody listens to."),
    "pubsub_patterns": ("pubsub_patterns", "gauge", "Patterns that somebody listens to."),
    "connected_slaves": ("connected_slaves", "gauge", "Replicas connected."),
    "master_repl_offset": ("master_repl_offset", "gauge", "Position in the replication stream."),
    "uptime_in_seconds": ("uptime_in_seconds", "gauge", "Seconds since the server was started."),
    "rdb_changes_since_last_save": ("rdb_changes_since_last_save", "gauge", "Changes not yet saved."),
}


class Redis(Collector):
    """The server behind REDIS_URL."""

    kind = "redis"
    label = "The portal's Redis"
    job = OWN

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.client: redis.Redis | None = None

    def collect(self) -> Iterator[Reading]:
        if self.client is None:
            self.client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2.0, socket_connect_timeout=1.0)
        try:
            info: Mapping[str, Any] = self.client.info()
        except redis.ConnectionError:
            # A server that is away is a measurement, and the one that matters.
            return iter([Reading("redis_up", 0.0, help="Whether the server answered.")])
        return parse(info)

    def close(self) -> None:
        if self.client is not None:
            self.client.close()


def parse(info: Mapping[str, Any]) -> Iterator[Reading]:
    """`info`: INFO as redis-py gives it: fields by name, keyspaces as dicts named db0, db1, …"""
    yield Reading("redis_up", 1.0, help="Whether the server answered.")
    for field, (name, kind, help_text) in FIELDS.items():
        if (value := as_number(str(info.get(field, "")))) is not None:
            yield Reading(f"redis_{name}", value, {}, kind, help_text)
    for field, space in info.items():
        if field.startswith("db") and isinstance(space, Mapping) and "keys" in space:
            labels = {"db": field}
            yield Reading("redis_db_keys", float(space["keys"]), labels, help="Keys.")
            yield Reading("redis_db_keys_expiring", float(space.get("expires", 0)), labels, help="Keys that expire.")
    yield from replication(info)
    version = str(info.get("valkey_version") or info.get("redis_version", ""))
    labels = {"redis_version": version, "role": str(info.get("role", ""))}
    yield Reading("redis_instance_info", 1.0, labels, help="Version and role of the server.")


def replication(info: Mapping[str, Any]) -> Iterator[Reading]:
    """`info`: as of `parse`. A replica says whether it is connected, a primary how far its replicas are."""
    if "master_link_status" in info:
        up = float(info["master_link_status"] == "up")
        yield Reading("redis_master_link_up", up, help="Whether the replica is connected to its primary.")
        ago = as_number(str(info.get("master_last_io_seconds_ago", "")))
        if ago is not None:
            help_text = "Seconds since the primary was heard."
            yield Reading("redis_master_last_io_seconds_ago", ago, help=help_text)
    for field, replica in info.items():
        if field.startswith("slave") and field[5:].isdigit() and isinstance(replica, Mapping):
            labels = {"slave_ip": str(replica.get("ip", "")), "slave_port": str(replica.get("port", ""))}
            behind = float(info.get("master_repl_offset", 0)) - float(replica.get("offset", 0))
            help_text = "Bytes that the replica has not confirmed."
            yield Reading("redis_connected_slave_lag_bytes", behind, labels, help=help_text)
            help_text = "Seconds since the replica was heard."
            yield Reading("redis_connected_slave_lag_seconds", float(replica.get("lag", 0)), labels, help=help_text)
