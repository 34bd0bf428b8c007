"""Who tries to get in: failed log-ins, lock-outs, refusals, wrong tokens and log-ins from new places."""

from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from apps.accounts.models import AuditEntry
from apps.accounts.permissions import Right, page, principal_of
from apps.dashboards import snapshots, views
from apps.dashboards.panels import SECURITY

SHOWN: Final = 60
WORDS: Final = {
    "accounts.login_failed": ("Failed log-in", "warning"),
    "accounts.locked_out": ("Locked out", "critical"),
    "accounts.login_new_place": ("Log-in from a new place", "info"),
    "accounts.unlock": ("Unlocked", "quiet"),
    "accounts.issue_token": ("Token made", "quiet"),
    "accounts.revoke_token": ("Token revoked", "quiet"),
}


@require_GET
@never_cache
@page(Right.READ)
def security(request: HttpRequest) -> HttpResponse:
    """The charts are for everybody who reads; names and addresses for those who may read the audit trail."""
    who = principal_of(request)
    may_audit = who.can(Right.AUDIT) and not who.scope.matchers
    return views.shell(
        request,
        "security",
        "Security",
        "badge",
        {"alerts": snapshots.alerts(scope=who.scope)},
        panels=SECURITY,
        entries=events() if may_audit else [],
        may_audit=may_audit,
        with_range=True,
    )


def events() -> list[dict[str, Any]]:
    """Return the newest entries of the audit trail that are about getting in: when, what, who, from where."""
    rows = AuditEntry.objects.filter(verb__in=WORDS).order_by("-id")[:SHOWN]
    return [
        {
            "at": row.at,
            "what": WORDS[row.verb][0],
            "tone": WORDS[row.verb][1],
            "whom": row.target_label,
            "by": row.actor_name if row.actor_kind != "anonymous" else "",
            "address": row.address,
            "device": (row.after or {}).get("device", ""),
        }
        for row in rows
    ]
