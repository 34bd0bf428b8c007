"""An hour in the life of a machine, written through the ordinary verbs: what browser tests and screenshots look at."""

import math
from datetime import datetime, timedelta

from apps.accounts.permissions import Principal
from apps.alerting import evaluation
from apps.alerting import services as alerting
from apps.alerting.models import Alert, AlertRule, RecordingRule
from apps.core.telemetry import Reading
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from apps.notifications import sending
from apps.notifications import services as notifications
from apps.notifications.models import Contact
from apps.oncall import escalating, telling
from apps.oncall import services as oncall
from apps.oncall.models import Route
from apps.sources import checks, heartbeats, measured
from apps.sources import services as sources
from apps.sources.heartbeats import Call
from apps.sources.models import (
    BusinessMetric,
    Check,
    CheckChange,
    DataSource,
    Heartbeat,
    ScrapeJob,
    ScrapeTarget,
)
from monitoring_portal import setup

BY = Principal.system("scene", via="command")
STEP = 15
GIB = 1024**3
BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ENDPOINTS = (
    ("GET", "/monitoring", 40, 0.03),
    ("GET", "/api/monitoring/metrics", 90, 0.12),
    ("POST", "/orders", 20, 0.4),
)


def wave(second: float, seed: float = 0.0) -> float:
    """A calm, repeatable wobble between 0 and 1."""
    return (
        0.5
        + 0.3 * math.sin(second / 540 + seed)
        + 0.15 * math.sin(second / 131 + 2 * seed)
        + 0.05 * math.sin(second / 17)
    )


