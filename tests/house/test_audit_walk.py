"""Whatever writes leaves an entry: every registered verb, every admin page's saving and deleting, every admin action.

A verb, an action or an API write that has no example here fails.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from apps.accounts import logins
from apps.accounts import services as accounts
from apps.accounts.audit import VERBS
from apps.accounts.models import AuditEntry, User
from apps.accounts.rights import ALL_RIGHTS, Principal
from apps.alerting import services as alerting
from apps.alerting.hygiene import Proposal
from apps.alerting.intake import of_labels
from apps.alerting.models import AdaptiveBand, RecordingRule
from apps.core.telemetry import Reading
from apps.dashboards import first_steps
from apps.dashboards import services as boards
from apps.dashboards.models import Folder
from apps.metrics import care, gateway
from apps.metrics import services as metrics
from apps.metrics.models import RetentionPolicy
from apps.metrics.samples import Samples
from apps.notifications import personal, replies
from apps.notifications import services as notifications
from apps.notifications.models import Contact
from apps.oncall import calendars, schedules, subscriptions, trials
from apps.oncall import services as oncall
from apps.oncall.importing import import_configuration
from apps.promql.source import Matcher
from apps.sources import checks, heartbeats, measured, sites
from apps.sources import services as sources
from apps.sources.logs import services as logs
from apps.sources.logs.search import Wanted
from apps.sources.models import BusinessMetric, Check, DataSource, Heartbeat, LogIntake, ScrapeJob, Site
from apps.sources.scrapeconfigs import read as read_config
from tests.house.routes import walk
from tests.house.rows import AT, make

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)
WALKER = Principal("user", "42", "walker", ALL_RIGHTS, address="192.0.2.5", via="api")


def do(verb: Callable[..., Any], **values: Any) -> partial[Any]:
    """Return the call of a verb by the walker; its arguments are made before, so that only the call is counted."""
    return partial(verb, by=WALKER, **values)


def user(**values: Any) -> User:
    return make("accounts.user", **values)


def rename(thing: Any) -> Any:
    thing.name = f"{thing.name} renamed"
    return thing


WEBHOOK = {"url": "https://hooks.example.com/x"}
STEPS = [{"kind": "wait", "config": {"minutes": 5}}]
LEVELS = [{"severity": "warning", "comparison": ">", "threshold": 5.0}]


def contact(**values: Any) -> Any:
    given: dict[str, Any] = {"name": "Hook", "kind": "webhook", "values": WEBHOOK, "now": AT} | values
    return notifications.save_contact(by=Principal.system("test"), **given)


def own_contact(person: User) -> int:
    return int(contact(owner=person).pk)


def with_contact() -> User:
    person = user()
    own_contact(person)
    return person


def told_policy() -> Any:
    tell = {"kind": "notify", "config": {"contacts": [contact().pk]}}
    return oncall.save_policy(by=Principal.system("test"), name="Told", steps=[tell])


def policy() -> Any:
    return oncall.save_policy(by=Principal.system("test"), name="Night", steps=STEPS)


def new_rule() -> Any:
    from apps.alerting.models import AlertRule

    return AlertRule(slug="hot", name="Hot", group=make("alerting.rulegroup"), expression="up")


RULES = "groups: [{name: g, rules: [{record: 'a:b', expr: up}]}]"
ALERTMANAGER = "route: {receiver: a}\nreceivers: [{name: a, webhook_configs: [{url: 'https://hooks.example/a'}]}]"
TEST = "tests: [{promql_expr_test: [{expr: '1', exp_samples: [{value: 1}]}]}]"


def rule_test() -> Any:
    from apps.alerting.models import RuleTest

    return RuleTest(name="one", rule=make("alerting.alertrule", expression="up"), text=TEST)


SILENCE: dict[str, Any] = {"matchers": ['service="db"'], "ends_at": AT + DAY, "comment": "planned", "now": AT}


WINDOW: dict[str, Any] = {"name": "work", "matchers": ['service="db"'], "starts_at": AT, "ends_at": AT + DAY}
INHIBITION: dict[str, Any] = {"name": "rule", "source_matchers": ['a="b"'], "target_matchers": ['c="d"']}


TEMPLATE = {"name": "Short", "kind": "sms", "title": "{{ title }}"}


def message_template() -> Any:
    return notifications.save_message_template(by=Principal.system("test"), now=AT, values=TEMPLATE)


LATER = datetime(2100, 1, 1, tzinfo=UTC)
SILENCE_NOW: dict[str, Any] = {"matchers": ['service="db"'], "ends_at": LATER, "comment": "planned"}


def lasting_silence() -> Any:
    return alerting.silence(by=Principal.system("test"), **{**SILENCE, "ends_at": LATER})


def stored_silence() -> Any:
    return alerting.silence(by=Principal.system("test"), **SILENCE)


def stored_test() -> Any:
    return alerting.save_rule_test(by=Principal.system("test"), test=rule_test(), now=AT)


def two_turns() -> dict[str, Any]:
    """Two people on call by one schedule, one day each."""
    schedule = make("oncall.schedule")
    turns = {}
    for name, starts_at in (("mine", AT), ("theirs", AT + DAY)):
        person = user()
        make("oncall.override", schedule=schedule, person=person, starts_at=starts_at, ends_at=starts_at + DAY)
        turns[name] = schedules.Turn(schedule, person, starts_at, starts_at + DAY)
    return turns


SCRAPES = "scrape_configs: [{job_name: web, static_configs: [{targets: ['web-1:80']}]}]"


def scrape_job(**values: Any) -> Any:
    made = ScrapeJob(**{"name": "web", "targets": [{"targets": ["web-1:80"]}]} | values)
    return sources.save_job(by=Principal.system("test"), job=made, now=AT)


def check() -> Any:
    made = Check(name="db", kind="tcp")
    return checks.save_check(by=Principal.system("test"), check=made, values={"address": "db:5432"}, now=AT)


def beat() -> Any:
    return heartbeats.save_heartbeat(by=Principal.system("test"), beat=Heartbeat(name="Backup"), now=AT)


def site() -> Any:
    return sites.save_site(by=Principal.system("test"), site=Site(name="shop", origins=["https://a.example"]))


def dashboard(maker: User | None = None) -> Any:
    return boards.save_dashboard(by=Principal.system("test"), values={"title": "Shop"}, now=AT)


def sharer() -> User:
    """A link is a person's: the walker must be one."""
    return user(pk=int(WALKER.id))


