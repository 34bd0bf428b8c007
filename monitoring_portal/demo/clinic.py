"""What the series of a made-up clinic are worth at any time. Pure: absolute times in, labels and values out.

Every value is a function of the time alone, counters in closed form. So the week that is filled in at the start, what
is scraped afterwards, and what is filled in after a pause are one curve, and filling twice changes nothing.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Row = tuple[str, dict[str, str], Values]

DAY: Final = 86_400.0
WEEK: Final = 7 * DAY
BORN: Final = datetime(2026, 1, 5, tzinfo=UTC).timestamp()
"""A Monday, when the counters of the clinic began (s)."""
GRID: Final = 15.0
GIB: Final = 2**30
BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
VITAL_BUCKETS: Final = (0.1, 0.2, 0.5, 0.8, 1.2, 1.8, 2.5, 4.0, 10.0)


@dataclass(frozen=True)
class Trouble:
    """Something that goes wrong each week at the same hour: when (s since Monday), how long (s), and its words."""

    kind: str
    begin: float
    length: float
    severity: str
    service: str
    words: str
    taken_by: str
    cause: str = ""
    cure: str = ""

    def share(self, t: Values) -> Values:
        """Return 1 while it lasts, else 0."""
        return (((t - BORN - self.begin) % WEEK) < self.length).astype(np.float64)

    def area(self, t: Values) -> Values:
        """Return for how many seconds it has lasted in all since the clinic began."""
        since = t - BORN - self.begin
        whole = np.floor(since / WEEK)
        return whole * self.length + np.clip(since - whole * WEEK, 0.0, self.length)

    def begins(self, after: float, until: float) -> Iterator[float]:
        """Yield each time (s) at which it begins after the one and up to the other."""
        number = math.floor((after - BORN - self.begin) / WEEK) + 1
        while (at := BORN + self.begin + number * WEEK) <= until:
            yield at
            number += 1


PAYMENTS: Final = Trouble(
    "payments-refused", 1 * DAY + 37_200, 2_700, "critical", "payments",
    "Four of ten card payments are refused by the provider", "mara",
    cure="payments: second provider switched on",
)  # fmt: skip
LOCKS: Final = Trouble(
    "slow-bookings", 3 * DAY + 50_700, 4_200, "error", "booking",
    "Booking an appointment takes 3 s: statements wait for locks", "jonas",
    cause="booking 2.8.0 deployed", cure="booking 2.8.1 deployed: rolled back",
)  # fmt: skip
CACHE: Final = Trouble(
    "cache-failover", 5 * DAY + 12_600, 1_200, "warning", "cache", "The cache has moved to its replica", "mara"
)  # fmt: skip
GUESSES: Final = Trouble(
    "password-guessing", 2 * DAY + 8_100, 900, "warning", "booking",
    "Somebody tries passwords at the patients' log-in, from one network", "jonas",
    cure="booking: the network is blocked at the firewall",
)  # fmt: skip
TROUBLES: Final = (PAYMENTS, LOCKS, CACHE, GUESSES)

ENDPOINTS: Final = (
    # method, endpoint, requests a second at full load, usual seconds, service
    ("GET", "/appointments", 2.4, 0.045, "booking"),
    ("POST", "/appointments", 0.5, 0.12, "booking"),
    ("GET", "/doctors/{id}", 1.6, 0.03, "booking"),
    ("POST", "/payments", 0.3, 0.32, "payments"),
    ("GET", "/records/{id}", 1.1, 0.08, "records"),
)
STATEMENTS: Final = (
    ("UPDATE appointment SET state = $1 WHERE id = $2", 0.02),
    ("SELECT * FROM appointment WHERE doctor_id = $1 AND day = $2", 0.08),
    ("SELECT * FROM record WHERE patient_id = $1 ORDER BY made_at DESC LIMIT $2", 0.05),
    ("INSERT INTO audit_entry (who, what, at) VALUES ($1, $2, $3)", 0.012),
)
"""As the database fingerprints them, and the share of a second that each takes when the clinic is busy."""
TABLES: Final = (
    ("record", 19.0, 900.0),
    ("appointment", 6.0, 420.0),
    ("audit_entry", 4.0, 380.0),
    ("patient", 1.1, 40.0),
)
"""Name, GiB in the beginning, bytes that each second adds."""
SENDERS: Final = (("clinic collector (mp_Xw3k…)", "otlp", 46.0), ("lab agent (mp_q81Z…)", "remote_write", 120.0))
"""Token, protocol and samples a second of who pushes."""
ROUTES: Final = (("/", 0.9), ("/book", 1.5), ("/records/:id", 1.2))
VITALS: Final = (("lcp_seconds", 1.4), ("inp_seconds", 0.13), ("fcp_seconds", 0.9), ("ttfb_seconds", 0.25))


def busy(t: Values) -> Values:
    """Return how busy the clinic is, from nearly 0 at night to about 1 at noon."""
    return 0.55 - 0.42 * np.cos(2 * math.pi * (t - 3600) / DAY) + 0.08 * np.sin(t / 700)


def worked(t: Values) -> Values:
    """Return the integral of `busy` since the clinic began (s)."""

    def whole(x: Values) -> Values:
        day = DAY / (2 * math.pi)
        return 0.55 * x - 0.42 * day * np.sin((x - 3600) / day) - 0.08 * 700 * np.cos(x / 700)

    return whole(t) - whole(np.full(1, BORN))


def strained(t: Values) -> Values:
    """Return the integral of the share of work that is slow: next to none at night, a tenth at noon (s)."""

    def whole(x: Values) -> Values:
        day, hour = DAY / (2 * math.pi), 5400 / (2 * math.pi)
        return 0.045 * x - 0.038 * day * np.sin((x - 3600) / day) - 0.005 * hour * np.cos(x / hour)

    return whole(t) - whole(np.full(1, BORN))


def wave(t: Values, seed: float) -> Values:
    """Return a calm wobble between 0 and 1."""
    return 0.5 + 0.3 * np.sin(t / 1900 + seed) + 0.15 * np.sin(t / 431 + 2 * seed) + 0.05 * np.sin(t / 57 + 3 * seed)


def memory(t: Values) -> Values:
    """Return the memory in use (%): it leaks until the nightly restart of the booking service at 03:00 UTC."""
    return 58 + 20 * (((t - 10_800) % DAY) / DAY) + 2 * wave(t, 1)


def series(t: Values) -> Iterator[Row]:
    """Yield every series of the clinic at these times (s): name, labels, a value for each time."""
    yield from _machine(t)
    yield from _requests(t)
    yield from _application(t)
    yield from _database(t)
    yield from _pages(t)
    yield from _doors(t)
    yield from _pushes(t)


def _machine(t: Values) -> Iterator[Row]:
    node = {"job": "node", "instance": "clinic-1"}
    load = busy(t)
    for cpu in ("0", "1"):
        for mode, still, moved in (
            ("user", 0.08, 0.38), ("system", 0.03, 0.09), ("iowait", 0.01, 0.02), ("softirq", 0.002, 0.008)
        ):  # fmt: skip
            grown = still * (t - BORN) + moved * worked(t) + (0.25 * LOCKS.area(t) if mode == "iowait" else 0)
            yield "node_cpu_seconds_total", node | {"cpu": cpu, "mode": mode}, grown
        idle = 0.878 * (t - BORN) - 0.498 * worked(t) - 0.25 * LOCKS.area(t)
        yield "node_cpu_seconds_total", node | {"cpu": cpu, "mode": "idle"}, idle
    total = np.full(len(t), 16.0 * GIB)
    for name, value in (
        ("node_load1", 0.2 + 1.3 * load + 1.6 * LOCKS.share(t)),
        ("node_load5", 0.25 + 1.2 * load + 1.4 * LOCKS.share(t - 150)),
        ("node_load15", 0.3 + 1.1 * load + LOCKS.share(t - 450)),
        ("node_memory_MemTotal_bytes", total),
        ("node_memory_MemAvailable_bytes", total * (1 - memory(t) / 100)),
        ("node_memory_MemFree_bytes", total * (1 - memory(t) / 100) * 0.4),
        ("node_memory_SwapTotal_bytes", total / 8),
        ("node_memory_SwapFree_bytes", total / 8.4),
        ("node_netstat_Tcp_CurrEstab", 12 + np.round(60 * load)),
        ("node_sockstat_TCP_tw", np.round(25 * load * wave(t, 2))),
        ("node_procs_running", 1 + np.round(3 * load)),
        ("node_procs_blocked", np.round(4 * LOCKS.share(t))),
    ):
        yield name, node, value
    disk, net = node | {"device": "nvme0n1"}, node | {"device": "eth0"}
    for name, labels, rate in (
        ("node_disk_read_bytes_total", disk, 2.4e6), ("node_disk_written_bytes_total", disk, 5.1e6),
        ("node_disk_reads_completed_total", disk, 61), ("node_disk_writes_completed_total", disk, 140),
        ("node_disk_io_time_seconds_total", disk, 0.2), ("node_network_receive_bytes_total", net, 8.2e5),
        ("node_network_transmit_bytes_total", net, 2.3e6), ("node_network_receive_errs_total", net, 0),
        ("node_network_transmit_errs_total", net, 0), ("node_network_receive_drop_total", net, 0.01),
        ("node_network_transmit_drop_total", net, 0),
    ):  # fmt: skip
        yield name, labels, rate * worked(t)
    mount = node | {"device": "/dev/nvme0n1p2", "fstype": "ext4", "mountpoint": "/"}
    yield "node_filesystem_size_bytes", mount, np.full(len(t), 240.0 * GIB)
    free = (240 - 150 - 14 * ((t - BORN) % WEEK) / WEEK) * GIB
    yield "node_filesystem_avail_bytes", mount, free
    yield "node_filesystem_free_bytes", mount, free


TIB: Final = 2**40
CERTIFICATE: Final = 12.5 * DAY
"""How long it has left when the demo begins; below 14 days a shipped rule warns."""
RENEWED: Final = 26 * 3600.0
"""When there is a new one (s after the demo began)."""
ARCHIVE_LEFT: Final = 0.9 * TIB
ARCHIVE_A_DAY: Final = 0.25 * TIB
"""Bytes of the archive that are free when the demo begins, and how many a day takes."""
ENOUGH: Final = 4.0
"""Days until the archive is full, below which its rule warns."""
NEW_DISKS: Final = 21 * 3600.0
"""When the archive gets room (s after the demo began)."""
RESULTS: Final = 3 * 3600.0
"""When the laboratory's results come again (s after the demo began)."""


