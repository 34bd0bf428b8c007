"""The shipped recording rules, evaluated by the engine over stored samples: values, quiet times, several machines."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from apps.metrics.collectors import COLLECTORS
from apps.promql import engine
from apps.promql.source import MemorySource

FIXTURES = Path(__file__).parents[2] / "fixtures"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
RULES = {row["name"]: row["expression"] for row in yaml.safe_load((FIXTURES / "recording_rules.yaml").read_text())}
ALERTS = yaml.safe_load((FIXTURES / "alert_rules.yaml").read_text())
Series = tuple[dict[str, str], list[float]]


def value(name: str, *series: Series) -> float | None:
    """The recorded value at noon, from series with a sample each 15 s until noon; None where there is none."""
    end = int(NOON.timestamp() * 1000)
    source = MemorySource(
        [
            (labels, [end - 15_000 * (len(values) - 1 - i) for i in range(len(values))], values)
            for labels, values in series
        ]
    )
    result = engine.instant(RULES[name], source, end)
    assert result.v.shape[0] <= 1
    assert result.labels.dicts() in ([], [{}])
    return float(result.v[0, 0]) if result.v.shape[0] else None


def requests(code: str, *values: float) -> Series:
    return {"__name__": "http_requests_total", "job": "portal", "endpoint": "/x", "method": "GET", "code": code}, [
        *values
    ]


def bucket(le: str, *values: float, process: str = "web") -> Series:
    labels = {"__name__": "http_request_duration_seconds_bucket", "endpoint": "/x", "code": "200", "process": process}
    return {**labels, "le": le}, [*values]


def gauge(name: str, number: float, **labels: str) -> Series:
    return {"__name__": name, **labels}, [number]


def disk(size: float, free: float, avail: float, *, readonly: float = 0.0, **labels: str) -> list[Series]:
    named = {"job": "node", "instance": "a", "fstype": "ext4", "mountpoint": "/", **labels}
    return [
        gauge("node_filesystem_size_bytes", size, **named),
        gauge("node_filesystem_free_bytes", free, **named),
        gauge("node_filesystem_avail_bytes", avail, **named),
        gauge("node_filesystem_readonly", readonly, **named),
    ]


def memory(available: float, instance: str = "a") -> list[Series]:
    return [
        gauge("node_memory_MemAvailable_bytes", available, job="node", instance=instance),
        gauge("node_memory_MemTotal_bytes", 100.0, job="node", instance=instance),
    ]


def idle(cpu: str, *values: float, mode: str = "idle") -> Series:
    return {"__name__": "node_cpu_seconds_total", "job": "node", "instance": "a", "cpu": cpu, "mode": mode}, [*values]


def test_the_series_that_rule_conditions_name_are_all_recorded():
    assert set(RULES) == {
        "responseTime", "errorRate", "throughput", "memoryUsage", "memoryPercentage", "cpuUsage", "diskUsage",
        "dbConnections", "activeUsers", "bookings", "treatmentSuccess", "revenue", "satisfaction",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["responseTime", "errorRate", "throughput"])
def test_without_any_request_the_figures_are_zero(name):
    assert value(name) == 0.0


@pytest.mark.parametrize("name", ["responseTime", "errorRate", "throughput"])
def test_with_requests_long_past_the_figures_are_zero(name):
    flat = [7.0] * 6
    assert value(name, requests("500", *flat), bucket("5.0", *flat), bucket("+Inf", *flat)) == 0.0


@pytest.mark.parametrize("name", ["memoryUsage", "memoryPercentage", "cpuUsage", "diskUsage", "dbConnections"])
def test_what_nobody_measures_has_no_value(name):
    assert value(name) is None


def test_throughput_is_requests_a_second():
    assert value("throughput", requests("200", 0, 30, 60, 90, 120)) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("series", "percent"),
    [
        ([requests("200", 0, 15, 30, 45, 60)], 0.0),
        ([requests("200", 0, 15, 30, 45, 60), requests("503", 0, 5, 10, 15, 20)], 25.0),
        ([requests("404", 0, 15, 30, 45, 60)], 0.0),
        ([requests("500", 0, 15, 30, 45, 60)], 100.0),
    ],
    ids=["no error", "a quarter", "4xx are the caller's", "nothing else"],
)
def test_the_error_rate_is_the_share_of_5xx(series, percent):
    assert value("errorRate", *series) == pytest.approx(percent)


def test_the_response_time_is_in_milliseconds_over_all_processes():
    quick = [bucket(le, 0, 0, 95, 95, 95) for le in ("0.5", "5.0", "10.0", "15.0", "+Inf")]
    slow = [
        bucket(le, 0, 0, n, n, n, process="b")
        for le, n in (("0.5", 0), ("5.0", 0), ("10.0", 0), ("15.0", 5), ("+Inf", 5))
    ]
    assert value("responseTime", *quick, *slow) == pytest.approx(500.0)
    assert 10_000 < (value("responseTime", *slow) or 0) <= 15_000


def test_processors_are_busy_when_they_are_not_idle():
    idles = [idle("0", 0, 15, 30, 45, 60), idle("1", 0, 0, 0, 0, 0)]
    assert value("cpuUsage", *idles) == pytest.approx(50.0)
    assert value("cpuUsage", *idles, idle("1", 0, 7.5, 15, 22.5, 30, mode="iowait")) == pytest.approx(25.0)


def test_a_processor_figure_exists_after_two_rounds_and_stays_within_its_bounds():
    assert value("cpuUsage", idle("0", 100, 200)) == 0.0


@pytest.mark.parametrize("name", ["memoryUsage", "memoryPercentage"])
def test_the_fullest_machine_counts(name):
    assert value(name, *memory(60.0), *memory(25.0, "b")) == pytest.approx(75.0)


@pytest.mark.parametrize(
    ("series", "percent"),
    [
        (disk(100, 40, 40), 60.0),
        (disk(100, 40, 35), 100 * 60 / 95),
        (disk(100, 40, 0), 100.0),
        ([*disk(100, 40, 40), *disk(10, 0, 0, readonly=1.0, mountpoint="/cd")], 60.0),
        ([*disk(100, 40, 40), *disk(10, 1, 1, fstype="tmpfs", mountpoint="/run")], 60.0),
        ([*disk(100, 40, 40), *disk(100, 10, 10, mountpoint="/srv")], 90.0),
        (
            [
                gauge("portal_data_disk_size_bytes", 100, job="portal"),
                gauge("portal_data_disk_free_bytes", 30, job="portal"),
                gauge("portal_data_disk_avail_bytes", 30, job="portal"),
            ],
            70.0,
        ),
    ],
    ids=["half", "reserved for root", "nothing left for others", "read-only", "memory", "fullest", "container"],
)
def test_the_fullest_writable_disk_counts_as_df_does(series, percent):
    assert value("diskUsage", *series) == pytest.approx(percent)


def test_database_connections_are_a_share_of_the_maximum():
    series = [
        gauge("pg_stat_activity_count", 20, job="portal", state="active"),
        gauge("pg_stat_activity_count", 5, job="portal", state="idle"),
        gauge("pg_settings_max_connections", 100, job="portal"),
    ]
    assert value("dbConnections", *series) == pytest.approx(25.0)


def test_a_burst_of_failed_logins_counts_from_the_first_one():
    rule = next(row for row in ALERTS if row["slug"] == "failed-login-burst")
    series = {"__name__": "portal_login_failures_total", "job": "portal", "process": "web"}
    end = int(NOON.timestamp() * 1000)
    source = MemorySource([(series, [end - 30_000, end - 15_000, end], [0.0, 12.0, 12.0])])
    assert engine.instant(rule["expression"], source, end).v[0, 0] >= 12


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["slug"])
def test_each_default_rule_says_what_is_wrong_and_what_to_do(rule):
    engine.instant(rule["expression"], MemorySource(), int(NOON.timestamp() * 1000))
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]
    assert rule["runbook"].startswith("1. ")
    assert rule["interval"] == 15
    assert rule["type"] in {"performance", "system", "business", "security"}
    worst = [{"info": 0, "warning": 1, "error": 2, "critical": 3}[level["severity"]] for level in rule["levels"]]
    assert worst == sorted(set(worst))


def test_the_default_levels_are_those_of_the_specification():
    def of(slug: str) -> list[tuple[str, str, float]]:
        [rule] = [row for row in ALERTS if row["slug"] == slug]
        return [(level["severity"], level["comparison"], level["threshold"]) for level in rule["levels"]]

    both = [("warning", ">", 80), ("critical", ">", 90)]
    assert of("slow-response") == [("warning", ">", 5000), ("critical", ">", 10000)]
    assert of("high-error-rate") == [("warning", ">", 5), ("critical", ">", 10)]
    assert of("high-memory-usage") == of("high-cpu-usage") == both
    assert of("database-connections") == [("warning", ">", 80)]
    assert of("disk-nearly-full") == [("warning", ">", 85), ("critical", ">", 95)]
    periods = {row["slug"]: row.get("pending_period") for row in ALERTS}
    assert (periods["slow-response"], periods["database-connections"]) == (60, 60)
    assert {periods[slug] for slug in ("high-error-rate", "high-memory-usage", "high-cpu-usage")} == {300}


def test_every_collector_is_in_the_default_fixture_at_its_own_interval():
    rows = yaml.safe_load((FIXTURES / "collectors.yaml").read_text())
    intervals = {row["kind"]: timedelta(seconds=row["every"]) for row in rows}
    assert intervals == {kind: collector.every for kind, collector in COLLECTORS.all().items()}
