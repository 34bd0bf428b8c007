"""Remote write over HTTP: 2xx means committed, 4xx is final and says why, 5xx may be sent again."""

import math
from datetime import timedelta

import pytest
from django.db import OperationalError, transaction
from django.utils import timezone

from apps.accounts.models import Token
from apps.metrics import intake, query, services
from apps.metrics.models import Batch, Metric
from apps.metrics.throttle import Throttle
from apps.promql.source import Matcher
from tests.metrics import remote_write as sender
from tests.wiring.lanes import ask, token

pytestmark = pytest.mark.django_db(transaction=True)

HEADERS = [
    (b"content-type", b"application/x-protobuf"),
    (b"content-encoding", b"snappy"),
    (b"x-prometheus-remote-write-version", b"0.1.0"),
]
UP = {"__name__": "up", "job": "api"}


@pytest.fixture
def agent():
    return [*token("ingest"), *HEADERS]


def now_ms():
    return int(timezone.now().timestamp() * 1000)


def post(agent, *messages):
    return ask("/api/v1/write", agent, method="POST", body=sender.packed(*messages))


def stored(name="up"):
    return query.select([Matcher("__name__", "=", name)], 0, 2**50).v.tolist()


def test_what_is_answered_204_is_stored(agent):
    stamp = now_ms()
    assert post(agent, sender.series(UP, [(stamp, 0.0)]), sender.series(UP, [(stamp + 1, 2.5)])).status == 204
    assert stored() == [0.0, 2.5]


def test_sending_it_again_changes_nothing(agent):
    message = sender.series(UP, [(now_ms(), 1.0)])
    assert [post(agent, message).status for _ in range(3)] == [204, 204, 204]
    assert stored() == [1.0]


def test_requests_that_share_a_commit_are_one_row_and_each_has_its_own_answer(agent):
    stamp = now_ms()
    good = [sender.series(UP | {"n": str(n)}, [(stamp, float(n))]) for n in range(3)]
    with services.one_commit():
        said = [post(agent, good[0]), post(agent, good[1], sender.series({"n": "x"}, [(stamp, 1.0)]))]
        said.append(post(agent, good[2], sender.series(UP | {"n": "0"}, [(stamp, 7.0)])))
        assert Batch.objects.count() == 0
    assert [one.status for one in said] == [204, 400, 204]
    assert "1 samples were stored" in said[1].json["error"]
    assert sorted(stored()) == [1.0, 2.0, 7.0]
    assert Batch.objects.get().samples == 4


def test_a_shared_commit_that_fails_leaves_nothing_and_counts_nothing(agent, monkeypatch):
    def fails(*_):
        raise OperationalError("gone")

    def share():
        with services.one_commit():
            post(agent, sender.series(UP, [(now_ms(), 1.0)]))

    before = services.ACCEPTED.value()
    with monkeypatch.context() as patch:
        patch.setattr(services, "_insert", fails)
        with pytest.raises(OperationalError):
            share()
    assert (stored(), services.ACCEPTED.value()) == ([], before)
    assert post(agent, sender.series(UP, [(now_ms(), 2.0)])).status == 204
    assert stored() == [2.0]


def test_within_a_transaction_of_its_own_nothing_is_left_to_the_shared_commit(agent):
    with services.one_commit(), transaction.atomic():
        post(agent, sender.series(UP, [(now_ms(), 1.0)]))
        assert Batch.objects.count() == 1


def test_the_good_part_of_a_bad_request_is_kept_and_the_rest_is_named(agent):
    stamp = now_ms()
    said = post(
        agent,
        sender.series(UP, [(stamp, 1.0)]),
        sender.series({"job": "api"}, [(stamp, 1.0)]),
        sender.series(UP | {"n": "2"}, [(stamp + 3_600_000, 1.0)]),
        sender.chunk(1, sender.label("__name__", "h") + sender.chunk(4, b"")),
    )
    assert said.status == 400
    for words in ("1 samples were stored", "no metric name", "10 minutes ahead", "native histograms"):
        assert words in said.json["error"]
    assert stored() == [1.0]


def test_a_backlog_in_order_is_welcome_and_what_is_out_of_the_window_is_not(agent):
    stamp = now_ms() - int(timedelta(days=3).total_seconds() * 1000)
    assert post(agent, sender.series(UP, [(stamp, 1.0)])).status == 204
    assert post(agent, sender.series(UP, [(stamp + 3_600_000, 2.0)])).status == 204
    assert post(agent, sender.series(UP, [(stamp + 3_000_000, 3.0)])).status == 204
    said = post(agent, sender.series(UP, [(stamp, 4.0)]))
    assert (said.status, "further behind" in said.json["error"]) == (400, True)
    assert stored() == [1.0, 3.0, 2.0]