def standing(t: Values, began: float) -> Iterator[Row]:
    """Yield what is open when the demo begins (s), and ends in its first day: a certificate, a disk that fills up."""
    own = {"job": "blackbox", "instance": "https://clinic.example"}
    ends = began + CERTIFICATE + np.where(t < began + RENEWED, 0.0, 78 * DAY)
    yield "probe_ssl_earliest_cert_expiry", own, ends
    yield "probe_success", own, np.ones(len(t))
    disk = {"device": "/dev/sdb1", "fstype": "ext4", "mountpoint": "/srv/archive"}
    mount = {"job": "node", "instance": "clinic-1", **disk}
    size, free = archive(t, began)
    for name, value in (("size", size), ("avail", free), ("free", free)):
        yield f"node_filesystem_{name}_bytes", mount, value


def archive(t: Values, began: float) -> tuple[Values, Values]:
    """Return size and free bytes of the archive: new disks come before it is full, and then it grows slowly."""
    more = t >= began + NEW_DISKS
    filled = ARCHIVE_A_DAY * np.minimum(t - began, NEW_DISKS) / DAY
    slowly = 0.05 * ARCHIVE_A_DAY * np.maximum(0.0, t - began - NEW_DISKS) / DAY
    size = np.where(more, 8.0 * TIB, 4.0 * TIB)
    return size, np.clip(ARCHIVE_LEFT - filled - slowly + np.where(more, 4.0 * TIB, 0.0), 0.0, size)


