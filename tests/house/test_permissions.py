"""Every address × everybody: what each may see is one table, and an address that is not in it fails.

Addresses name objects that do not exist: whoever may pass gets "not found", whoever may not never learns that.
"""

from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from apps.accounts import services
from apps.accounts.models import User
from apps.accounts.rights import ROLES, SCOPES, Principal, Right
from monitoring_portal import fastlane
from tests.house.routes import Route, walk
from tests.house.rows import AT
from tests.wiring.lanes import ask

R, Q, I, O, E, A, AUDIT = (  # noqa: E741
    Right.READ, Right.QUERY, Right.INGEST, Right.OPERATE, Right.EDIT, Right.ADMINISTER, Right.AUDIT,
)  # fmt: skip
OPEN, ANYBODY = "open", "anybody"
Need = Right | str | frozenset[Right]
"""One right, any of several, or a word."""

PAGES: dict[str, dict[str, Need]] = {
    "": {"GET": OPEN},
    "r/<str:token>/": {"GET": OPEN, "POST": OPEN},
    "from/email/": {"HEAD": OPEN, "POST": OPEN},
    "from/<slug:kind>/": {"POST": OPEN},
    "from/<slug:kind>/<str:token>/": {"POST": OPEN},
    "accounts/login/": {"GET": OPEN, "POST": OPEN},
    "accounts/logout/": {"POST": OPEN},
    "monitoring/": {"GET": R},
    "monitoring/performance/": {"GET": R},
    "monitoring/system/": {"GET": R},
    "monitoring/alerts/": {"GET": R},
    "monitoring/alerts/<slug:key>/": {"GET": R},
    "monitoring/alerts/<slug:key>/acknowledge/": {"POST": O},
    "monitoring/hygiene.csv": {"GET": R},
    "monitoring/hygiene/<slug:slug>/<slug:kind>/": {"GET": E, "POST": E},
    "monitoring/alerts/<slug:key>/not-an-anomaly/": {"POST": O},
    "monitoring/alerts/<slug:key>/resolve/": {"POST": O},
    "monitoring/incidents/": {"GET": R},
    "monitoring/incidents/<int:pk>/": {"GET": R},
    "monitoring/incidents/<int:pk>/acknowledge/": {"POST": O},
    "monitoring/incidents/<int:pk>/resolve/": {"POST": O},
    "monitoring/incidents/<int:pk>/merge/": {"POST": O},
    "monitoring/incidents/<int:pk>/split/": {"POST": O},
    "monitoring/quiet/": {"GET": R},
    "monitoring/quiet/new/": {"GET": O, "POST": O},
    "monitoring/quiet/preview/": {"GET": R},
    "monitoring/quiet/<uuid:pk>/": {"GET": R, "POST": R},
    "monitoring/quiet/<uuid:pk>/expire/": {"POST": O},
    "monitoring/services/": {"GET": R},
    "monitoring/maintenance.ics": {"GET": R},
    "monitoring/me/": {"GET": R},
    "monitoring/people/<int:pk>/": {"GET": R},
    "monitoring/people/<int:pk>/order/": {"POST": R},  # each verb asks whether it is one's own
    "monitoring/people/<int:pk>/quiet-hours/": {"POST": R},
    "monitoring/people/<int:pk>/test/": {"POST": R},
    "monitoring/on-call/": {"GET": R},
    "monitoring/on-call/cover/": {"POST": O},
    "monitoring/on-call/swap/": {"POST": O},
    "monitoring/on-call/overrides/<int:pk>/end/": {"POST": O},
    "monitoring/on-call/subscribe/": {"POST": R},
    "monitoring/on-call/unsubscribe/": {"POST": R},
    "monitoring/on-call/fairness.csv": {"GET": R},
    "monitoring/on-call/all.ics": {"GET": R},
    "monitoring/on-call/schedules/<int:pk>.ics": {"GET": R},
    "monitoring/on-call/people/<int:pk>.ics": {"GET": R},
    "monitoring/contacts/<int:pk>/test/": {"POST": O},
    "monitoring/routes/<int:pk>/test/": {"POST": O},
    "monitoring/policies/<int:pk>/test/": {"POST": O},
    "monitoring/first-steps/dismiss/": {"POST": A},
    "monitoring/senders/": {"GET": R},
    "monitoring/senders/token/": {"POST": A},
    "monitoring/targets/": {"GET": R},
    "monitoring/targets/<int:pk>/": {"GET": R},
    "monitoring/targets/<int:pk>/scrape/": {"POST": O},
    "monitoring/checks/": {"GET": R},
    "monitoring/checks/<int:pk>/": {"GET": R},
    "monitoring/checks/<int:pk>/ask/": {"POST": O},
    "monitoring/heartbeats/<int:pk>/": {"GET": R},
    "monitoring/frontend/": {"GET": R},
    "monitoring/logs/": {"GET": R},
    "monitoring/logs/data/": {"GET": R},
    "monitoring/logs/list/": {"GET": R},
    "monitoring/logs/templates/": {"GET": R},
    "monitoring/logs/export/": {"GET": R},
    "monitoring/dashboards/": {"GET": R},
    "monitoring/dashboards/new/": {"POST": E},
    "monitoring/dashboards/import/": {"GET": E, "POST": E},
    "monitoring/dashboards/preview/": {"POST": Q},
    "monitoring/dashboards/shared/<str:token>/": {"GET": OPEN},
    "monitoring/dashboards/shared/<str:token>/data/": {"GET": OPEN},
    "monitoring/dashboards/<slug:slug>/": {"GET": R},
    "monitoring/dashboards/<slug:slug>/data/": {"GET": R},
    "monitoring/dashboards/<slug:slug>/grafana.json": {"GET": R},
    "monitoring/dashboards/<slug:slug>/save/": {"POST": E},
    "monitoring/dashboards/<slug:slug>/delete/": {"POST": E},
    "monitoring/dashboards/<slug:slug>/history/": {"GET": R},
    "monitoring/dashboards/<slug:slug>/history/<int:number>/restore/": {"POST": E},
    "monitoring/dashboards/<slug:slug>/share/": {"POST": E},
    "monitoring/dashboards/<slug:slug>/share/<int:pk>/revoke/": {"POST": E},
    "monitoring/security/": {"GET": R},
    "monitoring/business/": {"GET": R},
    "monitoring/databases/": {"GET": R},
    "monitoring/applications/": {"GET": R},
    "monitoring/explore/": {"GET": Q},
    "monitoring/data/": {"GET": R},
}

