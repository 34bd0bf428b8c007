"""What the pages plot: panels as data. A panel is a title, a unit and expressions; everything else is drawn from them.

`$window` in an expression becomes the range that fits the step of the chart, `$range` the whole stretch shown.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """One expression. `legend` names its series, with labels in braces: "{device} read"."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """A time-series chart.

    `sources`: ids of the live topic "series" that bring new points ("host", "requests", "recorded", "portal").
    `levels_of`: the expression whose rule levels are drawn as limits. `minimum` and `maximum` fix the vertical axis.
    """

    key: str
    title: str
    unit: str
    queries: tuple[Query, ...]
    sources: tuple[str, ...] = ("host",)
    levels_of: str = ""
    stacked: bool = False
    minimum: float | None = 0.0
    maximum: float | None = None
    wide: bool = False
    help: str = ""
    empty: str = ""
    link: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table: a label of the series, or the value of an instant expression."""

    title: str
    expression: str
    unit: str


@dataclass(frozen=True)
class Table:
    """The series of the first column's expression with the values of the others beside them, joined by `by`."""

    key: str
    by: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Section:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _tile(name: str, title: str, unit: str, link: str, *, maximum: float | None = None) -> Panel:
    return Panel(f"tile-{name}", title, unit, (Query(name, title),), ("recorded",), name, maximum=maximum, link=link)


TILES = (
    _tile("responseTime", "Response time p95", "ms", "performance"),
    _tile("errorRate", "Error rate", "percent", "performance", maximum=100),
    _tile("throughput", "Throughput", "req/s", "performance"),
    _tile("cpuUsage", "CPU", "percent", "system", maximum=100),
    _tile("memoryUsage", "Memory", "percent", "system", maximum=100),
    _tile("diskUsage", "Disk", "percent", "system", maximum=100),
    _tile("dbConnections", "DB connections", "percent", "system", maximum=100),
)

NO_REQUESTS = "No request was served in this time."
DISKS = 'device!~"(ram|loop|fd|zram)\\\\d+|dm-\\\\d+"'
NETS = 'device!~"lo|veth.*|docker.*|br-.*"'
REAL_FS = 'fstype!~"tmpfs|ramfs|squashfs|overlay"'

PERFORMANCE = (
    Panel(
        "response-time",
        "Response time",
        "ms",
        tuple(
            Query(
                f"1000 * histogram_quantile({quantile}, "
                "sum by (le) (rate(http_request_duration_seconds_bucket[$window])))",
                legend,
            )
            for quantile, legend in ((0.99, "p99"), (0.95, "p95"), (0.5, "p50"))
        ),
        ("requests",),
        "responseTime",
        wide=True,
        help="Half, 95 % and 99 % of the requests were answered within these times.",
        empty=NO_REQUESTS,
    ),
    Panel(
        "error-rate",
        "Error rate",
        "percent",
        (Query("errorRate", "5xx answers"),),
        ("recorded",),
        "errorRate",
        help="Answers with a status of 500 and above, of all answers.",
    ),
    Panel(
        "throughput",
        "Throughput",
        "req/s",
        (Query("sum by (method) (rate(http_requests_total[$window]))", "{method}"),),
        ("requests",),
        "throughput",
        stacked=True,
        empty=NO_REQUESTS,
    ),
    Panel(
        "status-codes",
        "Status codes",
        "req/s",
        (Query("sum by (code) (rate(http_requests_total[$window]))", "{code}"),),
        ("requests",),
        stacked=True,
        empty=NO_REQUESTS,
    ),
    Panel(
        "slowest",
        "Slowest endpoints, p95",
        "ms",
        (
            Query(
                "topk(6, 1000 * histogram_quantile(0.95, "
                "sum by (le, endpoint) (rate(http_request_duration_seconds_bucket[$window]))))",
                "{endpoint}",
            ),
        ),
        ("requests",),
        empty=NO_REQUESTS,
    ),
)

