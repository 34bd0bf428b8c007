"""Who sends what, and how somebody begins to: the page and the figures behind it."""

from datetime import timedelta

import pytest
import yaml
from django.utils import timezone

from apps.accounts.models import AuditEntry, Token
from apps.accounts.permissions import EVERYTHING
from apps.accounts.rights import Principal, Scope
from apps.core.telemetry import Reading
from apps.dashboards.snippets import snippets
from apps.metrics import services
from apps.metrics.samples import Samples
from apps.metrics.senders import senders

SYSTEM = Principal.system("test")


@pytest.fixture
def heard(db):
    """Ten minutes of two senders' counters: one is fine, one was refused much."""
    now = timezone.now()
    readings = []
    for second in range(0, 601, 15):
        at = int(now.timestamp() * 1000) - (600 - second) * 1000
        for token, protocol, factor in (("web-1 (mp_a…)", "remote_write", 10), ("jobs (mp_b…)", "otlp", 2)):
            of = {"token": token, "protocol": protocol}
            for name, told, more in (
                ("samples", second * factor, {}),
                ("bytes", second * 100, {}),
                ("requests", second / 15, {"code": "200"}),
            ):
                readings.append(Reading(f"portal_push_{name}_total", told, of | more, "counter", timestamp_ms=at))
            last = now.timestamp() - 600 + second - factor
            readings.append(Reading("portal_push_last_timestamp_seconds", last, of, timestamp_ms=at))
        bad = {"token": "jobs (mp_b…)", "protocol": "otlp"}
        for name, more in (("refused", {"reason": "too_old"}), ("requests", {"code": "400"})):
            readings.append(Reading(f"portal_push_{name}_total", second / 3, bad | more, "counter", timestamp_ms=at))
    services.backfill(samples=Samples.from_readings(readings, at=now), by=SYSTEM, now=now)
    return now


def test_senders_are_told_with_their_pace_and_what_was_refused_latest_first(heard):
    jobs, web = senders(scope=EVERYTHING, now=heard)
    assert (web.name, web.protocol_name, round(web.samples), round(web.bytes)) == (
        "web-1 (mp_a…)", "Remote write 1.0", 10, 100,
    )  # fmt: skip
    assert (web.is_refused, web.reasons) == (False, [])
    assert jobs.is_refused
    ((count, why),) = jobs.reasons
    assert count > 150
    assert "further behind" in why
    assert jobs.codes.keys() == {"200", "400"}
    assert jobs.last is not None
    assert heard - jobs.last < timedelta(seconds=5)


def test_senders_outside_of_a_scope_are_not_told(heard):
    assert [one.token for one in senders(scope=Scope((("protocol", "=", "otlp"),)), now=heard)] == ["jobs (mp_b…)"]


def test_the_page_names_them_and_why_they_were_refused(client, person, heard):
    client.force_login(person("viewer"))
    text = client.get("/monitoring/senders/").content.decode()
    for words in ("web-1 (mp_a…)", "Remote write 1.0", "further behind", "HTTP 400", "YOUR_TOKEN"):
        assert words in text
    assert "Make a token" not in text


def test_an_administrator_makes_a_token_with_one_click_and_it_is_shown_once(client, person):
    client.force_login(person("administrator"))
    answer = client.post("/monitoring/senders/token/", {"name": "agent on web-1"})
    token = Token.objects.get()
    assert (token.name, token.scopes) == ("agent on web-1", ["ingest"])
    assert answer["Cache-Control"].find("no-store") >= 0
    text = answer.content.decode()
    assert text.count(token.prefix) >= 6, "in each snippet that has a token"
    assert "YOUR_TOKEN" not in text
    assert token.prefix not in client.get("/monitoring/senders/").content.decode()
    assert AuditEntry.objects.filter(verb="accounts.issue_token").exists()


def test_a_token_needs_a_name(client, person):
    client.force_login(person("administrator"))
    assert client.post("/monitoring/senders/token/", {"name": " "}).status_code == 302
    assert not Token.objects.exists()


@pytest.mark.parametrize("key", ["prometheus", "opentelemetry-collector"])
def test_snippets_of_yaml_are_yaml(key):
    (snippet,) = (one for one in snippets("https://portal.example/", "mp_x", "") if one.key == key)
    assert "https://portal.example/" in str(yaml.safe_load(snippet.text))


def test_what_is_typed_as_a_name_is_text(client, person):
    client.force_login(person("administrator"))
    text = client.post("/monitoring/senders/token/", {"name": "<script>x</script>"}).content.decode()
    assert "<script>x" not in text
