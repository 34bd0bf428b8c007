"""What a process of another project counted leaves it: as OTLP, and through whichever process answers a scrape."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps.core.telemetry import Reading
from apps.metrics.client import places, reporting, views
from apps.metrics.client.otlp_json import Report
from apps.metrics.protocols import otlp, otlp_json
from apps.metrics.samples import NAME
from apps.promql.series import STALE

S = 1_000_000_000
COUNTED = [
    Reading("http_requests_total", 3.0, {"code": "200"}, "counter", "Requests."),
    Reading("in_flight", 2.0),
    Reading("duration_seconds_bucket", 1.0, {"a": "b", "le": "0.5"}, "histogram"),
    Reading("duration_seconds_bucket", 4.0, {"a": "b", "le": "+Inf"}, "histogram"),
    Reading("duration_seconds_sum", 7.5, {"a": "b"}, "histogram"),
    Reading("duration_seconds_count", 4.0, {"a": "b"}, "histogram"),
]


def samples(body: bytes) -> list[tuple[str, dict[str, str], float, int]]:
    """(name, labels without the resource's, value, ms) of what the portal reads in it, without target_info."""
    found = otlp.decode(otlp_json.to_protobuf(body), contexts=otlp.Contexts())
    assert not found.refused
    rows = []
    for index in range(len(found.samples)):
        told = found.samples.labels_of(index)
        assert not isinstance(told, str)
        labels = dict(told)
        assert labels.pop("job") == "shop"
        assert labels.pop("instance") == "host"
        rows.append((labels.pop(NAME), labels, float(found.samples.v[index]), int(found.samples.ts[index])))
    return rows


@pytest.fixture
def report() -> Report:
    return Report({"service.name": "shop", "service.instance.id": "host"}, {"process": "0"}, 10 * S)


def test_the_portal_reads_from_a_report_what_was_counted(report):
    rows = samples(report.request(COUNTED, 20 * S))
    mine = {"process": "0"}
    assert {(name, tuple(sorted(labels.items())), value) for name, labels, value, _ in rows} == {
        (name, tuple(sorted({**labels, **mine}.items())), value)
        for name, labels, value in (
            ("http_requests_total", {"code": "200"}, 3.0),
            ("in_flight", {}, 2.0),
            ("duration_seconds_bucket", {"a": "b", "le": "0.5"}, 1.0),
            ("duration_seconds_bucket", {"a": "b", "le": "+Inf"}, 4.0),
            ("duration_seconds_sum", {"a": "b"}, 7.5),
            ("duration_seconds_count", {"a": "b"}, 4.0),
        )
    }
    assert {at for *_, at in rows} == {20_000}


def test_a_series_counts_from_the_report_before_its_first_and_keeps_that(report):
    report.request(COUNTED[:1], 20 * S)
    later = [*COUNTED[:1], Reading("http_requests_total", 1.0, {"code": "500"}, "counter")]
    for at in (35, 50):
        body = json.loads(report.request(later, at * S))
        [metric] = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"]
        starts = [point["startTimeUnixNano"] for point in metric["sum"]["dataPoints"]]
        assert starts == [str(10 * S), str(20 * S)]


def test_a_gauge_that_is_no_more_ends_and_the_last_report_ends_everything(report):
    report.request(COUNTED, 20 * S)
    ended = [row for row in samples(report.request(COUNTED[:1], 35 * S)) if is_stale(row[2])]
    assert [(name, at) for name, _, _, at in ended] == [("in_flight", 35_000)]
    rows = samples(report.request(COUNTED, 50 * S, is_last=True))
    assert {at for _, _, value, at in rows if is_stale(value)} == {50_001}
    assert len([row for row in rows if is_stale(row[2])]) == len(COUNTED)


def is_stale(value: float) -> bool:
    return struct.pack("<d", value) == struct.pack("<d", STALE)


def test_processes_take_the_lowest_number_that_is_free_and_show_what_each_other_counted(tmp_path):
    first, second = places.take(tmp_path / "shop"), places.take(tmp_path / "shop")
    assert (first.number, second.number) == (0, 1)
    first.write(COUNTED)
    second.write(COUNTED[:1])
    assert list(second.others()) == [(0, COUNTED)]
    first.leave()
    assert list(second.others()) == []
    third = places.take(tmp_path / "shop")
    assert third.number == 0
    third.leave()
    second.leave()


def test_what_a_killed_process_left_is_shown_no_more(tmp_path):
    own = places.take(tmp_path / "shop")
    code = (
        "import os, sys; from pathlib import Path; from apps.metrics.client import places;"
        "place = places.take(Path(sys.argv[1])); place.write([]); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "shop"], check=False, cwd=root, env={"PYTHONPATH": str(root)}
    )
    assert (tmp_path / "shop" / "1.json").exists()
    assert list(own.others()) == []
    again = places.take(tmp_path / "shop")
    assert again.number == 1
    assert not (tmp_path / "shop" / "1.json").exists()
    again.leave()
    own.leave()


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop").chmod(0o777)
    with pytest.raises(places.Unusable, match="PORTAL_METRICS_FOLDER"):
        places.take(tmp_path / "shop")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(places.Unusable):
        places.take(tmp_path / "link")


def test_a_fork_lets_the_number_of_its_parent_be(tmp_path):
    own = places.take(tmp_path / "shop")
    child = os.fork()
    if not child:  # pragma: no cover - the child
        own.forget()
        os._exit(places.take(tmp_path / "shop").number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    own.leave()


@pytest.fixture
def _process(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> Iterator[None]:
    """Reporting as in a process that has not begun."""
    monkeypatch.setattr(reporting, "_sender", None)
    monkeypatch.setattr(reporting, "_is_off", False)
    monkeypatch.setattr(reporting, "_held", reporting._Held())
    settings.PORTAL_METRICS_FOLDER = str(tmp_path / "shop")
    yield
    reporting.stop()
    reporting._held.leave()


@pytest.mark.parametrize(("name", "value"), [("URL", "portal.example"), ("EVERY", "often")])
@pytest.mark.usefixtures("_process")
def test_an_application_that_cannot_be_measured_goes_on_and_says_why_once(name, value, settings, caplog):
    settings.PORTAL_METRICS_URL = "http://127.0.0.1:1"
    setattr(settings, f"PORTAL_METRICS_{name}", value)
    for _ in range(3):
        reporting.ensure()
    assert len(caplog.records) == 1
    assert value in caplog.text


@pytest.mark.usefixtures("_process")
def test_the_page_shows_this_process_and_the_others_to_the_bearer_of_the_token(rf, settings, tmp_path):
    settings.PORTAL_METRICS_TOKEN = "a-token"
    other = places.take(tmp_path / "shop")
    other.write(COUNTED)
    assert views.metrics(rf.get("/metrics")).status_code == 401
    assert views.metrics(rf.get("/metrics", headers={"Authorization": "Bearer é"})).status_code == 401
    page = views.metrics(rf.get("/metrics", headers={"Authorization": "Bearer a-token"})).content.decode()
    assert 'in_flight{process="0"} 2\n' in page
    assert 'portal_login_failures_total{process="1"}' in page
    settings.PORTAL_METRICS_URL = "http://127.0.0.1:1"
    page = views.metrics(rf.get("/metrics", headers={"Authorization": "Bearer a-token"})).content.decode()
    assert 'process="0"' not in page
    other.leave()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"{}", ""),
        (b"", ""),
        (b"[1]", ""),
        (b'{"partialSuccess":{"rejectedDataPoints":"3","errorMessage":"3: old"}}', "3: old"),
    ],
)
def test_what_the_portal_did_not_take_is_told(answer, sentence):
    assert reporting.Pushed().refused_of(answer) == sentence