def _requests(t: Values) -> Iterator[Row]:
    web = {"job": "clinic-web", "instance": "clinic-1:8000"}
    for method, endpoint, pace, usual, service in ENDPOINTS:
        own = web | {"method": method, "endpoint": endpoint}
        done = pace * worked(t)
        failed = 0.003 * done + (0.4 * pace * PAYMENTS.area(t) if service == "payments" else 0)
        failed = failed + (0.05 * pace * LOCKS.area(t) if service == "booking" else 0)
        for code, count in (("200", done * 0.985 - failed), ("404", done * 0.015), ("500", failed)):
            yield "http_requests_total", own | {"code": code}, count
        slow = min(12 * usual, 1.2)
        slowed = pace * (strained(t) + (0.4 * LOCKS.area(t) if service == "booking" else 0))
        for edge in (*BUCKETS, math.inf):
            fine, bad = (1.0 if edge == math.inf else 1 - math.exp(-edge / s) for s in (usual, slow))
            label = "+Inf" if edge == math.inf else f"{edge:g}"
            counted = (done - slowed) * fine + slowed * bad
            yield "http_request_duration_seconds_bucket", own | {"le": label}, counted
        yield "http_request_duration_seconds_count", own, done
        yield "http_request_duration_seconds_sum", own, (done - slowed) * usual + slowed * slow


