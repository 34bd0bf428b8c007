"""The pages of people's dashboards: their list, one dashboard to read or to edit, its history, links that share it."""

import math
import time
from datetime import timedelta
from typing import Any

import orjson
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from apps.accounts.permissions import Principal, Right, page, principal_of
from apps.alerting import matching
from apps.core.telemetry import Counter
from apps.dashboards import answers, document, grafana, services, snapshots, variables, views
from apps.dashboards.document import BadDocument, Document
from apps.dashboards.models import Dashboard, Folder, ShareLink
from apps.dashboards.timespan import DEFAULT, RANGES, BadSpan, Span, compared, span_of
from apps.metrics.throttle import Throttle

Row = dict[str, Any]
SHARED_REFUSED = Counter("portal_shared_refused_total", "Requests to share links beyond their rate.", ("reason",))
_asked = Throttle()
MOST_ROWS = 500
LARGEST = 1_000_000
"""Bytes of a dashboard that is saved or previewed."""
BY_ADDRESS, BY_LINK = 5, 20
"""Requests a second to links, from one address and of one link, five times as many at once: each costs queries, and
whoever has the address may send them. In each process."""
EMPTY = Document()
LASTS = (("1h", "an hour"), ("1d", "a day"), ("7d", "a week"), ("30d", "30 days"), ("90d", "90 days"))
HOURS = {"1h": 1, "1d": 24, "7d": 168, "30d": 720, "90d": 2160}


def _found(who: Principal, slug: str) -> Dashboard:
    row = Dashboard.objects.select_related("folder").filter(slug=slug).visible_to(who).first()
    if row is None:
        raise Http404
    return row


def _read(row: Dashboard) -> Document:
    """Return its document; one that a later release cannot read any more is empty rather than a broken page."""
    try:
        return document.read(row.document)
    except BadDocument:
        return EMPTY


def _state(request: HttpRequest, who: Principal) -> Row:
    return {"alerts": snapshots.alerts(scope=who.scope)}


# --- The list --------------------------------------------------------------------------------------------------------
@require_GET
@never_cache
@page(Right.READ)
def dashboards(request: HttpRequest) -> HttpResponse:
    """All dashboards by folder; ?q= looks for words of titles and descriptions."""
    who, words = principal_of(request), request.GET.get("q", "").strip()[:200]
    rows = Dashboard.objects.select_related("folder").visible_to(who).defer("document")
    for word in words.split()[:10]:
        rows = rows.filter(Q(title__icontains=word) | Q(description__icontains=word) | Q(folder__name__icontains=word))
    found = list(rows.order_by("folder__name", "title", "id")[: MOST_ROWS + 1])
    groups: dict[str, list[Dashboard]] = {}
    for row in found[:MOST_ROWS]:
        groups.setdefault(row.folder.name if row.folder else "", []).append(row)
    return views.shell(
        request, "dashboards", "Dashboards", "badge", _state(request, who),
        groups=sorted(groups.items(), key=lambda pair: (pair[0] == "", pair[0].casefold())), words=words,
        more=len(found) > MOST_ROWS, folders=Folder.objects.all().visible_to(who), may_edit=who.can(Right.EDIT),
    )  # fmt: skip


@require_POST
@page(Right.EDIT)
def new(request: HttpRequest) -> HttpResponse:
    """Make an empty dashboard, or a copy (?of=slug), and go on with editing it."""
    who, now = principal_of(request), timezone.now()
    values: Row = {"title": request.POST.get("title", ""), "folder": _folder(who, request.POST.get("folder", ""))}
    if slug := request.POST.get("of"):
        original = _found(who, slug)
        values = {
            "title": f"{original.title[:190]} (copy)", "description": original.description, "folder": original.folder,
            "document": original.document,
        }  # fmt: skip
    made: list[Dashboard] = []
    if views.attempt(request, lambda: made.append(services.save_dashboard(by=who, values=values, now=now))):
        return redirect(reverse("dashboard", args=[made[0].slug]) + "?edit=1")
    return redirect("dashboards")