def data_source() -> DataSource:
    return DataSource(name="cache", kind="redis", address="127.0.0.1:1", timeout=timedelta(seconds=1))


def metric_source() -> Any:
    return make("sources.datasource", kind="postgres", user="u", database="d")


def business_metric() -> BusinessMetric:
    return BusinessMetric(
        name="bookings", source=metric_source(), query="SELECT 1 AS value", timeout=timedelta(seconds=1)
    )


def new_band() -> AdaptiveBand:
    return AdaptiveBand(slug="b", rule=make("alerting.alertrule"))


def not_an_anomaly() -> partial[Any]:
    band = make("alerting.adaptiveband")
    over = {"state": "resolved", "resolved_at": AT + timedelta(seconds=30), "resolve_reason": "value"}
    alert = make("alerting.alert", rule=band.rule, fingerprint=bytes(16), pending_at=AT, **over)
    make("alerting.bandseries", band=band, fingerprint=bytes(16), labels={})
    reading = Reading("anomaly:score", 2.0, {"band": band.slug})
    metrics.ingest(samples=Samples.from_readings([reading], at=AT), by=Principal.system("test"), now=AT)
    return do(alerting.not_an_anomaly, alert=alert, now=AT + timedelta(seconds=30))


EXAMPLES: Mapping[str, Callable[[], Callable[[], Any]]] = {
    "accounts.bootstrap_token": lambda: do(accounts.bootstrap_token, value="a-long-enough-secret", now=AT),
    "accounts.change_password": lambda: do(accounts.change_password, user=user(), save=lambda: None),
    "accounts.create_admin": lambda: do(accounts.create_admin, now=AT),
    "accounts.create_roles": lambda: do(accounts.create_roles),
    "accounts.delete_object": lambda: do(accounts.delete_object, obj=user()),
    "accounts.export_rows": lambda: do(
        accounts.export_rows, rows=AuditEntry.objects.all(), limit=5, write=lambda row: None, kind="csv"
    ),
    "accounts.import_rows": lambda: do(accounts.import_rows, model=User, write=lambda: {"new": 1}),
    "accounts.issue_token": lambda: do(accounts.issue_token, name="t", scopes=["read"], expires_at=None, now=AT),
    "accounts.revoke_token": lambda: do(accounts.revoke_token, token=make("accounts.token"), now=AT),
    "accounts.save_object": lambda: do(accounts.save_object, obj=User(username="new")),
    "accounts.save_relations": lambda: do(
        accounts.save_relations, obj=(u := user()), save=partial(u.groups.add, make("auth.group"))
    ),
    "accounts.set_roles": lambda: do(accounts.set_roles, user=user(), roles=["viewer"]),
    "accounts.unlock": lambda: do(logins.unlock, username=user().username),
    "alerting.acknowledge": lambda: do(alerting.acknowledge, alert=make("alerting.alert"), now=AT),
    "alerting.acknowledge_incident": lambda: do(
        alerting.acknowledge_incident, incident=make("alerting.alert").incident, now=AT
    ),
    "alerting.apply_proposal": lambda: do(
        alerting.apply_proposal,
        rule=new_stored_rule(),
        proposal=Proposal("wait", 300.0, "", "It was over soon.", 3),
        now=AT,
    ),
    "alerting.delete_band": lambda: do(alerting.delete_band, band=make("alerting.adaptiveband"), now=AT),
    "alerting.not_an_anomaly": not_an_anomaly,
    "alerting.save_band": lambda: do(alerting.save_band, band=new_band(), now=AT),
    "alerting.delete_group": lambda: do(alerting.delete_group, group=make("alerting.rulegroup"), now=AT),
    "alerting.delete_recording_rule": lambda: do(
        alerting.delete_recording_rule, rule=make("alerting.recordingrule", expression="up"), now=AT
    ),
    "alerting.delete_rule_test": lambda: do(alerting.delete_rule_test, test=make("alerting.ruletest"), now=AT),
    "alerting.export_rules": lambda: do(alerting.export_rules, target="3.0"),
    "oncall.import_configuration": lambda: do(
        import_configuration, kind="alertmanager", content=ALERTMANAGER.encode(), now=AT
    ),
    "alerting.import_rules": lambda: do(alerting.import_rules, files=[("f", RULES)], now=AT),
    "alerting.delete_rule": lambda: do(alerting.delete_rule, rule=make("alerting.alertrule"), now=AT),
    "alerting.merge_incidents": lambda: do(
        alerting.merge_incidents,
        incident=make("alerting.alert").incident,
        others=[make("alerting.alert").incident],
        now=AT,
    ),
    "alerting.split_incident": lambda: do(
        alerting.split_incident,
        incident=(one := make("alerting.alert")).incident,
        alerts=[make("alerting.alert", incident=one.incident)],
        now=AT,
    ),
    "alerting.post_alert": lambda: do(alerting.post_alert, type="disk", severity="warning", message="full", now=AT),
    "alerting.settle_outside": lambda: do(
        alerting.settle_outside,
        source="pagerduty",
        fingerprint=b"7" * 16,
        ends=make("alerting.alert", source="pagerduty", rule=None, fingerprint=b"7" * 16) is not None,
        now=AT,
    ),
    "alerting.take_in": lambda: do(
        alerting.take_in, reports=[of_labels({"a": "b"}, {})], source="alertmanager", lasts=DAY, now=AT
    ),
    "alerting.note_change": lambda: do(alerting.note_change, title="shop 1.4", now=AT),
    "alerting.resolve": lambda: do(alerting.resolve, alert=make("alerting.alert"), now=AT),
    "alerting.resolve_incident": lambda: do(
        alerting.resolve_incident, incident=make("alerting.alert").incident, now=AT
    ),
    "alerting.save_group": lambda: do(alerting.save_group, group=rename(make("alerting.rulegroup")), now=AT),
    "alerting.save_recording_rule": lambda: do(
        alerting.save_recording_rule,
        rule=RecordingRule(name="a:b", expression="up", group=make("alerting.rulegroup")),
        now=AT,
    ),
    "alerting.save_rule": lambda: do(alerting.save_rule, rule=new_rule(), levels=LEVELS, now=AT),
    "alerting.save_rule_test": lambda: do(alerting.save_rule_test, test=rule_test(), now=AT),
    "alerting.delete_inhibition": lambda: do(
        alerting.delete_inhibition, inhibition=make("alerting.inhibition"), now=AT
    ),
    "alerting.delete_service": lambda: do(alerting.delete_service, service=make("alerting.service"), now=AT),
    "alerting.delete_window": lambda: do(alerting.delete_window, window=make("alerting.maintenancewindow"), now=AT),
    "alerting.save_inhibition": lambda: do(alerting.save_inhibition, values=INHIBITION, now=AT),
    "alerting.save_service": lambda: do(alerting.save_service, values={"name": "db"}, depends_on=[], now=AT),
    "alerting.save_window": lambda: do(alerting.save_window, values=WINDOW, now=AT),
    "alerting.expire_silence": lambda: do(alerting.expire_silence, silence=stored_silence(), now=AT),
    "alerting.silence": lambda: do(alerting.silence, **SILENCE),
    "notifications.reply": lambda: do(
        replies.reply, delivery=make("notifications.delivery"), action="acknowledge", now=AT
    ),
    "alerting.unacknowledge": lambda: do(
        alerting.unacknowledge, alert=make("alerting.alert", acknowledged_at=AT, acknowledged_by="ann"), now=AT
    ),
    "dashboards.save_folder": lambda: do(boards.save_folder, folder=Folder(name="Web")),
    "dashboards.delete_folder": lambda: do(boards.delete_folder, folder=make("dashboards.folder")),
    "dashboards.save_dashboard": lambda: do(boards.save_dashboard, values={"title": "Shop"}, now=AT),
    "dashboards.restore_version": lambda: do(boards.restore_version, dashboard=dashboard(), number=1, now=AT),
    "dashboards.delete_dashboard": lambda: do(boards.delete_dashboard, dashboard=dashboard()),
    "dashboards.share": lambda: do(boards.share, dashboard=dashboard(maker=sharer()), lasts=DAY, now=AT),
    "dashboards.revoke_share": lambda: do(boards.revoke_share, link=make("dashboards.sharelink"), now=AT),
    "metrics.backfill": lambda: do(metrics.backfill, samples=Samples.from_readings([], at=AT), now=AT),
    "metrics.delete_push_group": lambda: do(gateway.delete, group=make("metrics.pushgroup"), now=AT),
    "metrics.delete_series": lambda: do(metrics.delete_series, selectors=[[Matcher("__name__", "=", "x")]], now=AT),
    "metrics.drop_damaged": lambda: do(care.drop_damaged, findings=[], now=AT, folder=Path("nowhere")),
    "metrics.note_import": lambda: do(metrics.note_import, source="file", counts=None),
    "metrics.repair_store": lambda: do(care.repair, findings=[], now=AT),
    "metrics.save_retention": lambda: do(metrics.save_retention, policy=RetentionPolicy(category="x", raw=DAY)),
    "metrics.switch_collection": lambda: do(metrics.switch_collection, on=False, now=AT),
    "notifications.contacts_from_environment": lambda: do(notifications.contacts_from_environment, now=AT),
    "notifications.delete_contact": lambda: do(notifications.delete_contact, contact=contact(), now=AT),
    "notifications.save_contact": lambda: do(
        notifications.save_contact, name="New", kind="webhook", values=WEBHOOK, now=AT
    ),
    "notifications.delete_message_template": lambda: do(
        notifications.delete_message_template, template=message_template()
    ),
    "notifications.save_message_template": lambda: do(notifications.save_message_template, now=AT, values=TEMPLATE),
    "notifications.send_test": lambda: do(notifications.send_test, contact=contact(), now=AT),
    "notifications.send_again": lambda: do(
        notifications.send_again,
        delivery=make(
            "notifications.delivery",
            contact=contact(),
            state="failed",
            error="refused",
            finished_at=AT,
            message={"title": "db", "body": ""},
        ),
        now=AT,
    ),
    "notifications.save_order": lambda: do(
        personal.save_order, person=(one := user()), order={own_contact(one): (None, None)}, now=AT
    ),
    "notifications.save_quiet_hours": lambda: do(
        personal.save_quiet_hours, person=user(), hours="mon-sun 22:00-07:00", now=AT
    ),
    "notifications.test_person": lambda: do(personal.try_out, person=with_contact(), send=True, now=AT),
    "oncall.delete_policy": lambda: do(oncall.delete_policy, policy=make("oncall.policy")),
    "oncall.delete_route": lambda: do(oncall.delete_route, route=make("oncall.route", name="x")),
    "oncall.try_policy": lambda: do(trials.try_policy, policy=told_policy(), now=AT),
    "oncall.try_route": lambda: do(trials.try_route, route=make("oncall.route", policy=told_policy()), now=AT),
    "oncall.save_policy": lambda: do(oncall.save_policy, name="Night", steps=STEPS),
    "oncall.save_route": lambda: do(oncall.save_route, values={"name": "web", "matchers": []}),
    "oncall.save_schedule": lambda: do(schedules.save_schedule, name="Database", layers=[]),
    "oncall.delete_schedule": lambda: do(schedules.delete_schedule, schedule=make("oncall.schedule")),
    "oncall.override": lambda: do(
        schedules.override, schedule=make("oncall.schedule"), person=user(), starts_at=AT, ends_at=AT + DAY
    ),
    "oncall.swap": lambda: do(schedules.swap, **two_turns()),
    "oncall.save_calendar": lambda: do(calendars.save_calendar, name="Ops", url="https://x.example/a.ics", now=AT),
    "oncall.delete_calendar": lambda: do(calendars.delete_calendar, calendar=make("oncall.importedcalendar")),
    "oncall.subscribe": lambda: do(subscriptions.subscribe, person=user(), now=AT),
    "oncall.unsubscribe": lambda: do(subscriptions.unsubscribe, person=user(), now=AT),
    "oncall.delete_override": lambda: do(schedules.delete_override, override=make("oncall.override")),
    "sources.export_logs": lambda: do(logs.export_logs, asked={"service": "web"}, lines=[]),
    "sources.delete_logs": lambda: do(logs.delete_logs, wanted=Wanted(0, 1), now=AT),
    "sources.save_log_intake": lambda: do(logs.save_log_intake, settings=LogIntake(pk=1, records_per_day=5_000)),
    "sources.check_now": lambda: do(checks.check_now, check=check(), now=AT),
    "sources.delete_check": lambda: do(checks.delete_check, check=check(), now=AT),
    "sources.delete_heartbeat": lambda: do(heartbeats.delete_heartbeat, beat=beat(), now=AT),
    "sources.save_check": lambda: do(
        checks.save_check, check=Check(name="new", kind="tcp"), values={"address": "db:1"}, now=AT
    ),
    "sources.save_heartbeat": lambda: do(heartbeats.save_heartbeat, beat=Heartbeat(name="new"), now=AT),
    "sources.delete_business_metric": lambda: do(
        measured.delete_business_metric, metric=make("sources.businessmetric"), now=AT
    ),
    "sources.delete_data_source": lambda: do(measured.delete_data_source, source=make("sources.datasource"), now=AT),
    "sources.measure_now": lambda: do(measured.measure_now, row=make("sources.datasource"), now=AT),
    "sources.save_business_metric": lambda: do(measured.save_business_metric, metric=business_metric(), now=AT),
    "sources.save_data_source": lambda: do(measured.save_data_source, source=data_source(), now=AT),
    "sources.try_metric": lambda: do(measured.try_metric, metric=make("sources.businessmetric")),
    "sources.delete_site": lambda: do(sites.delete_site, site=site()),
    "sources.renew_site_key": lambda: do(sites.renew_site_key, site=site()),
    "dashboards.dismiss_first_steps": lambda: do(first_steps.dismiss_first_steps, now=AT),
    "sources.save_site": lambda: do(sites.save_site, site=Site(name="new", origins=["https://a.example"])),
    "sources.delete_job": lambda: do(sources.delete_job, job=scrape_job(), now=AT),
    "sources.import_jobs": lambda: do(sources.import_jobs, read=read_config(SCRAPES), now=AT),
    "sources.save_job": lambda: do(sources.save_job, job=ScrapeJob(name="new"), now=AT),
    "sources.scrape_now": lambda: do(sources.scrape_now, target=scrape_job().found.get(), now=AT),
    "oncall.save_target": lambda: do(oncall.save_target, rule=make("alerting.alertrule"), contacts=[contact()]),
}


