"""The first page of the admin: is it fine, what is wrong, what is left to do. And its side bar, by room."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone

from apps.accounts.permissions import EVERYTHING, Right, principal_of
from apps.alerting.models import AlertRule
from apps.dashboards import snapshots
from apps.dashboards.health import health
from apps.dashboards.todos import todos
from apps.metrics.models import CollectorSetting
from apps.notifications.models import Delivery
from apps.oncall.reachability import Reachability

Row = dict[str, Any]

ROOMS = {
    "alerting": "Alerting",
    "oncall": "On call",
    "notifications": "Notifications",
    "metrics": "Metrics",
    "sources": "Sources",
    "accounts": "People and access",
    "dashboards": "Dashboards",
    "auth": "Roles",
    "core": "Machinery",
}
CHECK_NAMES = {"oncall": "On call", "cpu": "CPU"}
ICONS = {
    "alertrule": "rule",
    "rulegroup": "schedule",
    "recordingrule": "edit_note",
    "alert": "notifications_active",
    "incident": "emergency",
    "transition": "timeline",
    "policy": "escalator",
    "schedule": "calendar_month",
    "importedcalendar": "event_repeat",
    "route": "alt_route",
    "escalation": "trending_up",
    "notice": "campaign",
    "notificationgroup": "workspaces",
    "contact": "contact_mail",
    "messagetemplate": "edit_note",
    "delivery": "outgoing_mail",
    "metric": "straighten",
    "series": "show_chart",
    "retentionpolicy": "auto_delete",
    "collectorsetting": "sensors",
    "collectionswitch": "power_settings_new",
    "scrapejob": "sensors",
    "scrapetarget": "dns",
    "user": "person",
    "token": "key",
    "auditentry": "history",
    "group": "groups",
    "loop": "autorenew",
    "shipped": "inventory_2",
}


def favicon(request: HttpRequest) -> str:
    """Return the address of the portal's sign."""
    return static("portal/favicon-ok.svg")


def first_style(request: HttpRequest) -> str:
    """Return the address of the style that shows a page before its scripts have run."""
    return static("portal/admin-first.css")


def first_script(request: HttpRequest) -> str:
    """Return the address of the script that gives a page its theme before it is shown."""
    return static("portal/admin-first.js")


def navigation(request: HttpRequest) -> list[Row]:
    """Return the side bar: the pages, then each room's models that this person may open."""
    rooms = {app["app_label"]: app for app in admin.site.get_app_list(request)}
    groups: list[Row] = [
        {
            "title": "",
            "items": [
                {"title": "Overview", "icon": "monitoring", "link": reverse("overview")},
                {"title": "On call", "icon": "calendar_month", "link": reverse("oncall")},
                {"title": "Administration", "icon": "space_dashboard", "link": reverse("admin:index")},
            ],
        }
    ]
    order = [*ROOMS, *sorted(rooms.keys() - ROOMS.keys())]
    for label in order:
        if label not in rooms:
            continue
        items = [
            {
                "title": str(model["name"]),
                "icon": ICONS.get(model["object_name"].lower(), "table_rows"),
                "link": model["admin_url"],
            }
            for model in rooms[label]["models"]
            if model.get("admin_url")
        ]
        if label == "metrics" and _sees_the_store(request):
            items.insert(0, {"title": "Store", "icon": "database", "link": reverse("admin:metrics_block_store")})
        if items:
            title = ROOMS.get(label, rooms[label]["name"])
            groups.append({"title": title, "separator": True, "collapsible": label == "core", "items": items})
    return groups


def _sees_the_store(request: HttpRequest) -> bool:
    who = principal_of(request)
    return who.can(Right.READ) and who.scope == EVERYTHING


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Add what the index shows; nothing of it for somebody who may not read."""
    who, now = principal_of(request), timezone.now()
    if not who.can(Right.READ):
        return context
    state = health(now=now)
    active = snapshots.alerts(scope=who.scope)
    reach = snapshots.reach()
    failing = list(CollectorSetting.objects.filter(enabled=True).exclude(error=""))
    context |= {
        "health": snapshots.verdict(state, active),
        "checks": [
            {"name": CHECK_NAMES.get(name, name.capitalize()), "status": str(check.status), "message": check.message}
            for name, check in state.checks.items()
        ],
        "active_alerts": active,
        "failing_collectors": failing,
        "todos": todos(who, active, reach, now=now),
        "cards": cards(active, reach),
    }
    return context


def cards(active: Row, reach: Reachability) -> list[Row]:
    """Return the figures at the top of the index."""
    rules = AlertRule.objects.filter(enabled=True).count()
    queued = Delivery.objects.queued().count()
    collectors = CollectorSetting.objects.filter(enabled=True).count()
    return [
        {"title": "Active alerts", "value": active["total"], "note": snapshots.headline(active["counts"]) or "none"},
        {"title": "Rules", "value": rules, "note": "switched on"},
        {"title": "Collectors", "value": collectors, "note": "switched on"},
        {"title": "Working contacts", "value": len(reach.working), "note": f"{queued} messages waiting"},
    ]