def _folder(who: Principal, key: str) -> Folder | None:
    if not key.isdecimal() or len(key) > 18:
        return None
    return Folder.objects.filter(pk=int(key)).visible_to(who).first()


# --- One dashboard ---------------------------------------------------------------------------------------------------
@require_GET
@never_cache
@page(Right.READ)
def dashboard(request: HttpRequest, slug: str) -> HttpResponse:
    """One dashboard; ?edit=1 opens the editor, ?tv=1 leaves out all but the panels, var-name=… chooses."""
    who = principal_of(request)
    row = _found(who, slug)
    may_edit = who.can(Right.EDIT)
    read = _read(row)
    values = variables.chosen(read.variables, dict(request.GET.lists()))
    state = _state(request, who) | {
        "data_url": reverse("dashboard-data", args=[slug]),
        "dashboard": _shown(row, read, values, answers.options_of(read, values, _span(request), who=who))
        | {"links": _links(row, who) if may_edit else None},
    }
    return views.shell(
        request, "dashboard", row.title, "badge", state, dashboard=row, may_edit=may_edit, with_range=True,
        lasts=LASTS, tv="tv" in request.GET,
        shared=list(row.links.usable(timezone.now())) if may_edit else (),
    )  # fmt: skip


def _span(request: HttpRequest) -> Span:
    """The time that the page shows at first; the usual one where its address names none that can be."""
    try:
        return span_of(request.GET, now=timezone.now())
    except BadSpan:
        return span_of({}, now=timezone.now())


def _shown(row: Dashboard, read: Document, values: variables.Values, options: Row) -> Row:
    """What the page's script draws."""
    plain = document.write(read)
    for panel in plain["panels"]:
        panel["shown"] = variables.fill_text(panel["title"], values)[:500]
    return {
        "slug": row.slug, "title": row.title, "description": row.description, "folder": row.folder_id,
        "version": row.version, "document": plain, "values": values, "options": options,
    }  # fmt: skip


def _links(row: Dashboard, who: Principal) -> Row:
    return {
        "save": reverse("dashboard-save", args=[row.slug]), "preview": reverse("dashboard-preview"),
        "kinds": document.KINDS, "units": document.UNITS, "calculations": document.CALCULATIONS,
        "variables": document.VARIABLE_KINDS,
        "folders": list(Folder.objects.all().visible_to(who).values_list("pk", "name")),
    }  # fmt: skip


@require_GET
@never_cache
@page(Right.READ)
def data(request: HttpRequest, slug: str) -> HttpResponse:
    """Numbers of a dashboard's panels: ?panel=…&range=1h&var-name=…, as `/monitoring/data/` gives those of pages."""
    who = principal_of(request)
    row = _found(who, slug)
    read = _read(row)
    return _numbers(request, who, read, variables.chosen(read.variables, dict(request.GET.lists())))


def _numbers(request: HttpRequest, who: Principal, read: Document, values: variables.Values) -> HttpResponse:
    """Answer as `views.data` does: `compare=week` adds `before` to what is drawn over time, `format=csv` one table."""
    return views.answered_panels(
        request, who, lambda span: _panels(request.GET, span, who, read, values), answers.table_of
    )


def numbers(slug: str, given: QueryDict, span: Span, who: Principal) -> Row:
    """Return what the panels of a dashboard draw that an address asks for. LookupError where there is none such."""
    row = Dashboard.objects.select_related("folder").filter(slug=slug).visible_to(who).first()
    if row is None:
        raise LookupError("There is no such dashboard any more.")
    read = _read(row)
    return _panels(given, span, who, read, variables.chosen(read.variables, dict(given.lists())))


