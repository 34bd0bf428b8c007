"""The pages of what is scraped: all targets, and one target with what it shows, what was refused and why."""

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.permissions import Principal, Right, page, principal_of
from apps.dashboards import snapshots, views
from apps.dashboards.target_panels import panels_of
from apps.metrics import query
from apps.sources import api, scraping
from apps.sources import services as sources
from apps.sources.models import ScrapeJob, ScrapeTarget

MOST_ROWS = 1_000
TONES = {"up": ("ok", "ok"), "down": ("critical", "critical"), "unknown": ("quiet", "pending")}
WORDS = {"up": "up", "down": "down", "unknown": "not scraped yet"}


def standing(target: ScrapeTarget) -> tuple[str, str, str]:
    """Return (tone, icon, word) of a target; one that is up and had lines refused is not fine."""
    if target.dropped:
        return "quiet", "close", "dropped"
    if target.health == "up" and target.refused:
        return "warning", "warning", "up, some refused"
    tone, icon = TONES[target.health]
    return tone, icon, WORDS[target.health]


@require_GET
@never_cache
@page(Right.READ)
def targets(request: HttpRequest) -> HttpResponse:
    """Every target by job: is it up, since when, how much it shows, what is wrong."""
    who = principal_of(request)
    rows = ScrapeTarget.objects.filter(ended=False).visible_to(who.scope).with_job()
    wanted = request.GET.get("health", "")
    found = sorted(rows, key=lambda row: (row.dropped, row.health != "down", str(row.job), row.instance))
    counts = {name: sum(row.health == name and not row.dropped for row in found) for name in TONES}
    counts["dropped"] = sum(row.dropped for row in found)
    if wanted:
        found = [row for row in found if (wanted == "dropped") == row.dropped and wanted in (row.health, "dropped")]
    problems = ScrapeJob.objects.exclude(problem="") if not who.scope.matchers else ScrapeJob.objects.none()
    return views.shell(
        request,
        "targets",
        "Targets",
        "targets",
        {"alerts": snapshots.alerts(scope=who.scope)},
        rows=[{"target": row, "standing": standing(row)} for row in found[:MOST_ROWS]],
        more=max(0, len(found) - MOST_ROWS),
        counts=counts,
        wanted=wanted,
        problems=problems,
        on=query.collection_on(),
        may={"edit": who.can(Right.EDIT) and bool(getattr(request.user, "is_staff", False))},
    )


def _visible(who: Principal, pk: int) -> ScrapeTarget:
    found = ScrapeTarget.objects.filter(pk=pk, ended=False).with_job()
    target = found.visible_to(who.scope).first()
    if target is None:
        raise Http404
    return target


@require_GET
@never_cache
@page(Right.READ)
def target(request: HttpRequest, pk: int) -> HttpResponse:
    """One target: state, labels before and after relabelling, what was refused; `?look=1` asks it, storing nothing."""
    who, now = principal_of(request), timezone.now()
    row = _visible(who, pk)
    seen = None
    if request.GET.get("look") and who.can(Right.OPERATE) and not row.dropped:
        seen = api.shown(scraping.look(row, now=now))
    return views.shell(
        request,
        "target",
        row.instance,
        f"target:{pk}",
        {"alerts": snapshots.alerts(scope=who.scope), "data_query": {"target": str(pk)}},
        target=row,
        standing=standing(row),
        headline=_headline(row),
        seen=seen,
        panels=panels_of(row),
        with_range=not row.dropped,
        may={
            "operate": who.can(Right.OPERATE) and not row.dropped,
            "edit": who.can(Right.EDIT) and bool(getattr(request.user, "is_staff", False)),
        },
    )


def _headline(row: ScrapeTarget) -> str:
    if row.dropped:
        return "Relabelling takes this target out: it is not scraped."
    if row.health == "down":
        return "Down"
    if row.health == "unknown":
        return "Not scraped yet"
    return f"Up, with {row.refused} lines or series refused" if row.refused else "Up"


@require_POST
@page(Right.OPERATE)
def scrape_now(request: HttpRequest, pk: int) -> HttpResponse:
    """Have the target scraped at once, and what it shows stored."""
    who, now = principal_of(request), timezone.now()
    row = _visible(who, pk)
    if views.attempt(request, lambda: sources.scrape_now(by=who, target=row, now=now)):
        messages.success(request, f"{row.instance} is asked now; the page shows it within a second or two.")
    return redirect("target", pk=pk)