# The admin's own addresses; those of the models follow from MODELS.
ADMIN: dict[str, dict[str, Need]] = {
    "admin/": {"GET": ANYBODY},
    "admin/login/": {"GET": OPEN},
    "admin/logout/": {"POST": OPEN},
    "admin/password_change/": {"GET": ANYBODY},
    "admin/password_change/done/": {"GET": ANYBODY},
    "admin/jsi18n/": {"GET": ANYBODY},
    "admin/accounts/user/<id>/password/": {"GET": A, "POST": A},
    "admin/alerting/alert/<path:object_id>/acknowledge/": {"GET": O, "POST": O},
    "admin/alerting/alert/<path:object_id>/resolve/": {"GET": O, "POST": O},
    "admin/alerting/incident/<path:object_id>/acknowledge/": {"GET": O, "POST": O},
    "admin/alerting/incident/<path:object_id>/resolve/": {"GET": O, "POST": O},
    "admin/alerting/rulegroup/export/": {"GET": R, "POST": R},
    "admin/alerting/rulegroup/import/": {"GET": E, "POST": E},
    "admin/oncall/route/import/": {"GET": A, "POST": A},
    "admin/metrics/tombstone/delete-series/": {"GET": A, "POST": A},
    "admin/metrics/block/store/": {"GET": R},
    "admin/sources/logdeletion/delete-logs/": {"GET": A, "POST": A},
    "admin/sources/businessmetric/<path:object_id>/try/": {"GET": A, "POST": A},
    "admin/sources/scrapejob/import/": {"GET": A, "POST": A},
    "admin/notifications/contact/<path:object_id>/send-test/": {"GET": O, "POST": O},
    "admin/oncall/policy/<path:object_id>/test/": {"GET": O, "POST": O},
    "admin/oncall/policy/outline/": {"POST": R},
    "admin/oncall/route/<path:object_id>/test/": {"GET": O, "POST": O},
    "admin/search/": {"GET": ANYBODY},
    "admin/r/<path:content_type_id>/<path:object_id>/": {"GET": ANYBODY},
    "admin/(?P<url>.*)$": {"GET": ANYBODY},
}

