"""What a page shows at one moment, as plain values: the first paint and every live frame are made of these.

Everything is read for one principal: through its scope, and only with its rights. Every function costs a fixed
number of queries, whatever there is to show.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count
from django.urls import reverse

from apps.accounts.models import AuditEntry, User
from apps.accounts.permissions import Principal, Right, Scope
from apps.alerting import quiet
from apps.alerting.models import Alert, Transition
from apps.alerting.units import unit_of
from apps.core.quantities import span
from apps.dashboards.health import Health, Status
from apps.dashboards.plots import RANKS
from apps.dashboards.wording import FIRING_FIRST, audit_title, transition_entry
from apps.metrics.models import CollectionSwitch
from apps.notifications.models import Contact, Delivery
from apps.oncall import schedules
from apps.oncall.models import Notice, Schedule
from apps.oncall.reachability import Reachability, reachability

Row = dict[str, Any]
ROWS = 50
ENTRIES = 14
TIMELINE = 200
NAMED = 2
"""Alerts that the overview's sentence names."""


def alerts(*, scope: Scope) -> Row:
    """Return the active alerts, worst and newest first (50 rows at most), and how many there are of each severity."""
    watched = Alert.objects.open().visible_to(scope)
    counts: dict[str, int] = {}
    pending = 0
    for row in watched.order_by().values("state", "severity").annotate(n=Count("pk")):
        if row["state"] == "pending":
            pending += row["n"]
        else:
            counts[row["severity"]] = counts.get(row["severity"], 0) + row["n"]
    active = Alert.objects.active().visible_to(scope)
    newest = active.select_related("rule").order_by(FIRING_FIRST, "-fired_at", "-id")[:ROWS]
    return {
        "rows": [alert_row(alert) for alert in newest],
        "total": sum(counts.values()),
        "counts": counts,
        "worst": max(counts, key=lambda severity: RANKS.get(severity, 0), default=None),
        "pending": pending,
    }


def alert_row(alert: Alert) -> Row:
    """Return one alert as lists show it."""
    return {
        "key": alert.key,
        "name": name_of(alert),
        "severity": alert.severity,
        "tone": alert.severity,
        "state": alert.state,
        "message": alert.message,
        "service": alert.service,
        "since": _iso(alert.fired_at or alert.pending_at),
        "acknowledged_by": alert.acknowledged_by,
        "url": reverse("alert", args=[alert.key]),
    }


def name_of(alert: Alert) -> str:
    """Return what people call it: its rule's name, or the type that was posted."""
    return alert.rule.name if alert.rule is not None else alert.labels.get("alertname") or alert.type


def verdict(health: Health, active: Row) -> Row:
    """Answer in one sentence each: is it fine; if not what, since when, who is on it.

    Alerts speak first, because they say what to do; a portal that cannot be trusted speaks before them.
    """
    facts = [
        {
            "name": "Portal's own checks",
            "value": f"{len(health.checks) - len(health.problems)} of {len(health.checks)} pass",
        }
    ]
    facts.append({"name": "Portal up for", "at": _iso_ms(health.timestamp - 1000 * health.uptime)})
    answer: Row = {"status": health.status, "since": None, "facts": facts}
    # That nobody can be told stands on every page already, with what to do about it.
    problems = ["No contact works." if name == "contacts" else check.message for name, check in health.problems]
    if health.status == "unhealthy":
        failing = next(c.message for name, c in health.problems if c.status is Status.FAIL)
        return answer | {
            "tone": "critical",
            "icon": "critical",
            "headline": "The portal itself is unhealthy",
            "detail": failing,
        }
    if active["total"]:
        worst = [row for row in active["rows"] if row["severity"] == active["worst"]]
        return answer | {
            "tone": active["worst"],
            "icon": active["worst"],
            "headline": headline(active["counts"], worst[0]["name"] if active["total"] == 1 and worst else ""),
            "detail": taken(active, worst),
            "since": min((row["since"] for row in worst if row["since"]), default=None),
        }
    if problems:
        count = (
            "one of its checks does not pass" if len(problems) == 1 else f"{len(problems)} of its checks do not pass"
        )
        return answer | {
            "tone": "warning",
            "icon": "warning",
            "headline": f"No active alerts, but {count}",
            "detail": " ".join(problems[:3]),
        }
    return answer | {
        "tone": "ok",
        "icon": "ok",
        "headline": "Everything is fine",
        "detail": "No active alerts, and every check of the portal itself passes.",
    }