def test_values_that_are_no_numbers_are_kept(agent):
    stamp = now_ms()
    samples = [(stamp, math.inf), (stamp + 1, -math.inf), (stamp + 2, math.nan), (stamp + 3, -0.0)]
    assert post(agent, *(sender.series(UP, [one]) for one in samples)).status == 204
    assert list(map(str, stored())) == ["inf", "-inf", "nan", "-0.0"]


def test_metadata_alone_is_taken(agent):
    post(agent, sender.series({"__name__": "jobs_total"}, [(now_ms(), 1.0)]))
    assert post(agent, sender.metadata("jobs_total", 1, "Jobs.", "")).status == 204
    assert Metric.objects.filter(name="jobs_total", type="counter", help="Jobs.").exists()


def test_metadata_of_a_family_is_kept_for_each_of_its_series_also_when_it_comes_first(agent):
    about = sender.metadata("took_seconds", 3, "How long it took.", "seconds")
    assert post(agent, about).status == 204
    post(agent, *(sender.series({"__name__": f"took_seconds_{end}"}, [(now_ms(), 1.0)]) for end in ("bucket", "sum")))
    post(agent, about)
    found = Metric.objects.filter(type="histogram", help="How long it took.", unit="seconds")
    assert {metric.name for metric in found} == {"took_seconds_bucket", "took_seconds_sum"}


def test_a_message_of_2_0_that_says_it_is_of_1_0_is_refused_instead_of_lost(agent):
    said = ask("/api/v1/write", agent, method="POST", body=sender.packed(sender.chunk(4, b""), sender.chunk(5, b"")))
    assert (said.status, "remote write 2.0" in said.json["error"]) == (400, True)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([(b"content-type", b"application/json")], "application/json"),
        ([(b"content-type", b"application/x-protobuf;proto=io.prometheus.write.v3.Request")], "v3"),
        ([(b"content-encoding", b"zstd")], "zstd"),
    ],
)
def test_another_kind_of_request_is_415(headers, words):
    said = ask("/api/v1/write", [*token("ingest"), *headers], method="POST", body=b"")
    assert (said.status, words in said.json["error"]) == (415, True)


@pytest.mark.parametrize("body", [b"\xff" * 20, sender.packed(b"\x0a\xff\x01abc"), sender.packed(b"\x0b")])
def test_what_is_no_request_is_400_and_counted(agent, body):
    said = ask("/api/v1/write", agent, method="POST", body=body)
    assert (said.status, Batch.objects.count()) == (400, 0)


def test_a_bomb_is_413(agent):
    assert ask("/api/v1/write", agent, method="POST", body=sender.varint(10**9) + b"\0" * 9).status == 413


def test_a_full_disk_is_503_with_a_time_to_try_again(agent, monkeypatch):
    monkeypatch.setattr(services, "disk_problem", lambda: "Only 0.1 GB are free.")
    monkeypatch.setattr(services, "_space", (-math.inf, None))
    said = post(agent, sender.series(UP, [(now_ms(), 1.0)]))
    assert (said.status, said.headers[b"retry-after"]) == (503, b"30")
    monkeypatch.setattr(services, "_space", (-math.inf, None))


def test_refusals_are_counted_by_reason(agent):
    def counted(reason):
        return services.REFUSED.value(reason=reason)

    before = counted("no_name"), counted("malformed")
    post(agent, sender.series({"job": "x"}, [(now_ms(), 1.0)]))
    ask("/api/v1/write", agent, method="POST", body=b"\xff")
    assert (counted("no_name") - before[0], counted("malformed") - before[1]) == (1, 1)


def test_only_who_may_ingest_writes():
    assert post([*token("query"), *HEADERS], sender.series(UP, [(now_ms(), 1.0)])).status == 403


def test_a_token_that_sends_too_fast_is_429_with_a_time_to_try_again(agent, monkeypatch):
    monkeypatch.setattr(intake, "THROTTLE", Throttle())
    Token.objects.update(samples_per_second=1)
    before = services.REFUSED.value(reason="rate_limit")
    series = [sender.series(UP | {"n": str(n)}, [(now_ms(), 1.0)]) for n in range(20)]
    assert post(agent, *series).status == 204
    said = post(agent, series[0])
    assert (said.status, int(said.headers[b"retry-after"]) in range(14, 18)) == (429, True)
    assert "1 samples a second" in said.json["error"]
    assert services.REFUSED.value(reason="rate_limit") == before + 1
    assert post([*token("ingest"), *HEADERS], series[0]).status == 204, "another token"


def test_series_beyond_a_tokens_limit_are_named_and_the_rest_is_kept(agent):
    Token.objects.update(series_limit=2)
    said = post(agent, *(sender.series(UP | {"n": str(n)}, [(now_ms(), 1.0)]) for n in range(5)))
    assert (said.status, "3: the token has reached its limit of series" in said.json["error"]) == (400, True)
    assert len(stored()) == 2