def _application(t: Values) -> Iterator[Row]:
    """What the wheel counts besides requests: queries, a pool, a cache, calls of others and tasks."""
    web = {"job": "clinic-web", "instance": "clinic-1:8000", "process": "0"}
    yield "http_requests_in_flight", web, np.round(2 * busy(t) + 9 * LOCKS.share(t))
    for endpoint, raised, count in (
        ("/payments", "payments.Refused", 0.001 * worked(t) + 0.12 * PAYMENTS.area(t)),
        ("/appointments", "django.db.utils.OperationalError", 0.0006 * worked(t) + 0.02 * LOCKS.area(t)),
    ):
        yield "http_exceptions_total", web | {"endpoint": endpoint, "exception": raised}, count
    yield (
        "django_db_errors_total",
        web | {"alias": "default", "exception": "OperationalError"},
        (0.0006 * worked(t) + 0.02 * LOCKS.area(t)),
    )
    yield "process_resident_memory_bytes", web, (0.21 + 0.03 * busy(t)) * GIB
    yield "process_cpu_seconds_total", web, 0.24 * worked(t)
    base = web | {"alias": "default"}
    asked = base | {"vendor": "postgresql"}
    for name, own, part, middle, edges in (
        ("django_db_query_duration_seconds", asked, 40.0, 0.004, (0.001, 0.005, 0.025, 0.1, 0.5, 2.5)),
        ("django_db_queries_per_request", web | {"endpoint": "/book/"}, 1.0, 7.0, (1.0, 5.0, 10.0, 50.0)),
    ):
        yield from _vital(name, own, t, part, middle, edges)
        yield f"{name}_count", own, 0.4 * part * worked(t)
        yield f"{name}_sum", own, 0.4 * part * middle * worked(t)
    yield "django_db_pool_requests_total", base, 9 * worked(t)
    yield "django_db_pool_waits_total", base, 0.2 * worked(t) + 4 * LOCKS.area(t)
    lent = np.round(1 + busy(t) + 6 * LOCKS.share(t))
    yield "django_db_pool_connections", base | {"state": "used"}, lent
    yield "django_db_pool_connections", base | {"state": "idle"}, 8 - lent
    yield "django_db_pool_connections_max", base, np.full(len(t), 8.0)
    yield "django_cache_hits_total", base, 31 * worked(t)
    yield "django_cache_misses_total", base, 3 * worked(t) + 6 * CACHE.area(t)
    for operation, pace, usual in (("get", 34.0, 0.0005), ("set", 3.2, 0.0008)):
        own = base | {"operation": operation}
        yield "django_cache_operations_total", own, pace * worked(t)
        yield "django_cache_operation_seconds_total", own, usual * pace * worked(t)
    for host, usual, failed in (("payments.example", 0.3, PAYMENTS.area(t)), ("lab.example", 0.9, 0 * t)):
        for code, count in (("200", 0.2 * worked(t) - 0.1 * failed), ("503", 0.1 * failed)):
            own = web | {"host": host, "code": code}
            yield "http_client_request_duration_seconds_bucket", own | {"le": "0.5"}, count * 0.6
            yield "http_client_request_duration_seconds_bucket", own | {"le": "2.5"}, count * 0.97
            yield "http_client_request_duration_seconds_bucket", own | {"le": "+Inf"}, count
            yield "http_client_request_duration_seconds_count", own, count
            yield "http_client_request_duration_seconds_sum", own, count * usual
    worker = web | {"process": "1"}
    yield "celery_tasks_running", worker, np.round(2 * busy(t))
    yield "celery_worker_queue_length", worker | {"queue": "celery"}, np.round(3 * busy(t) + 14 * LOCKS.share(t))
    for task, usual, raised in (("mail.remind", 0.2, "SMTPException"), ("lab.fetch", 1.4, "TimeoutError")):
        done = 0.1 * worked(t)
        yield "celery_tasks_total", worker | {"task": task, "state": "success"}, 0.99 * done
        yield "celery_tasks_total", worker | {"task": task, "state": "failure"}, 0.01 * done
        yield "celery_task_failures_total", worker | {"task": task, "exception": raised}, 0.01 * done
        yield from _vital(
            "celery_task_duration_seconds", worker | {"task": task}, t, 0.25, usual, (0.1, 0.5, 1, 2.5, 10)
        )