def taken(active: Row, worst: list[Row]) -> str:
    """Say who is on the worst alerts, by name, and then how many of the others nobody is on."""
    free = [row for row in worst if not row["acknowledged_by"]]
    owners = sorted({row["acknowledged_by"] for row in worst if row["acknowledged_by"]})
    on_it = f"{' and '.join(owners)} {'is' if len(owners) == 1 else 'are'} on it." if owners else ""
    if active["total"] == 1:
        return on_it or "Nobody has acknowledged it yet."
    names = list(dict.fromkeys(row["name"] for row in (free or worst)))
    told = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    said = f"Nobody is on {told} yet." if free else f"{told}: {on_it}"
    others = [row for row in active["rows"] if row["severity"] != active["worst"]]
    waiting = sum(not row["acknowledged_by"] for row in others)
    if others:
        count = len(others)
        said += (
            f" {'The other one is' if count == 1 else f'The other {count} are'} acknowledged." if not waiting
            else f" {waiting} of the other {count} {'is' if waiting == 1 else 'are'} not acknowledged." if count > 1
            else " The other one is not acknowledged."
        )  # fmt: skip
    return said


def headline(counts: dict[str, int], name: str = "") -> str:
    """Write the counts of severities, worst first: "1 critical alert, 2 warnings"."""
    words = {"critical": "critical alert", "error": "error", "warning": "warning", "info": "note"}
    parts = [
        f"{count} {words.get(severity, severity)}{'' if count == 1 else 's'}"
        for severity, count in sorted(counts.items(), key=lambda pair: -RANKS.get(pair[0], 0))
    ]
    return ", ".join(parts) + (f": {name}" if name else "")


def on_call(now: datetime) -> list[Row]:
    """Return who is on call by each schedule, until when, and what is wrong with that."""
    rows = schedules.standings(Schedule.objects.select_related("holidays").order_by("name"), now)
    people = [one.shift.person for one in rows if one.shift]
    names = dict(User.objects.filter(pk__in=people).values_list("pk", "username"))
    return [
        {
            "schedule": one.schedule.name,
            "person": names.get(one.shift.person, "somebody who is gone") if one.shift else "nobody",
            "until": _iso(one.until),
            "problem": one.problem,
            "tone": "warning" if one.problem else "ok",
            "url": f"{reverse('oncall')}?schedule={one.schedule.pk}",
        }
        for one in rows
    ]


def collection() -> Row:
    """Return whether samples are collected, and who switched that when."""
    switch = CollectionSwitch.objects.first()
    if switch is None:
        return {"on": True, "by": "", "at": None}
    return {"on": switch.on, "by": switch.changed_by, "at": _iso(switch.changed_at)}


def warnings(principal: Principal) -> list[Row]:
    """Return what every page must say: nobody would be told, collection is off, the seed's API is open."""
    found: list[Row] = []
    if settings.DEMO:
        text = "A demo: the clinic and its week are made up, no message leaves, and your own data lies elsewhere."
        found.append({"level": "info", "text": text})
    reach = reachability()
    if not reach.ok:
        link = reverse("alerts") + "?tab=notifications"
        found.append({"level": "critical", "text": reach.sentence, "url": link, "action": "Contacts"})
    state = collection()
    if not state["on"]:
        by = f" by {state['by']}" if state["by"] else ""
        found.append({"level": "warning", "text": f"Collection is switched off{by}: charts and rules see nothing new."})
    if not settings.MONITORING_AUTH_ENABLED:
        text = "MONITORING_AUTH_ENABLED is false: whoever reaches the portal reads /api/monitoring/ without a token."
        found.append({"level": "warning", "text": text})
    return found


