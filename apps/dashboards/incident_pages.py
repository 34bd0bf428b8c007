"""The pages of incidents: what belongs together, what probably caused it and why, and what people do about it."""

from datetime import datetime, timedelta
from typing import Any

from django.core.paginator import Paginator
from django.db.models import Count, Max, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.permissions import Principal, Right, page, principal_of
from apps.alerting import quiet
from apps.alerting import services as alerting
from apps.alerting.models import Alert, Incident
from apps.core.quantities import span
from apps.dashboards import snapshots
from apps.dashboards.snapshots import Row
from apps.dashboards.views import attempt, shell
from apps.dashboards.wording import transition_entry
from apps.notifications.models import Delivery, Reply
from apps.oncall import escalation, plans, services
from apps.oncall.models import Escalation, Notice, StepTaken
from apps.oncall.steps import Known

PER_PAGE = 50
ALERTS = 200
TIMELINE = 200
RUNS = 20
TABS = (("open", "Open"), ("resolved", "Resolved"))


@require_GET
@never_cache
@page(Right.READ)
def incidents(request: HttpRequest) -> HttpResponse:
    """What is going on, one row a fault; and how many alerts that was."""
    who, now = principal_of(request), timezone.now()
    tab = request.GET.get("tab", "open")
    if tab not in dict(TABS):
        raise Http404
    seen = Incident.objects.visible_to(who.scope).filter(merged_into__isnull=True)
    found = (
        seen.filter(state=tab)
        .order_by("-opened_at", "-id")
        .select_related("cause")
        .annotate(total=Count("alerts"), active=Count("alerts", filter=Q(alerts__state__in=("firing", "recovering"))))
    )
    chosen = Paginator(found, PER_PAGE).get_page(request.GET.get("page"))
    state = {"alerts": snapshots.alerts(scope=who.scope)}
    reduction = noise_reduction(who, since=now - timedelta(days=7))
    return shell(
        request, "incidents", "Incidents", "incidents", state,
        tab=tab, tabs=TABS, chosen=chosen, rows=[_row(one, now) for one in chosen.object_list], reduction=reduction,
    )  # fmt: skip


def noise_reduction(who: Principal, *, since: datetime) -> Row:
    """Return how many alerts became how many incidents since then, and alerts per incident."""
    alerts = Alert.objects.visible_to(who.scope).filter(fired_at__gte=since)
    counted = alerts.order_by().aggregate(alerts=Count("pk"), incidents=Count("incident", distinct=True))
    ratio = counted["alerts"] / counted["incidents"] if counted["incidents"] else 0.0
    return {**counted, "ratio": round(ratio, 1)}


def _row(one: Incident, now: datetime) -> Row:
    counts = vars(one)
    return {
        "incident": one,
        "url": reverse("incident", args=[one.pk]),
        "tone": one.severity if one.state == "open" else "ok",
        "total": counts["total"],
        "active": counts["active"],
        "service": one.cause.service if one.cause else "",
        "lasted": span((one.resolved_at or now) - one.opened_at),
    }


@require_GET
@never_cache
@page(Right.READ)
def incident(request: HttpRequest, pk: int) -> HttpResponse:
    """One incident: its alerts, the probable cause with its reasons, who was told, what happened."""
    who, now = principal_of(request), timezone.now()
    found = get_object_or_404(
        Incident.objects.visible_to(who.scope).select_related("cause__rule", "merged_into"), pk=pk
    )
    members = Alert.objects.visible_to(who.scope).filter(incident=found).select_related("rule")
    counts = members.order_by().aggregate(
        total=Count("pk"),
        active=Count("pk", filter=Q(state__in=("firing", "recovering"))),
        unowned=Count("pk", filter=Q(state__in=("firing", "recovering"), acknowledged_at__isnull=True)),
        services=Count("service", distinct=True, filter=~Q(service="")),
        last=Max("fired_at"),
    )
    shown = list(members.order_by("fired_at", "pk")[:ALERTS])
    cause = found.cause if found.cause and members.filter(pk=found.cause.pk).exists() else None
    verdicts = quiet.verdicts([alert for alert in shown if alert.is_active], now=now)
    rows = [
        snapshots.alert_row(alert)
        | {
            "alert": alert,
            "muted": verdicts[alert.pk].reason if alert.pk in verdicts else "",
            "is_cause": cause is not None and alert.pk == cause.pk,
        }
        for alert in shown
    ]
    runs = Escalation.objects.filter(incident=found).select_related("policy")[:RUNS]
    known = services.known()
    may = who.can(Right.OPERATE)
    others = Incident.objects.visible_to(who.scope).filter(state="open").exclude(pk=pk).order_by("-opened_at")[:50]
    return shell(
        request, "incident", f"Incident #{pk}", "incidents", {"alerts": snapshots.alerts(scope=who.scope)},
        incident=found,
        counts=counts,
        rows=rows,
        more=max(0, counts["total"] - len(rows)),
        cause=cause,
        cause_name=snapshots.name_of(cause) if cause else "",
        headline=_headline(found, counts, now),
        tone=found.severity if found.state == "open" else "ok",
        timeline=_timeline(found, who),
        escalations=[_escalation(one, known) for one in runs],
        others=others if may else (),
        may={"operate": may, "act": may and found.state == "open" and counts["active"] > 0},
    )  # fmt: skip


