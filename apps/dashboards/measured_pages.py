"""The pages of the business, and of databases and caches: how each source stands, and its charts."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from apps.accounts.permissions import Right, page, principal_of
from apps.dashboards import measured_panels, snapshots, views
from apps.sources.models import BusinessMetric, DataSource

STANDINGS = {"up": ("ok", "ok", "up"), "down": ("critical", "critical", "down")}
UNKNOWN = ("quiet", "pending", "not known yet")
OFF = ("quiet", "pause", "switched off")


@require_GET
@never_cache
@page(Right.READ)
def business(request: HttpRequest) -> HttpResponse:
    """What the application tells by events, and what queries say of the business."""
    who = principal_of(request)
    every = list(BusinessMetric.objects.visible_to(who.scope).select_related("source"))
    rows = sorted(every, key=lambda row: (not row.enabled, not row.error, row.name))
    shown = [row for row in every if row.enabled][: measured_panels.MOST]
    return views.shell(
        request,
        "business",
        "Business",
        "business",
        {"alerts": snapshots.alerts(scope=who.scope)},
        panels=measured_panels.BUSINESS,
        metrics=[{"row": row, "standing": _of_metric(row)} for row in rows],
        metric_panels=[measured_panels.panel_of(row) for row in shown],
        may_change=_may_change(request),
        with_range=True,
    )


@require_GET
@never_cache
@page(Right.READ)
def databases(request: HttpRequest) -> HttpResponse:
    """Databases and caches, the portal's own among them: are they up, and how do they do."""
    who = principal_of(request)
    rows = list(DataSource.objects.all().visible_to(who.scope))
    order = {"down": 0, "unknown": 1, "up": 2}
    rows.sort(key=lambda row: (not row.enabled, order[row.health], row.name))
    return views.shell(
        request,
        "databases",
        "Databases",
        "databases",
        {"alerts": snapshots.alerts(scope=who.scope)},
        sections=measured_panels.DATABASES,
        servers=[{"row": row, "standing": _of_source(row)} for row in rows],
        may_change=_may_change(request),
        with_range=True,
    )


def _of_source(row: DataSource) -> tuple[str, str, str]:
    """Return (tone, icon, word)."""
    return STANDINGS.get(row.health, UNKNOWN) if row.enabled else OFF


def _of_metric(row: BusinessMetric) -> tuple[str, str, str]:
    """Return (tone, icon, word)."""
    if not row.enabled:
        return OFF
    if row.error:
        return "critical", "critical", "failing"
    return ("ok", "ok", "fine") if row.last_good_at else UNKNOWN


def _may_change(request: HttpRequest) -> bool:
    is_staff = bool(getattr(request.user, "is_staff", False))
    return is_staff and principal_of(request).can(Right.ADMINISTER)
