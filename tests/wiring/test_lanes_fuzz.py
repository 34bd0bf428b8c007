"""Whatever is sent to a lane, the answer is one of its own shapes, never a failure of the portal."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts import fastauth
from apps.accounts.rights import Principal, Right, Scope
from apps.core.lanes import Lane, Parameter, Request
from apps.metrics import envelope, services
from apps.metrics.samples import Samples
from apps.promql.functions import AGGREGATIONS, FUNCTIONS
from monitoring_portal import fastlane
from tests.wiring.lanes import whole

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
LANES = {path: lane for path, lane in fastlane.ROUTES.items() if lane.refuse is envelope.refuse}

junk = st.text(max_size=30) | st.binary(max_size=12).map(lambda raw: raw.decode("latin-1"))
words = st.sampled_from(
    [
        *FUNCTIONS, *AGGREGATIONS, "up", "job", "by", "on", "ignoring", "group_left", "offset", "@", "bool", "and",
        "(", ")", "{", "}", "[5m]", "[1h:1m]", "[30s:]", "[1y:1ms]", ",", "=~", "!=", '"a.*"', '"("', "'\\xff'", "+",
        "/", "^", "==", "-", "1", "1e308", "NaN", "Inf", "0x1F", "1h30m", "start()", "\x00", "é", "#", "\n",
    ]
)  # fmt: skip
expressions = (
    st.sampled_from(
        ["up", "sum by (job) (rate(up[5m]))", "up * on () up", 'up{job=~"("}', '"text"', "up[5m]", "quantile(2, up)",
         "topk(1, up) or vector(time())", "up offset -1w", "up @ 1e12", "sum_over_time(up[1d:1s])", "-up ^ 0.5"]
    )
    | st.lists(words, max_size=12).map(" ".join)
    | junk
)  # fmt: skip
times = (
    st.integers(SECONDS - 7200, SECONDS + 60).map(str)
    | st.sampled_from(["2026-11-23T12:00:00Z", "2026-11-23T12:00:00.5+14:00", "0", "-1", "1e400", "NaN", "9" * 30, ""])
    | st.floats().map(repr)
    | junk
)
durations = st.sampled_from(["15", "1m", "1h", "0", "-5", "1e-9", "0.001", "1y", "9" * 25, "1h1h", "Inf", ""]) | junk
numbers = st.integers(-2, 5).map(str) | st.sampled_from(["9" * 30, "1.5", "0x1", "٣", ""]) | junk
selectors = st.sampled_from(["up", '{job="a"}', "{}", '{job=~".*"}', '{__name__=~"u.+"}', "up offset 1m", "1"]) | junk

BY_NAME = {
    "query": expressions,
    "match[]": selectors,
    "step": durations,
    "timeout": durations,
    "lookback_delta": durations,
    "time": times,
    "start": times,
    "end": times,
    "limit": numbers,
    "limit_per_metric": numbers,
    "group_limit": numbers,
}


def parameters_of(lane: Lane) -> st.SearchStrategy[dict[str, list[str]]]:
    """Some of the lane's parameters, with values that are right more often than chance would have them."""

    def values(one: Parameter) -> st.SearchStrategy[str]:
        found = BY_NAME.get(one.name, junk)
        return found | st.sampled_from([*one.choices, "up"])

    needed = {one.name: st.lists(values(one), max_size=2) for one in lane.parameters}
    return st.fixed_dictionaries({}, optional=needed | {"": st.lists(junk, max_size=1)})


@pytest.fixture
def anybody(db, monkeypatch):
    labels = [{"__name__": "up", "job": job} for job in "abc"]
    services.ingest(samples=Samples.of(labels, [SECONDS * 1000] * 3, [1.0] * 3), by=Principal.system("test"), now=NOW)
    by = Principal("token", "1", "fuzz", frozenset(Right), Scope((("job", "=~", "a|b"),)))
    monkeypatch.setattr(fastauth, "identify", lambda scope, right, told="": (by, None))


def check(said: Any, path: str) -> None:
    """Nothing, or an answer in the envelope, whose status is that of its kind, and never that of a bug."""
    if said.status == 204:
        assert said.body == b""
        return
    told = json.loads(said.body)
    if said.status == 200:
        assert told["status"] == "success"
        assert set(told) <= {"status", "data", "warnings", "infos"}
        return
    assert set(told) == {"status", "errorType", "error"}, path
    assert (told["status"], envelope.STATUS[told["errorType"]]) == ("error", said.status)
    assert told["error"]
    assert said.status in (400, 422, 503), told
    assert said.status != 503 or told["errorType"] == "timeout", told


@pytest.mark.parametrize("path", sorted(LANES))
def test_no_request_makes_a_lane_fail(anybody, path):
    lane = LANES[path]

    @settings(max_examples=60 if lane.parameters else 2, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(parameters_of(lane), st.sampled_from(sorted(lane.methods)), junk)
    def ask(parameters: dict[str, list[str]], method: str, name: str) -> None:
        sent = urlencode(parameters, doseq=True, errors="surrogatepass").encode()
        body, query = (sent, b"") if method == "POST" else (b"", sent)
        headers = [(b"content-type", b"application/x-www-form-urlencoded")]
        captured = {"name": name or "job"} if "<name>" in path else {}
        request = Request(method, path, query, body, headers, "", captured)
        check(whole(fastlane.answer(lane, {"headers": []}, request).begun(packed=False)), path)

    ask()