def _database(t: Values) -> Iterator[Row]:
    own = {"job": "clinic-db", "instance": "clinic-db:5432"}
    for state, count in (
        ("active", 2 + 9 * busy(t) + 52 * LOCKS.share(t)), ("idle", 16 + 6 * wave(t, 4)),
        ("idle in transaction", 1 + wave(t, 5) + 9 * LOCKS.share(t)),
    ):  # fmt: skip
        yield "pg_stat_activity_count", own | {"state": state, "datname": "clinic"}, np.round(count)
    yield "pg_settings_max_connections", own, np.full(len(t), 100.0)
    for name, rate in (
        ("pg_stat_database_xact_commit", 46.0), ("pg_stat_database_xact_rollback", 0.2),
        ("pg_stat_database_blks_hit", 6100.0), ("pg_stat_database_blks_read", 31.0),
    ):  # fmt: skip
        yield name, own | {"datname": "clinic"}, rate * worked(t)
    yield "pg_stat_database_deadlocks", own | {"datname": "clinic"}, np.floor(0.004 * LOCKS.area(t))
    yield "pg_database_size_bytes", own | {"datname": "clinic"}, 38 * GIB + 1900 * (t - BORN)
    desk = {"job": "clinic-web", "instance": "clinic-web-1", "file": "/srv/clinic/desk.sqlite3"}
    pages = np.round(21_000 + 0.002 * (t - BORN))
    yield "sqlite_file_bytes", desk, 4096 * pages
    yield "sqlite_wal_bytes", desk, np.round(2.2e6 * busy(t))
    yield "sqlite_pages", desk, pages
    yield "sqlite_free_pages", desk, np.round(900 + 500 * wave(t, 6))
    cache = {"job": "clinic-cache", "instance": "clinic-cache:6379"}
    yield "redis_commands_processed_total", cache, 240 * worked(t)
    yield "redis_memory_used_bytes", cache, (0.9 + 0.5 * busy(t) * (1 - CACHE.share(t))) * GIB
    yield "redis_memory_used_rss_bytes", cache, (1.2 + 0.4 * busy(t)) * GIB
    yield from _statements(t, own)
    yield from _copies(t, own, cache)
    for queue, most in (("mail", 6), ("reports", 3), ("lab", 14)):
        waiting = {"job": "clinic-web", "instance": "clinic-1:8000", "queue": queue}
        yield "celery_queue_length", waiting, np.round(most * busy(t) * wave(t, most))