# model: who may (see, add, change, delete); None: nobody.
MODELS: dict[str, tuple[Right, Right | None, Right | None, Right | None]] = {
    "accounts.auditentry": (AUDIT, None, None, None),
    "accounts.calendar": (R, E, E, E),
    "accounts.login": (AUDIT, None, None, None),
    "accounts.team": (R, A, A, A),
    "accounts.token": (A, A, A, A),
    "accounts.user": (A, A, A, A),
    "alerting.alert": (R, None, None, None),
    "alerting.alertrule": (R, E, E, E),
    "alerting.change": (R, None, None, None),
    "alerting.incident": (R, None, None, None),
    "alerting.adaptiveband": (R, E, E, E),
    "alerting.inhibition": (R, E, E, E),
    "alerting.maintenancewindow": (R, E, E, E),
    "alerting.service": (R, E, E, E),
    "alerting.silence": (R, None, None, None),
    "alerting.recordingrule": (R, E, E, E),
    "alerting.rulegroup": (R, E, E, E),
    "alerting.transition": (R, None, None, None),
    "core.loop": (R, None, None, None),
    "core.shipped": (R, None, None, None),
    "dashboards.dashboard": (R, E, E, E),
    "dashboards.dashboardversion": (R, None, None, None),
    "dashboards.folder": (R, E, E, E),
    "dashboards.sharelink": (R, None, None, None),
    "auth.group": (A, None, None, None),
    "metrics.batch": (R, None, None, None),
    "metrics.block": (R, None, None, None),
    "metrics.collectionswitch": (R, None, E, None),
    "metrics.collectorsetting": (R, E, E, E),
    "metrics.metric": (R, None, E, None),
    "metrics.pushgroup": (R, None, E, E),
    "metrics.querybudget": (R, None, A, None),
    "metrics.retentionpolicy": (R, A, A, A),
    "metrics.series": (R, None, None, None),
    "metrics.seriesbudget": (R, None, A, None),
    "metrics.tokencount": (A, None, None, None),
    "metrics.tombstone": (R, None, None, None),
    "notifications.contact": (R, A, A, A),
    "notifications.delivery": (R, None, None, None),
    "notifications.messagetemplate": (R, E, E, E),
    "notifications.quiethours": (R, A, A, A),
    "notifications.reply": (R, None, None, None),
    "oncall.coveragefinding": (R, None, None, None),
    "oncall.escalation": (R, None, None, None),
    "oncall.importedcalendar": (R, E, E, E),
    "oncall.notice": (R, None, None, None),
    "oncall.notificationgroup": (R, None, None, None),
    "oncall.override": (R, None, None, None),
    "oncall.policy": (R, E, E, E),
    "oncall.route": (R, E, E, E),
    "oncall.schedule": (R, E, E, E),
    "sources.businessmetric": (R, A, A, A),
    "sources.check": (R, E, E, E),
    "sources.checkchange": (R, None, None, None),
    "sources.ping": (R, None, None, None),
    "sources.datasource": (R, A, A, A),
    "sources.heartbeat": (R, E, E, E),
    "sources.logdeletion": (R, None, None, None),
    "sources.logintake": (R, None, A, None),
    "sources.logshare": (R, None, None, None),
    "sources.logrun": (R, None, None, None),
    "sources.logtemplate": (R, None, None, None),
    "sources.site": (R, E, E, E),
    "sources.scrapejob": (R, E, E, E),
    "sources.scrapetarget": (R, None, None, None),
}