def _panels(given: QueryDict, span: Span, who: Principal, read: Document, values: variables.Values) -> Row:
    back = compared(views.plain(given))
    chosen: list[document.Panel] = []
    for key in list(dict.fromkeys(given.getlist("panel")))[: views.MOST_PANELS]:
        panel = read.panel(key)
        if panel is None:
            raise LookupError(f"There is no panel {key[:60]!r}.")
        chosen.append(panel)
    watch = answers.watched(chosen, span, values, who=who)
    found = {panel.id: answers.answer(panel, span, values, who=who, watch=watch) for panel in chosen}
    for panel in chosen:
        if back is not None and panel.kind == "timeseries":
            earlier = answers.answer(panel, span.earlier(back), values, who=who)
            found[panel.id]["before"] = earlier.get("series", [])
    return found


# --- Editing ---------------------------------------------------------------------------------------------------------
def _body(request: HttpRequest) -> Row:
    """Return the posted JSON object. Raises ValidationError."""
    if len(request.body) > LARGEST:
        raise ValidationError(f"That is more than a dashboard may be: {LARGEST} bytes.")
    try:
        given = orjson.loads(request.body)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise ValidationError("What was sent is no JSON object.")
    return given


def _refused(error: ValidationError) -> HttpResponse:
    return views.as_json({"error": " ".join(error.messages)}, 422)


@require_POST
@never_cache
@page(Right.QUERY)
def preview(request: HttpRequest) -> HttpResponse:
    """What a panel would show: {"panel": …, "variables": …, "values": {name: […]}} over ?range=…"""
    who = principal_of(request)
    try:
        given = _body(request)
        panel, declared = document.read_panel(given.get("panel")), document.read_variables(given.get("variables"))
        asked = given.get("values") or {}
        if not isinstance(asked, dict):
            raise ValidationError("values must be an object: {name: [value, …]}.")
        chosen = variables.chosen(
            declared, {f"var-{name}": [str(v) for v in asked[name]] for name in asked if isinstance(asked[name], list)}
        )
        span = span_of(request.GET.dict(), now=timezone.now())
    except ValidationError as error:
        return _refused(error)
    except (BadDocument, BadSpan, AttributeError, TypeError) as error:
        return views.as_json({"error": str(error)}, 422)
    watch = answers.watched([panel], span, chosen, who=who)
    return views.as_json(
        {"panels": {panel.id: answers.answer(panel, span, chosen, who=who, watch=watch)}, "changes": []}
    )


@require_POST
@never_cache
@page(Right.EDIT)
def save(request: HttpRequest, slug: str) -> HttpResponse:
    """Save as a new version: {"title", "description", "folder", "document", "version", "message"}."""
    who = principal_of(request)
    row = _found(who, slug)
    try:
        given = _body(request)
        values: Row = {name: given[name] for name in ("title", "description") if isinstance(given.get(name), str)}
        if "document" in given:
            values["document"] = given["document"]
        if "folder" in given:
            values["folder"] = _folder(who, str(given["folder"] or ""))
        version = given.get("version")
        saved = services.save_dashboard(
            by=who, values=values, now=timezone.now(), dashboard=row,
            version=version if isinstance(version, int) else None, message=str(given.get("message") or ""),
        )  # fmt: skip
    except ValidationError as error:
        return _refused(error)
    return views.as_json({"version": saved.version, "url": reverse("dashboard", args=[saved.slug])})


@require_GET
@never_cache
@page(Right.READ)
def history(request: HttpRequest, slug: str) -> HttpResponse:
    """Who saved which version when, and why."""
    who = principal_of(request)
    row = _found(who, slug)
    return views.shell(
        request, "dashboard_history", f"History of {row.title}", "badge", _state(request, who), dashboard=row,
        versions=row.versions.defer("document")[:100], may_edit=who.can(Right.EDIT),
    )  # fmt: skip