def _statements(t: Values, own: Mapping[str, str]) -> Iterator[Row]:
    """What the database does: its statements, their locks, its tables."""
    data = {**own, "datname": "clinic"}
    for mode, most in (("accesssharelock", 14), ("rowexclusivelock", 5), ("exclusivelock", 1)):
        held = np.round(most * busy(t) + (34 * LOCKS.share(t) if mode == "rowexclusivelock" else 0))
        yield "pg_locks_count", data | {"mode": mode}, held
    for number, (statement, share) in enumerate(STATEMENTS):
        one = data | {"queryid": f"{7_001 + number}"}
        spent = share * worked(t) + (1.4 * LOCKS.area(t) if number == 0 else 0)
        yield "pg_stat_statements_seconds_total", one, spent
        yield "pg_stat_statements_query_id", one | {"query": statement}, np.ones(len(t))
    yield "pg_stat_activity_max_tx_duration", data | {"state": "active"}, 0.4 + busy(t) + 40 * LOCKS.share(t)
    for verb, rate in (("fetched", 2100.0), ("inserted", 14.0), ("updated", 22.0), ("deleted", 1.5)):
        yield f"pg_stat_database_tup_{verb}", data, rate * worked(t)
    for table, size, grows in TABLES:
        yield "pg_stat_user_tables_table_size_bytes", data | {"relname": table}, size * GIB + grows * (t - BORN)
        yield (
            "pg_stat_user_tables_index_size_bytes",
            data | {"relname": table},
            0.3 * size * GIB + 0.2 * grows * (t - BORN),
        )


def _copies(t: Values, own: dict[str, str], cache: dict[str, str]) -> Iterator[Row]:
    """The replicas of database and cache, and how the cache does."""
    second = {**own, "instance": "clinic-db-2:5432"}
    behind = 0.2 + 0.6 * busy(t) + 11 * LOCKS.share(t)
    yield "pg_replication_is_replica", second, np.ones(len(t))
    yield "pg_replication_lag_seconds", second, behind
    seen = {**own, "application_name": "clinic-db-2"}
    yield "pg_stat_replication_replay_lag_seconds", seen, behind
    yield "pg_stat_replication_pg_wal_lsn_diff", seen, np.round(2.1e5 * behind)
    done = 240 * worked(t)
    missed = 0.04 * done + 90 * CACHE.area(t)
    for name, count in (
        ("keyspace_hits", 0.9 * done), ("keyspace_misses", missed), ("evicted_keys", 0.0004 * done),
        ("expired_keys", 0.01 * done),
    ):  # fmt: skip
        yield f"redis_{name}_total", cache, np.floor(count)
    yield "redis_connected_clients", cache, np.round(18 + 22 * busy(t))
    yield "redis_memory_max_bytes", cache, np.full(len(t), 2.0 * GIB)
    for name, rate in (("input", 4.1e4), ("output", 1.6e5)):
        yield f"redis_net_{name}_bytes_total", cache, rate * worked(t)
    for name, most in (("keys", 41_000.0), ("keys_expiring", 37_000.0)):
        yield f"redis_db_{name}", cache | {"db": "db0"}, np.round(most * (0.8 + 0.2 * busy(t)))
    replica = {**cache, "slave_ip": "clinic-cache-2", "slave_port": "6379"}
    yield "redis_connected_slave_lag_bytes", replica, np.round(400 * busy(t) + 9e4 * CACHE.share(t))


def _pages(t: Values) -> Iterator[Row]:
    for route, weight in ROUTES:
        for device, part in (("desktop", 0.6), ("phone", 0.4)):
            own = {"job": "frontend", "instance": "clinic-1:8000", "site": "clinic", "route": route, "device": device}
            views = 0.4 * part * worked(t)
            yield "frontend_page_views_total", own, views
            yield "frontend_errors_total", own, 0.004 * views + 0.05 * part * LOCKS.area(t) * (route == "/book")
            for name, usual in VITALS:
                middle = usual * weight * (1.0 if device == "desktop" else 1.5)
                yield from _vital(f"web_vitals_{name}", own, t, part, middle, VITAL_BUCKETS)
            yield from _vital("web_vitals_cls_ratio", own, t, part, 0.04 * weight, (0.01, 0.05, 0.1, 0.25, 1.0))