def activity(principal: Principal, *, now: datetime) -> list[Row]:
    """Return what happened last, newest first: alerts, messages, and for auditors what people did."""
    since = now - timedelta(days=7)
    changes = (
        Transition.objects.visible_to(principal.scope)
        .filter(at__gte=since)
        .exclude(kind="state", after__in=("pending", "inactive"))
        .exclude(kind="state", before="pending", after="pending")
        .select_related("alert", "alert__rule")
        .order_by("-at", "-id")[:ENTRIES]
    )
    entries = [transition_entry(row, name_of(row.alert), reverse("alert", args=[row.alert.key])) for row in changes]
    told = _visible_deliveries(principal.scope).filter(state__in=("sent", "failed"), finished_at__gte=since)
    entries += [delivery_entry(row) for row in told.order_by("-finished_at", "-id")[:ENTRIES]]
    if principal.can(Right.AUDIT) and not principal.scope.matchers:
        done = AuditEntry.objects.filter(at__gte=since, actor_kind__in=("user", "token")).exclude(
            verb__in=("alerting.acknowledge", "alerting.resolve")
        )
        entries += [
            {
                "at": _iso(e.at),
                "icon": "user",
                "tone": "quiet",
                "title": audit_title(e.verb, e.target_label),
                "text": f"by {e.actor_name}",
                "url": "",
            }
            for e in done.order_by("-at")[:ENTRIES]
        ]
    return newest(entries, ENTRIES)


def newest(entries: Iterable[Row], most: int) -> list[Row]:
    """Return the latest entries first."""
    return sorted(entries, key=lambda entry: str(entry["at"]), reverse=True)[:most]


def _visible_deliveries(scope: Scope) -> Any:
    found = Delivery.objects.all()
    if not scope.matchers:
        return found
    seen = Alert.objects.visible_to(scope).values("pk")
    return found.filter(pk__in=Notice.objects.filter(alert__in=seen).values("delivery"))


def delivery_entry(delivery: Delivery, *, with_reason: bool = False) -> Row:
    """Return one message as timelines show it: who was told what, when, or why not; and why, and by which id it is
    known to who carried it.
    """
    what = str(delivery.message.get("title", "")) if isinstance(delivery.message, dict) else ""
    words = {
        "sent": "told",
        "failed": "could not be told",
        "queued": "is about to be told",
        "held": "is held back",
        "cancelled": "is no longer told",
    }
    tone = {"sent": "quiet", "failed": "critical"}.get(delivery.state, "quiet")
    text = f"{what} ({delivery.purpose})" if what else delivery.purpose
    if delivery.error and delivery.state in ("failed", "queued", "held", "cancelled"):
        text += f": {delivery.error.rstrip('.')}"
    if delivery.receipt:
        text += f". {delivery.get_receipt_display()} at {delivery.receipt_at:%H:%M:%S} UTC ({delivery.receipt_text})"
    if with_reason:
        reason = str(delivery.message.get("reason", "")) if isinstance(delivery.message, dict) else ""
        text += f". Because: {reason}" if reason else ""
        text += f". {delivery.kind} id {delivery.provider_id}" if delivery.provider_id else ""
    return {
        "at": _iso(delivery.finished_at or delivery.created_at),
        "icon": "send",
        "tone": tone,
        "title": f"{delivery.contact_name} {words.get(delivery.state, delivery.state)}",
        "text": text,
        "url": "",
    }


def alert(principal: Principal, key: str, *, now: datetime) -> Row | None:
    """Return one alert with its facts, its timeline and what this principal may do; None where it sees none."""
    found = Alert.objects.visible_to(principal.scope).select_related("rule", "incident").filter(key=key).first()
    if found is None:
        return None
    unit = unit_of(found.rule.expression) if found.rule else "count"
    entries = [transition_entry(row, "", "") for row in found.transitions.order_by("-at", "-id")[:TIMELINE]]
    told = Delivery.objects.filter(pk__in=Notice.objects.filter(alert=found).values("delivery"))
    entries += [delivery_entry(row) for row in told.order_by("-id")[:TIMELINE]]
    may = principal.can(Right.OPERATE)
    muted = quiet.verdicts([found], now=now)[found.pk].reason if found.is_active else ""
    return {
        "key": found.key,
        "state": found.state,
        "tone": found.severity if found.is_active else "ok" if found.state == "resolved" else "quiet",
        "icon": found.severity
        if found.state == "firing"
        else {"recovering": "recovering", "pending": "pending"}.get(found.state, "ok"),
        "headline": alert_headline(found, now=now) + (f"; muted: {muted}" if muted else ""),
        "message": found.message,
        "facts": _facts(found, unit, principal),
        "timeline": newest(entries, TIMELINE),
        "may": {
            "acknowledge": may and found.is_active and not found.acknowledged_at,
            "resolve": may and found.is_active,
            "not_an_anomaly": may and "expected_range" in found.annotations,
            "silence": may and found.is_active,
        },
    }


