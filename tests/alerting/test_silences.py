"""Silences: who may make which, what they mute, how they end."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import ValidationError

from apps.accounts.models import AuditEntry, User
from apps.accounts.permissions import ROLES, Principal, Scope
from apps.accounts.rights import Forbidden
from apps.alerting import matching, services
from apps.alerting.models import QuietChange, Silence
from tests.alerting.conftest import SETUP, START

pytestmark = pytest.mark.django_db

NOW = START
HOUR = timedelta(hours=1)


def somebody(role: str, *matchers: tuple[str, str, str]) -> Principal:
    user = User.objects.create_user(f"some-{role}")
    return Principal("user", str(user.pk), user.username, ROLES[role], Scope(matchers))


def silenced(*matchers: Any, by: Principal = SETUP, hours: float = 2, **values: Any) -> Silence:
    given: dict[str, Any] = {"ends_at": NOW + hours * HOUR, "comment": "a planned change", "now": NOW} | values
    return services.silence(by=by, matchers=list(matchers or ['service="db"']), **given)


def post(name: str = "disk", service: str = "db", severity: str = "warning") -> Any:
    return services.post_alert(by=SETUP, type=name, severity=severity, message="bad", service=service, now=NOW)


def why(call: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        call()
    return " ".join(caught.value.messages)


def test_a_silence_is_pending_active_and_expired():
    row = silenced(starts_at=NOW + HOUR)
    assert [row.state(NOW + hours * HOUR) for hours in (0, 1, 1.5, 2)] == ["pending", "active", "active", "expired"]


def test_a_recurring_silence_is_pending_between_its_occurrences():
    row = silenced(hours=24 * 30, recurrence="FREQ=DAILY", duration=HOUR)
    assert [row.state(NOW + hours * HOUR) for hours in (0, 2, 24)] == ["active", "pending", "active"]


def test_an_operator_silences_for_a_day_and_an_editor_for_longer():
    operator = somebody("operator")
    assert str(silenced(by=operator, hours=24).author) == "some-operator"
    assert "24 hours" in why(lambda: silenced(by=operator, hours=25))
    assert "24 hours" in why(lambda: silenced(by=operator, hours=25, silence=silenced(by=operator)))
    assert silenced(by=somebody("editor"), hours=24 * 90)


def test_a_viewer_silences_nothing():
    with pytest.raises(Forbidden):
        silenced(by=somebody("viewer"))


def test_who_sees_only_some_labels_silences_only_those_and_sees_only_such_silences():
    web = somebody("operator", ("team", "=", "web"))
    row = silenced('service="db"', by=web)
    assert matching.spelled(row.parsed) == 'service="db", team="web"'
    everything = silenced('service="db"')
    assert list(Silence.objects.visible_to(web.scope)) == [row]
    assert "no such silence" in why(lambda: services.expire_silence(by=web, silence=everything, now=NOW))


@pytest.mark.parametrize(
    "matcher", ['service=~"(a+"', 'service=~".*"', 'service=""', 'service!="x"', f'service=~"{"a" * 5000}"', "service",
                7, {"name": "a b", "value": "x"}, {"name": "service", "value": "(a{1000}){1000}", "isRegex": True}],
)  # fmt: skip
def test_a_matcher_that_cannot_be_used_or_means_everything_is_refused(matcher):
    assert why(lambda: silenced(matcher))


def test_a_silence_needs_an_end_ahead_and_a_reason():
    assert "after it starts" in why(lambda: silenced(hours=1, starts_at=NOW + 2 * HOUR))
    assert "why" in why(lambda: silenced(comment=" "))
    assert "never comes" in why(lambda: silenced(recurrence="FREQ=YEARLY;BYMONTH=1", duration=HOUR))
    assert "five years" in why(lambda: silenced(hours=24 * 4000, recurrence="FREQ=DAILY", duration=HOUR))
    assert "time zone" in why(lambda: silenced(recurrence="FREQ=DAILY", duration=HOUR, time_zone="../etc/passwd"))


def test_a_silence_until_resolved_ends_with_what_it_mutes():
    alert = post()
    row = silenced(*[str(m) for m in services.matchers_of(alert)], until_resolved=True)
    assert services.end_resolved_silences(by=SETUP, now=NOW) == 0
    services.resolve(by=SETUP, alert=alert, now=NOW + HOUR)
    assert services.end_resolved_silences(by=SETUP, now=NOW + HOUR) == 1
    row.refresh_from_db()
    assert row.state(NOW + HOUR) == "expired"
    assert AuditEntry.objects.filter(verb="alerting.expire_silence").count() == 1
    assert "Nothing that they match" in why(lambda: silenced('service="gone"', until_resolved=True))


def test_an_alerts_own_matchers_mean_it_in_every_severity():
    alert = post(severity="critical")
    assert matching.spelled(services.matchers_of(alert)) == 'alertname="disk", service="db"'
    other = post("disk", "web")
    assert list(services.muted_alerts(services.matchers_of(alert))) == [alert]
    assert other.pk != alert.pk


def test_every_change_is_a_row_that_on_call_takes_up():
    row = silenced()
    silenced(silence=row, hours=3)
    services.expire_silence(by=SETUP, silence=row, now=NOW + HOUR)
    services.expire_silence(by=SETUP, silence=row, now=NOW + 2 * HOUR)
    assert QuietChange.objects.count() == 3
    assert "over" in why(lambda: silenced(silence=row, now=NOW + 2 * HOUR))


def test_one_that_has_not_begun_can_be_ended():
    row = silenced(starts_at=NOW + HOUR)
    assert services.expire_silence(by=SETUP, silence=row, now=NOW).state(NOW) == "expired"


def test_a_long_silence_reminds_its_author_an_hour_before_and_a_short_one_does_not():
    assert silenced(hours=8).remind_at == NOW + 7 * HOUR
    assert silenced(hours=2).remind_at is None
