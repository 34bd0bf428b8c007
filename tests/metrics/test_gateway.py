"""The Pushgateway's paths: groups are replaced, merged, deleted and shown again as a Pushgateway does."""

import base64
import contextlib
import gzip
import struct
from datetime import timedelta

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import EVERYTHING
from apps.accounts.rights import Principal
from apps.metrics import gateway, push_groups, query
from apps.metrics.models import Metric, PushGroup
from apps.metrics.protocols.protobuf import Malformed
from apps.metrics.push_groups import BadGroup, Inconsistent
from tests.metrics.remote_write import chunk, varint
from tests.wiring.lanes import ask, token

SYSTEM = Principal.system("test")
JOB = "/metrics/job/backup/instance/a"
BODY = b"""# HELP done_total Files that were saved.
# TYPE done_total counter
done_total{disk="x",job="own"} 3
# TYPE took histogram
took_bucket{le="1.0"} 1
took_bucket{le="+Inf"} 2
took_sum 4.5
took_count 2
"""


# --- Paths and bodies -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "labels"),
    [
        ("job/a", {"job": "a"}),
        ("job/a/x/1/y/2", {"job": "a", "x": "1", "y": "2"}),
        ("job@base64/YS9i", {"job": "a/b"}),
        ("job/a/p@base64/L3Zhci90bXA", {"job": "a", "p": "/var/tmp"}),
        ("job/a/p@base64/=", {"job": "a", "p": ""}),
        ("job/a/p@base64/w7w=", {"job": "a", "p": "ü"}),
    ],
)
def test_a_path_names_a_group(path, labels):
    assert push_groups.group_of(path) == labels


@pytest.mark.parametrize(
    "path",
    ["job", "job/", "job/a/x", "job/a/1x/2", "job/a/__name__/x", "job/a/x/1/x/2", "job@base64/_w", "x/1"],
)
def test_a_path_that_names_none_says_why(path):
    with pytest.raises(BadGroup):
        push_groups.group_of(path)


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.text(max_size=20), max_size=4), st.text(min_size=1)
)
def test_any_values_go_through_a_path_in_base64(others, job):
    labels = {"job": job} | others
    packed = {name: base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for name, text in labels.items()}
    path = "/".join(f"{name}@base64/{text or '='}" for name, text in packed.items())
    assert push_groups.group_of(path) == labels


@given(st.binary(max_size=200), st.sampled_from(["text/plain", push_groups.PROTOBUF, "application/openmetrics-text"]))
def test_any_bytes_are_families_or_refused(body, kind):
    with contextlib.suppress(Malformed, Inconsistent):
        push_groups.read(body, kind, {"job": "a"})


def double(field, value):
    return varint(field << 3 | 1) + struct.pack("<d", value)


def test_protobuf_with_lengths_says_what_text_says():
    label = chunk(1, chunk(1, b"disk") + chunk(2, b"x"))
    count = chunk(1, b"done_total") + chunk(2, b"Files that were saved.") + chunk(4, label + chunk(3, double(1, 3.0)))
    bucket = chunk(3, b"\x08\x01" + double(2, 1.0))
    took = chunk(1, b"took") + b"\x18\x04" + chunk(4, chunk(7, b"\x08\x02" + double(2, 4.5) + bucket))
    body = b"".join(varint(len(part)) + part for part in (count, took))
    kind = f"{push_groups.PROTOBUF}; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    group = {"job": "a"}

    def rows(families):
        return sorted(repr((sorted(labels.items()), v)) for one in families.values() for labels, v in one["samples"])

    found = push_groups.read(body, kind, group)
    assert rows(found) == rows(push_groups.read(BODY, "text/plain", group))
    assert found["took"]["type"] == "histogram"


REFUSED = [b"a 1 1790000000000\n", b"a 1\na 2\n", b'a{job="x"} 1\na{job="y"} 2\n', b"push_time_seconds 1\n"]


# --- Through the lane -------------------------------------------------------------------------------------------------
db = pytest.mark.django_db(transaction=True)


@pytest.fixture
def agent():
    return token("ingest")


def push(agent, body, method="PUT", path=JOB, parameters=None, **headers):
    more = [(name.replace("_", "-").encode(), text) for name, text in headers.items()]
    return ask(path, [*agent, *more], parameters, method=method, body=body)


def now_at(text):
    found = query.instant(text, at=timezone.now(), scope=EVERYTHING)
    return {tuple(sorted(one.items())): v for one, v in zip(found.labels.dicts(), found.v[:, 0].tolist(), strict=True)}


def value(text):
    return list(now_at(text).values())


@db
def test_what_is_pushed_is_there_at_once_under_the_labels_of_the_path(agent):
    assert push(agent, BODY).status == 200
    assert now_at("done_total") == {
        (("__name__", "done_total"), ("disk", "x"), ("instance", "a"), ("job", "backup")): 3.0
    }
    assert value("took_bucket") == [1.0, 2.0]
    assert abs(value('push_time_seconds{job="backup"}')[0] - timezone.now().timestamp()) < 60
    assert value("push_failure_time_seconds") == [0.0]
    assert Metric.objects.get(name="took_bucket").type == "histogram"