@pytest.fixture(autouse=True)
def environment(settings):
    """Describe one contact in the environment, for the verb that takes it over."""
    settings.WEBHOOK_URL, settings.WEBHOOK_TOKEN = "https://hooks.example.com/env", "t"
    settings.ALERT_EMAIL_TO, settings.SLACK_WEBHOOK_URL = [], ""


def entries_of(act: Callable[[], Any]) -> list[AuditEntry]:
    """Do it and return the entries that it left."""
    last = AuditEntry.objects.order_by("-id").values_list("id", flat=True).first() or 0
    act()
    return list(AuditEntry.objects.filter(id__gt=last).order_by("id"))


def test_every_verb_has_an_example():
    assert set(EXAMPLES) == set(VERBS)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_verb_leaves_an_entry_with_who_what_and_from_where(name):
    entries = entries_of(EXAMPLES[name]())
    assert entries, f"{name} wrote nothing down"
    assert {(e.actor_kind, e.actor_id, e.actor_name, e.address, e.via) for e in entries} == {
        ("user", "42", "walker", "192.0.2.5", "api")
    }
    assert all(entry.verb and entry.target_type for entry in entries)


# --- The API ------------------------------------------------------------------------------------------------------
V1 = "/api/v1/portal"
Call = tuple[str, Any]
"""An address that names a row made for it, and the body to send."""