API: dict[str, dict[str, Need]] = {
    "api/schema/": {"GET": R},
    "api/monitoring/metrics": {"GET": R, "POST": I},
    "api/monitoring/events": {"POST": I},
    "api/monitoring/alerts": {"GET": R, "POST": O, "PUT": O},
    "api/monitoring/health": {"GET": OPEN},
    "api/v1/portal/rules/": {"GET": R, "POST": E},
    "api/v1/portal/rules/export/": {"GET": R},
    "api/v1/portal/rules/import/": {"POST": E},
    "api/v1/portal/checks/": {"GET": R, "POST": E},
    "api/v1/portal/checks/<str:pk>/": {"GET": R, "PATCH": E, "DELETE": E},
    "api/v1/portal/checks/<str:pk>/ask/": {"POST": O},
    "api/v1/portal/checks/<str:pk>/changes/": {"GET": R},
    "api/v1/portal/dashboards/": {"GET": R, "POST": E},
    "api/v1/portal/dashboards/<str:slug>/": {"GET": R, "PATCH": E, "DELETE": E},
    "api/v1/portal/heartbeats/": {"GET": R, "POST": E},
    "api/v1/portal/heartbeats/<str:pk>/": {"GET": R, "PATCH": E, "DELETE": E},
    "api/v1/portal/heartbeats/<str:pk>/calls/": {"GET": R},
    "api/v1/portal/business-metrics/": {"GET": R, "POST": A},
    "api/v1/portal/business-metrics/<str:pk>/": {"GET": R, "PATCH": A, "DELETE": A},
    "api/v1/portal/business-metrics/<str:pk>/ask/": {"POST": O},
    "api/v1/portal/business-metrics/<str:pk>/try/": {"POST": A},
    "api/v1/portal/data-sources/": {"GET": R, "POST": A},
    "api/v1/portal/data-sources/<str:pk>/": {"GET": R, "PATCH": A, "DELETE": A},
    "api/v1/portal/data-sources/<str:pk>/ask/": {"POST": O},
    "api/v1/portal/sites/": {"GET": R, "POST": E},
    "api/v1/portal/sites/<str:pk>/": {"GET": R, "PATCH": E, "DELETE": E},
    "api/v1/portal/sites/<str:pk>/renew-key/": {"POST": E},
    "api/v1/portal/scrape-jobs/": {"GET": R, "POST": E},
    "api/v1/portal/scrape-jobs/<str:pk>/": {"GET": R, "PATCH": E, "DELETE": E},
    "api/v1/portal/scrape-jobs/import/": {"POST": A},
    "api/v1/portal/targets/": {"GET": R},
    "api/v1/portal/targets/<str:pk>/": {"GET": R},
    "api/v1/portal/targets/<str:pk>/look/": {"GET": O},
    "api/v1/portal/targets/<str:pk>/scrape/": {"POST": O},
    "api/v1/portal/rules/preview/": {"POST": Q},
    "api/v1/portal/rule-tests/": {"GET": R, "POST": E},
    "api/v1/portal/rule-tests/<str:pk>/": {"GET": R, "PUT": E, "PATCH": E, "DELETE": E},
    "api/v1/portal/rule-tests/<str:pk>/result/": {"GET": R},
    "api/v1/portal/rules/<str:slug>/": {"GET": R, "PUT": E, "PATCH": E, "DELETE": E},
    "api/v1/portal/rule-groups/": {"GET": R, "POST": E},
    "api/v1/portal/rule-groups/<str:pk>/": {"GET": R, "PUT": E, "PATCH": E, "DELETE": E},
    "api/v1/portal/hygiene/": {"GET": R},
    "api/v1/portal/adaptive-bands/": {"GET": R, "POST": E},
    "api/v1/portal/adaptive-bands/<str:slug>/": {"GET": R, "PUT": E, "PATCH": E, "DELETE": E},
    "api/v1/portal/recording-rules/": {"GET": R, "POST": E},
    "api/v1/portal/recording-rules/<str:pk>/": {"GET": R, "PUT": E, "PATCH": E, "DELETE": E},
    "api/v1/portal/alerts/": {"GET": R},
    "api/v1/portal/alerts/<str:key>/": {"GET": R},
    "api/v1/portal/alerts/<str:key>/acknowledge/": {"POST": O},
    "api/v1/portal/alerts/<str:key>/unacknowledge/": {"POST": O},
    "api/v1/portal/alerts/<str:key>/not-an-anomaly/": {"POST": O},
    "api/v1/portal/alerts/<str:key>/resolve/": {"POST": O},
    "api/v1/portal/alerts/<str:key>/transitions/": {"GET": R},
    "api/v1/portal/incidents/": {"GET": R},
    "api/v1/portal/incidents/<str:pk>/": {"GET": R},
    "api/v1/portal/incidents/<str:pk>/acknowledge/": {"POST": O},
    "api/v1/portal/incidents/<str:pk>/resolve/": {"POST": O},
    "api/v1/portal/incidents/<str:pk>/merge/": {"POST": O},
    "api/v1/portal/incidents/<str:pk>/split/": {"POST": O},
    "api/v1/portal/silences/": {"GET": R, "POST": O},
    "api/v1/portal/silences/<uuid:pk>/": {"GET": R, "PUT": O, "DELETE": O},
    "api/v1/portal/silence-preview/": {"GET": R},
    "api/v1/portal/who-would-be-told/": {"GET": R},
    "api/v1/portal/import/": {"POST": A},
    "api/v1/portal/maintenance-windows/": {"GET": R, "POST": E},
    "api/v1/portal/maintenance-windows/<str:pk>/": {"GET": R, "PUT": E, "PATCH": E, "DELETE": E},
    "api/v1/portal/inhibitions/": {"GET": R, "POST": E},
    "api/v1/portal/inhibitions/preview/": {"GET": R},
    "api/v1/portal/inhibitions/<str:pk>/": {"GET": R, "PUT": E, "PATCH": E, "DELETE": E},
    "api/v1/portal/services/": {"GET": R, "POST": E},
    "api/v1/portal/services/<str:pk>/": {"GET": R, "PUT": E, "PATCH": E, "DELETE": E},
    "api/v1/portal/transitions/": {"GET": R},
    "api/v1/portal/contacts/": {"GET": R, "POST": A},
    "api/v1/portal/contacts/<str:pk>/": {"GET": R, "PATCH": A, "DELETE": A},
    "api/v1/portal/contacts/<str:pk>/test/": {"POST": O},
    "api/v1/portal/message-templates/": {"GET": R, "POST": E},
    "api/v1/portal/message-templates/<str:pk>/": {"GET": R, "PATCH": E, "DELETE": E},
    "api/v1/portal/message-templates/preview/": {"POST": E},
    "api/v1/portal/message-templates/lint/": {"POST": E},
    "api/v1/portal/message-templates/examples/": {"GET": E},
    "api/v1/portal/people/": {"GET": R},
    "api/v1/portal/people/<str:pk>/": {"GET": R},
    "api/v1/portal/people/<str:pk>/order/": {"PUT": R},
    "api/v1/portal/people/<str:pk>/quiet-hours/": {"PUT": R},
    "api/v1/portal/people/<str:pk>/test/": {"POST": R},
    "api/v1/portal/deliveries/": {"GET": R},
    "api/v1/portal/deliveries/<str:pk>/": {"GET": R},
    "api/v1/portal/policies/": {"GET": R, "POST": E},
    "api/v1/portal/policies/<str:pk>/": {"GET": R, "PATCH": E, "DELETE": E},
    "api/v1/portal/policies/<str:pk>/dry-run/": {"GET": R},
    "api/v1/portal/policies/<str:pk>/test/": {"POST": O},
    "api/v1/portal/routes/": {"GET": R, "POST": E},
    "api/v1/portal/routes/<str:pk>/": {"GET": R, "PATCH": E, "DELETE": E},
    "api/v1/portal/routes/<str:pk>/test/": {"POST": O},
    "api/v1/portal/schedules/": {"GET": R, "POST": E},
    "api/v1/portal/schedules/<str:pk>/": {"GET": R, "PATCH": E, "DELETE": E},
    "api/v1/portal/schedules/<str:pk>/shifts/": {"GET": R},
    "api/v1/portal/schedules/on-call/": {"GET": R},
    "api/v1/portal/on-call-calendars/": {"GET": R, "POST": E},
    "api/v1/portal/on-call-calendars/<str:pk>/": {"GET": R, "PATCH": E, "DELETE": E},
    "api/v1/portal/on-call-fairness/": {"GET": R},
    "api/v1/portal/on-call-findings/": {"GET": R},
    "api/v1/portal/on-call-swaps/": {"POST": O},
    "api/v1/portal/overrides/": {"GET": R, "POST": O},
    "api/v1/portal/overrides/<str:pk>/": {"DELETE": O},
    "api/v1/portal/escalations/": {"GET": R},
    "api/v1/portal/escalations/<str:pk>/": {"GET": R},
    "api/v1/portal/notices/": {"GET": R},
    "api/v1/portal/tokens/": {"GET": A, "POST": A},
    "api/v1/portal/tokens/<str:pk>/": {"GET": A},
    "api/v1/portal/tokens/<str:pk>/revoke/": {"POST": A},
    "api/v1/portal/teams/": {"GET": R, "POST": A},
    "api/v1/portal/teams/<str:pk>/": {"GET": R, "PUT": A, "PATCH": A, "DELETE": A},
    "api/v1/portal/calendars/": {"GET": R, "POST": E},
    "api/v1/portal/calendars/<str:pk>/": {"GET": R, "PUT": E, "PATCH": E, "DELETE": E},
    "api/v1/portal/audit/": {"GET": AUDIT},
    "api/v1/portal/audit/<str:pk>/": {"GET": AUDIT},
    "api/v1/portal/users/me/": {"GET": ANYBODY},
}