def _doors(t: Values) -> Iterator[Row]:
    own = {"job": "clinic-web", "instance": "clinic-1:8000"}
    tried = GUESSES.area(t)
    for name, labels, count in (
        ("portal_logins_total", {}, 0.012 * worked(t)),
        ("portal_login_failures_total", {}, 0.0009 * worked(t) + 0.06 * tried),
        ("portal_lockouts_total", {}, 0.005 * tried),
        ("portal_new_place_logins_total", {}, 0.00006 * worked(t)),
        ("portal_auth_refusals_total", {"reason": "right"}, 0.0006 * worked(t)),
        ("portal_auth_refusals_total", {"reason": "token"}, 0.0003 * worked(t) + 0.01 * tried),
    ):
        yield name, own | labels, np.floor(count)


def _pushes(t: Values) -> Iterator[Row]:
    """Who sends samples of their own accord."""
    own = {"job": "clinic-web", "instance": "clinic-1:8000", "process": "web"}
    for token, protocol, pace in SENDERS:
        sender = own | {"token": token, "protocol": protocol}
        sent = pace * (0.7 * (t - BORN) + 0.3 * worked(t))
        yield "portal_push_samples_total", sender, np.floor(sent)
        yield "portal_push_bytes_total", sender, np.floor(9 * sent)
        yield "portal_push_requests_total", sender | {"code": "200"}, np.floor(sent / 200)
        yield "portal_push_last_timestamp_seconds", sender, np.floor(t / 5) * 5


def _vital(
    name: str, labels: Mapping[str, str], t: Values, part: float, middle: float, edges: tuple[float, ...]
) -> Iterator[Row]:
    views, slowed = 0.4 * part * worked(t), 0.8 * part * strained(t)
    for edge in (*edges, math.inf):
        fine, bad = (1.0 if edge == math.inf else 1 / (1 + (m / edge) ** 3) for m in (0.7 * middle, 1.6 * middle))
        label = "+Inf" if edge == math.inf else f"{edge:g}"
        yield f"{name}_bucket", {**labels, "le": label}, (views - slowed) * fine + slowed * bad


def recorded(t: Values, began: float) -> Iterator[Row]:
    """Yield what the shipped recording rules would have written in the past: the portal did not run then."""
    buckets, codes = _a_minute(t)
    paced = sum(codes.values(), np.zeros(len(t)))
    cpu = 100 * (0.112 + 0.478 * busy(t))
    size, free = archive(t, began)
    disk = 100 * np.maximum((150 + 14 * ((t - BORN) % WEEK) / WEEK) / 240, 1 - free / size)
    for name, value in (
        ("throughput", paced / 60), ("errorRate", 100 * codes["500"] / paced),
        ("responseTime", 1000 * _quantile(0.95, buckets)), ("cpuUsage", cpu),
        ("memoryUsage", memory(t)), ("memoryPercentage", memory(t)), ("diskUsage", disk),
        ("dbConnections", 18 + 3 * wave(t, 4)),
    ):  # fmt: skip
        yield name, {}, value
    yield from _told(t)
    for band, usual, spread in (
        ("unusual-user-behaviour", 40 * busy(t), 9.0), ("revenue-drop", 1450 * busy(t), 330.0)
    ):  # fmt: skip
        yield "anomaly:lower_band", {"band": band}, np.maximum(0.0, 0.75 * usual - spread)
        yield "anomaly:upper_band", {"band": band}, 1.2 * usual + spread


def _a_minute(t: Values) -> tuple[dict[float, Values], dict[str, Values]]:
    """How many requests of the minute before were answered within each bucket's edge, and with each code."""
    buckets: dict[float, Values] = {}
    codes: dict[str, Values] = {}
    for (name, labels, now), (_, _, before) in zip(_requests(t), _requests(t - 60), strict=True):
        if name == "http_requests_total":
            codes[labels["code"]] = codes.get(labels["code"], 0) + (now - before)
        elif "le" in labels:
            edge = float(labels["le"])
            buckets[edge] = buckets.get(edge, 0) + (now - before)
    return buckets, codes