def readings(second: int) -> list[tuple[str, dict[str, str], float]]:
    """Every series' value at that second of the hour."""
    node = {"job": "node", "instance": "web-1"}
    own = {"job": "portal", "instance": "web-1"}
    found: list[tuple[str, dict[str, str], float]] = []
    for name, value in (
        ("responseTime", 90 + 160 * wave(second, 1)),
        ("errorRate", 0.8 * wave(second, 2)),
        ("throughput", 8 + 6 * wave(second, 3)),
        ("cpuUsage", 25 + 30 * wave(second, 4)),
        ("memoryUsage", 79 + 8 * wave(second, 0)),
        ("diskUsage", 61 + second / 3600),
        ("dbConnections", 14 + 6 * wave(second, 5)),
    ):
        found.append((name, {}, value))
    for cpu in ("0", "1"):
        for mode, share in (("user", 0.26), ("system", 0.1), ("iowait", 0.05), ("softirq", 0.01), ("steal", 0.005)):
            grown = second * share + 60 * share * math.sin(second / 540)
            found.append(("node_cpu_seconds_total", node | {"cpu": cpu, "mode": mode}, 1000 + grown))
        found.append(("node_cpu_seconds_total", node | {"cpu": cpu, "mode": "idle"}, 5000 + second * 0.575))
    for name, value in (
        ("node_load1", 0.6 + 1.2 * wave(second, 4)),
        ("node_load5", 0.8 + 0.8 * wave(second - 120, 4)),
        ("node_load15", 0.9 + 0.5 * wave(second - 400, 4)),
        ("node_memory_MemTotal_bytes", 16 * GIB),
        ("node_memory_MemAvailable_bytes", 16 * GIB * (1 - (79 + 8 * wave(second, 0)) / 100)),
        ("node_memory_MemFree_bytes", 1.1 * GIB + 0.4 * GIB * wave(second, 2)),
        ("node_memory_SwapTotal_bytes", 2 * GIB),
        ("node_memory_SwapFree_bytes", 1.8 * GIB),
        ("node_netstat_Tcp_CurrEstab", 41 + round(20 * wave(second, 1))),
        ("node_sockstat_TCP_tw", round(14 * wave(second, 2))),
        ("node_procs_running", 1 + round(3 * wave(second, 3))),
        ("node_procs_blocked", 0),
    ):
        found.append((name, node, float(value)))
    disk, net = node | {"device": "nvme0n1"}, node | {"device": "eth0"}
    for name, rate in (
        ("node_disk_read_bytes_total", 2.4e6),
        ("node_disk_written_bytes_total", 5.1e6),
        ("node_disk_reads_completed_total", 61),
        ("node_disk_writes_completed_total", 140),
        ("node_disk_io_time_seconds_total", 0.12),
    ):
        found.append((name, disk, rate * (second + 300 * math.sin(second / 540))))
    for name, rate in (
        ("node_network_receive_bytes_total", 8.2e5),
        ("node_network_transmit_bytes_total", 3.1e5),
        ("node_network_receive_errs_total", 0),
        ("node_network_transmit_errs_total", 0),
        ("node_network_receive_drop_total", 0.02),
        ("node_network_transmit_drop_total", 0),
    ):
        found.append((name, net, rate * (second + 250 * math.sin(second / 470))))
    mount = node | {"device": "/dev/nvme0n1p2", "fstype": "ext4", "mountpoint": "/"}
    found.append(("node_filesystem_size_bytes", mount, 240 * GIB))
    found.append(("node_filesystem_avail_bytes", mount, (93 - second / 3600) * GIB))
    for state, count in (("active", 2), ("idle", 9), ("idle in transaction", 1)):
        found.append(
            ("pg_stat_activity_count", own | {"state": state, "datname": "portal"}, count + round(2 * wave(second, 1)))
        )
    for name, rate in (
        ("pg_stat_database_xact_commit", 34.0),
        ("pg_stat_database_xact_rollback", 0.2),
        ("pg_stat_database_blks_hit", 4100.0),
        ("pg_stat_database_blks_read", 9.0),
        ("redis_commands_processed_total", 88.0),
    ):
        found.append((name, own, rate * (second + 200 * math.sin(second / 400))))
    found += business(second) + databases(second)
    found.append(("redis_memory_used_bytes", own, 2.1e6 + 3e5 * wave(second, 2)))
    found.append(("redis_memory_used_rss_bytes", own, 8.4e6))
    for queue in ("fast", "send", "slow"):
        found.append(("celery_queue_length", own | {"queue": queue}, float(round(2 * wave(second, len(queue))))))
    for number, (method, endpoint, per_minute, seconds) in enumerate(ENDPOINTS):
        for code, share in (("200", 0.97), ("404", 0.02), ("500", 0.01)):
            labels = own | {"method": method, "endpoint": endpoint, "code": code}
            requests = 1.0 * share * per_minute / 60 * (second + 400 * math.sin(second / 600 + 2 * number)) + 900
            found.append(("http_requests_total", labels, requests))
            found.append(("http_request_duration_seconds_count", labels, requests))
            found.append(("http_request_duration_seconds_sum", labels, requests * seconds))
            for edge in BUCKETS:
                part = 1 - math.exp(-edge / seconds)
                found.append(("http_request_duration_seconds_bucket", labels | {"le": f"{edge:g}"}, requests * part))
            found.append(("http_request_duration_seconds_bucket", labels | {"le": "+Inf"}, requests))
    for token, protocol, pace in (
        ("agent on web-1 (mp_q7Lw4…)", "remote_write", 340.0),
        ("shop collector (mp_Z0a1k…)", "otlp", 52.5),
        ("nightly backup (mp_f3Xsm…)", "pushgateway", 0.02),
        ("system", "statsd", 12_400.0),
    ):
        sender = own | {"process": "web", "token": token, "protocol": protocol}
        found.append(("portal_push_samples_total", sender, pace * second))
        found.append(("portal_push_bytes_total", sender, 11 * pace * second))
        found.append(("portal_push_requests_total", sender | {"code": "200"}, pace * second / 200))
    shop = own | {"process": "web", "token": "shop collector (mp_Z0a1k…)", "protocol": "otlp"}
    found.append(("portal_push_refused_total", shop | {"reason": "exponential_histogram"}, second / 15.0))
    found.append(("portal_push_refused_total", shop | {"reason": "token_series_limit"}, second / 90.0))
    return found


