"""Asks the checks that are due and writes down how they stand, each as soon as it is known."""

from datetime import datetime, timedelta
from typing import Any, Final

from django.db import transaction

from apps.accounts.permissions import Principal
from apps.core import live
from apps.core.secrets import Undecryptable
from apps.core.telemetry import Counter, Reading
from apps.sources import probes, rounds
from apps.sources.models import Check, CheckChange
from apps.sources.probes import Found, Reach
from apps.sources.rounds import Rounds
from apps.sources.standing import Standing, is_change

BY: Final = Principal.system("sources.check")
THREADS: Final = 32
LEASE: Final = timedelta(seconds=30)
"""That a claim lasts beyond the check's own time-out."""
MOST_CHANGES: Final = 1_000
"""Changes that are kept of each check."""
HELP: Final = {
    "probe_success": "Whether the last try was all right.",
    "probe_duration_seconds": "Seconds that the last try took.",
    "check_up": "Whether the check is up; a failure that is not confirmed yet does not count.",
    "probe_ssl_earliest_cert_expiry": "When the certificate ends, in seconds since 1970.",
}
CHECKS: Final = Counter("portal_checks_total", "Checks that were asked, by outcome.", ("kind", "outcome"))


def rounds_of(threads: int = THREADS) -> Rounds:
    """Return the rounds of checks of this process."""
    return Rounds({Check: LEASE}, visit, threads)


def ask(check: Check) -> tuple[Found, float]:
    """Ask once and store nothing; return what was found and how many seconds it took."""
    try:
        secrets = dict(check.secrets or {})
    except Undecryptable as error:
        return Found(str(error)), 0.0
    return probes.run(check.kind, {**check.config, **secrets}, Reach(check.timeout, check.trusted))


def visit(check: Check, *, now: datetime) -> None:
    """Ask a claimed check and write down what was found."""
    found, seconds = ask(check)
    before = Standing(check.health, check.failures)
    after = before.after(failed=bool(found.reason), confirm=check.confirm)
    CHECKS.inc(kind=check.kind, outcome="failed" if found.reason else "passed")
    readings, shown = rounds.labelled(check, readings_of(found, seconds, after))
    with transaction.atomic():
        kept = rounds.finish(
            check,
            now=now,
            shown=shown,
            health=after.health,
            health_at=check.health_at if after.health == check.health else now,
            failures=after.failures,
            last_at=now,
            duration=timedelta(seconds=seconds),
            error=found.reason[:2000].replace("\0", ""),
            certificate=_certificate(found) if found.certificate or not found.reason else check.certificate,
        )
        if not kept:
            return
        if is_change(check.health, after.health):
            CheckChange.objects.create(check_row=check, at=now, health=after.health, reason=found.reason[:2000])
            _forget_old(check)
            live.publish("checks")
        live.publish("checks", check.pk)
        at = rounds.stamp_of(check, now)
        rounds.store(readings, rounds.gone(check.shown, shown), by=BY, at=at, now=now)


def readings_of(found: Found, seconds: float, after: Standing) -> list[Reading]:
    """Return the series of one round, without the check's labels."""
    own = [
        Reading("probe_success", float(not found.reason), help=HELP["probe_success"]),
        Reading("probe_duration_seconds", seconds, help=HELP["probe_duration_seconds"]),
        Reading("check_up", float(after.is_up), help=HELP["check_up"]),
    ]
    if found.certificate is not None:
        name = "probe_ssl_earliest_cert_expiry"
        own.append(Reading(name, found.certificate.not_after.timestamp(), help=HELP[name]))
    return [*own, *found.readings]


def end(check: Check, *, now: datetime) -> None:
    """End the series of a check that is asked no more."""
    rounds.end(check, by=BY, now=now)


def _certificate(found: Found) -> dict[str, Any] | None:
    if found.certificate is None:
        return None
    shown = found.certificate
    return {
        "subject": shown.subject,
        "issuer": shown.issuer,
        "names": list(shown.names),
        "not_after": shown.not_after.isoformat(),
    }


def _forget_old(check: Check) -> None:
    """Keep the newest changes of a check that comes and goes for ever."""
    old = CheckChange.objects.filter(check_row=check).order_by("-at", "-id")[MOST_CHANGES:]
    CheckChange.objects.filter(pk__in=[change.pk for change in old]).delete()


_rounds: Rounds | None = None


def check(*, now: datetime) -> None:
    """Claim what is due in this process."""
    global _rounds
    if _rounds is None:
        _rounds = rounds_of()
    _rounds.tick(now=now)
