"""The pages of what is quiet: silences with a live preview, maintenance, inhibition, services and what they need."""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.accounts.permissions import Principal, Right, Throttled, authenticate, page, principal_of
from apps.alerting import calendar_feed, matching
from apps.alerting import services as alerting
from apps.alerting.matching import MatcherError
from apps.alerting.models import Alert, Inhibition, MaintenanceWindow, Service, Silence
from apps.alerting.quiet import would_inhibit
from apps.alerting.topology import behind
from apps.dashboards import snapshots
from apps.dashboards.plots import RANKS
from apps.dashboards.snapshots import Row
from apps.dashboards.views import as_json, attempt, shell
from apps.oncall import quieting

TABS = (("silences", "Silences"), ("maintenance", "Maintenance"), ("inhibition", "Inhibition"))
SPANS = (("1h", "1 hour"), ("4h", "4 hours"), ("12h", "12 hours"), ("24h", "24 hours"), ("7d", "7 days"))
FORGOTTEN = timedelta(days=7)
ROWS = 200


@require_GET
@never_cache
@page(Right.READ)
def quiet(request: HttpRequest) -> HttpResponse:
    """What nobody is paged for: now, later, and until lately."""
    who, now = principal_of(request), timezone.now()
    tab = request.GET.get("tab", "silences")
    if tab not in dict(TABS):
        raise Http404
    content: Row = {"silences": _silences, "maintenance": _maintenance, "inhibition": _inhibition}[tab](who, now)
    state = {"alerts": snapshots.alerts(scope=who.scope)}
    may = {name: who.can(Right(name)) for name in ("operate", "edit")}
    return shell(request, "quiet", "Quiet", "quiet", state, tab=tab, tabs=TABS, may=may, now=now, **content)


def _silences(who: Principal, now: datetime) -> Row:
    seen = Silence.objects.visible_to(who.scope).filter(ends_at__gte=now - FORGOTTEN).order_by("-ends_at")[:ROWS]
    active = list(
        Alert.objects.active().visible_to(who.scope).only("type", "category", "severity", "service", "labels")
    )
    rows = [_standing(row, now) | {"row": row, "muted": _count(row, active, now)} for row in seen]
    return {"rows": sorted(rows, key=lambda each: ("active", "pending", "expired").index(each["state"]))}


def _count(row: Silence, active: list[Alert], now: datetime) -> int:
    if row.ends_at <= now:
        return 0
    matchers = row.parsed
    return sum(matching.accept(matchers, alert.routing_labels) for alert in active)


def _standing(row: Silence | MaintenanceWindow, now: datetime) -> Row:
    state = row.state(now)
    times = row.times
    return {
        "state": state,
        "tone": {"active": "info", "pending": "quiet", "expired": "quiet"}[state],
        "until": times.holds_until(now) if state == "active" else None,
        "next": times.next_start(now) if state == "pending" else None,
    }


def _maintenance(who: Principal, now: datetime) -> Row:
    seen = MaintenanceWindow.objects.all().visible_to(who.scope)
    found = seen.select_related("service").filter(ends_at__gte=now - FORGOTTEN)
    return {
        "rows": [_standing(row, now) | {"row": row, "spelled": matching.spelled(row.parsed)} for row in found[:ROWS]]
    }


def _inhibition(who: Principal, now: datetime) -> Row:
    rows = []
    for row in Inhibition.objects.all()[:ROWS]:
        sides = [matching.spelled(matching.from_json(side)) for side in (row.source_matchers, row.target_matchers)]
        muted = would_inhibit(row, scope=who.scope) if row.enabled else []
        rows.append({"row": row, "source": sides[0], "target": sides[1], "muted": len(muted)})
    return {"rows": rows}