def alert_headline(found: Alert, *, now: datetime) -> str:
    """Say in a line how it stands and who is on it."""
    if found.state == "resolved":
        by = f" by {found.resolved_by}" if found.resolved_by else ""
        lasted = span((found.resolved_at or now) - (found.fired_at or now))
        return f"Resolved{by} after {lasted}"
    if found.state == "inactive":
        return "Never fired: the value came back in time"
    if found.state == "pending":
        return "Pending: it fires if this goes on"
    word = "Firing" if found.state == "firing" else "Recovering"
    if found.acknowledged_by:
        return f"{word}, {found.acknowledged_by} is on it"
    return f"{word}, nobody has acknowledged it yet"


def _facts(found: Alert, unit: str, principal: Principal) -> list[Row]:
    facts: list[Row] = [{"name": "Severity", "value": found.severity}]
    if found.value is not None:
        facts.append({"name": "Value", "number": found.value, "unit": unit})
    if found.threshold is not None:
        facts.append({"name": "Threshold", "number": found.threshold, "unit": unit})
    for name, key in (
        ("Usual now", "expected_range"),
        ("Score", "anomaly_score"),
        ("Learned by", "model"),
        ("Learned from", "training_window"),
    ):
        if "expected_range" in found.annotations and key in found.annotations:
            facts.append({"name": name, "value": found.annotations[key]})
    for name, at in (
        ("Pending since", found.pending_at if found.pending_at != found.fired_at else None),
        ("Fired at", found.fired_at),
        ("Resolved at", found.resolved_at),
    ):
        if at is not None:
            facts.append({"name": name, "at": _iso(at)})
    if found.acknowledged_at is not None:
        facts.append({"name": "Acknowledged", "at": _iso(found.acknowledged_at), "note": f"by {found.acknowledged_by}"})
    if found.incident_id is not None:
        fact = {
            "name": "Incident",
            "value": f"#{found.incident_id}",
            "url": reverse("incident", args=[found.incident_id]),
        }
        facts.append(fact | ({"note": found.placement} if found.placement else {}))
    if found.service:
        facts.append({"name": "Service", "value": found.service})
    if found.rule is not None:
        rule: Row = {"name": "Rule", "value": found.rule.name}
        if principal.can(Right.EDIT):
            rule["url"] = reverse("admin:alerting_alertrule_change", args=[found.rule.pk])
        facts.append(rule)
        facts.append({"name": "Expression", "value": found.rule.expression})
    else:
        facts.append(
            {"name": "Type", "value": found.type, "note": f"posted {found.count} times" if found.count > 1 else ""}
        )
    labels = ", ".join(f"{name}={value}" for name, value in sorted(found.labels.items()))
    if labels:
        facts.append({"name": "Labels", "value": labels})
    return facts


def contact_row(contact: Contact, problems: Mapping[str, str]) -> Row:
    """Return how a contact stands: works, has a problem (by name), is switched off, was never used."""
    problem = problems.get(contact.name, "")
    if not contact.enabled:
        tone, state = "quiet", "switched off"
    elif problem:
        tone, state = "critical", "does not work"
    elif contact.last_ok_at:
        tone, state = "ok", "works"
    else:
        tone, state = "info", "not tried yet"
    return {
        "contact": contact,
        "tone": tone,
        "state": state,
        "kind": contact.get_kind_display(),
        "problem": problem,
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _iso_ms(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, tz=UTC).isoformat()


def deliveries(*, scope: Scope) -> list[Row]:
    """Return the last messages, newest first."""
    tones = {"sent": "ok", "failed": "critical", "queued": "info", "held": "info", "cancelled": "quiet"}
    found = _visible_deliveries(scope).order_by("-id")[: ENTRIES * 2]
    return [
        {"delivery": row, "tone": tones.get(row.state, "quiet"), "title": row.message.get("title", "")} for row in found
    ]


def reach() -> Reachability:
    """Return whether anybody can be told at all."""
    return reachability()