def business(second: int) -> list[tuple[str, dict[str, str], float]]:
    """What events came to, and what a query found."""
    job = {"job": "business", "category": "business"}
    found: list[tuple[str, dict[str, str], float]] = [
        ("activeUsers", {}, round(120 + 90 * wave(second, 1))),
        ("bookings", {}, round(34 + 22 * wave(second, 2))),
        ("treatmentSuccess", {}, 91 + 5 * wave(second, 3)),
        ("revenue", {}, 4100 + 2600 * wave(second, 4)),
        ("satisfaction", {}, 4.1 + 0.4 * wave(second, 5)),
    ]
    found += [("clinic_beds_free", job | {"ward": ward}, round(most * wave(second, most)))
              for ward, most in (("surgery", 14), ("maternity", 9), ("other", 22))]  # fmt: skip
    for number, feature in enumerate(("search", "booking", "invoice", "chat")):
        if second % (60 + 45 * number) == 0:
            found.append(("feature_used", job | {"feature": feature}, 1.0))
    return found


def databases(second: int) -> list[tuple[str, dict[str, str], float]]:
    """A primary, its replica and a cache that are not the portal's own."""
    found: list[tuple[str, dict[str, str], float]] = []
    for server, pace in (("main", 1.0), ("second", 0.4)):
        own = {"job": "databases", "server": server, "instance": f"{server}.example:5432"}
        data = own | {"datname": "clinic"}
        found.append(("pg_settings_max_connections", own, 100.0))
        found.append(("pg_database_size_bytes", data, 48 * GIB + 3e4 * second))
        for state, count in (("active", 9), ("idle", 28), ("idle in transaction", 2)):
            found.append(
                ("pg_stat_activity_count", data | {"state": state}, round(pace * count * (0.6 + wave(second))))
            )
        for name, rate in (("xact_commit", 210.0), ("xact_rollback", 1.2), ("blks_hit", 9100.0), ("blks_read", 42.0)):
            grown = pace * rate * (second + 200 * math.sin(second / 400))
            found.append((f"pg_stat_database_{name}", data, grown + 9e5))
        found.append(("pg_locks_count", data | {"mode": "accesssharelock"}, round(30 * pace * wave(second, 2))))
        for number, query in enumerate(
            ("SELECT * FROM booking WHERE day = $1", "UPDATE bed SET free = $1 WHERE id = $2")
        ):
            labels = data | {"queryid": f"{number}"}
            share = pace * (0.3 - 0.1 * number)
            found.append(
                ("pg_stat_statements_seconds_total", labels, share * (second + 90 * math.sin(second / 300)) + 900)
            )
            found.append(("pg_stat_statements_query_id", labels | {"query": query}, 1.0))
        for table, size in (("booking", 21.0), ("invoice", 9.0), ("bed", 0.2)):
            relation = data | {"schemaname": "public", "relname": table}
            found.append(("pg_stat_user_tables_table_size_bytes", relation, size * GIB))
            found.append(("pg_stat_user_tables_index_size_bytes", relation, size * GIB / 3))
        found.append(("pg_replication_is_replica", own, float(server == "second")))
        found.append(("pg_replication_lag_seconds", own, 0.2 + 2 * wave(second, 3) if server == "second" else 0.0))
    sees = {"job": "databases", "server": "main", "instance": "main.example:5432", "application_name": "second"}
    found.append(("pg_stat_replication_pg_wal_lsn_diff", sees, 4e4 + 9e5 * wave(second, 3)))
    cache = {"job": "databases", "server": "cache", "instance": "cache.example:6379"}
    rates = {"keyspace_hits": 310.0, "keyspace_misses": 24.0, "commands_processed": 520.0, "evicted_keys": 0.0}
    for name, rate in (rates | {"expired_keys": 2.0}).items():
        found.append((f"redis_{name}_total", cache, rate * (second + 150 * math.sin(second / 300)) + 9e4))
    found.append(("redis_memory_used_bytes", cache, 3.1e8 + 4e7 * wave(second, 1)))
    found.append(("redis_memory_max_bytes", cache, 5e8))
    found.append(("redis_connected_clients", cache, round(18 + 9 * wave(second, 2))))
    return found