# The seed's addresses answer with and without their last slash.
API |= {f"{pattern}/": needs for pattern, needs in API.items() if not pattern.endswith("/")}

FAST: dict[str, Need | tuple[Need, Need]] = {
    "/-/healthy": OPEN,
    "/-/ready": OPEN,
    "/metrics": R,
    "/api/v1/query": Q,
    "/api/v1/query_range": Q,
    "/api/v1/query_exemplars": Q,
    "/api/v1/format_query": Q,
    "/api/v1/parse_query": Q,
    "/api/v1/series": Q,
    "/api/v1/labels": Q,
    "/api/v1/label/<name>/values": Q,
    "/api/v1/metadata": Q,
    "/api/v1/write": I,
    "/api/v1/otlp/v1/metrics": I,
    "/v1/metrics": I,
    "/metrics/job/<group...>": I,
    "/metrics/job@base64/<group...>": I,
    "/api/v1/metrics": R,
    "/api/v1/admin/tsdb/delete_series": A,
    "/api/v1/admin/tsdb/clean_tombstones": A,
    "/api/v1/targets": R,
    "/api/v1/scrape_pools": R,
    "/api/push/<code>": OPEN,
    "/ping/<path...>": OPEN,
    "/rum/<key>": OPEN,
    "/rum/beacon.js": OPEN,
    "/api/v1/alertmanagers": R,
    "/api/v1/status/buildinfo": R,
    "/api/v1/status/runtimeinfo": R,
    "/api/v1/status/flags": R,
    "/api/v1/status/config": R,
    "/api/v1/status/tsdb": R,
    "/api/v1/status/walreplay": R,
    "/api/v1/alerts": R,
    "/api/v1/rules": R,
    "/api/monitoring/query/cost": Q,
    "/api/monitoring/query/explain": Q,
    "/api/monitoring/query/functions": Q,
    "/api/v1/portal/intake/alertmanager": O,
    "/v2/enqueue": O,
    "/v2/change/enqueue": O,
    "/api/v1/portal/changes": (R, O),
    "/api/v1/portal/logs": (R, I),
    "/api/v1/portal/logs/counts": R,
    "/api/v1/portal/logs/delete": A,
    "/api/v1/portal/logs/templates": R,
    "/loki/api/v1/push": I,
    "/v1/logs": I,
    "/api/v1/otlp/v1/logs": I,
}

