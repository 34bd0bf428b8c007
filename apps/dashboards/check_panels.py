"""The charts of one check and of one heartbeat."""

from apps.accounts.permissions import Principal
from apps.dashboards.panels import Panel, Query
from apps.promql.text import quote
from apps.sources.models import Check, Heartbeat

NOTHING = "It was not asked in this time."


def panels_of_check(check: Check) -> tuple[Panel, ...]:
    """Return the charts of a check: was it up, and how long did each phase take."""
    own = f"{{check={quote(check.name)}}}"
    panels = [
        Panel(
            "check-up", "Up", "count",
            (Query(f"check_up{own}", "up"), Query(f"probe_success{own}", "last try")),
            ("checks",), maximum=1.0, empty=NOTHING,
        ),
        Panel(
            "check-duration", "Duration", "seconds", (Query(f"probe_duration_seconds{own}", "whole"),), ("checks",),
            empty=NOTHING,
        ),
    ]  # fmt: skip
    phases = {"http": "probe_http_duration_seconds", "tcp": "probe_tcp_duration_seconds",
              "postgres": "probe_postgres_duration_seconds"}  # fmt: skip
    if check.kind in phases:
        query = Query(f"sum by (phase) ({phases[check.kind]}{own})", "{phase}")
        panels.append(Panel("check-phases", "Phases", "seconds", (query,), ("checks",), stacked=True, empty=NOTHING))
    if check.kind == "celery":
        query = Query(f"max by (queue) (probe_celery_queue_length{own})", "{queue}")
        panels.append(Panel("check-queues", "Tasks that wait", "count", (query,), ("checks",), empty=NOTHING))
    if check.certificate:
        query = Query(f"(probe_ssl_earliest_cert_expiry{own} - time()) / 86400", "days left")
        panels.append(Panel("check-certificate", "Certificate", "days", (query,), ("checks",), empty=NOTHING))
    return tuple(panels)


def panels_of_heartbeat(beat: Heartbeat) -> tuple[Panel, ...]:
    """Return the charts of a heartbeat: was it up or late, and how long its runs took."""
    own = f"{{heartbeat={quote(beat.slug)}}}"
    up = (Query(f"heartbeat_up{own}", "up"), Query(f"heartbeat_late{own}", "late"))
    took = (Query(f"heartbeat_last_duration_seconds{own}", "last run"),)
    return (
        Panel("heartbeat-up", "Up", "count", up, ("checks",), maximum=1.0, empty="It has not called yet."),
        Panel(
            "heartbeat-duration", "How long runs take", "seconds", took, ("checks",),
            empty="No run was timed: a job that calls /start first is.",
        ),
    )  # fmt: skip


def panels_asked(who: Principal, check: str, beat: str) -> dict[str, Panel]:
    """Return the charts of the check or heartbeat whose numbers a page asks for; none that the person may not see."""
    panels: tuple[Panel, ...] = ()
    if check.isdecimal() and len(check) <= 18:
        found = Check.objects.filter(pk=int(check)).visible_to(who.scope).first()
        panels = panels_of_check(found) if found else ()
    elif beat.isdecimal() and len(beat) <= 18:
        other = Heartbeat.objects.filter(pk=int(beat)).visible_to(who.scope).first()
        panels = panels_of_heartbeat(other) if other else ()
    return {panel.key: panel for panel in panels}