def _quantile(share: float, buckets: Mapping[float, Values]) -> Values:
    """The quantile of cumulative buckets, between their edges on a straight line (as histogram_quantile has it)."""
    rank = share * buckets[math.inf]
    found, below, low = np.full(len(rank), max(BUCKETS)), np.zeros(len(rank)), 0.0
    for edge in BUCKETS:
        count = buckets[edge]
        inside = (below < rank) & (count >= rank)
        part = np.divide(rank - below, count - below, out=np.zeros(len(rank)), where=inside)
        found = np.where(inside, low + (edge - low) * part, found)
        below, low = count, edge
    return found


def _told(t: Values) -> Iterator[Row]:
    """What the recording rules of events make of what the application told."""
    happened: dict[str, list[tuple[float, float, bool]]] = {}
    for name, labels, at, value in events(float(t[0]) - DAY, float(t[-1])):
        happened.setdefault(name, []).append((at, value, labels.get("outcome") == "success"))

    def within(name: str, seconds: float) -> tuple[Values, Values, Values]:
        """Return how many there were in the seconds before each time, their sum, and how many succeeded."""
        columns = np.array(sorted(happened.get(name, []))).reshape(-1, 3)
        upto = np.vstack([np.zeros((1, 3)), np.cumsum(np.column_stack([columns[:, 1] * 0 + 1, columns[:, 1:]]), 0)])
        last, first = (np.searchsorted(columns[:, 0], at, side="right") for at in (t, t - seconds))
        count, total, good = (upto[last] - upto[first]).T
        return count, total, good

    yield "activeUsers", {}, within("user_active", 300)[0]
    yield "bookings", {}, within("booking_made", 3600)[0]
    yield "revenue", {}, within("payment", 3600)[1]
    for recorded_name, name, of in (("treatmentSuccess", "treatment_completed", 2), ("satisfaction", "survey", 1)):
        found = within(name, DAY)
        yield recorded_name, {}, found[of] / np.maximum(found[0], 1) * (100 if of == 2 else 1)


LOST: Final = {"payment": (PAYMENTS, 0.3), "booking_made": (LOCKS, 0.6)}
"""What happens less often in a trouble, and by how many at full load there are fewer."""
EVENTS: Final[tuple[tuple[str, dict[str, str], float, float, float], ...]] = (
    # name, labels, events an hour at full load, value at its least and at its most
    ("user_active", {}, 480, 1, 1),
    ("booking_made", {"channel": "web"}, 22, 1, 1),
    ("treatment_completed", {"outcome": "success"}, 10, 1, 1),
    ("treatment_completed", {"outcome": "complication"}, 0.5, 1, 1),
    ("payment", {"method": "card"}, 14, 45, 160),
    ("survey", {}, 8, 3, 5),
    ("feature_used", {"feature": "online booking"}, 30, 1, 1),
    ("feature_used", {"feature": "video consultation"}, 9, 1, 1),
    ("feature_used", {"feature": "prescription"}, 17, 1, 1),
)


def events(begin: float, end: float) -> Iterator[tuple[str, dict[str, str], float, float]]:
    """Yield what happened after `begin` up to `end` (s): name, labels, time (s), value. Each at its own, fixed time."""
    grid = np.arange(begin // GRID * GRID, end + 2 * GRID, GRID)
    for number, (name, labels, pace, low, high) in enumerate(EVENTS):
        from_, to = (math.floor(float(_done(name, np.full(1, at))[0]) * pace / 3600) for at in (begin, end))
        if to <= from_:
            continue
        counts = np.arange(from_ + 1, to + 1)
        times = np.interp(counts, _done(name, grid) * pace / 3600, grid)
        for count, at in zip(counts.tolist(), times.tolist(), strict=True):
            spread = (count * 0.618034 + number * 0.31) % 1.0
            yield name, labels, at, round(low + (high - low) * spread)


def _done(name: str, t: Values) -> Values:
    """Return the integral of how busy the clinic is with it (s)."""
    trouble, less = LOST.get(name, (LOCKS, 0.0))
    return worked(t) - less * trouble.area(t)