for prefix in ("", "/alertmanager"):
    FAST |= {f"{prefix}/api/v2/{name}": R for name in ("alerts/groups", "receivers", "status")}
    FAST |= {f"{prefix}/api/v2/{name}": (R, O) for name in ("alerts", "silences", "silence/<id>")}


@dataclass(frozen=True)
class Caller:
    """Somebody: anonymous, a person with one role or none, or a token with one scope."""

    name: str
    rights: frozenset[Right]
    is_known: bool = True

    def may(self, need: Need) -> bool:
        if isinstance(need, frozenset):
            return bool(need & self.rights)
        return need == OPEN or (need == ANYBODY and self.is_known) or need in self.rights


ANONYMOUS = Caller("anonymous", frozenset(), is_known=False)
PEOPLE = [Caller("role:none", frozenset()), *(Caller(f"role:{name}", rights) for name, rights in ROLES.items())]
TOKENS = [Caller(f"scope:{name}", rights) for name, rights in SCOPES.items()]


def client_of(caller: Caller) -> Client:
    kind, _, name = caller.name.partition(":")
    client = APIClient(raise_request_exception=False)
    system = Principal.system("test")
    if kind == "role":
        user = User.objects.create_user(f"walker-{name}")
        services.set_roles(by=system, user=user, roles=[] if name == "none" else [name])
        client.force_login(user)
    elif kind == "scope":
        _, secret = services.issue_token(by=system, name=name, scopes=[name], expires_at=None, now=AT)
        client.defaults["HTTP_AUTHORIZATION"] = f"Bearer {secret}"
    return client


