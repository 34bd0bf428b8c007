"""What discovery finds becomes targets, with the labels that Prometheus gives them."""

import contextlib
import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.sources import finding, services
from apps.sources.discovery import BadGroups, Group, How, groups_of, read_groups, targets_of
from apps.sources.models import ScrapeJob, ScrapeTarget
from apps.sources.relabel import parse
from apps.sources.schedule import offset, stamp, tick_after
from tests.sources.conftest import ADMIN, NOW, job

HOW = How("web", "http", "/metrics", {"module": ["a", "b"]}, timedelta(seconds=30), timedelta(seconds=10))
SECOND = timedelta(seconds=1)


def found(*addresses, rules=(), **labels):
    return targets_of(HOW, parse(list(rules)), [Group(addresses, labels, "static")])


def test_an_address_gets_the_labels_that_prometheus_gives_it():
    (target,), problems = found("web-1:80", zone="a", __meta_rack="r1")
    assert not problems
    assert target.url == "http://web-1:80/metrics?module=a&module=b"
    assert target.labels == {"job": "web", "instance": "web-1:80", "zone": "a"}
    assert target.discovered == {
        "__address__": "web-1:80", "__metrics_path__": "/metrics", "__param_module": "a", "__scheme__": "http",
        "__scrape_interval__": "30s", "__scrape_timeout__": "10s", "__meta_rack": "r1", "job": "web", "zone": "a",
    }  # fmt: skip


def test_relabelling_may_change_all_of_it():
    rules = [
        {"source_labels": ["__address__"], "target_label": "__param_target"},
        {"source_labels": ["__param_target"], "target_label": "instance"},
        {"target_label": "__address__", "replacement": "prober:9115"},
        {"target_label": "__scheme__", "replacement": "https"},
        {"target_label": "__metrics_path__", "replacement": "/probe"},
        {"target_label": "__scrape_interval__", "replacement": "1m"},
    ]
    (target,), _ = found("https://shop.example/", rules=rules)
    assert target.url == "https://prober:9115/probe?module=a&module=b&target=https%3A%2F%2Fshop.example%2F"
    assert target.labels == {"job": "web", "instance": "https://shop.example/"}
    assert target.interval == timedelta(minutes=1)


def test_what_is_dropped_is_a_target_that_says_so():
    (target,), _ = found("a:1", rules=[{"source_labels": ["job"], "regex": "web", "action": "drop"}])
    assert target.dropped
    assert target.url == ""


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"target_label": "__address__", "replacement": "a/b"}, "a host and a port"),
        ({"target_label": "__address__", "replacement": "a@169.254.169.254"}, "a host and a port"),
        ({"target_label": "__scheme__", "replacement": "file"}, "not http or https"),
        ({"target_label": "__scrape_interval__", "replacement": "0s"}, "interval"),
        ({"target_label": "__scrape_timeout__", "replacement": "5m"}, "time-out"),
        ({"target_label": "__address__", "replacement": ""}, "no address left"),
    ],
)
def test_an_address_that_can_be_no_target_is_named(rule, why):
    targets, problems = found("a:1", rules=[rule])
    assert not targets
    assert why in problems[0]


def test_the_same_target_twice_is_one():
    targets, _ = found("a:1", "a:1")
    assert len(targets) == 1


@pytest.mark.parametrize(
    "listed",
    [{}, [3], [{"targets": "a"}], [{"targets": [3]}], [{"targets": ["a"], "labels": []}],
     [{"targets": ["a"], "labels": {"x": {}}}], [{"targets": ["a"] * 10_001}]],
)  # fmt: skip
def test_lists_of_groups_that_are_none_are_refused(listed):
    with pytest.raises(BadGroups):
        groups_of(listed, "static")


@given(st.binary(max_size=200), st.booleans())
def test_whatever_a_file_holds_it_is_groups_or_a_sentence(text, is_yaml):
    with contextlib.suppress(BadGroups):
        assert all(isinstance(group, Group) for group in read_groups(text, "f", {}, is_yaml=is_yaml))


