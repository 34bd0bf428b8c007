"""What a query of somebody may cost: a row for each role, edited in the admin; tokens have one of their own."""

from dataclasses import replace
from time import monotonic
from typing import Final

from django.db import connection

from apps.accounts.rights import Principal
from apps.metrics.models import OF_TOKENS, QueryBudget
from apps.promql.limits import Limits

CACHED: Final = 5.0
"""Seconds for which a process goes by what it has read; an edit takes that long to reach all of them."""
BUDGETS: Final = ("series", "samples", "points", "seconds")
UNBUDGETED: Final = Limits(series=100_000, samples=30_000_000, points=2_000_000, seconds=30.0)
"""For whom no row is there. How much memory a query takes at once is the same for all (`Limits.held`, `cells`)."""

_known: dict[str, tuple[float, dict[str, Limits]]] = {}


def limits_for(principal: Principal) -> Limits:
    """What a query of theirs may cost: of several roles the largest of each number; the portal itself has no role."""
    rows = _by_role()
    roles = {OF_TOKENS} if principal.kind == "token" else principal.roles
    found = [rows[role] for role in sorted(roles) if role in rows]
    if not found:
        return UNBUDGETED
    return replace(UNBUDGETED, **{name: max(getattr(limits, name) for limits in found) for name in BUDGETS})


def _by_role() -> dict[str, Limits]:
    name = str(connection.settings_dict["NAME"])
    read, rows = _known.get(name, (float("-inf"), {}))
    if monotonic() - read >= CACHED:
        rows = {row.role: _limits(row) for row in QueryBudget.objects.all()}
        _known[name] = (monotonic(), rows)
    return rows


def _limits(row: QueryBudget) -> Limits:
    return replace(UNBUDGETED, series=row.series, samples=row.samples, points=row.points, seconds=float(row.seconds))


def forget() -> None:
    """Read the rows again on next use."""
    _known.clear()