def outcome(answer: Any) -> str:
    """Say in a word what an answer means."""
    code = answer.status_code
    if code == 401 or (code in (301, 302) and answer["Location"].partition("?")[0].endswith("login/")):
        return "who are you?"
    if code in (403, 405):
        return "no" if code == 403 else "no such method"
    return "broken" if code >= 500 else "yes"


def expected(caller: Caller, need: Need) -> str:
    return "yes" if caller.may(need) else "no" if caller.is_known else "who are you?"


# Lists that take their export back.
IMPORTED = (
    "accounts.calendar", "accounts.team", "alerting.inhibition", "alerting.maintenancewindow", "alerting.service",
    "dashboards.folder", "metrics.collectorsetting", "metrics.metric", "metrics.querybudget", "metrics.retentionpolicy",
    "notifications.contact", "notifications.messagetemplate", "oncall.route", "sources.businessmetric", "sources.check",
    "sources.datasource", "sources.heartbeat", "sources.scrapejob", "sources.site",
)  # fmt: skip


def routes_of_models() -> dict[str, dict[str, Need | None]]:
    """Return what MODELS means for the addresses of each model's admin pages; None: nobody."""
    table: dict[str, dict[str, Need | None]] = {}
    for label, (see, add, change, delete) in MODELS.items():
        base = f"admin/{label.replace('.', '/')}/"
        one = f"{base}<path:object_id>/"
        table |= {
            base: {"GET": see},
            f"{base}add/": {"GET": add, "POST": add},
            f"{one}change/": {"GET": see, "POST": change},
            f"{one}delete/": {"GET": delete, "POST": delete},
            f"{one}history/": {"GET": frozenset({AUDIT, change or AUDIT})},
            one: {"GET": ANYBODY},
        }
        if label in IMPORTED:
            table[f"{base}import-rows/"] = {"GET": change, "POST": change}
    return table


def listed(lines: list[str]) -> None:
    """Fail with every line: pytest would cut a list short."""
    assert not lines, "\n".join(["", *lines])


def differences(client: Client, caller: Caller, table: Any, prefix: str = "/") -> list[str]:
    found = []
    for pattern, methods in table.items():
        if pattern.endswith("logout/"):
            continue  # open to all, and the walk would be over
        route = Route(pattern, (), None)
        for method, need in methods.items():
            answer = client.generic(method, route.url, b"{}", content_type="application/json")
            wanted = expected(caller, "nobody" if need is None else need)
            got = outcome(answer)
            if got != wanted:
                found.append(f"{method} {route.url} ({answer.status_code}): {got}, expected {wanted}")
            if (
                pattern.startswith("api/")
                and got in ("no", "who are you?")
                and "error" not in orjson.loads(answer.content)
            ):
                found.append(f"{method} {route.url}: a refusal that is no JSON with an error")
    return found


# --- The tables are complete -----------------------------------------------------------------------------------------
def patterns(*, api: bool = False, admins: bool = False) -> set[str]:
    return {route.pattern for route in walk() if (route.is_api, route.is_admin) == (api, admins)}


def test_every_page_is_in_the_table():
    assert patterns() == set(PAGES)


def test_every_api_address_and_method_is_in_the_table():
    found = {route.pattern: set(route.methods) for route in walk() if route.is_api}
    assert found == {pattern: set(methods) for pattern, methods in API.items()}


def test_every_admin_address_is_in_the_table():
    known = set(ADMIN) | set(routes_of_models())
    unknown = {p for p in patterns(admins=True) - known if "autocomplete" not in p and "app_label" not in p}
    listed(sorted(unknown))
    assert known - patterns(admins=True) == set(), "these are gone"


def test_every_fast_lane_is_in_the_table():
    needs = {path: lane.right or OPEN for path, lane in fastlane.ROUTES.items()}
    needs |= {path: (lane.right, lane.writes) for path, lane in fastlane.ROUTES.items() if lane.writes}
    assert needs == FAST


def test_every_model_of_the_admin_is_in_the_table():
    assert {model._meta.label_lower for model in admin.site._registry} == set(MODELS)