def write_measured(*, now: datetime) -> None:
    """Data sources that are up and down, a query that gives its figures and one that fails."""
    hour = timedelta(hours=1)
    for name, kind, health, error in (
        ("main", "postgres", "up", ""), ("second", "postgres", "up", ""), ("cache", "redis", "up", ""),
        ("archive", "postgres", "down", "connection failed: Connection refused. Is the server running on that host?"),
    ):  # fmt: skip
        port = 5432 if kind == "postgres" else 6379
        source = DataSource(name=name, kind=kind, address=f"{name}.example:{port}", database="clinic", user="watcher")
        measured.save_data_source(by=BY, source=source, now=now)
        DataSource.objects.filter(pk=source.pk).update(
            health=health, error=error, health_at=now - 5 * hour, last_at=now, due_at=now + hour,
            last_good_at=now - (hour if error else timedelta()), duration=timedelta(milliseconds=61),
        )  # fmt: skip
    main = DataSource.objects.get(name="main")
    for name, text, error in (
        ("clinic_beds_free", "Beds that are free, by ward.", ""),
        ("clinic_invoices_open", "Invoices that nobody has paid.", 'relation "invoice" does not exist.'),
    ):
        metric = BusinessMetric(
            name=name, help=text, source=main, query="SELECT ward, count(*) AS value FROM bed GROUP BY 1"
        )
        measured.save_business_metric(by=BY, metric=metric, now=now)
        BusinessMetric.objects.filter(pk=metric.pk).update(
            error=error, rows=6, omitted=0, merged=2, last_at=now, last_good_at=now - (hour if error else timedelta()),
            duration=timedelta(milliseconds=23), due_at=now + hour,
            shown=[] if error else [[name, {"ward": "surgery", "job": "business"}]],
        )  # fmt: skip


def write_hour(*, now: datetime) -> None:
    """Store an hour of samples up to now, on the 15 s grid of the collectors."""
    end = int(now.timestamp()) // STEP * STEP
    labels, times, values = [], [], []
    for second in range(-300, 3601, STEP):  # rates need something before the hour
        for name, own, value in readings(second):
            labels.append({"__name__": name, **own})
            times.append((end - 3600 + second) * 1000)
            values.append(value)
    for labels_of in [one for one in labels if one["__name__"] == "portal_push_bytes_total"][:4]:
        labels.append(labels_of | {"__name__": "portal_push_last_timestamp_seconds"})
        times.append(end * 1000)
        values.append(float(end - 4 * len(labels_of["protocol"])))
    metrics.backfill(samples=Samples.of(labels, times, values), by=BY, now=now)


def write_people_to_tell(*, now: datetime) -> None:
    """The shipped rules and policy, and two contacts of which one does not work."""
    setup.load_defaults(now=now)
    for name, to in (("On-call", "oncall@shop.example"), ("Shop team", "shop@shop.example")):
        contact = notifications.save_contact(by=BY, now=now, name=name, kind="email", values={"to": [to]})
        Route.objects.get(is_root=True).contacts.add(contact)
    notifications.save_contact(
        by=BY, now=now, name="Chat of operations", kind="slack", values={"webhook_url": "https://hooks.example/T0/B0/x"}
    )
    Contact.objects.filter(kind="slack").update(problem="The webhook answered 404: no_team.", problem_at=now)
    steps = [
        {"kind": "notify", "config": {"contacts": ["On-call"]}},
        {"kind": "only_if_unreached", "config": {"steps": 1}},
        {"kind": "notify", "config": {"contacts": ["Shop team"], "route_contacts": True}},
        {"kind": "wait", "config": {"minutes": 10}},
        {"kind": "only_hours", "config": {"hours": "mon-fri 08:00-18:00", "zone": "Europe/Berlin", "steps": 1}},
        {"kind": "hand_over", "config": {"policy": "Default"}},
        {"kind": "repeat", "config": {"times": 2}},
    ]
    oncall.save_policy(by=BY, name="Shop at night", steps=steps)


