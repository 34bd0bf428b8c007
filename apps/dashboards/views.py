"""The pages: each asks for a snapshot, hands it to a template, and needs the right to read."""

import csv
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import orjson
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotFound, HttpResponseServerError, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.template import loader
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.accounts import services as accounts
from apps.accounts.models import Token
from apps.accounts.permissions import ROLES, Principal, Right, page, principal_of
from apps.alerting import changes, upkeep
from apps.alerting import services as alerting
from apps.alerting.models import Alert, AlertRule, GroupRun
from apps.alerting.units import unit_of
from apps.core.text import csv_cell
from apps.dashboards import (
    application_panels,
    check_panels,
    log_links,
    measured_panels,
    plots,
    row_panels,
    snapshots,
    snippets,
    wording,
)
from apps.dashboards.first_steps import dismiss_first_steps, first_steps
from apps.dashboards.health import health
from apps.dashboards.navigation import menu_of
from apps.dashboards.panels import PANELS, PERFORMANCE, SYSTEM, TABLES, TILES, Panel
from apps.dashboards.target_panels import panels_asked
from apps.dashboards.timespan import DEFAULT, POINTS, RANGES, STEPS, BadSpan, Span, compared, span_of
from apps.metrics import query
from apps.metrics import senders as pushing
from apps.notifications import services as notifications
from apps.notifications.models import Contact
from apps.oncall import foresight, trials
from apps.oncall.models import Policy, Route
from apps.promql.errors import DeadlineExceeded, PromQLError

log = logging.getLogger(__name__)

PER_PAGE = 50
MOST_PANELS = 40
TABS = (
    ("active", "Active"),
    ("history", "History"),
    ("rules", "Rules"),
    ("hygiene", "Hygiene"),
    ("notifications", "Notifications"),
)


def shell(request: HttpRequest, name: str, heading: str, view: str, state: dict[str, Any], **more: Any) -> HttpResponse:
    """Render a page with what all of them carry: who is looking, what every page must say, the state for its script."""
    who = principal_of(request)
    warnings = snapshots.warnings(who)
    context = {
        "page": name,
        "heading": heading,
        "principal": who,
        "role": role_of(who),
        "may_administer": bool(getattr(request.user, "is_staff", False)),
        "may_query": who.can(Right.QUERY),
        "menu": menu_of(who),
        "version": settings.VERSION,
        "ranges": list(RANGES),
        "chosen_range": request.GET.get("range", DEFAULT),
        "warnings": warnings,
        "state": {
            "view": view,
            "data_url": reverse("data"),
            "explore_url": reverse("explore") if who.can(Right.QUERY) else None,
            "logs_url": reverse("logs"),
            "warnings": warnings,
            **state,
        },
    }
    return render(request, f"monitoring/{name}.html", context | more)


def role_of(who: Principal) -> str:
    """Return the word for what somebody may do: the smallest role that has exactly these rights."""
    return next((name for name, rights in ROLES.items() if rights == who.rights), "several roles")


@require_GET
@never_cache
@page(Right.READ)
def overview(request: HttpRequest) -> HttpResponse:
    """Is it fine, and if not what, since when, who is on it."""
    who, now = principal_of(request), timezone.now()
    active = snapshots.alerts(scope=who.scope)
    state = {
        "alerts": active,
        "health": snapshots.verdict(health(now=now), active),
        "activity": snapshots.activity(who, now=now),
        "oncall": snapshots.on_call(now),
    }
    steps = first_steps(who)
    tiles = [{"key": p.key, "title": p.title, "link": reverse(p.link)} for p in TILES]
    return shell(
        request, "overview", "Overview", "overview", state, tiles=tiles, steps=steps, may=_may(who), with_range=True
    )


@require_POST
@page(Right.ADMINISTER)
def dismiss_steps(request: HttpRequest) -> HttpResponse:
    """Take the list of first steps from everybody's overview."""
    who = principal_of(request)
    attempt(request, lambda: dismiss_first_steps(by=who, now=timezone.now()))
    return redirect("overview")


@require_GET
@never_cache
@page(Right.READ)
def performance(request: HttpRequest) -> HttpResponse:
    """How fast and how well requests are answered."""
    state = {"alerts": snapshots.alerts(scope=principal_of(request).scope)}
    return shell(request, "performance", "Performance", "badge", state, panels=PERFORMANCE, with_range=True)