ENDPOINTS = Table(
    "endpoints",
    (("method", "Method"), ("endpoint", "Endpoint")),
    (
        Column(
            "p95",
            "topk(15, 1000 * histogram_quantile(0.95, "
            "sum by (le, method, endpoint) (rate(http_request_duration_seconds_bucket[$range])) > 0))",
            "ms",
        ),
        Column(
            "Mean",
            "1000 * sum by (method, endpoint) (rate(http_request_duration_seconds_sum[$range]))"
            " / sum by (method, endpoint) (rate(http_request_duration_seconds_count[$range]))",
            "ms",
        ),
        Column("Requests", "sum by (method, endpoint) (increase(http_requests_total[$range]))", "count"),
        Column(
            "Errors",
            '100 * sum by (method, endpoint) (rate(http_requests_total{code=~"5.."}[$range]))'
            " / sum by (method, endpoint) (rate(http_requests_total[$range]))",
            "percent",
        ),
    ),
)

SYSTEM = (
    Section(
        "Processor and memory",
        (
            Panel(
                "cpu",
                "CPU by mode",
                "percent",
                (
                    Query(
                        '100 * sum by (mode) (rate(node_cpu_seconds_total{mode!="idle"}[$window]))'
                        ' / on () group_left () count(count by (cpu, instance) (node_cpu_seconds_total{mode="idle"}))',
                        "{mode}",
                    ),
                ),
                levels_of="cpuUsage",
                stacked=True,
                maximum=100,
                help="Share of all processors, stacked: how busy they are and with what.",
            ),
            Panel(
                "load",
                "Load",
                "count",
                (
                    Query("node_load1", "1 min"),
                    Query("node_load5", "5 min"),
                    Query("node_load15", "15 min"),
                    Query(
                        'count by (instance) (node_cpu_seconds_total{mode="idle"})',
                        "processors",
                    ),
                ),
                help="Processes that run or wait to run; above the number of processors they queue.",
            ),
            Panel(
                "memory",
                "Memory",
                "bytes",
                (
                    Query(
                        "node_memory_MemTotal_bytes - node_memory_MemAvailable_bytes",
                        "used",
                    ),
                    Query("node_memory_MemAvailable_bytes - node_memory_MemFree_bytes", "reclaimable"),
                    Query("node_memory_MemFree_bytes", "free"),
                ),
                stacked=True,
            ),
            Panel(
                "memory-share",
                "Memory and swap in use",
                "percent",
                (
                    Query("100 * (1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes)", "memory"),
                    Query("100 * (1 - node_memory_SwapFree_bytes / (node_memory_SwapTotal_bytes > 0))", "swap"),
                ),
                levels_of="memoryUsage",
                maximum=100,
            ),
        ),
    ),
    Section(
        "Disks",
        (
            Panel(
                "disk-space",
                "Disk space in use",
                "percent",
                (
                    Query(
                        f"100 * (1 - node_filesystem_avail_bytes{{{REAL_FS}}} / (node_filesystem_size_bytes > 0))",
                        "{mountpoint}",
                    ),
                    Query(
                        "100 * (1 - portal_data_disk_avail_bytes / (portal_data_disk_size_bytes"
                        " - portal_data_disk_free_bytes + portal_data_disk_avail_bytes))",
                        "portal data",
                    ),
                ),
                levels_of="diskUsage",
                maximum=100,
            ),
            Panel(
                "disk-busy",
                "Disk busy",
                "percent",
                (Query(f"100 * rate(node_disk_io_time_seconds_total{{{DISKS}}}[$window])", "{device}"),),
                maximum=100,
                help="Share of the time in which a disk had work.",
            ),
            Panel(
                "disk-io",
                "Disk I/O",
                "bytes/s",
                (
                    Query(f"rate(node_disk_read_bytes_total{{{DISKS}}}[$window])", "{device} read"),
                    Query(f"rate(node_disk_written_bytes_total{{{DISKS}}}[$window])", "{device} write"),
                ),
            ),
            Panel(
                "disk-ops",
                "Disk operations",
                "/s",
                (
                    Query(f"rate(node_disk_reads_completed_total{{{DISKS}}}[$window])", "{device} read"),
                    Query(f"rate(node_disk_writes_completed_total{{{DISKS}}}[$window])", "{device} write"),
                ),
            ),
        ),
    ),
    Section(
        "Network and processes",
        (
            Panel(
                "network",
                "Network traffic",
                "bytes/s",
                (
                    Query(f"rate(node_network_receive_bytes_total{{{NETS}}}[$window])", "{device} in"),
                    Query(f"rate(node_network_transmit_bytes_total{{{NETS}}}[$window])", "{device} out"),
                ),
            ),
            Panel(
                "network-errors",
                "Network errors and drops",
                "/s",
                (
                    Query("sum(rate(node_network_receive_errs_total[$window]))", "errors in"),
                    Query("sum(rate(node_network_transmit_errs_total[$window]))", "errors out"),
                    Query("sum(rate(node_network_receive_drop_total[$window]))", "drops in"),
                    Query("sum(rate(node_network_transmit_drop_total[$window]))", "drops out"),
                ),
            ),
            Panel(
                "sockets",
                "TCP connections",
                "count",
                (
                    Query("node_netstat_Tcp_CurrEstab", "established"),
                    Query("node_sockstat_TCP_tw", "time wait"),
                ),
            ),
            Panel(
                "processes",
                "Processes",
                "count",
                (
                    Query("node_procs_running", "running"),
                    Query("node_procs_blocked", "blocked"),
                ),
                help="Processes that run now, and those that wait for a disk.",
            ),
        ),
    ),
    Section(
        "The portal's own servers",
        (
            Panel(
                "pg-connections",
                "PostgreSQL connections",
                "count",
                (Query('sum by (state) (pg_stat_activity_count{job="portal"} > 0)', "{state}"),),
                ("portal", "host"),
                stacked=True,
            ),
            Panel(
                "pg-transactions",
                "PostgreSQL transactions",
                "/s",
                (
                    Query('sum(rate(pg_stat_database_xact_commit{job="portal"}[$window]))', "committed"),
                    Query('sum(rate(pg_stat_database_xact_rollback{job="portal"}[$window]))', "rolled back"),
                ),
                ("portal", "host"),
            ),
            Panel(
                "pg-cache",
                "PostgreSQL cache hits",
                "percent",
                (
                    Query(
                        '100 * sum(rate(pg_stat_database_blks_hit{job="portal"}[$window]))'
                        ' / (sum(rate(pg_stat_database_blks_hit{job="portal"}[$window]))'
                        ' + sum(rate(pg_stat_database_blks_read{job="portal"}[$window])))',
                        "hit ratio",
                    ),
                ),
                ("portal", "host"),
                minimum=None,
                maximum=100,
            ),
            Panel(
                "redis-commands",
                "Valkey commands",
                "/s",
                (Query('sum(rate(redis_commands_processed_total{job="portal"}[$window]))', "commands"),),
                ("portal", "host"),
            ),
            Panel(
                "redis-memory",
                "Valkey memory",
                "bytes",
                (
                    Query('redis_memory_used_bytes{job="portal"}', "used"),
                    Query('redis_memory_used_rss_bytes{job="portal"}', "resident"),
                ),
                ("portal", "host"),
            ),
            Panel(
                "queues",
                "Waiting tasks",
                "count",
                (Query("celery_queue_length", "{queue}"),),
                ("portal", "host"),
                levels_of="celery_queue_length",
            ),
        ),
    ),
)