def _headline(found: Incident, counts: Row, now: datetime) -> str:
    if found.merged_into is not None:
        return f"Part of incident #{found.merged_into_id} now"
    alerts = f"{counts['total']} alert{'' if counts['total'] == 1 else 's'}"
    if found.state == "resolved":
        return f"Resolved after {span((found.resolved_at or now) - found.opened_at)}: {alerts}"
    owner = f"{found.acknowledged_by} is on it" if found.acknowledged_by else f"{counts['unowned']} not acknowledged"
    return f"{counts['active']} of {alerts} active, {owner}"


def _reply_entry(reply: Reply) -> Row:
    title = f"{reply.who} answered {reply.get_action_display().lower()} ({reply.get_via_display().lower()})"
    text = f"To the message to {reply.delivery.contact_name}. {reply.outcome or 'Not done yet.'}"
    tone = "quiet" if reply.was_done or not reply.handled_at else "warning"
    return {"at": reply.at.isoformat(), "icon": "check", "tone": tone, "title": title, "text": text, "url": ""}


def _escalation(one: Escalation, known: Known) -> Row:
    """One escalation with the plan that it follows, and the policy as it is now where that differs."""
    words = escalation.spelled(one.plan.get("steps", []), known)
    now = plans.changed_since(one)
    return {
        "one": one,
        "name": one.plan.get("name", ""),
        "steps": [
            {"text": text, "is_next": one.state == "running" and number == one.position}
            for number, text in enumerate(words)
        ],
        "is_changed": now is not None,
        "now": escalation.spelled(now or [], known),
    }


def _step_entry(row: StepTaken) -> Row:
    """A step of an escalation: what it said, who was told by it, or what became of its call."""
    plan = row.escalation.plan
    text = row.reason + (f". Told: {', '.join(row.told)}" if row.told else "")
    tone, icon = "quiet", "send" if row.told else "clock"
    if row.delivery is not None:
        text += f". The call is {row.delivery.get_state_display().lower()}" + f" {row.delivery.error}".rstrip()
        tone, icon = ("warning" if row.delivery.state == "failed" else "quiet"), "send"
    title = f"Escalation “{plan.get('name', '')}”, {escalation.place(plan.get('steps', []), row.position)}"
    return {"at": row.at.isoformat(), "icon": icon, "tone": tone, "title": title, "text": f"{text}.", "url": ""}


def _timeline(found: Incident, who: Principal) -> list[Row]:
    """Transitions of its alerts, messages about them and what its escalations do, newest first."""
    changes = found.transitions.visible_to(who.scope).exclude(kind="state", after__in=("pending", "inactive"))
    entries = [
        transition_entry(row, snapshots.name_of(row.alert), reverse("alert", args=[row.alert.key]))
        for row in changes.select_related("alert__rule").order_by("-at", "-id")[:TIMELINE]
    ]
    told = Notice.objects.filter(alert__in=Alert.objects.visible_to(who.scope).filter(incident=found).values("pk"))
    deliveries = Delivery.objects.filter(pk__in=told.values("delivery")).order_by("-id")[:TIMELINE]
    entries += [snapshots.delivery_entry(row, with_reason=True) for row in deliveries]
    replies = Reply.objects.filter(
        Q(delivery__in=told.values("delivery")) | Q(delivery__carried__in=told.values("delivery"))
    )
    entries += [_reply_entry(row) for row in replies.select_related("delivery").distinct().order_by("-id")[:TIMELINE]]
    taken = StepTaken.objects.filter(escalation__incident=found).select_related("escalation", "delivery")
    entries += [_step_entry(row) for row in taken.order_by("-id")[:TIMELINE]]
    for one in Escalation.objects.filter(incident=found):
        at, text = one.ended_at or one.started_at, f"{one.get_state_display()}: {one.reason}"
        title = f"Escalation “{one.plan.get('name', '')}”"
        entries.append({"at": at.isoformat(), "icon": "send", "tone": "quiet", "title": title, "text": text, "url": ""})
    return snapshots.newest(entries, TIMELINE)


def _acted(request: HttpRequest, pk: int, verb: Any, **values: Any) -> HttpResponse:
    who = principal_of(request)
    found = get_object_or_404(Incident.objects.visible_to(who.scope), pk=pk)
    attempt(request, lambda: verb(by=who, incident=found, now=timezone.now(), **values))
    return redirect("incident", pk=pk)


@require_POST
@page(Right.OPERATE)
def acknowledge(request: HttpRequest, pk: int) -> HttpResponse:
    """Take on everything in it."""
    return _acted(request, pk, alerting.acknowledge_incident)


@require_POST
@page(Right.OPERATE)
def resolve(request: HttpRequest, pk: int) -> HttpResponse:
    """End everything in it by hand."""
    return _acted(request, pk, alerting.resolve_incident)


@require_POST
@page(Right.OPERATE)
def merge(request: HttpRequest, pk: int) -> HttpResponse:
    """Make another incident part of this one."""
    chosen = [text for text in request.POST.getlist("other") if text.isdecimal() and len(text) < 18]
    others = list(Incident.objects.visible_to(principal_of(request).scope).filter(pk__in=chosen))
    return _acted(request, pk, alerting.merge_incidents, others=others)


@require_POST
@page(Right.OPERATE)
def split(request: HttpRequest, pk: int) -> HttpResponse:
    """Take the chosen alerts into an incident of their own."""
    seen = Alert.objects.visible_to(principal_of(request).scope)
    return _acted(request, pk, alerting.split_incident, alerts=list(seen.filter(key__in=request.POST.getlist("alert"))))
