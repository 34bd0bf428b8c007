"""The charts of the business and of databases and caches."""

from collections.abc import Iterable

from apps.accounts.permissions import Principal
from apps.dashboards.panels import Panel, Query, Section
from apps.promql.text import quote
from apps.sources.models import BusinessMetric

NO_EVENT = "No such event was pushed in this time."
NO_SERVER = "No such server was measured in this time."
MOST: int = 30


def _event(
    key: str, title: str, unit: str, expression: str, help: str, *, legend: str = "", maximum: float | None = None  # noqa: A002
) -> Panel:  # fmt: skip
    queries = (Query(expression, legend or title.lower()),)
    return Panel(
        f"business-{key}", title, unit, queries, ("recorded", "portal"), help=help, empty=NO_EVENT, maximum=maximum
    )


BUSINESS = (
    _event("users", "User activity", "count", "activeUsers", "Signs of activity in the last five minutes."),
    _event("bookings", "Bookings", "count", "bookings", "Bookings made in the last hour."),
    _event("success", "Treatment success", "percent", "treatmentSuccess",
           "Treatments of the last day that ended well, of all that ended; from five on.", maximum=100),
    _event("revenue", "Revenue", "count", "revenue", "Payments of the last hour, added up."),
    _event("features", "Feature use", "count", "topk(8, sum by (feature) (count_over_time(feature_used[1h])))",
           "The eight features that were used most in the last hour.", legend="{feature}"),
    _event("satisfaction", "Satisfaction", "count", "satisfaction",
           "Average score of the last day's surveys; from five on."),
)  # fmt: skip


def _server(
    key: str, title: str, unit: str, *queries: tuple[str, str], help: str = "", maximum: float | None = None  # noqa: A002
) -> Panel:  # fmt: skip
    made = tuple(Query(expression, legend) for expression, legend in queries)
    return Panel(f"databases-{key}", title, unit, made, ("checks", "host"), help=help, empty=NO_SERVER, maximum=maximum)