# --- Front ends: what browsers report --------------------------------------------------------------------------------
def _vital(name: str, unit: str, title: str, about: str) -> Panel:
    series = f"web_vitals_{name}_{'ratio' if unit == 'count' else 'seconds'}_bucket"
    routes = f"topk(8, histogram_quantile(0.75, sum by (le, route) (rate({series}[$window]))))"
    return Panel(
        f"frontend-{name}", title, unit, (Query(routes, "{route}"),), ("portal",), help=about,
        empty="No page has reported in this time.",
    )  # fmt: skip


# Thresholds: https://web.dev/articles/vitals
FRONTEND = (
    _vital("lcp", "seconds", "Largest contentful paint, p75", "Good up to 2.5 s, poor beyond 4 s."),
    _vital("inp", "seconds", "Interaction to next paint, p75", "Good up to 200 ms, poor beyond 500 ms."),
    _vital("cls", "count", "Cumulative layout shift, p75", "Good up to 0.1, poor beyond 0.25."),
    _vital("fcp", "seconds", "First contentful paint, p75", "Good up to 1.8 s, poor beyond 3 s."),
    _vital("ttfb", "seconds", "Time to first byte, p75", "Good up to 0.8 s, poor beyond 1.8 s."),
    Panel(
        "frontend-views", "Page views", "/s",
        (Query("sum by (device) (rate(frontend_page_views_total[$window]))", "{device}"),), ("portal",), stacked=True,
        empty="No page has reported in this time.",
    ),
    Panel(
        "frontend-errors", "Script errors", "/s",
        (Query("topk(8, sum by (route) (rate(frontend_errors_total[$window])))", "{route}"),), ("portal",),
        empty="No page has reported an error in this time.",
    ),
    Panel(
        "frontend-devices", "Largest contentful paint by device, p75", "seconds",
        (Query(
            "histogram_quantile(0.75, sum by (le, device) (rate(web_vitals_lcp_seconds_bucket[$window])))", "{device}"
        ),), ("portal",), empty="No page has reported in this time.",
    ),
)  # fmt: skip