# --- Silences --------------------------------------------------------------------------------------------------------
class SilenceForm(forms.Form):
    """A silence as a person writes it; the verb judges it."""

    matchers = forms.CharField(max_length=20_000)
    lasts = forms.CharField(max_length=20, required=False)
    ends_at = forms.DateTimeField(required=False)
    until_resolved = forms.BooleanField(required=False)
    recurrence = forms.CharField(max_length=500, required=False)
    duration = forms.CharField(max_length=20, required=False)
    time_zone = forms.CharField(max_length=64, required=False)
    comment = forms.CharField(max_length=10_000, required=False)

    def values(self, now: datetime) -> Row:
        """Return what the verb wants; ValidationError by field."""
        given = self.cleaned_data
        try:
            matchers = matching.to_json(matching.parse_matchers(given["matchers"]))
        except MatcherError as error:
            raise ValidationError({"matchers": str(error)}) from None
        ends_at = given["ends_at"]
        if given["lasts"]:
            ends_at = now + alerting.duration(given["lasts"], "lasts")
        if ends_at is None:
            raise ValidationError({"ends_at": "Until when? Nothing is quiet for ever."})
        lasting = alerting.duration(given["duration"], "duration") if given["duration"] else None
        return {
            "matchers": matchers,
            "ends_at": ends_at,
            "until_resolved": given["until_resolved"],
            "recurrence": given["recurrence"],
            "duration": lasting,
            "time_zone": given["time_zone"] or "UTC",
            "comment": given["comment"],
        }


@require_http_methods(["GET", "POST"])
@never_cache
@page(Right.OPERATE)
def new_silence(request: HttpRequest) -> HttpResponse:
    """Make a silence: from an alert (`?alert=`), from matchers (`?matchers=`) or from nothing."""
    who, now = principal_of(request), timezone.now()
    if request.method == "POST":
        saved, problems = _save(request, None, now)
        if saved is not None:
            return redirect("quiet")
        return _form(request, who, request.POST.dict(), None, problems)
    draft = {"matchers": request.GET.get("matchers", ""), "lasts": "1h", "comment": ""}
    if key := request.GET.get("alert"):
        alert = get_object_or_404(Alert.objects.visible_to(who.scope), key=key)
        draft["matchers"] = "\n".join(map(str, alerting.matchers_of(alert)))
        draft["comment"] = f"Known: {snapshots.name_of(alert)}"
    return _form(request, who, draft, None, {})


@require_http_methods(["GET", "POST"])
@never_cache
@page(Right.READ)
def silence(request: HttpRequest, pk: Any) -> HttpResponse:
    """One silence, to be read and, by operators, changed."""
    who, now = principal_of(request), timezone.now()
    row = get_object_or_404(Silence.objects.visible_to(who.scope), pk=pk)
    if request.method == "POST":
        saved, problems = _save(request, row, now)
        return redirect("quiet") if saved is not None else _form(request, who, request.POST.dict(), row, problems)
    draft = {
        "matchers": "\n".join(map(str, row.parsed)),
        "ends_at": row.ends_at.strftime("%Y-%m-%dT%H:%M"),
        "until_resolved": "on" if row.until_resolved else "",
        "recurrence": row.recurrence,
        "duration": f"{row.duration.total_seconds():g}s" if row.duration else "",
        "time_zone": row.time_zone,
        "comment": row.comment,
    }
    return _form(request, who, draft, row, {})


def _save(request: HttpRequest, row: Silence | None, now: datetime) -> tuple[Silence | None, dict[str, list[str]]]:
    form = SilenceForm(request.POST)
    if not form.is_valid():
        return None, {name: [str(text) for text in texts] for name, texts in form.errors.items()}
    try:
        by = principal_of(request)
        return alerting.silence(by=by, silence=row, now=now, **form.values(now)), {}
    except ValidationError as error:
        return None, error.message_dict if hasattr(error, "error_dict") else {"__all__": error.messages}


def _form(
    request: HttpRequest, who: Principal, draft: Row, row: Silence | None, problems: dict[str, list[str]]
) -> HttpResponse:
    now = timezone.now()
    found, words = _previewed(draft, who, now)
    title = "New silence" if row is None else f"Silence by {row.created_by}"
    answer = shell(
        request, "silence", title, "badge", {"alerts": snapshots.alerts(scope=who.scope)},
        draft=draft, row=row, spans=SPANS, problems=problems, preview=found, preview_problem=words,
        state_of=row.state(now) if row else "",
        may_change=who.can(Right.OPERATE) and (row is None or row.ends_at > now),
        is_limited=not who.can(Right.EDIT), preview_url=reverse("silence-preview"),
    )  # fmt: skip
    answer.status_code = 422 if problems else 200
    return answer