WRITES: dict[str, Callable[[], Call]] = {
    "POST tokens/": lambda: (f"{V1}/tokens/", {"name": "t", "scopes": ["read"]}),
    "POST tokens/<str:pk>/revoke/": lambda: (f"{V1}/tokens/{make('accounts.token').pk}/revoke/", {}),
    "POST teams/": lambda: (f"{V1}/teams/", {"name": "Night"}),
    "PUT teams/<str:pk>/": lambda: (f"{V1}/teams/{make('accounts.team').pk}/", {"name": "Night"}),
    "PATCH teams/<str:pk>/": lambda: (f"{V1}/teams/{make('accounts.team').pk}/", {"name": "Night"}),
    "DELETE teams/<str:pk>/": lambda: (f"{V1}/teams/{make('accounts.team').pk}/", None),
    "POST calendars/": lambda: (f"{V1}/calendars/", {"name": "Office"}),
    "PUT calendars/<str:pk>/": lambda: (f"{V1}/calendars/{make('accounts.calendar').pk}/", {"name": "Office"}),
    "PATCH calendars/<str:pk>/": lambda: (f"{V1}/calendars/{make('accounts.calendar').pk}/", {"name": "Office"}),
    "DELETE calendars/<str:pk>/": lambda: (f"{V1}/calendars/{make('accounts.calendar').pk}/", None),
    "POST contacts/": lambda: (f"{V1}/contacts/", {"name": "Hook", "kind": "webhook", "settings": WEBHOOK}),
    "PATCH contacts/<str:pk>/": lambda: (f"{V1}/contacts/{contact().pk}/", {"name": "Hooks"}),
    "DELETE contacts/<str:pk>/": lambda: (f"{V1}/contacts/{contact().pk}/", None),
    "POST contacts/<str:pk>/test/": lambda: (f"{V1}/contacts/{contact().pk}/test/", {}),
    "POST checks/": lambda: (f"{V1}/checks/", {"name": "new", "kind": "tcp", "config": {"address": "db:1"}}),
    "PATCH checks/<str:pk>/": lambda: (f"{V1}/checks/{check().pk}/", {"interval": 90}),
    "DELETE checks/<str:pk>/": lambda: (f"{V1}/checks/{check().pk}/", None),
    "POST business-metrics/": lambda: (
        f"{V1}/business-metrics/",
        {"name": "bookings", "source": metric_source().name, "query": "SELECT 1 AS value"},
    ),
    "PATCH business-metrics/<str:pk>/": lambda: (
        f"{V1}/business-metrics/{make('sources.businessmetric').pk}/",
        {"floor": 7},
    ),
    "DELETE business-metrics/<str:pk>/": lambda: (
        f"{V1}/business-metrics/{make('sources.businessmetric').pk}/",
        None,
    ),
    "POST business-metrics/<str:pk>/ask/": lambda: (
        f"{V1}/business-metrics/{make('sources.businessmetric', enabled=True).pk}/ask/",
        {},
    ),
    "POST business-metrics/<str:pk>/try/": lambda: (
        f"{V1}/business-metrics/{make('sources.businessmetric').pk}/try/",
        {},
    ),
    "POST data-sources/": lambda: (
        f"{V1}/data-sources/",
        {"name": "cache", "kind": "redis", "address": "127.0.0.1:1"},
    ),
    "PATCH data-sources/<str:pk>/": lambda: (
        f"{V1}/data-sources/{make('sources.datasource').pk}/",
        {"interval": 90},
    ),
    "DELETE data-sources/<str:pk>/": lambda: (f"{V1}/data-sources/{make('sources.datasource').pk}/", None),
    "POST data-sources/<str:pk>/ask/": lambda: (
        f"{V1}/data-sources/{make('sources.datasource', enabled=True).pk}/ask/",
        {},
    ),
    "POST checks/<str:pk>/ask/": lambda: (f"{V1}/checks/{check().pk}/ask/", {}),
    "POST dashboards/": lambda: (f"{V1}/dashboards/", {"title": "Shop"}),
    "PATCH dashboards/<str:slug>/": lambda: (f"{V1}/dashboards/{dashboard().slug}/", {"title": "Shops"}),
    "DELETE dashboards/<str:slug>/": lambda: (f"{V1}/dashboards/{dashboard().slug}/", None),
    "POST heartbeats/": lambda: (f"{V1}/heartbeats/", {"name": "new"}),
    "PATCH heartbeats/<str:pk>/": lambda: (f"{V1}/heartbeats/{beat().pk}/", {"period": 3600}),
    "DELETE heartbeats/<str:pk>/": lambda: (f"{V1}/heartbeats/{beat().pk}/", None),
    "POST message-templates/": lambda: (f"{V1}/message-templates/", TEMPLATE),
    "PATCH message-templates/<str:pk>/": lambda: (
        f"{V1}/message-templates/{message_template().pk}/",
        {"title": "{{ name }}"},
    ),
    "DELETE message-templates/<str:pk>/": lambda: (f"{V1}/message-templates/{message_template().pk}/", None),
    "PUT people/<str:pk>/order/": lambda: (
        f"{V1}/people/{(one := user()).pk}/order/",
        [{"contact": Contact.objects.get(pk=own_contact(one)).name, "default": None, "important": 60}],
    ),
    "PUT people/<str:pk>/quiet-hours/": lambda: (
        f"{V1}/people/{user().pk}/quiet-hours/",
        {"hours": "mon-sun 22:00-07:00"},
    ),
    "POST people/<str:pk>/test/": lambda: (f"{V1}/people/{with_contact().pk}/test/", {"send": True}),
    "POST sites/": lambda: (f"{V1}/sites/", {"name": "new", "origins": ["https://b.example"]}),
    "PATCH sites/<str:pk>/": lambda: (f"{V1}/sites/{site().pk}/", {"rate": 7}),
    "DELETE sites/<str:pk>/": lambda: (f"{V1}/sites/{site().pk}/", None),
    "POST sites/<str:pk>/renew-key/": lambda: (f"{V1}/sites/{site().pk}/renew-key/", {}),
    "POST scrape-jobs/": lambda: (f"{V1}/scrape-jobs/", {"name": "new", "targets": [{"targets": ["a:1"]}]}),
    "PATCH scrape-jobs/<str:pk>/": lambda: (f"{V1}/scrape-jobs/{scrape_job().pk}/", {"interval": 60}),
    "DELETE scrape-jobs/<str:pk>/": lambda: (f"{V1}/scrape-jobs/{scrape_job().pk}/", None),
    "POST scrape-jobs/import/": lambda: (f"{V1}/scrape-jobs/import/", {"text": SCRAPES}),
    "POST targets/<str:pk>/scrape/": lambda: (f"{V1}/targets/{scrape_job().found.get().pk}/scrape/", {}),
    "POST policies/": lambda: (f"{V1}/policies/", {"name": "Night", "steps": STEPS}),
    "PATCH policies/<str:pk>/": lambda: (f"{V1}/policies/{policy().pk}/", {"description": "Nights."}),
    "DELETE policies/<str:pk>/": lambda: (f"{V1}/policies/{make('oncall.policy').pk}/", None),
    "POST policies/<str:pk>/test/": lambda: (f"{V1}/policies/{told_policy().pk}/test/", {"confirm": True}),
    "POST routes/<str:pk>/test/": lambda: (
        f"{V1}/routes/{make('oncall.route', name='x', policy=told_policy()).pk}/test/",
        {"confirm": True},
    ),
    "POST routes/": lambda: (f"{V1}/routes/", {"name": "web", "matchers": ["service=web"]}),
    "PATCH routes/<str:pk>/": lambda: (f"{V1}/routes/{make('oncall.route', name='x').pk}/", {"name": "y"}),
    "DELETE routes/<str:pk>/": lambda: (f"{V1}/routes/{make('oncall.route', name='x').pk}/", None),
    "POST schedules/": lambda: (f"{V1}/schedules/", {"name": "Database", "layers": []}),
    "PATCH schedules/<str:pk>/": lambda: (f"{V1}/schedules/{make('oncall.schedule').pk}/", {"description": "x"}),
    "DELETE schedules/<str:pk>/": lambda: (f"{V1}/schedules/{make('oncall.schedule').pk}/", None),
    "POST overrides/": lambda: (
        f"{V1}/overrides/",
        {
            "schedule": make("oncall.schedule").name,
            "person": user().username,
            "starts_at": AT.isoformat(),
            "ends_at": (AT + DAY).isoformat(),
        },
    ),
    "POST on-call-calendars/": lambda: (
        f"{V1}/on-call-calendars/",
        {"name": "Ops", "url": "https://x.example/a.ics"},
    ),
    "PATCH on-call-calendars/<str:pk>/": lambda: (
        f"{V1}/on-call-calendars/{make('oncall.importedcalendar').pk}/",
        {"name": "Ops"},
    ),
    "DELETE on-call-calendars/<str:pk>/": lambda: (
        f"{V1}/on-call-calendars/{make('oncall.importedcalendar').pk}/",
        None,
    ),
    "POST on-call-swaps/": lambda: (
        f"{V1}/on-call-swaps/",
        {
            name: {
                "schedule": turn.schedule.name,
                "person": turn.person.username,
                "starts_at": turn.starts_at.isoformat(),
                "ends_at": turn.ends_at.isoformat(),
            }
            for name, turn in two_turns().items()
        },
    ),
    "DELETE overrides/<str:pk>/": lambda: (f"{V1}/overrides/{make('oncall.override').pk}/", None),
    "POST rules/": lambda: (
        f"{V1}/rules/",
        {"slug": "hot", "name": "Hot", "group": "g", "expression": "up", "levels": LEVELS},
    ),
    "POST import/": lambda: (f"{V1}/import/", {"kind": "alertmanager", "text": ALERTMANAGER}),
    "POST rules/import/": lambda: (f"{V1}/rules/import/", {"files": [{"text": RULES}]}),
    "POST rule-tests/": lambda: (
        f"{V1}/rule-tests/",
        {"name": "one", "rule": make("alerting.alertrule", expression="up").slug, "text": TEST},
    ),
    "PUT rule-tests/<str:pk>/": lambda: (
        f"{V1}/rule-tests/{(t := stored_test()).pk}/",
        {"name": "two", "rule": t.rule.slug, "text": TEST},
    ),
    "PATCH rule-tests/<str:pk>/": lambda: (f"{V1}/rule-tests/{stored_test().pk}/", {"name": "two"}),
    "DELETE rule-tests/<str:pk>/": lambda: (f"{V1}/rule-tests/{stored_test().pk}/", None),
    "PUT rules/<str:slug>/": lambda: (f"{V1}/rules/{new_stored_rule().slug}/", {"runbook": "Look.", "levels": LEVELS}),
    "PATCH rules/<str:slug>/": lambda: (f"{V1}/rules/{new_stored_rule().slug}/", {"runbook": "Look."}),
    "DELETE rules/<str:slug>/": lambda: (f"{V1}/rules/{new_stored_rule().slug}/", None),
    "POST rule-groups/": lambda: (f"{V1}/rule-groups/", {"name": "night", "interval": 60}),
    "PUT rule-groups/<str:pk>/": lambda: (
        f"{V1}/rule-groups/{make('alerting.rulegroup').pk}/",
        {"name": "x", "interval": 60},
    ),
    "PATCH rule-groups/<str:pk>/": lambda: (f"{V1}/rule-groups/{make('alerting.rulegroup').pk}/", {"name": "x"}),
    "DELETE rule-groups/<str:pk>/": lambda: (f"{V1}/rule-groups/{make('alerting.rulegroup').pk}/", None),
    "POST recording-rules/": lambda: (
        f"{V1}/recording-rules/",
        {"name": "a:b", "expression": "up", "group": make("alerting.rulegroup").name},
    ),
    "PUT recording-rules/<str:pk>/": lambda: (
        f"{V1}/recording-rules/{(r := recorded()).pk}/",
        {"name": "a:b", "expression": "down", "group": r.group.name},
    ),
    "PATCH recording-rules/<str:pk>/": lambda: (f"{V1}/recording-rules/{recorded().pk}/", {"expression": "down"}),
    "DELETE recording-rules/<str:pk>/": lambda: (f"{V1}/recording-rules/{recorded().pk}/", None),
    "POST alerts/<str:key>/acknowledge/": lambda: (f"{V1}/alerts/{make('alerting.alert').key}/acknowledge/", {}),
    "POST alerts/<str:key>/unacknowledge/": lambda: (
        f"{V1}/alerts/{make('alerting.alert', acknowledged_at=AT, acknowledged_by='ann').key}/unacknowledge/",
        {},
    ),
    "POST alerts/<str:key>/not-an-anomaly/": lambda: (
        f"{V1}/alerts/{not_an_anomaly().keywords['alert'].key}/not-an-anomaly/",
        {},
    ),
    "POST adaptive-bands/": lambda: (
        f"{V1}/adaptive-bands/",
        {"slug": "b", "rule": make("alerting.alertrule").slug},
    ),
    "PUT adaptive-bands/<str:slug>/": lambda: (
        f"{V1}/adaptive-bands/{(b := make('alerting.adaptiveband')).slug}/",
        {"slug": b.slug, "width": 4},
    ),
    "PATCH adaptive-bands/<str:slug>/": lambda: (
        f"{V1}/adaptive-bands/{make('alerting.adaptiveband').slug}/",
        {"width": 4},
    ),
    "DELETE adaptive-bands/<str:slug>/": lambda: (
        f"{V1}/adaptive-bands/{make('alerting.adaptiveband').slug}/",
        None,
    ),
    "POST alerts/<str:key>/resolve/": lambda: (f"{V1}/alerts/{make('alerting.alert').key}/resolve/", {}),
    "POST incidents/<str:pk>/acknowledge/": lambda: (
        f"{V1}/incidents/{make('alerting.alert').incident.pk}/acknowledge/",
        {},
    ),
    "POST incidents/<str:pk>/merge/": lambda: (
        f"{V1}/incidents/{make('alerting.alert').incident.pk}/merge/",
        {"incidents": [make("alerting.alert").incident.pk]},
    ),
    "POST incidents/<str:pk>/split/": lambda: (
        f"{V1}/incidents/{(one := make('alerting.alert')).incident.pk}/split/",
        {"alerts": [make("alerting.alert", incident=one.incident).key]},
    ),
    "POST silences/": lambda: (f"{V1}/silences/", SILENCE_NOW),
    "PUT silences/<uuid:pk>/": lambda: (f"{V1}/silences/{lasting_silence().pk}/", SILENCE_NOW),
    "DELETE silences/<uuid:pk>/": lambda: (f"{V1}/silences/{lasting_silence().pk}/", None),
    "POST maintenance-windows/": lambda: (f"{V1}/maintenance-windows/", {**WINDOW, "ends_at": LATER}),
    "PATCH maintenance-windows/<str:pk>/": lambda: (
        f"{V1}/maintenance-windows/{make('alerting.maintenancewindow').pk}/",
        {"name": "other", "ends_at": LATER},
    ),
    "DELETE maintenance-windows/<str:pk>/": lambda: (
        f"{V1}/maintenance-windows/{make('alerting.maintenancewindow').pk}/",
        None,
    ),
    "POST inhibitions/": lambda: (f"{V1}/inhibitions/", INHIBITION),
    "PUT maintenance-windows/<str:pk>/": lambda: (
        f"{V1}/maintenance-windows/{make('alerting.maintenancewindow').pk}/",
        {**WINDOW, "ends_at": LATER},
    ),
    "PUT inhibitions/<str:pk>/": lambda: (f"{V1}/inhibitions/{make('alerting.inhibition').pk}/", INHIBITION),
    "PUT services/<str:pk>/": lambda: (f"{V1}/services/{make('alerting.service').pk}/", {"name": "other"}),
    "PATCH inhibitions/<str:pk>/": lambda: (f"{V1}/inhibitions/{make('alerting.inhibition').pk}/", {"enabled": True}),
    "DELETE inhibitions/<str:pk>/": lambda: (f"{V1}/inhibitions/{make('alerting.inhibition').pk}/", None),
    "POST services/": lambda: (f"{V1}/services/", {"name": "db", "depends_on": [make("alerting.service").name]}),
    "PATCH services/<str:pk>/": lambda: (f"{V1}/services/{make('alerting.service').pk}/", {"description": "x"}),
    "DELETE services/<str:pk>/": lambda: (f"{V1}/services/{make('alerting.service').pk}/", None),
    "POST incidents/<str:pk>/resolve/": lambda: (f"{V1}/incidents/{make('alerting.alert').incident.pk}/resolve/", {}),
}
SEED: dict[str, Callable[[], Call]] = {
    "POST alerts": lambda: ("/api/monitoring/alerts", {"type": "disk", "severity": "WARNING", "message": "full"}),
    "PUT alerts": lambda: ("/api/monitoring/alerts", {"alertId": make("alerting.alert").key, "resolvedBy": "ann"}),
}
QUESTIONS = {"POST rules/preview/", "POST message-templates/preview/", "POST message-templates/lint/"}
"""Questions too long for an address: nothing is written."""
NO_DECISIONS = {"POST metrics", "POST events"}
"""Writes of the seed's API that bring measurements: an entry a request would drown the trail."""