def test_yaml_that_unfolds_is_refused():
    text = b"a: &a [x]\nb: [*a, *a]\n"
    with pytest.raises(BadGroups, match="no YAML"):
        read_groups(text, "f", {}, is_yaml=True)


@given(st.text("0123456789abcdef", min_size=32, max_size=32), st.integers(1, 86_400), st.integers(0, 10**6))
def test_ticks_are_an_interval_apart_on_whole_seconds_and_after_now(key, seconds, moment):
    interval, now = timedelta(seconds=seconds), NOW + timedelta(seconds=moment / 7)
    tick = tick_after(key, interval, now)
    assert timedelta(0) < tick - now <= interval
    assert tick_after(key, interval, tick) == tick + interval
    assert tick.microsecond == 0
    assert timedelta(0) <= offset(key, interval) < max(interval, SECOND)


def test_a_scrape_has_the_time_of_its_tick_within_a_hundredth_of_its_interval():
    every = timedelta(seconds=10)
    assert stamp(NOW, NOW + timedelta(milliseconds=100), every) == NOW
    assert stamp(NOW, NOW + timedelta(milliseconds=101), every) == NOW + timedelta(milliseconds=101)


# --- Files and addresses ------------------------------------------------------------------------------------------
pytestmark_db = pytest.mark.django_db(transaction=True)


@pytestmark_db
def test_files_that_list_targets_are_read_again_when_they_change(tmp_path):
    file = tmp_path / "web.yml"
    file.write_text("- targets: [a:1, b:1]\n  labels: {zone: x}\n")
    made = job(targets=[], file_sd=[{"files": [f"{tmp_path}/*.yml"], "refresh_interval": 30}])
    assert finding.discover(now=NOW) == 1
    rows = ScrapeTarget.objects.filter(ended=False)
    assert {row.labels["instance"] for row in rows} == {"a:1", "b:1"}
    assert rows[0].discovered["__meta_filepath"] == str(file)
    assert finding.discover(now=NOW + timedelta(seconds=10)) == 0
    file.write_text("- targets: [b:1]\n  labels: {zone: x}\n")
    finding.discover(now=NOW + timedelta(seconds=30))
    assert {row.labels["instance"] for row in ScrapeTarget.objects.filter(ended=False)} == {"b:1"}
    file.write_text("secret: things\n")
    finding.discover(now=NOW + timedelta(seconds=60))
    assert {row.labels["instance"] for row in ScrapeTarget.objects.filter(ended=False)} == {"b:1"}
    made.refresh_from_db()
    assert "it should be a list of groups" in made.problem
    assert "secret" not in made.problem


@pytestmark_db
def test_an_address_that_lists_targets_is_asked_and_what_it_said_last_stays_when_it_fails(target):
    target.body = json.dumps([{"targets": ["a:1"], "labels": {"__meta_rack": "r1"}}]).encode()
    url = f"http://{target.address}/targets"
    made = job(targets=[], http_sd=[{"url": url, "refresh_interval": 5}])
    finding.discover(now=NOW)
    row = ScrapeTarget.objects.get()
    assert row.discovered["__meta_url"] == url
    assert row.discovered["__meta_rack"] == "r1"
    target.status = 500
    finding.discover(now=NOW + timedelta(seconds=5))
    assert ScrapeTarget.objects.filter(ended=False).count() == 1
    made.refresh_from_db()
    assert "HTTP status 500" in made.problem
    made.http_sd = []
    services.save_job(by=ADMIN, job=made, now=NOW + timedelta(seconds=6))
    assert not ScrapeTarget.objects.filter(ended=False).exists()


@pytestmark_db
def test_a_job_that_is_switched_off_ends_its_targets_and_has_them_back_when_on():
    made = job("a:1", "b:1")
    made.enabled = False
    services.save_job(by=ADMIN, job=made, now=NOW)
    assert set(ScrapeTarget.objects.values_list("ended", flat=True)) == {True}
    made.enabled = True
    services.save_job(by=ADMIN, job=made, now=NOW)
    assert list(ScrapeTarget.objects.values_list("ended", flat=True)) == [False, False]
    assert ScrapeJob.objects.get().version == 3