DATABASES = (
    Section(
        "PostgreSQL",
        (
            _server("connections", "Connections in use", "percent",
                    (("100 * sum by (instance) (pg_stat_activity_count)"
                     " / max by (instance) (pg_settings_max_connections)"), "{instance}"),
                    help="Of all that the server accepts.", maximum=100),
            _server("states", "Connections by state", "count",
                    ('sum by (instance, state) (pg_stat_activity_count) > 0', "{instance} {state}")),
            _server("cache", "Cache hit ratio", "percent",
                    (("100 * sum by (instance) (rate(pg_stat_database_blks_hit[$window])) / "
                     "(sum by (instance) (rate(pg_stat_database_blks_hit[$window])) + "
                     "sum by (instance) (rate(pg_stat_database_blks_read[$window])))"), "{instance}"),
                    help="Blocks that were found in PostgreSQL's own cache.", maximum=100),
            _server("transactions", "Transactions", "/s",
                    ("sum by (instance) (rate(pg_stat_database_xact_commit[$window]))", "{instance} committed"),
                    ("sum by (instance) (rate(pg_stat_database_xact_rollback[$window]))", "{instance} rolled back")),
            _server("locks", "Locks", "count", ("sum by (instance) (pg_locks_count)", "{instance}")),
            _server("deadlocks", "Deadlocks", "/s",
                    ("sum by (instance) (rate(pg_stat_database_deadlocks[$window]))", "{instance}")),
            _server("statements", "Statements that take most time", "seconds",
                    (("topk(8, sum by (instance, query) (rate(pg_stat_statements_seconds_total[$window]) "
                     "* on (instance, datname, queryid) group_left (query) pg_stat_statements_query_id))"),
                     "{instance} {query}"),
                    help="Seconds a second spent in each, by fingerprint; needs the extension pg_stat_statements."),
            _server("lag", "Replication lag", "seconds",
                    ("pg_replication_lag_seconds and on (instance) pg_replication_is_replica == 1", "{instance}"),
                    ("max by (instance, application_name) (pg_stat_replication_replay_lag_seconds)",
                     "{instance} sees {application_name}")),
            _server("lag-bytes", "Replication lag in bytes", "bytes",
                    ("max by (instance, application_name) (pg_stat_replication_pg_wal_lsn_diff)",
                     "{instance} sees {application_name}")),
            _server("tables", "Largest tables with their indexes", "bytes",
                    (("topk(8, sum by (instance, datname, relname) (pg_stat_user_tables_table_size_bytes "
                     "+ pg_stat_user_tables_index_size_bytes))"), "{datname} {relname}")),
            _server("size", "Size of databases", "bytes",
                    ("topk(8, max by (instance, datname) (pg_database_size_bytes))", "{instance} {datname}")),
        ),
    ),
    Section(
        "Redis and Valkey",
        (
            _server("redis-memory", "Memory", "bytes", ("redis_memory_used_bytes", "{instance} used"),
                    ("redis_memory_max_bytes > 0", "{instance} allowed")),
            _server("redis-hits", "Keys found", "percent",
                    (("100 * rate(redis_keyspace_hits_total[$window]) / (rate(redis_keyspace_hits_total[$window]) "
                     "+ rate(redis_keyspace_misses_total[$window]) > 0)"), "{instance}"),
                    help="Reads of a key that existed, of all.", maximum=100),
            _server("redis-commands", "Commands", "/s",
                    ("rate(redis_commands_processed_total[$window])", "{instance}")),
            _server("redis-clients", "Clients", "count", ("redis_connected_clients", "{instance}")),
            _server("redis-evictions", "Keys thrown out and expired", "/s",
                    ("rate(redis_evicted_keys_total[$window])", "{instance} thrown out"),
                    ("rate(redis_expired_keys_total[$window])", "{instance} expired")),
            _server("redis-lag", "Replicas behind", "bytes",
                    ("redis_connected_slave_lag_bytes", "{instance} sees {slave_ip}:{slave_port}")),
        ),
    ),
    Section(
        "SQLite",
        (
            _server("sqlite-size", "Size of files", "bytes",
                    ("topk(8, sqlite_file_bytes)", "{file}"),
                    help="Of the files that are named in the settings of the collector for SQLite."),
            _server("sqlite-log", "Write-ahead logs", "bytes", ("topk(8, sqlite_wal_bytes)", "{file}"),
                    help="One that only grows is never checkpointed: somebody reads all the time."),
            _server("sqlite-free", "Free pages", "percent",
                    ("topk(8, 100 * sqlite_free_pages / (sqlite_pages > 0))", "{file}"),
                    help="Of all pages of the file; VACUUM gives them back.", maximum=100),
        ),
    ),
)  # fmt: skip

PANELS = {panel.key: panel for panel in (*BUSINESS, *(panel for section in DATABASES for panel in section.panels))}


def panel_of(metric: BusinessMetric) -> Panel:
    """Return the chart of a business metric: each of its series, a counter's increase in the window."""
    own = f"{metric.name}{{job={quote('business')}}}"
    expression = f"increase({own}[$window])" if metric.type == "counter" else own
    labels = sorted({name for _, found in metric.shown for name in found} - {"job", "metric", *metric.labels})
    legend = " ".join(f"{{{name}}}" for name in labels) or metric.name
    return Panel(
        f"metric-{metric.pk}", metric.help.rstrip(".") or metric.name, "count",
        (Query(f"topk(12, {expression})", legend),),
        ("checks",), minimum=None, help=f"{metric.name}, asked of {metric.source}.",
        empty="The query gave no figures in this time.",
    )  # fmt: skip


def panels_asked(who: Principal, keys: Iterable[str]) -> dict[str, Panel]:
    """Return the charts of the business metrics that a page asks for; none that the person may not see."""
    numbers = [int(key.removeprefix("metric-")) for key in keys if key.startswith("metric-") and key[7:].isdecimal()]
    numbers = [number for number in numbers if number < 2**63]
    if not numbers:
        return {}
    rows = BusinessMetric.objects.visible_to(who.scope).filter(pk__in=numbers).select_related("source")
    return {panel.key: panel for panel in map(panel_of, rows)}