# --- Security: who tries to get in -----------------------------------------------------------------------------------
def _tries(key: str, title: str, rule: str, legend: str, about: str) -> Panel:
    """A chart of a shipped rule's own expression; over long ranges the highest of each step, or peaks would be lost."""
    return Panel(
        f"security-{key}", title, "count", (Query(f"max_over_time(({rule})[$window:1m])", legend),),
        ("portal",), rule, help=about, empty="Nothing of the kind was counted in this time.",
    )  # fmt: skip


SECURITY = (
    _tries("failed", "Failed log-ins in 5 minutes", "sum(increase(portal_login_failures_total[5m]))", "failed",
           "Wrong passwords and unknown names."),
    _tries("lockouts", "Lock-outs in 15 minutes", "sum(increase(portal_lockouts_total[15m]))", "locked out",
           "Names that failed so often that they have to wait."),
    _tries("denied", "Refused for want of a right, in 10 minutes",
           'sum(increase(portal_auth_refusals_total{reason="right"}[10m]))', "refused",
           "Somebody known asked for what their role does not include."),
    _tries("tokens", "Wrong tokens in 10 minutes",
           'sum(increase(portal_auth_refusals_total{reason=~"token|throttled"}[10m]))', "refused",
           "Unknown, expired or revoked tokens, and addresses that had too many of them."),
    _tries("places", "Log-ins from new places in 15 minutes", "sum(increase(portal_new_place_logins_total[15m]))",
           "new place", "A network or a device that the person had not used before."),
    Panel(
        "security-logins", "Log-ins in an hour", "count", (Query("sum(increase(portal_logins_total[1h]))", "log-ins"),),
        ("portal",), help="Successful ones.", empty="Nobody logged in in this time.",
    ),
)  # fmt: skip

PANELS: dict[str, Panel] = {
    panel.key: panel
    for panel in (
        *TILES,
        *PERFORMANCE,
        *FRONTEND,
        *SECURITY,
        *(panel for section in SYSTEM for panel in section.panels),
    )
}
TABLES: dict[str, Table] = {ENDPOINTS.key: ENDPOINTS}