@require_GET
@never_cache
@page(Right.READ)
def system(request: HttpRequest) -> HttpResponse:
    """How the machine and the portal's own servers stand."""
    state = {"alerts": snapshots.alerts(scope=principal_of(request).scope)}
    return shell(request, "system", "System", "badge", state, sections=SYSTEM, with_range=True)


@require_GET
@never_cache
@page(Right.QUERY)
def explore(request: HttpRequest) -> HttpResponse:
    """Ask anything of the store: the page's script asks the query API as this person, so within their scope."""
    who = principal_of(request)
    may_make_rules = who.can(Right.EDIT) and bool(getattr(request.user, "is_staff", False))
    state = {
        "alerts": snapshots.alerts(scope=who.scope),
        "explore": {
            "person": who.name,
            "steps": STEPS,
            "points": POINTS,
            "rule_url": reverse("admin:alerting_alertrule_add") if may_make_rules else None,
        },
    }
    return shell(request, "explore", "Explore", "badge", state, with_range=True)


@require_GET
@never_cache
@page(Right.READ)
def alerts(request: HttpRequest) -> HttpResponse:
    """Alerts that are active, were active, the rules behind them, and who is told."""
    who, now = principal_of(request), timezone.now()
    tab = request.GET.get("tab", "active")
    active = snapshots.alerts(scope=who.scope)
    more = TAB_CONTENT.get(tab)
    if tab != "active" and more is None:
        raise Http404
    content = more(request, who, now) if more else {}
    return shell(
        request,
        "alerts",
        "Alerts",
        "alerts",
        {"alerts": active, "oncall": snapshots.on_call(now)},
        tab=tab,
        tabs=TABS,
        may=_may(who),
        **content,
    )


def _may(who: Principal) -> dict[str, bool]:
    return {name: who.can(Right(name)) for name in ("operate", "edit", "administer")}


def _history(request: HttpRequest, who: Principal, now: datetime) -> dict[str, Any]:
    found = Alert.objects.history().visible_to(who.scope).select_related("rule")
    severity = request.GET.get("severity", "")
    if severity:
        found = found.filter(severity=severity)
    pages = Paginator(found, PER_PAGE)
    chosen = pages.get_page(request.GET.get("page"))
    rows = [
        snapshots.alert_row(alert)
        | {"alert": alert, "lasted": (alert.resolved_at or now) - alert.fired_at if alert.fired_at else timedelta(0)}
        for alert in chosen.object_list
    ]
    return {
        "rows": rows,
        "chosen": chosen,
        "severity": severity,
        "severities": ("critical", "error", "warning", "info"),
    }


def _rules(request: HttpRequest, who: Principal, now: datetime) -> dict[str, Any]:
    rules = list(AlertRule.objects.select_related("group").prefetch_related("levels").order_by("name"))
    runs = {run.group_id: run for run in GroupRun.objects.all()}
    firing: dict[int | None, list[Alert]] = {}
    for alert in Alert.objects.open().visible_to(who.scope):
        firing.setdefault(alert.rule_id, []).append(alert)
    rows = []
    for rule in rules:
        run = runs.get(rule.group_id)
        # What the rule found is of all series: who sees only some of them is told how their own alerts stand.
        found = (run.results.get("rules", {}) if run else {}).get(str(rule.pk), {})
        result = {} if who.scope.matchers else found
        rows.append(
            {
                "rule": rule,
                "levels": sorted(rule.levels.all(), key=lambda level: plots.RANKS.get(level.severity, 0)),
                "unit": unit_of(rule.expression),
                "standing": _standing(rule, firing.get(rule.pk, []), result, run),
                "value": result.get("value"),
                "error": result.get("error", ""),
                "evaluated_at": run.evaluated_at if run else None,
            }
        )
    return {"rules": rows}


def _hygiene(request: HttpRequest, who: Principal, now: datetime) -> dict[str, Any]:
    days = _days(request)
    found = upkeep.report(start=now - timedelta(days=days), end=now, today=now.date(), scope=who.scope)
    return {"report": found, "days": days, "periods": (7, 30, 90)}


def _days(request: HttpRequest) -> int:
    text = request.GET.get("days", "30")
    return min(max(int(text[:4]), 1), 366) if text.isdecimal() else 30


