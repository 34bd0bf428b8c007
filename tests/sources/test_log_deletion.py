"""Log records go on request: exactly those that are meant, from young and from packed runs, also after a kill."""

import os
import random
import time
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Principal
from apps.accounts.rights import ROLES, Forbidden, Scope
from apps.sources.logs import deletion, search, services, upkeep
from apps.sources.logs.search import Line, Wanted
from apps.sources.models import LogDeletion, LogRun, LogTemplate
from tests.killing import run_and_kill
from tests.sources.conftest import ADMIN, NOW
from tests.sources.test_logs import ALWAYS, EVERYTHING, MS, get, messages, post, put, record

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(hours=1)
ALL = Wanted(deletion.FIRST_MS, deletion.LAST_MS)


@pytest.fixture(autouse=True)
def _at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django.utils.timezone.now", lambda: NOW)


def delete(**which: object) -> LogDeletion:
    wanted = Wanted(**{"start": ALL.start, "end": ALL.end, **which})  # type: ignore[arg-type]
    row = services.delete_logs(by=ADMIN, wanted=wanted, now=NOW)
    assert deletion.carry_out(now=NOW) == 0
    row.refresh_from_db()
    return row


def everything() -> Counter[Line]:
    """All that can be read, which the counts beside it must agree with."""
    found = Counter(search.page(ALWAYS, scope=EVERYTHING, limit=1000).lines)
    counts = search.counts(ALWAYS, scope=EVERYTHING, step=timedelta(seconds=15)).levels
    assert {level: int(each.sum()) for level, each in counts.items() if each.sum()} == Counter(
        line.level for line in found.elements()
    )
    assert sum(LogRun.objects.values_list("records", flat=True)) == found.total()
    return found


def fits(line: Line, wanted: Wanted) -> bool:
    """What a filter means, said otherwise than the search does it."""
    return (
        wanted.start <= line.at < wanted.end
        and wanted.service in ("", line.service)
        and (not wanted.levels or line.level in wanted.levels)
        and wanted.template in (None, line.template)
        and wanted.host in ("", line.host)
        and (wanted.text.lower() in line.message.lower() or wanted.text.lower() in line.attributes.lower())
    )


def test_what_fits_goes_and_the_rest_stays_where_it_is():
    put(record("Anna came", -9), record("Bert came", -8), record("anna left", -7, attributes='{"a":"b"}'))
    upkeep.pack(now=LATER)
    put(record("ANNA again", -6), record("other", -5, attributes='{"who":"anna"}'), record("rest", -4))
    row = delete(text="anna")
    assert messages() == ["rest", "Bert came"]
    assert (row.records, row.runs, row.applied_at) == (4, 2, NOW)
    assert sorted(LogRun.objects.values_list("is_young", "records")) == [(False, 1), (True, 1)]
    assert everything().total() == 2


@pytest.mark.parametrize(
    ("which", "left"),
    [
        ({"service": "pay"}, ["c", "a"]),
        ({"levels": ("error", "debug")}, ["b", "a"]),
        ({"host": "h2"}, ["b", "a"]),
        ({"start": MS - 8, "end": MS - 7}, ["c", "a"]),
        ({"service": "pay", "levels": ("error",)}, ["c", "b", "a"]),
        ({"end": MS}, []),
    ],
)
def test_it_is_said_by_filter_and_time(which, left):
    put(record("a", -9), record("b", -8, service="pay"), record("c", -7, level="error", host="h2"))
    delete(**which)
    assert messages() == left


def test_nobody_deletes_or_counts_what_they_may_not_see():
    put(record("a", -9), record("b", -8, service="pay"), record("c", -7, level="error"))
    narrow = replace(ADMIN, scope=Scope((("service", "=", "pay"),)))
    counted = deletion.preview(ALL, scope=narrow.scope)
    assert sum(int(each.sum()) for each in counted.levels.values()) == 1
    services.delete_logs(by=narrow, wanted=replace(ALL, end=MS), now=NOW)
    upkeep.tend(now=NOW)
    assert messages() == ["c", "a"]
    assert AuditEntry.objects.filter(verb="sources.delete_logs", after__scope=[["service", "=", "pay"]]).exists()


TOLD = st.tuples(
    st.sampled_from(["in by anna", "out by bert", "Anna's bill", "disk is full"]), st.integers(-4_000_000, 0),
    st.sampled_from(["info", "error"]), st.sampled_from(["web", "pay"]), st.sampled_from(["h1", "h2"]),
    st.sampled_from(["", '{"user":"ANNA"}']),
)  # fmt: skip