@require_POST
@page(Right.EDIT)
def restore(request: HttpRequest, slug: str, number: int) -> HttpResponse:
    """Make an earlier version the newest."""
    who, now = principal_of(request), timezone.now()
    row = _found(who, slug)
    if views.attempt(request, lambda: services.restore_version(by=who, dashboard=row, number=number, now=now)):
        messages.success(request, f"Version {number} stands again, as the newest.")
    return redirect("dashboard", slug=slug)


@require_POST
@page(Right.EDIT)
def delete(request: HttpRequest, slug: str) -> HttpResponse:
    """Delete a dashboard."""
    who = principal_of(request)
    row = _found(who, slug)
    if views.attempt(request, lambda: services.delete_dashboard(by=who, dashboard=row)):
        messages.success(request, f"{row.title} is deleted.")
    return redirect("dashboards")


# --- Grafana ---------------------------------------------------------------------------------------------------------
@require_http_methods(["GET", "POST"])
@never_cache
@page(Right.EDIT)
def import_grafana(request: HttpRequest) -> HttpResponse:
    """A form for Grafana's JSON; posted, it becomes a dashboard, and the answer says what did not come along."""
    who, now = principal_of(request), timezone.now()
    text, problem = request.POST.get("text", ""), ""
    if request.method == "POST":
        upload = request.FILES.get("file")
        given: str | bytes = upload.read(grafana.LARGEST + 1) if upload else text
        try:
            found = grafana.read(given)
            values: Row = {
                "title": found.title, "description": found.description, "document": document.write(found.document),
                "folder": _folder(who, request.POST.get("folder", "")),
            }  # fmt: skip
            row = services.save_dashboard(by=who, values=values, now=now, message="Imported from Grafana")
            return views.shell(
                request, "dashboard_imported", f"{row.title} is imported", "badge", _state(request, who),
                dashboard=row, report=found.report, panels=len(found.document.panels),
            )  # fmt: skip
        except grafana.BadGrafana as error:
            problem = str(error)
        except ValidationError as error:
            problem = " ".join(error.messages)
    answer = views.shell(
        request, "dashboard_import", "Import from Grafana", "badge", _state(request, who), problem=problem,
        text=text[: grafana.LARGEST], folders=Folder.objects.all().visible_to(who),
    )  # fmt: skip
    answer.status_code = 422 if problem else 200
    return answer


@require_GET
@never_cache
@page(Right.READ)
def export_grafana(request: HttpRequest, slug: str) -> HttpResponse:
    """The dashboard as Grafana's JSON, as a file."""
    row = _found(principal_of(request), slug)
    found, _ = grafana.write(_read(row), title=row.title, description=row.description, uid=row.slug)
    answer = HttpResponse(orjson.dumps(found, option=orjson.OPT_INDENT_2), "application/json")
    answer["Content-Disposition"] = f'attachment; filename="{row.slug}.json"'
    return answer


# --- Links -----------------------------------------------------------------------------------------------------------
@require_POST
@never_cache
@page(Right.EDIT)
def share(request: HttpRequest, slug: str) -> HttpResponse:
    """Make a link to the dashboard as it stands, and show it in this one answer."""
    who, now = principal_of(request), timezone.now()
    row = _found(who, slug)
    read = _read(row)
    lasts = timedelta(hours=HOURS.get(request.POST.get("lasts", ""), 24))
    matchers = [part for part in request.POST.get("matchers", "").splitlines() if part.strip()]
    made: list[tuple[ShareLink, str]] = []

    def act() -> None:
        try:
            rows = [[m.name, m.op, m.value] for m in map(matching.parse_matcher, matchers)]
        except matching.MatcherError as error:
            raise ValidationError({"matchers": str(error)}) from None
        values = variables.chosen(read.variables, dict(request.GET.lists()))
        made.append(services.share(by=who, dashboard=row, lasts=lasts, now=now, matchers=rows, values=values))

    if not views.attempt(request, act):
        return redirect("dashboard", slug=slug)
    link, secret = made[0]
    address = request.build_absolute_uri(reverse("dashboard-shared", args=[secret]))
    return views.shell(
        request, "dashboard_shared_link", f"Link to {row.title}", "badge", _state(request, who), dashboard=row,
        link=link, address=address,
    )  # fmt: skip