@require_GET
@never_cache
@page(Right.READ)
def hygiene_table(request: HttpRequest) -> HttpResponse:
    """The noise report as CSV."""
    now = timezone.now()
    found = upkeep.report(
        start=now - timedelta(days=_days(request)), end=now, today=now.date(), scope=principal_of(request).scope
    )
    rows = [upkeep.as_dict(each) for each in found.rules]
    names = [name for name in (rows[0] if rows else {"rule": ""}) if name not in ("nothing", "proposals")]
    table: list[list[Any]] = [[*names, "needs"]]
    for row in rows:
        needs = [*row["nothing"], *(each["reason"] for each in row["proposals"])]
        table.append([*(row[name] for name in names), " ".join(needs)])
    return csv_file("hygiene", table)


@require_http_methods(["GET", "POST"])
@never_cache
@page(Right.EDIT)
def proposal(request: HttpRequest, slug: str, kind: str) -> HttpResponse:
    """A proposal of the noise report beside the rule as it is, over the last days; posted, it is taken over."""
    who, now = principal_of(request), timezone.now()
    rule = get_object_or_404(AlertRule.objects.select_related("group", "schedule", "band"), slug=slug)
    wanted = (kind, request.GET.get("severity", ""))
    offered = upkeep.proposals_of(rule, start=now - timedelta(days=_days(request)), end=now)
    found = next((each for each in offered if (each.kind, each.severity) == wanted), None)
    if found is None:
        messages.info(request, f"{rule.name}: there is nothing of that kind to propose any more.")
        return redirect(reverse("alerts") + "?tab=hygiene")
    if request.method == "POST":
        if attempt(request, lambda: alerting.apply_proposal(by=who, rule=rule, proposal=found, now=now)):
            messages.success(request, f"{rule.name} is changed.")
        return redirect(reverse("alerts") + "?tab=hygiene")
    state = {"alerts": snapshots.alerts(scope=who.scope)}
    tried = upkeep.compare(rule, found, by=who, now=now)
    return shell(request, "proposal", rule.name, "badge", state, rule=rule, proposal=found, tried=tried)


def _standing(
    rule: AlertRule, found: list[Alert], result: Mapping[str, Any], run: GroupRun | None
) -> tuple[str, str, str]:
    """Return (tone, icon, word) of a rule: what its worst alert is, or why it has none."""
    if not rule.enabled or not rule.group.enabled:
        return "quiet", "pause", "off"
    if result.get("error"):
        return "critical", "critical", "error"
    if active := [alert for alert in found if alert.is_active]:
        worst = max(active, key=lambda alert: plots.RANKS.get(alert.severity, 0))
        return worst.severity, worst.severity, "firing" if worst.state == "firing" else "recovering"
    if found:
        return "warning", "pending", "pending"
    if run is None or run.evaluated_at is None:
        return "quiet", "clock", "not evaluated yet"
    return "ok", "ok", "fine"


def _notifications(request: HttpRequest, who: Principal, now: datetime) -> dict[str, Any]:
    problems = dict(snapshots.reach().broken)
    contacts = [snapshots.contact_row(contact, problems) for contact in Contact.objects.order_by("name")]
    asked = {name: request.GET.get(name, "") for name in ("labels", "at")}
    return {
        "contacts": contacts,
        "deliveries": snapshots.deliveries(scope=who.scope),
        "asked": asked,
        **(_foreseen(asked, who, now) if "labels" in request.GET else {}),
        **_trial(request.GET.get("test", ""), now),
    }


def _trial(asked: str, now: datetime) -> dict[str, Any]:
    """What can be tested, and the dry run of what was chosen."""
    kinds: dict[str, type[Route | Policy]] = {"route": Route, "policy": Policy}
    offered = [
        (f"{kind}-{row.pk}", f"{kind.capitalize()} {row}")
        for kind, model in kinds.items()
        for row in model.objects.all()
    ]
    kind, _, ident = asked.partition("-")
    if kind not in kinds or not (ident.isdecimal() and len(ident) < 10):
        return {"testable": offered}
    found = kinds[kind].objects.filter(pk=int(ident)).first()
    if found is None:
        return {"testable": offered}
    url = reverse(f"test-{kind}", args=[found.pk])
    return {"testable": offered, "tested": asked, "trial": trials.trial(found, at=now), "trial_url": url}


def _foreseen(asked: Mapping[str, str], who: Principal, now: datetime) -> dict[str, Any]:
    """Who would be told of the alert that was asked for, or what is wrong with the question."""
    try:
        labels, at = foresight.labels_of(asked["labels"]), foresight.moment_of(asked["at"], now=now)
        return {"foreseen": foresight.who_would_be_told(labels, at=at, scope=who.scope)}
    except ValidationError as error:
        return {"refused": " ".join(error.messages)}


TAB_CONTENT = {"history": _history, "rules": _rules, "hygiene": _hygiene, "notifications": _notifications}