@given(
    parts=st.lists(st.lists(TOLD, min_size=1, max_size=12), min_size=1, max_size=4), packed=st.integers(0, 4),
    text=st.sampled_from(["", "anna", "BERT", "none"]), service=st.sampled_from(["", "web"]),
    levels=st.sampled_from([(), ("error",)]), host=st.sampled_from(["", "h2"]),
    span=st.sampled_from([(0, ALL.end), (MS - 2_000_000, MS - 500_000), (MS - 3_600_000, ALL.end)]),
    by_template=st.booleans(),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_what_remains_is_what_does_not_match(parts, packed, text, service, levels, host, span, by_template):
    LogRun.objects.all().delete()
    LogDeletion.objects.all().delete()
    for number, rows in enumerate(parts):
        put(*(record(m, at, level=lv, service=sv, host=h, attributes=a) for m, at, lv, sv, h, a in rows))
        if number < packed:
            while upkeep.pack(now=LATER):
                pass
    before = everything()
    template = LogTemplate.objects.order_by("pk").values_list("pk", flat=True)[0] if by_template else None
    wanted = Wanted(span[0], span[1], service, levels, template, host, text)
    if not deletion.names_something(wanted):
        return
    row = services.delete_logs(by=ADMIN, wanted=wanted, now=NOW)
    assert deletion.carry_out(now=NOW) == 0
    assert everything() == Counter({line: n for line, n in before.items() if not fits(line, wanted)})
    row.refresh_from_db()
    assert row.records == sum(n for line, n in before.items() if fits(line, wanted))
    while upkeep.pack(now=LATER):
        pass
    assert everything() == Counter({line: n for line, n in before.items() if not fits(line, wanted)})


def test_what_comes_after_the_request_stays_and_nothing_is_packed_until_it_is_done():
    put(record("anna before"))
    services.delete_logs(by=ADMIN, wanted=Wanted(0, ALL.end, text="anna"), now=NOW)
    put(record("anna after"))
    assert upkeep.pack(now=LATER) == 0
    upkeep.tend(now=NOW)
    assert messages() == ["anna after"]
    assert upkeep.pack(now=LATER) == 1


def test_it_is_audited_when_asked_for_and_when_done():
    put(record("anna"))
    row = delete(text="anna", levels=("info",))
    asked, proof = AuditEntry.objects.filter(target_id=str(row.pk)).order_by("pk")
    assert (asked.verb, asked.actor_name) == ("sources.delete_logs", ADMIN.name)
    assert asked.after is not None
    assert (asked.after["text"], asked.after["levels"]) == ("anna", ["info"])
    assert (proof.verb, proof.after) == ("sources.clear_logs", {"runs_rewritten": 1, "records_deleted": 1})
    assert not LogRun.objects.exists()


def test_who_may_not_and_who_names_nothing_deletes_nothing():
    put(record("a"))
    with pytest.raises(Forbidden):
        services.delete_logs(by=Principal("user", "3", "ed", ROLES["editor"]), wanted=Wanted(0, 1), now=NOW)
    with pytest.raises(ValidationError):
        services.delete_logs(by=ADMIN, wanted=ALL, now=NOW)
    assert messages() == ["a"]


def test_a_damaged_run_is_set_aside_and_holds_nothing_up():
    put(record("anna 1"))
    LogRun.objects.update(payload=b"nonsense")
    put(record("anna 2"))
    assert delete(text="anna").records == 1
    assert LogRun.objects.get().bad_at is not None


def test_the_api_counts_first_and_deletes_then():
    put(record("anna", -2), record("bert", -1))
    path = "/api/v1/portal/logs/delete"
    assert post(b"", path, ADMIN, b"text=ANNA&dry_run=true") == (200, {"records": 1, "partial": False})
    assert len(get("/api/v1/portal/logs")["logs"]) == 2
    status, said = post(b"", path, ADMIN, b"text=ANNA")
    assert (status, said["records"], messages()) == (200, 1, ["bert"])


def test_the_admin_shows_the_count_before_it_deletes(admin_client):
    put(record("anna", level="error"), record("bert"))
    url = "/admin/sources/logdeletion/delete-logs/"
    given = {"text": "anna", "level": ["error", "info"]}
    shown = admin_client.post(url, given)
    assert "1 log records; nothing is deleted yet" in shown.content.decode()
    # What was not seen is not deleted.
    admin_client.post(url, {"text": "", "service": "web", "confirmed": "yes", "previewed": shown.context["previewed"]})
    assert len(messages()) == 2
    said = admin_client.post(url, given | {"confirmed": "yes", "previewed": shown.context["previewed"]}, follow=True)
    assert "1 log records are deleted." in said.content.decode()
    assert "text anna, levels error info" in said.content.decode()
    asked = admin_client.get(url, {"text": "bert", "level": "error,info", "since": str(MS)})
    assert asked.context["form"].initial["level"] == ["error", "info"]
    assert f'value="{MS}"' in asked.content.decode()
    assert messages() == ["bert"]


CHILD = """
import os, signal, sys
import django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = sys.argv[1]
django.setup()
from django.utils import timezone
from apps.sources.logs import deletion
os.write(1, b"t%d\\n" % int(sys.argv[2]))
while deletion.carry_out(now=timezone.now(), seconds=0.0):
    os.write(1, b"a%d\\n" % int(sys.argv[2]))
os.write(1, b"a0\\n")
signal.pause()
"""


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_kill_9_in_a_deletion_leaves_neither_more_nor_less(monkeypatch):
    """`PORTAL_FAULT_SECONDS` sets for how long."""
    chance = random.Random(7)
    until = time.monotonic() + float(os.environ.get("PORTAL_FAULT_SECONDS", "6")) / 2
    killed_within = 0
    while time.monotonic() < until or not killed_within:
        LogRun.objects.all().delete()
        for number in range(40):
            put(*(record(f"{'anna' if n % 3 else 'bert'} of {number} {n}", -n) for n in range(300)))
        kept = Counter(message for message in messages(limit=1000) if message.startswith("bert"))
        row = services.delete_logs(by=ADMIN, wanted=Wanted(0, ALL.end, text="anna"), now=NOW)
        run_and_kill(CHILD, 1, chance.uniform(0.0, 0.1))
        row.refresh_from_db()
        killed_within += row.applied_at is None and row.reached > 0
        assert deletion.carry_out(now=NOW) == 0
        row.refresh_from_db()
        assert row.records == 40 * 200
        assert sum(LogRun.objects.values_list("records", flat=True)) == 40 * 100
        found = Counter(messages(limit=1000))
        assert all(message.startswith("bert") for message in found)
        assert kept - found == Counter()