@require_POST
@page(Right.EDIT)
def revoke(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """End a link."""
    who, now = principal_of(request), timezone.now()
    link = ShareLink.objects.select_related("dashboard").filter(pk=pk, dashboard=_found(who, slug)).first()
    if link is None:
        raise Http404
    if views.attempt(request, lambda: services.revoke_share(by=who, link=link, now=now)):
        messages.success(request, "The link ends here.")
    return redirect("dashboard", slug=slug)


def _limited(request: HttpRequest, token: str) -> HttpResponse | None:
    """Refuse an address that asks too much, whatever its links, and a link that too many ask."""
    clock, waits = time.monotonic(), []
    for key, rate in ((str(request.META.get("REMOTE_ADDR") or ""), BY_ADDRESS), (services.digest_of(token), BY_LINK)):
        waits.append(_asked.wait(key, rate, clock))
        if waits[-1] <= 0:
            _asked.take(key, rate, 1, clock)
    if max(waits) <= 0:
        return None
    SHARED_REFUSED.inc(reason="address" if waits[0] > 0 else "link")
    answer = views.as_json({"error": "This link is asked too often; try again in a moment."}, 429)
    answer["Retry-After"] = str(math.ceil(max(waits)))
    return answer


def _opened(request: HttpRequest, token: str) -> tuple[ShareLink, Principal, Document]:
    """Return the link of a secret, as whom it reads, and what it shows."""
    usable = ShareLink.objects.usable(timezone.now()).select_related("dashboard", "dashboard__folder", "maker")
    link = usable.filter(digest=services.digest_of(token)).first()
    if link is None:
        raise Http404
    who = link.principal(str(request.META.get("REMOTE_ADDR") or ""))
    maker = Principal.of_user(link.maker)
    if not who.can(Right.READ) or not Dashboard.objects.filter(pk=link.dashboard_id).visible_to(maker).exists():
        raise Http404
    return link, who, _read(link.dashboard)


def _values_of(link: ShareLink, read: Document) -> variables.Values:
    kept = link.values if isinstance(link.values, dict) else {}
    return variables.chosen(read.variables, {f"var-{name}": list(values) for name, values in kept.items()})


@require_GET
@never_cache
def shared(request: HttpRequest, token: str) -> HttpResponse:
    """A dashboard by its link: read only, its maker's scope narrowed, variables as they were."""
    if (refusal := _limited(request, token)) is not None:
        return refusal
    link, _, read = _opened(request, token)
    row = link.dashboard
    values = _values_of(link, read)
    shown = _shown(row, read, values, {}) | {"links": None, "is_shared": True}
    for panel in shown["document"]["panels"]:
        panel["queries"] = []  # what is asked is not what is shared
    shown["document"]["variables"] = []
    answer = render(
        request,
        "monitoring/dashboard_shared.html",
        {
            "page": "dashboard", "heading": row.title, "dashboard": row, "link": link, "ranges": list(RANGES),
            "chosen_range": request.GET.get("range", DEFAULT), "with_range": True,
            "state": {"view": "", "data_url": reverse("dashboard-shared-data", args=[token]), "dashboard": shown},
        },
    )  # fmt: skip
    answer["X-Robots-Tag"] = "noindex"
    answer["Referrer-Policy"] = "no-referrer"
    return answer


@require_GET
@never_cache
def shared_data(request: HttpRequest, token: str) -> HttpResponse:
    """Numbers of a shared dashboard's panels."""
    if (refusal := _limited(request, token)) is not None:
        return refusal
    link, who, read = _opened(request, token)
    return _numbers(request, who, read, _values_of(link, read))