@require_GET
@never_cache
@page(Right.READ)
def senders(request: HttpRequest) -> HttpResponse:
    """Who pushes what, how fast, what was refused and why; and how to send something here."""
    return _senders(request)


@require_POST
@never_cache
@page(Right.ADMINISTER)
def sender_token(request: HttpRequest) -> HttpResponse:
    """Make a token that may push, and show it in the snippets of this one answer: a redirect would have to keep it."""
    name = request.POST.get("name", "").strip()
    if not 0 < len(name) <= 100:
        messages.error(request, "Say in up to 100 characters what sends.")
        return redirect("senders")
    who = principal_of(request)
    token, secret = accounts.issue_token(by=who, name=name, scopes=["ingest"], expires_at=None, now=timezone.now())
    return _senders(request, token=token, secret=secret)


def _senders(request: HttpRequest, *, token: Token | None = None, secret: str = "") -> HttpResponse:
    who, problem, rows = principal_of(request), "", []
    try:
        rows = pushing.senders(scope=who.scope, now=timezone.now())
    except (PromQLError, query.Outrun) as error:
        problem = f"Who sends cannot be read at the moment: {error}"
    return shell(
        request,
        "senders",
        "Senders",
        "badge",
        {"alerts": snapshots.alerts(scope=who.scope)},
        senders=rows,
        problem=problem,
        snippets=snippets.snippets(settings.PORTAL_URL, secret, settings.STATSD_BIND),
        placeholder=snippets.PLACEHOLDER,
        token=token,
        secret=secret,
        may=_may(who),
    )


@require_GET
@never_cache
@page(Right.READ)
def alert(request: HttpRequest, key: str) -> HttpResponse:
    """One alert: how it stands, its values against the limits, and everything that happened to it."""
    who, now = principal_of(request), timezone.now()
    found = snapshots.alert(who, key, now=now)
    if found is None:
        raise Http404
    row = Alert.objects.select_related("rule").get(key=key)
    state = {
        "alert": found,
        "alerts": snapshots.alerts(scope=who.scope),
        "data_query": {"alert": key},
    }
    begin, end = row.fired_at or row.pending_at or row.seen_at, row.resolved_at
    fixed = None
    if end is not None and now - end > timedelta(minutes=40):
        fixed = {
            "from": int((begin - timedelta(minutes=30)).timestamp() * 1000),
            "to": int((end + timedelta(minutes=30)).timestamp() * 1000),
        }
    around = changes.before(begin, {row.service}, scope=who.scope, until=begin + timedelta(minutes=10), limit=8)
    panel = Panel("alert", "Value", unit_of(row.rule.expression) if row.rule else "count", (), wide=True)
    return shell(
        request,
        "alert",
        snapshots.name_of(row),
        f"alert:{key}",
        state,
        alert=row,
        detail=found,
        panel=panel,
        fixed=fixed,
        changes=[wording.change_entry(one) for one in around],
        logs_url=log_links.address(begin=begin, end=end or now, service=row.service, scope=who.scope),
        with_range=row.rule is not None,
        description=row.annotations.get("description", ""),
        runbook=row.rule.runbook if row.rule else "",
    )


def attempt(request: HttpRequest, verb: Callable[[], object]) -> bool:
    """Call a service; what it refuses (the alert was over meanwhile) is told on the next page."""
    try:
        verb()
    except ValidationError as error:
        for sentence in error.messages:
            messages.error(request, sentence)
        return False
    return True


@require_POST
@page(Right.OPERATE)
def acknowledge(request: HttpRequest, key: str) -> HttpResponse:
    """Say that somebody is on it: the escalation stops."""
    who = principal_of(request)
    found = get_object_or_404(Alert.objects.visible_to(who.scope), key=key)
    attempt(request, lambda: alerting.acknowledge(by=who, alert=found, now=timezone.now()))
    return redirect("alert", key=key)


@require_POST
@page(Right.OPERATE)
def resolve(request: HttpRequest, key: str) -> HttpResponse:
    """End an alert by hand; a rule's alert that still breaches fires anew after the cooldown."""
    who = principal_of(request)
    found = get_object_or_404(Alert.objects.visible_to(who.scope), key=key)
    attempt(request, lambda: alerting.resolve(by=who, alert=found, now=timezone.now()))
    return redirect("alert", key=key)