def write_alerts(*, now: datetime, mara: Principal) -> list[Alert]:
    """A rule fires, two things were reported from outside after two changes; contacts are told, somebody takes one."""
    AlertRule.objects.filter(slug="high-memory-usage").update(pending_period=timedelta(0))
    RecordingRule.objects.update(enabled=False)  # the hour brings its own values
    evaluation.evaluate(now=now - timedelta(minutes=8))
    posted = [
        ("payment-errors", "critical", "Payments fail: 14 of 100 charges were refused by the provider", "shop", 42),
        ("slow-search", "warning", "Search takes 6.2 s at the 95th percentile", "search", 180),
    ]
    found = [
        alerting.post_alert(
            by=BY, type=kind, severity=severity, message=message, service=service, now=now - timedelta(minutes=minutes)
        )
        for kind, severity, message, service, minutes in posted
    ]
    for minutes, service, title in ((50, "shop", "shop 1.4.2 deployed"), (21, "search", "search: new index")):
        at = now - timedelta(minutes=minutes)
        alerting.note_change(by=BY, title=title, service=service, author="mara", at=at, now=at)
    past = now - timedelta(hours=9)
    old = alerting.post_alert(by=BY, type="backup", severity="error", message="No backup last night", now=past)
    for minutes in (7, 6):
        telling.tell(now=now - timedelta(minutes=minutes))
        telling.flush(now=now - timedelta(minutes=minutes))
        escalating.escalate(now=now - timedelta(minutes=minutes))
    sending.drain(clock=lambda: now - timedelta(minutes=5))
    alerting.acknowledge(by=mara, alert=found[1], now=now - timedelta(minutes=4))
    alerting.resolve(by=mara, alert=old, now=now - timedelta(hours=7))
    evaluation.evaluate(now=now)
    return [Alert.objects.active().get(type="high-memory-usage"), *found]


TARGETS = (
    ("node", "web-1:9100", 1184, 0.018),
    ("node", "web-2:9100", 1179, 0.021),
    ("shop", "shop-1:8080", 512, 0.046),
)


def write_targets(*, now: datetime) -> ScrapeTarget:
    """Two jobs whose targets are up, up with something refused, and down; return the one with something refused."""
    rules = [{"source_labels": ["__address__"], "regex": "([^:]+):.*", "target_label": "host"}]
    for name, addresses in (
        ("node", ["web-1:9100", "web-2:9100", "old-3:9100"]),
        ("shop", ["shop-1:8080", "shop-2:8080"]),
    ):
        drop = [{"source_labels": ["__address__"], "regex": "old-.*", "action": "drop"}]
        job = ScrapeJob(name=name, targets=[{"targets": addresses, "labels": {"zone": "a"}}], relabel=rules + drop)
        sources.save_job(by=BY, job=job, now=now - timedelta(hours=2))
    since = now - timedelta(hours=2)
    end = int(now.timestamp()) // 30 * 30
    labels, times, values = [], [], []
    for own, instance, count, seconds in TARGETS:
        row = ScrapeTarget.objects.get(labels__job=own, labels__instance=instance)
        refused = 2 if own == "shop" else 0
        problems = [
            "line 118: no label can be read at 'path=/cart} 4', character 21: shop_requests_total{path=/cart} 4",
            'shop_sessions{user="5b2f…"}: the job takes at most 30 labels, names of 200 characters and more',
        ]
        ScrapeTarget.objects.filter(pk=row.pk).update(
            health="up", health_at=since, last_at=now - timedelta(seconds=11), duration=timedelta(seconds=seconds),
            due_at=now + timedelta(seconds=19), samples=count + refused, kept=count, refused=refused,
            problems=problems[:refused],
        )  # fmt: skip
        for second in range(0, 3601, 30):
            for name, value in (
                ("up", 1.0),
                ("scrape_samples_scraped", count + refused),
                ("scrape_samples_post_metric_relabeling", float(count)),
                ("scrape_series_added", 0.0),
                ("scrape_duration_seconds", seconds * (0.8 + 0.5 * wave(second, seconds * 100))),
            ):
                labels.append({"__name__": name, **row.labels})
                times.append((end - 3600 + second) * 1000)
                values.append(float(value))
    metrics.backfill(samples=Samples.of(labels, times, values), by=BY, now=now)
    ScrapeTarget.objects.filter(labels__instance="shop-2:8080").update(
        health="down", health_at=now - timedelta(minutes=6), last_at=now - timedelta(seconds=20), due_at=now,
        duration=timedelta(seconds=10), error="shop-2 did not answer within 10 s.",
    )  # fmt: skip
    return ScrapeTarget.objects.get(labels__instance="shop-1:8080")


