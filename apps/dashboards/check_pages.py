"""The pages of what is asked from outside: checks, heartbeats and certificates, and each of them by itself."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.permissions import Principal, Right, page, principal_of
from apps.dashboards import check_panels, snapshots, snippets, uptime, views
from apps.dashboards.panels import FRONTEND
from apps.metrics import query
from apps.sources import checks as verbs
from apps.sources.models import Check, Heartbeat, Site

MOST_ROWS = 500
SOON_DAYS = 14
TABS = (("checks", "Checks"), ("heartbeats", "Heartbeats"), ("certificates", "Certificates"))
TONES = {
    "up": ("ok", "ok", "up"),
    "failing": ("warning", "warning", "failing"),
    "down": ("critical", "critical", "down"),
    "unknown": ("quiet", "pending", "not known yet"),
}


def standing(row: Check | Heartbeat) -> tuple[str, str, str]:
    """Return (tone, icon, word)."""
    if not row.enabled:
        return "quiet", "pause", "paused" if isinstance(row, Heartbeat) else "switched off"
    if isinstance(row, Heartbeat):
        if row.health == "unknown":
            return "quiet", "pending", "no call yet"
        if row.started_at is not None and row.health == "up":
            return "ok", "refresh", "running"
        if row.health == "up" and row.expected_at is not None and row.expected_at < timezone.now():
            return "warning", "clock", "late"
    return TONES[row.health]


def _may(request: HttpRequest, who: Principal) -> dict[str, bool]:
    is_staff = bool(getattr(request.user, "is_staff", False))
    return {"operate": who.can(Right.OPERATE), "edit": who.can(Right.EDIT) and is_staff}


@require_GET
@never_cache
@page(Right.READ)
def checks(request: HttpRequest) -> HttpResponse:
    """All checks, heartbeats or certificates: is it up, since when, how was the last day."""
    who, now = principal_of(request), timezone.now()
    tab = request.GET.get("tab", "checks")
    if tab not in dict(TABS):
        raise Http404
    every = list(Check.objects.all().visible_to(who.scope))
    beats = list(Heartbeat.objects.all().visible_to(who.scope))
    content: dict[str, Any] = {}
    if tab == "certificates":
        shown = sorted((row for row in every if row.expires_at), key=lambda row: row.expires_at or now)
        content["certificates"] = [_certificate(row, now) for row in shown[:MOST_ROWS]]
    else:
        metric, by, rows = ("check_up", "check", every) if tab == "checks" else ("heartbeat_up", "heartbeat", beats)
        strips = uptime.strips(metric, by, scope=who.scope, now=now) if rows else {}
        order = {"down": 0, "failing": 1, "unknown": 2, "up": 3}
        rows = sorted(rows, key=lambda row: (not row.enabled, order[row.health], str(row)))
        content["rows"] = [
            {"row": row, "standing": standing(row), "cells": strips.get(_key(row)) or uptime.empty(now)}
            for row in rows[:MOST_ROWS]
        ]
        content["more"] = max(0, len(rows) - MOST_ROWS)
    ends_soon = sum(row.expires_at is not None and (row.expires_at - now).days < SOON_DAYS for row in every)
    return views.shell(
        request,
        "checks",
        "Checks",
        "checks",
        {"alerts": snapshots.alerts(scope=who.scope)},
        tab=tab,
        tabs=[
            {"key": key, "title": title, "count": count, "bad": bad}
            for (key, title), count, bad in zip(
                TABS,
                (len(every), len(beats), sum(row.expires_at is not None for row in every)),
                (_down(every), _down(beats), ends_soon),
                strict=True,
            )
        ],
        on=query.collection_on(),
        may=_may(request, who),
        **content,
    )


def _key(row: Check | Heartbeat) -> str:
    return row.slug if isinstance(row, Heartbeat) else row.name


def _down(rows: Any) -> int:
    return sum(row.enabled and row.health == "down" for row in rows)


def _certificate(row: Check, now: Any) -> dict[str, Any]:
    days = ((row.expires_at or now) - now).total_seconds() / 86_400
    tone = "critical" if days < 3 else "warning" if days < SOON_DAYS else "ok"
    return {"check": row, "days": int(days), "is_over": days < 0, "tone": tone, **(row.certificate or {})}


def _check(who: Principal, pk: int) -> Check:
    found: Check | None = Check.objects.filter(pk=pk).visible_to(who.scope).first()
    if found is None:
        raise Http404
    return found


@require_GET
@never_cache
@page(Right.READ)
def check(request: HttpRequest, pk: int) -> HttpResponse:
    """One check: how it stands, its history, its charts, its certificate."""
    who, now = principal_of(request), timezone.now()
    row = _check(who, pk)
    return views.shell(
        request,
        "check",
        row.name,
        f"check:{pk}",
        {"alerts": snapshots.alerts(scope=who.scope), "data_query": {"check": str(pk)}},
        check=row,
        standing=standing(row),
        changes=row.changes.all()[:50],
        certificate=_certificate(row, now) if row.expires_at else None,
        panels=check_panels.panels_of_check(row),
        with_range=True,
        may=_may(request, who),
        **uptime.history("check_up", "check", row.name, scope=who.scope, now=now),
    )


@require_POST
@page(Right.OPERATE)
def check_now(request: HttpRequest, pk: int) -> HttpResponse:
    """Have the check asked at once."""
    who, now = principal_of(request), timezone.now()
    row = _check(who, pk)
    if views.attempt(request, lambda: verbs.check_now(by=who, check=row, now=now)):
        messages.success(request, f"{row.name} is asked now; the page shows it within a second or two.")
    return redirect("check", pk=pk)


@require_GET
@never_cache
@page(Right.READ)
def heartbeat(request: HttpRequest, pk: int) -> HttpResponse:
    """One heartbeat: how it stands, how its job calls (for those who may edit), and its last calls."""
    who, now = principal_of(request), timezone.now()
    row = Heartbeat.objects.filter(pk=pk).visible_to(who.scope).first()
    if row is None:
        raise Http404
    may = _may(request, who)
    return views.shell(
        request,
        "heartbeat",
        row.name,
        f"heartbeat:{pk}",
        {"alerts": snapshots.alerts(scope=who.scope), "data_query": {"heartbeat": str(pk)}},
        beat=row,
        standing=standing(row),
        calls=row.calls.all()[:50],
        snippets=snippets.heartbeat(row) if who.can(Right.EDIT) else (),
        panels=check_panels.panels_of_heartbeat(row),
        with_range=True,
        may=may,
        **uptime.history("heartbeat_up", "heartbeat", row.slug, scope=who.scope, now=now),
    )


@require_GET
@never_cache
@page(Right.READ)
def frontend(request: HttpRequest) -> HttpResponse:
    """How pages do in the browsers of those who use them, by kind of page and device."""
    who = principal_of(request)
    listed = list(Site.objects.filter(enabled=True)) if not who.scope.matchers else []
    return views.shell(
        request,
        "frontend",
        "Front end",
        "badge",
        {"alerts": snapshots.alerts(scope=who.scope)},
        panels=FRONTEND,
        sites=listed,
        snippets=[snippet for site in listed for snippet in snippets.site(site)] if who.can(Right.EDIT) else [],
        with_range=True,
        may=_may(request, who),
    )
