"""The charts of one application that is measured by the wheel: requests, databases, caches, calls, tasks, processes."""

from collections.abc import Collection

from apps.dashboards.panels import Column, Panel, Query, Section, Table
from apps.promql.text import quote

LONGEST: int = 200
NOTHING = "Nothing of the kind was counted in this time."
NO_REQUESTS = "No request was answered in this time."
MARKS = ("http_requests_in_flight", "celery_tasks_running")
"""What each process of an application shows, be it idle."""
ANY_MARK = f'__name__=~"{"|".join(MARKS)}"'

APPLICATIONS = Table(
    "applications",
    (("job", "Application"),),
    (
        Column(
            "Processes",
            f'count by (job) (group by (job, instance, process) ({{{ANY_MARK},job!="portal"}}))',
            "count",
        ),
        Column("Requests", 'sum by (job) (rate(http_requests_total{job!="portal"}[5m]))', "req/s"),
        Column(
            "Errors",
            '100 * sum by (job) (rate(http_requests_total{job!="portal",code=~"5.."}[5m]))'
            ' / sum by (job) (rate(http_requests_total{job!="portal"}[5m]))',
            "percent",
        ),
        Column(
            "p95",
            "1000 * histogram_quantile(0.95, "
            'sum by (job, le) (rate(http_request_duration_seconds_bucket{job!="portal"}[5m])))',
            "ms",
        ),
        Column("Tasks", 'sum by (job) (rate(celery_tasks_total{job!="portal"}[5m]))', "/s"),
    ),
)
"""All of them, as they do now."""


def _panel(
    key: str,
    title: str,
    unit: str,
    *queries: tuple[str, str],
    about: str = "",
    empty: str = NOTHING,
    stacked: bool = False,
    maximum: float | None = None,
    wide: bool = False,
) -> Panel:
    made = tuple(Query(expression, legend) for expression, legend in queries)
    return Panel(
        f"application-{key}", title, unit, made, ("scrape", "recorded"), stacked=stacked, maximum=maximum, wide=wide,
        help=about, empty=empty,
    )  # fmt: skip


def sections_of(job: str) -> tuple[Section, ...]:
    """Return the charts of the application with that job."""
    own = f"job={quote(job)}"

    def rate(name: str, more: str = "") -> str:
        return f"rate({name}{{{own}{more}}}[$window])"

    def quantile(share: float, by: str, name: str) -> str:
        return f"histogram_quantile({share}, sum by (le{by}) ({rate(f'{name}_bucket')}))"

    def mean(by: str, seconds: str, count: str) -> str:
        return f"1000 * sum by ({by}) ({rate(seconds)}) / sum by ({by}) ({rate(count)})"

    request, call, query = "http_request_duration_seconds", "http_client_request_duration_seconds", "django_db_query"
    return (
        Section(
            "Requests",
            (
                _panel("time", "Response time", "ms",
                       *((f"1000 * {quantile(share, '', request)}", name)
                         for share, name in ((0.99, "p99"), (0.95, "p95"), (0.5, "p50"))),
                       about="Half, 95 % and 99 % of the requests were answered within these times.",
                       empty=NO_REQUESTS, wide=True),
                _panel("codes", "Requests by status", "req/s",
                       (f"sum by (code) ({rate('http_requests_total')})", "{code}"), empty=NO_REQUESTS, stacked=True),
                _panel("errors", "Error rate", "percent",
                       ((f"100 * (sum({rate('http_requests_total', more=_FAILED)}) or vector(0))"
                        f" / sum({rate('http_requests_total')})"), "5xx answers"),
                       about="Answers with a status of 500 and above, of all answers.", empty=NO_REQUESTS),
                _panel("slowest", "Slowest endpoints, p95", "ms",
                       (f"topk(6, 1000 * {quantile(0.95, ', endpoint', request)})", "{endpoint}"), empty=NO_REQUESTS),
                _panel("exceptions", "Exceptions", "/s",
                       (f"topk(8, sum by (exception, endpoint) ({rate('http_exceptions_total')}) > 0)",
                        "{exception} in {endpoint}"), empty="No view raised one in this time."),
                _panel("in-flight", "Requests being answered", "count",
                       (f"sum(http_requests_in_flight{{{own}}})", "in flight"), empty=NO_REQUESTS),
            ),
        ),
        Section(
            "Databases",
            (
                _panel("queries", "Queries", "/s",
                       (f"sum by (alias, vendor) ({rate(f'{query}_duration_seconds_count')})", "{alias} ({vendor})"),
                       stacked=True),
                _panel("query-time", "Time of a query", "ms",
                       (f"1000 * {quantile(0.95, ', alias', f'{query}_duration_seconds')}", "{alias} p95"),
                       (mean("alias", f"{query}_duration_seconds_sum", f"{query}_duration_seconds_count"),
                        "{alias} mean")),
                _panel("query-count", "Queries of a request, p95", "count",
                       (f"topk(6, {quantile(0.95, ', endpoint', 'django_db_queries_per_request')})", "{endpoint}"),
                       about="One that grows with what a page shows asks the database once for each row."),
                _panel("query-errors", "Failed queries", "/s",
                       (f"sum by (alias, exception) ({rate('django_db_errors_total')}) > 0", "{exception} on {alias}")),
                _panel("pool", "Connections of pools", "count",
                       (f"sum by (alias, state) (django_db_pool_connections{{{own}}})", "{alias} {state}"),
                       (f"sum by (alias) (django_db_pool_connections_max{{{own}}})", "{alias} allowed"),
                       empty="No pool of connections was in use in this time."),
                _panel("pool-waits", "Waits for a connection", "percent",
                       ((f"100 * sum by (alias) ({rate('django_db_pool_waits_total')})"
                        f" / sum by (alias) ({rate('django_db_pool_requests_total')})"), "{alias}"),
                       about="Times a request had to wait until a connection of the pool was free, of all.",
                       maximum=100, empty="No pool of connections was in use in this time."),
            ),
        ),
        Section(
            "Caches",
            (
                _panel("hits", "Keys found", "percent",
                       ((f"100 * sum by (alias) ({rate('django_cache_hits_total')})"
                        f" / (sum by (alias) ({rate('django_cache_hits_total')})"
                        f" + sum by (alias) ({rate('django_cache_misses_total')}) > 0)"), "{alias}"),
                       about="Reads of a key that existed, of all.", maximum=100),
                _panel("calls", "Calls of caches", "/s",
                       (f"sum by (alias, operation) ({rate('django_cache_operations_total')})", "{alias} {operation}"),
                       stacked=True),
                _panel("call-time", "Time of a call", "ms",
                       (mean("alias, operation", "django_cache_operation_seconds_total",
                             "django_cache_operations_total"), "{alias} {operation}"),
                       about="The mean of each operation."),
            ),
        ),
        Section(
            "Calls of others",
            (
                _panel("hosts", "Calls by host", "req/s",
                       (f"sum by (host) ({rate(f'{call}_count')})", "{host}"), stacked=True),
                _panel("host-time", "Time of a call by host, p95", "ms",
                       (f"topk(8, 1000 * {quantile(0.95, ', host', call)})", "{host}")),
                _panel("host-failures", "Failed calls by host", "percent",
                       ((f"100 * sum by (host) ({rate(f'{call}_count', more=_UNANSWERED)})"
                        f" / sum by (host) ({rate(f'{call}_count')})"), "{host}"),
                       about="Calls without an answer or with one of 5xx, of all.", maximum=100),
            ),
        ),
        Section(
            "Tasks",
            (
                _panel("tasks", "Tasks by how they ended", "/s",
                       (f"sum by (state) ({rate('celery_tasks_total')})", "{state}"), stacked=True),
                _panel("task-time", "Time of a task, p95", "seconds",
                       (f"topk(8, {quantile(0.95, ', task', 'celery_task_duration_seconds')})", "{task}")),
                _panel("task-failures", "Failed tasks", "/s",
                       (f"topk(8, sum by (task, exception) ({rate('celery_task_failures_total')}) > 0)",
                        "{exception} in {task}")),
                _panel("queue", "Waiting tasks", "count",
                       (f"max by (queue) (celery_worker_queue_length{{{own}}})", "{queue}")),
            ),
        ),
        Section(
            "Processes",
            (
                _panel("processes", "Running processes", "count",
                       (f"count by (instance) (group by (instance, process) ({{{ANY_MARK},{own}}}))", "{instance}"),
                       stacked=True),
                _panel("memory", "Memory", "bytes",
                       (f"sum by (instance) (process_resident_memory_bytes{{{own}}})", "{instance}"), stacked=True),
                _panel("cpu", "Processor", "percent",
                       (f"100 * sum by (instance) ({rate('process_cpu_seconds_total')})", "{instance}"),
                       about="100 % is one processor.", stacked=True),
            ),
        ),
    )  # fmt: skip