def write_checks(*, now: datetime) -> None:
    """Checks that are up and down, a certificate that ends soon, and jobs that called, failed and are late."""
    hour = timedelta(hours=1)
    certificate = {"subject": "shop.example", "issuer": "R11", "names": ["shop.example", "www.shop.example"]}
    for name, kind, config, health, reason, days in (
        ("Shop", "http", {"url": "https://shop.example/health"}, "up", "", 61),
        ("Booking", "http", {"url": "https://booking.example/"}, "up", "", 9),
        ("Mail", "tcp", {"address": "mail.example:25"}, "down", "mail.example:25 did not answer within 10 s.", None),
        ("Cache", "redis", {"address": "cache.example:6379"}, "failing", "The connection failed: reset.", None),
    ):
        check = checks.save_check(by=BY, check=Check(name=name, kind=kind), values=config, now=now)
        ends = {**certificate, "not_after": (now + timedelta(days=days)).isoformat()} if days else None
        Check.objects.filter(pk=check.pk).update(
            health=health, error=reason, health_at=now - 3 * hour, last_at=now, certificate=ends, due_at=now + hour,
            duration=timedelta(milliseconds=184), failures=3 if reason else 0,
        )  # fmt: skip
        CheckChange.objects.create(check_row=check, at=now - 3 * hour, health="down" if reason else "up", reason=reason)
        labels = {"job": "checks", "check": name, "instance": check.address}
        samples = []
        for minute in range(-60, 1):
            is_up = float(not (health == "down" and minute > -20))
            values: list[tuple[str, dict[str, str], float]] = [
                ("check_up", {}, is_up), ("probe_success", {}, is_up), ("probe_duration_seconds", {}, 0.18),
            ]  # fmt: skip
            for phase, seconds in (("connect", 0.02), ("tls", 0.05), ("processing", 0.09), ("transfer", 0.01)):
                if kind == "http":
                    took = seconds + 0.02 * wave(60 * minute)
                    values.append(("probe_http_duration_seconds", {"phase": phase}, took))
            stamp = int((now + timedelta(minutes=minute)).timestamp() * 1000)
            samples += [Reading(series, value, labels | more, timestamp_ms=stamp) for series, more, value in values]
        metrics.ingest(samples=Samples.from_readings(samples, now), by=BY, now=now, window=None)
    for name, words, age in (("Backup", "", 0), ("Invoices", "No space left on device", 0), ("Reports", "", 62)):
        beat = heartbeats.save_heartbeat(by=BY, beat=Heartbeat(name=name, period=hour), now=now)
        at = now - timedelta(minutes=age)
        for signal, moment in (("start", at - timedelta(seconds=80)), ("fail" if words else "success", at)):
            call = Call(signal, body=words if signal == "fail" else "", address="192.0.2.7", agent="curl/8.5.0")
            heartbeats.ping(beat=beat, call=call, now=moment)