@db
def test_put_replaces_the_group_post_only_what_has_the_same_name(agent):
    push(agent, b"a 1\nb 2\n")
    push(agent, b"b 3\n", "POST")
    assert (value("a"), value("b")) == ([1.0], [3.0])
    push(agent, b"c 4\n", "PUT")
    assert (value("a"), value("b"), value("c")) == ([], [], [4.0])


@db
def test_a_family_that_is_replaced_ends_the_series_that_it_had_and_has_not(agent):
    push(agent, b'a{n="1"} 1\na{n="2"} 2\n')
    push(agent, b'a{n="2"} 5\n', "POST")
    assert value("a") == [5.0]


@db
def test_an_empty_body_touches_the_time_only_or_empties_the_group(agent):
    push(agent, b"a 1\n")
    assert push(agent, b"", "POST").status == 200
    assert value("a") == [1.0]
    assert push(agent, b"", "PUT").status == 200
    assert (value("a"), len(value("push_time_seconds"))) == ([], 1)


@db
def test_delete_ends_all_series_of_the_group_and_of_no_other(agent):
    push(agent, b"a 1\n")
    push(agent, b"a 2\n", path="/metrics/job/backup")
    assert push(agent, b"", "DELETE").status == 202
    assert (value("a"), len(value("push_time_seconds"))) == ([2.0], 1)
    assert push(agent, b"", "DELETE").status == 202, "also where there is nothing"
    assert AuditEntry.objects.filter(verb="metrics.delete_push_group").count() == 1


@db
@pytest.mark.parametrize("body", REFUSED)
def test_what_no_group_may_hold_is_400_noted_as_a_failure_and_changes_nothing(agent, body):
    push(agent, b"b 1\n")
    said = push(agent, body)
    assert (said.status, value("b")) == (400, [1.0])
    assert value("push_failure_time_seconds")[0] > 1e9
    assert PushGroup.objects.get().error


@db
@pytest.mark.parametrize("body", [b"a\n", b"a 1", b"{{{\n", b"\xff 1\n", b"a one\n"])
def test_what_cannot_be_read_is_400_and_names_the_line(agent, body):
    said = push(agent, body)
    assert (said.status, PushGroup.objects.count()) == (400, 0)
    assert "cannot be read" in said.json["error"]


@db
def test_values_are_shown_again_at_each_tick_while_the_group_lives(agent):
    push(agent, b"a 1\n")
    later = timezone.now() + timedelta(minutes=9)
    assert gateway.show(now=later) == 3
    found = query.instant("a", at=later, scope=EVERYTHING)
    assert found.v[:, 0].tolist() == [1.0]
    push(agent, b"a 2\n")
    assert gateway.show(now=timezone.now()) == 0, "not at a tick before the push"


@db
def test_a_group_that_outlived_its_time_ends(agent):
    assert push(agent, b"a 1\n", parameters={"ttl": "1m"}).status == 200
    now = timezone.now()
    gateway.show(now=now + timedelta(seconds=50))
    assert PushGroup.objects.count() == 1
    gateway.show(now=now + timedelta(seconds=70))
    assert (PushGroup.objects.count(), query.instant("a", at=now + timedelta(seconds=71), scope=EVERYTHING).v.size) == (
        0,
        0,
    )


@db
def test_the_list_of_groups_has_the_gateways_shape_and_a_tokens_limits(agent):
    push(agent, BODY)
    (group,) = ask("/api/v1/metrics", token("read")).data
    assert (group["labels"], group["last_push_successful"]) == ({"job": "backup", "instance": "a"}, True)
    labels = {"disk": "x", "job": "backup", "instance": "a"}
    assert group["done_total"]["metrics"] == [{"labels": labels, "value": "3.0"}]
    assert group["push_time_seconds"]["type"] == "GAUGE"
    assert ask("/api/v1/metrics", token("read", matchers=(("job", "=", "other"),))).data == []


@db
def test_bodies_may_be_packed_and_bombs_are_refused(agent):
    assert push(agent, gzip.compress(b"a 1\n"), content_encoding=b"gzip").status == 200
    assert push(agent, gzip.compress(b"a 1\n" * 10**7), content_encoding=b"gzip").status == 413
    assert push(agent, b"x", content_encoding=b"br").status == 415
    assert push(agent, b"".join(b'a{n="%d"} 1\n' % n for n in range(20_000))).status == 400
    assert value("a") == [1.0]


@db
def test_groups_are_bounded(agent, monkeypatch):
    monkeypatch.setattr(gateway, "MOST_GROUPS", 1)
    push(agent, b"a 1\n")
    said = push(agent, b"a 1\n", path="/metrics/job/other")
    assert (said.status, b"retry-after" in said.headers) == (429, True)
    assert push(agent, b"a 2\n").status == 200, "the group that is there"


@db
def test_only_who_may_ingest_pushes():
    assert push(token("read"), b"a 1\n").status == 403