def new_stored_rule() -> Any:
    return alerting.save_rule(by=Principal.system("test"), rule=new_rule(), levels=LEVELS, now=AT)


def recorded() -> Any:
    return make("alerting.recordingrule", name="a:b", expression="up")


def writes_below(prefix: str) -> set[str]:
    return {
        f"{method} {route.pattern.removeprefix(prefix)}"
        for route in walk()
        if route.pattern.startswith(prefix)
        for method in route.methods
        if method != "GET"
    }


def test_every_write_of_the_api_has_an_example():
    assert set(WRITES) | QUESTIONS == writes_below("api/v1/portal/")
    with_slash = {f"{name}/" for name in {*SEED, *NO_DECISIONS}}
    assert {*SEED, *NO_DECISIONS} | with_slash == writes_below("api/monitoring/")


@pytest.mark.parametrize("name", sorted(WRITES | SEED))
def test_a_write_through_the_api_leaves_an_entry(name, client):
    url, body = (WRITES | SEED)[name]()
    client.force_login(User.objects.create_superuser("root"))
    method = name.partition(" ")[0].lower()
    answers = []
    entries = entries_of(lambda: answers.append(getattr(client, method)(url, body, content_type="application/json")))
    assert 200 <= answers[0].status_code < 300, answers[0].text
    assert entries, f"{name} wrote nothing down"
    assert {(entry.actor_name, entry.via) for entry in entries} == {("root", "api")}