def _previewed(draft: Row, who: Principal, now: datetime) -> tuple[quieting.Preview | None, str]:
    if not str(draft.get("matchers", "")).strip():
        return None, ""
    try:
        parsed = matching.parse_matchers(str(draft["matchers"])[:20_000])
        given = {name: str(draft.get(name) or "") for name in ("recurrence", "duration")}
        rows = matching.to_json(parsed)
        return quieting.preview(rows, scope=who.scope, now=now, time_zone=draft.get("time_zone") or "UTC", **given), ""
    except (MatcherError, ValidationError) as error:
        return None, " ".join(error.messages) if isinstance(error, ValidationError) else str(error)


@require_GET
@never_cache
@page(Right.READ)
def preview(request: HttpRequest) -> HttpResponse:
    """What the matchers in the form mute now and would have muted last week, for the page's script."""
    found, problem = _previewed(request.GET.dict(), principal_of(request), timezone.now())
    body = {"error": problem} if found is None else found.as_dict()
    return as_json(body, 422 if problem else 200)


@require_POST
@page(Right.OPERATE)
def expire(request: HttpRequest, pk: Any) -> HttpResponse:
    """End a silence now."""
    who = principal_of(request)
    row = get_object_or_404(Silence.objects.visible_to(who.scope), pk=pk)
    attempt(request, lambda: alerting.expire_silence(by=who, silence=row, now=timezone.now()))
    return redirect("quiet")


# --- Services --------------------------------------------------------------------------------------------------------
@require_GET
@never_cache
@page(Right.READ)
def services(request: HttpRequest) -> HttpResponse:
    """What runs, what it needs, and what of it is wrong now; what others depend on most comes first."""
    who = principal_of(request)
    rows = list(Service.objects.all().visible_to(who.scope).select_related("team").prefetch_related("depends_on"))
    seen = {row.name for row in rows}
    graph = {row.name: {parent.name for parent in row.depends_on.all()} & seen for row in rows}
    wrong: dict[str, list[str]] = {}
    for name, severity in Alert.objects.active().visible_to(who.scope).values_list("service", "severity"):
        wrong.setdefault(name, []).append(severity)
    needed: dict[str, int] = {}
    for name in graph:
        for parent in behind(graph, name):
            needed[parent] = needed.get(parent, 0) + 1
    bad = {name for name, severities in wrong.items() if name in graph and _fails(rows, name, severities)}
    shown = []
    for row in sorted(rows, key=lambda each: (-needed.get(each.name, 0), each.name)):
        severities = wrong.get(row.name, [])
        because = next((parent for parent in behind(graph, row.name) if parent in bad), "")
        worst = max(severities, key=lambda severity: RANKS.get(severity, 0), default="")
        shown.append(
            {
                "row": row, "parents": sorted(graph[row.name]), "needed": needed.get(row.name, 0),
                "alerts": len(severities), "tone": worst or "ok", "because": because,
            }
        )  # fmt: skip
    state = {"alerts": snapshots.alerts(scope=who.scope)}
    return shell(request, "services", "Services", "quiet", state, rows=shown, may_edit=who.can(Right.EDIT))


def _fails(rows: list[Service], name: str, severities: list[str]) -> bool:
    at = next(row.fails_at for row in rows if row.name == name)
    return any(RANKS.get(severity, 0) >= RANKS.get(at, 0) for severity in severities)


# --- The calendar ----------------------------------------------------------------------------------------------------
@require_GET
@never_cache
def feed(request: HttpRequest) -> HttpResponse:
    """The maintenance windows as iCalendar: for who is logged in, or with `?token=`, which calendars can send."""
    who = principal_of(request)
    if secret := request.GET.get("token"):
        try:
            who = authenticate(secret[:200], address=who.address) or who
        except Throttled as error:
            return HttpResponse(str(error), "text/plain", 429, headers={"Retry-After": str(round(error.retry_after))})
    return _feed(request, who)


def _feed(request: HttpRequest, who: Principal) -> HttpResponse:
    if not who.can(Right.READ):
        status = 401 if who.kind == "anonymous" else 403
        return HttpResponse('{"error": "A token with the scope read is needed."}', "application/json", status)
    now = timezone.now()
    windows = MaintenanceWindow.objects.current(now - FORGOTTEN).visible_to(who.scope).select_related("service")
    text = calendar_feed.write(windows, now=now, address=request.build_absolute_uri(reverse("quiet")))
    return HttpResponse(
        text, "text/calendar; charset=utf-8", headers={"Content-Disposition": 'inline; filename="maintenance.ics"'}
    )