def test_only_these_are_open_to_all():
    everything: dict[str, Any] = PAGES | ADMIN | API | {path: {"GET": need} for path, need in FAST.items()}
    assert {pattern for pattern, methods in everything.items() if OPEN in methods.values()} == {
        "", "r/<str:token>/", "from/email/", "from/<slug:kind>/", "from/<slug:kind>/<str:token>/",
        "accounts/login/", "accounts/logout/", "admin/login/", "admin/logout/",
        "api/monitoring/health", "api/monitoring/health/",
        "monitoring/dashboards/shared/<str:token>/", "monitoring/dashboards/shared/<str:token>/data/",
        "/-/healthy", "/-/ready", "/api/push/<code>", "/ping/<path...>",
        "/rum/<key>", "/rum/beacon.js",
    }  # fmt: skip


QUICKLY = {"anonymous", "role:none", "role:viewer", "role:administrator"}
READERS_OF_PAGES = [
    pytest.param(caller, id=caller.name, marks=() if caller.name in QUICKLY else pytest.mark.slow)
    for caller in (ANONYMOUS, *PEOPLE)
]


# --- The tables are true ---------------------------------------------------------------------------------------------
@pytest.mark.django_db
@pytest.mark.parametrize("caller", READERS_OF_PAGES)
def test_pages_and_admin_let_in_whom_the_table_says(caller):
    listed(differences(client_of(caller), caller, PAGES | ADMIN | routes_of_models()))


@pytest.mark.django_db
@pytest.mark.parametrize("caller", TOKENS, ids=lambda caller: caller.name)
def test_tokens_open_no_pages_and_no_admin(caller):
    listed(differences(client_of(caller), ANONYMOUS, PAGES | ADMIN | routes_of_models()))


@pytest.mark.django_db
@pytest.mark.parametrize("caller", [ANONYMOUS, *PEOPLE, *TOKENS], ids=lambda caller: caller.name)
def test_the_api_lets_in_whom_the_table_says(caller):
    listed(differences(client_of(caller), caller, API))


@pytest.mark.django_db
@pytest.mark.parametrize("caller", [ANONYMOUS, *PEOPLE, *TOKENS], ids=lambda caller: caller.name)
def test_the_fast_lane_lets_in_whom_the_table_says(caller):
    client = client_of(caller)
    headers = [(b"authorization", str(client.defaults.get("HTTP_AUTHORIZATION", "")).encode())]
    is_session = "sessionid" in client.cookies
    if is_session:
        headers.append((b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode()))
    found = []
    for path, lane in fastlane.ROUTES.items():
        for method in sorted(lane.methods):
            filled = path.replace("<name>", "job").replace("<group...>", "nightly").replace("<id>", "x")
            said = ask(filled, headers, method=method)
            need = FAST[path]
            wanted = expected(caller, need[method != "GET"] if isinstance(need, tuple) else need)
            # Out here nobody checks that a form is the portal's own.
            if is_session and need != OPEN and method in ("POST", "PUT", "DELETE"):
                wanted = "who are you?"
            got = {401: "who are you?", 403: "no"}.get(said.status, "broken" if said.status >= 500 else "yes")
            if got != wanted:
                found.append(f"{method} {path} ({said.status}): {got}, expected {wanted}")
            # A foreign protocol has its own words for it.
            if got != "yes" and not {"error", "code", "errors"} & set(said.json):
                found.append(f"{method} {path}: a refusal that is no JSON with an error")
    listed(found)


@pytest.mark.django_db
def test_without_authentication_only_the_seeds_reads_are_open(settings):
    settings.MONITORING_AUTH_ENABLED = False
    opened = {
        pattern: {
            m: OPEN if m == "GET" and pattern.startswith("api/monitoring/") else need for m, need in methods.items()
        }
        for pattern, methods in API.items()
    }
    listed(differences(client_of(ANONYMOUS), ANONYMOUS, opened | PAGES))


@pytest.mark.django_db
def test_no_api_address_describes_itself_to_strangers():
    client = APIClient()
    for pattern in API:
        if "health" not in pattern:
            assert client.options(Route(pattern, (), None).url).status_code == 401, pattern


@pytest.mark.django_db
def test_a_logged_in_stranger_sees_no_model_in_the_admin():
    page = client_of(PEOPLE[0]).get(reverse("admin:index"))
    assert page.status_code == 200
    assert page.context["app_list"] == []