@require_POST
@page(Right.OPERATE)
def not_an_anomaly(request: HttpRequest, key: str) -> HttpResponse:
    """Say that an adaptive rule was wrong: the band of this series is widened for these hours of the week."""
    who = principal_of(request)
    found = get_object_or_404(Alert.objects.visible_to(who.scope), key=key)
    if attempt(request, lambda: alerting.not_an_anomaly(by=who, alert=found, now=timezone.now())):
        messages.success(request, "The band is wider at these hours of the week; the alert ends at the next tick.")
    return redirect("alert", key=key)


@require_POST
@page(Right.OPERATE)
def send_test(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a test message to a contact; the outcome shows on the page as soon as it is known."""
    contact = get_object_or_404(Contact, pk=pk)
    who = principal_of(request)
    if attempt(request, lambda: notifications.send_test(by=who, contact=contact, now=timezone.now())):
        messages.success(request, f"A test message to {contact.name} is on its way.")
    return redirect(reverse("alerts") + "?tab=notifications")


@require_POST
@page(Right.OPERATE)
def try_route(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a test message to whoever an alert on this route would be told to first."""
    found, who = get_object_or_404(Route, pk=pk), principal_of(request)
    if attempt(request, lambda: trials.try_route(by=who, route=found, now=timezone.now())):
        messages.success(request, f"A test of the route {found} is on its way.")
    return redirect(f"{reverse('alerts')}?tab=notifications&test=route-{pk}#test-title")


@require_POST
@page(Right.OPERATE)
def try_policy(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a test message to whoever this policy would tell first."""
    found, who = get_object_or_404(Policy, pk=pk), principal_of(request)
    if attempt(request, lambda: trials.try_policy(by=who, policy=found, now=timezone.now())):
        messages.success(request, f"A test of the policy {found} is on its way.")
    return redirect(f"{reverse('alerts')}?tab=notifications&test=policy-{pk}#test-title")


@require_GET
@never_cache
@page(Right.READ)
def data(request: HttpRequest) -> HttpResponse:
    """Numbers of panels: ?panel=…&panel=…&range=1h (or from, to; since for new points only), or ?table=…

    `compare=week` adds the same steps a week earlier as `before`; `format=csv` gives the one panel as a table.
    """
    who = principal_of(request)
    if name := request.GET.get("table"):
        return answered(request, lambda span: _tabulated(name, request, span, who), lambda rows, _: as_json(rows))
    return answered_panels(request, who, lambda span: numbers(request.GET, span, who), plots.table_of)


def _tabulated(name: str, request: HttpRequest, span: Span, who: Principal) -> dict[str, Any]:
    tables = TABLES | application_panels.tables_asked(request.GET.get("application", ""))
    if name not in tables:
        raise LookupError(f"There is no table {name!r}.")
    return plots.tabulate(tables[name], span, scope=who.scope)


def answered_panels(
    request: HttpRequest,
    who: Principal,
    ask: Callable[[Span], dict[str, Any]],
    rows_of: Callable[[dict[str, Any]], list[list[Any]]],
) -> HttpResponse:
    """Answer with the numbers of panels over the stretch that the address says; with `format=csv` of one as a table."""

    def shown(found: dict[str, Any], span: Span) -> HttpResponse:
        if request.GET.get("format") == "csv":
            return table(found, rows_of)
        return as_json({"panels": plots.slim(found), "changes": happened(span, who)})

    return answered(request, ask, shown)


def answered(
    request: HttpRequest,
    ask: Callable[[Span], dict[str, Any]],
    shown: Callable[[dict[str, Any], Span], HttpResponse],
) -> HttpResponse:
    """Answer for the stretch of time that the address says: a sentence with its status where that cannot be asked."""
    try:
        span = span_of(request.GET.dict(), now=timezone.now())
        found = ask(span)
    except LookupError as error:
        return as_json({"error": str(error.args[0])}, 404)
    except BadSpan as error:
        return as_json({"error": str(error)}, 400)
    except (query.Outrun, DeadlineExceeded) as error:
        return as_json({"error": str(error)}, 503)
    except PromQLError as error:
        return as_json({"error": str(error)}, 422)
    return shown(found, span)


def happened(span: Span, who: Principal) -> list[dict[str, Any]]:
    """Return what was deployed or configured in that time; whoever comes by a link is told nothing of it."""
    if who.kind == "anonymous":
        return []
    found = changes.happenings(since=span.begin, until=span.end + span.step, scope=who.scope)
    return [wording.changed(one) for one in found]


def numbers(given: QueryDict, span: Span, who: Principal) -> dict[str, dict[str, Any]]:
    """Return what the panels draw that an address asks for, with `before` where it compares.

    Raises BadSpan, and LookupError with a sentence where there is no such panel.
    """
    found = _numbers(given, span, who)
    if (back := compared(plain(given))) is not None:
        for key, row in _numbers(given, span.earlier(back), who, is_watched=False).items():
            found[key]["before"] = row.get("series", [])
    return found


def plain(given: QueryDict) -> dict[str, str]:
    """Return an address's fields, of each the last value."""
    return {name: str(value) for name, value in given.items()}


def _numbers(given: QueryDict, span: Span, who: Principal, *, is_watched: bool = True) -> dict[str, dict[str, Any]]:
    keys = list(dict.fromkeys(given.getlist("panel")))[:MOST_PANELS]
    known = {
        **PANELS,
        **measured_panels.PANELS,
        **measured_panels.panels_asked(who, keys),
        **panels_asked(who, given.get("target", "")),
        **application_panels.panels_asked(given.get("application", "")),
        **check_panels.panels_asked(who, given.get("check", ""), given.get("heartbeat", "")),
    }
    made = row_panels.answers(who, keys, plain(given), span)
    if unknown := [key for key in keys if key not in known and key not in made and key != "alert"]:
        raise LookupError(f"There is no panel {unknown[0]!r}.")
    panels = [known[key] for key in keys if key in known]
    texts = (text for panel in panels for text in plots.texts_of(panel, span))
    watch = plots.watched(texts, span, scope=who.scope) if is_watched else plots.UNWATCHED
    answers = {panel.key: plots.plot(panel, span, watch, scope=who.scope) for panel in panels} | made
    if "alert" in keys:
        found = Alert.objects.visible_to(who.scope).select_related("rule").filter(key=given.get("alert", ""))
        row = found.first()
        answers["alert"] = plots.plot_alert(row, span, scope=who.scope) if row else {"error": "There is no such alert."}
    return answers


def table(answers: Mapping[str, dict[str, Any]], rows_of: Callable[[dict[str, Any]], list[list[Any]]]) -> HttpResponse:
    """One panel's numbers as CSV."""
    if len(answers) != 1:
        return as_json({"error": "A table is made of one panel: ask for one."}, 400)
    key, found = next(iter(answers.items()))
    if "error" in found:
        return as_json({"error": found["error"]}, 422)
    return csv_file(key, rows_of(found))


def csv_file(name: str, rows: Iterable[Iterable[object]]) -> HttpResponse:
    """These rows, a heading first, as a file; no cell is a formula."""
    answer = HttpResponse(content_type="text/csv; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    csv.writer(answer).writerows([csv_cell(value) for value in row] for row in rows)
    return answer


def as_json(body: Any, status: int = 200) -> HttpResponse:
    """An answer for the page's script, or for a program."""
    return HttpResponse(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), "application/json", status)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """400 before any view: a host name that is not the portal's, or more form fields than anybody sends."""
    words = "The portal does not answer to this: a host name it does not know (ALLOWED_HOSTS), or a malformed request."
    if request.path.startswith("/api/"):
        return as_json({"error": words}, 400)
    return HttpResponse(words, "text/plain; charset=utf-8", 400)


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """403: JSON for programs and for the page's own script, a page for people."""
    if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
        return as_json({"error": "Your role does not include this."}, 403)
    return HttpResponse(loader.render_to_string("403.html", {"reason": str(exception or "")}, request), status=403)


def stale_form(request: HttpRequest, reason: str = "") -> HttpResponse:
    """403 for a form without the CSRF token that belongs to this browser: too old, of another log-in, or forged."""
    words = "It is too old, or your browser keeps no cookies. Go back, load the page again and repeat it."
    if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
        return as_json({"error": f"The form cannot be taken. {words}"}, 403)
    context = {"title": "This form cannot be taken", "reason": words}
    return HttpResponse(loader.render_to_string("403.html", context, request), status=403)


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    """404: as above."""
    if request.path.startswith("/api/"):
        return as_json({"error": "There is nothing at this address."}, 404)
    return HttpResponseNotFound(loader.render_to_string("404.html", {}, request))


def broken(request: HttpRequest) -> HttpResponse:
    """500: needs neither database nor session, which may be what is broken."""
    if request.path.startswith("/api/"):
        return as_json({"error": "The portal could not answer; its log says why."}, 500)
    return HttpResponseServerError(loader.render_to_string("500.html", {"at": f"{timezone.now():%H:%M:%S}"}))