_FAILED = ',code=~"5.."'
_UNANSWERED = ',code=~"none|5.."'


def endpoints_of(job: str) -> Table:
    """Return the slowest endpoints of the application with that job."""
    own, by = f"job={quote(job)}", "sum by (method, endpoint)"
    return Table(
        "application-endpoints",
        (("method", "Method"), ("endpoint", "Endpoint")),
        (
            Column(
                "p95",
                "topk(15, 1000 * histogram_quantile(0.95, sum by (le, method, endpoint) "
                f"(rate(http_request_duration_seconds_bucket{{{own}}}[$range])) > 0))",
                "ms",
            ),
            Column(
                "Mean",
                f"1000 * {by} (rate(http_request_duration_seconds_sum{{{own}}}[$range]))"
                f" / {by} (rate(http_request_duration_seconds_count{{{own}}}[$range]))",
                "ms",
            ),
            Column("Requests", f"{by} (increase(http_requests_total{{{own}}}[$range]))", "count"),
            Column(
                "Errors",
                f"100 * {by} (rate(http_requests_total{{{own}{_FAILED}}}[$range]))"
                f" / {by} (rate(http_requests_total{{{own}}}[$range]))",
                "percent",
            ),
        ),
    )


TELLING = {
    "Requests": "http_requests_total",
    "Databases": "django_db_query_duration_seconds_count",
    "Caches": "django_cache_operations_total",
    "Calls of others": "http_client_request_duration_seconds_count",
    "Tasks": "celery_tasks_total",
}
"""The metric without which a section has nothing to show."""


def told(job: str, names: Collection[str]) -> list[Section]:
    """Return the sections that a job with these metrics can fill; none where the wheel does not measure it."""
    if not set(MARKS) & set(names):
        return []
    return [one for one in sections_of(job) if TELLING.get(one.title) is None or TELLING[one.title] in names]


def panels_asked(job: str) -> dict[str, Panel]:
    """Return the charts of the application that a page asks numbers for; the reader's scope bounds what they show."""
    if not 0 < len(job) <= LONGEST:
        return {}
    return {panel.key: panel for section in sections_of(job) for panel in section.panels}


def tables_asked(job: str) -> dict[str, Table]:
    """Return its tables."""
    return {table.key: table for table in [endpoints_of(job)]} if 0 < len(job) <= LONGEST else {}
