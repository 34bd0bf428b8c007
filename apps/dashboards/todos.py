"""What somebody should see to, for the first page of the admin: most urgent first, each with the page where it is done.

Each question is one query or two, whatever there is of it; only what the reader may see is asked.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from axes.models import AccessAttempt
from django.conf import settings
from django.db import connection
from django.db.models import DateTimeField
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast
from django.urls import reverse

from apps.accounts.models import Token
from apps.accounts.permissions import Principal, Right
from apps.alerting.models import AlertRule
from apps.core.models import Shipped
from apps.core.registry import extensions
from apps.metrics.models import Tombstone
from apps.notifications.models import Delivery, MessageTemplate
from apps.oncall import coverage
from apps.oncall.reachability import Reachability
from apps.sources.models import Check, LogDeletion, ScrapeJob

SOON: Final = timedelta(days=14)
"""How long before its end a token or a certificate is named."""
LATELY: Final = timedelta(days=1)
NAMED: Final = 5
Row = dict[str, Any]


def todos(who: Principal, active: Row, reach: Reachability, *, now: datetime) -> list[Row]:
    """Return {"text", "url"} of all that is left to do."""
    found = [*_contacts(reach), *({"text": text, "url": reverse("oncall")} for text in coverage.problems()[:NAMED])]
    unowned = sum(not row["acknowledged_by"] for row in active["rows"])
    if unowned:
        words = _counted(unowned, "active alert is", "active alerts are")
        found.append({"text": f"{words} not acknowledged.", "url": reverse("alerts")})
    for ask in QUESTIONS:
        found += ask(who, now)
    return found


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _list(name: str, query: str = "") -> str:
    return reverse(f"admin:{name}_changelist") + (f"?{query}" if query else "")


def _contacts(reach: Reachability) -> Iterator[Row]:
    url = _list("notifications_contact")
    if not reach.ok:
        yield {"text": reach.sentence, "url": url}
        return
    for name, problem in reach.broken[:NAMED]:
        yield {"text": f"The contact {name} does not work: {problem}", "url": url}


def _deliveries(who: Principal, now: datetime) -> Iterator[Row]:
    failed = Delivery.objects.filter(state="failed", finished_at__gte=now - LATELY).count()
    if failed:
        words = _counted(failed, "message", "messages")
        url = _list("notifications_delivery", "state__exact=failed")
        yield {"text": f"{words} of the last day failed for good: send them again or mend the contact.", "url": url}


# A rule whose levels compare with thresholds sees every value of its expression, also while nothing is wrong. One whose
# expression compares for itself has no series while all is well, and the shipped ones wait for what is not there yet.
BLIND = """
SELECT count(*) FILTER (WHERE line.value ? 'error'),
       count(*) FILTER (WHERE NOT line.value ? 'error' AND coalesce((line.value ->> 'series')::int, 0) = 0 AND EXISTS (
           SELECT 1 FROM alerting_rulelevel l WHERE l.rule_id = rule.id AND l.threshold IS NOT NULL) AND NOT EXISTS (
           SELECT 1 FROM core_shipped s WHERE s.model = 'alerting.AlertRule' AND s.key = rule.slug))
  FROM alerting_grouprun run
  JOIN alerting_rulegroup grp ON grp.id = run.group_id AND grp.enabled
 CROSS JOIN LATERAL jsonb_each(coalesce(run.results -> 'rules', '{}')) line
  JOIN alerting_alertrule rule ON rule.id = line.key::bigint AND rule.enabled
"""


def _rules(who: Principal, now: datetime) -> Iterator[Row]:
    url = _list("alerting_alertrule", "enabled__exact=1")
    with connection.cursor() as cursor:
        cursor.execute(BLIND)
        failing, blind = cursor.fetchone() or (0, 0)
    if failing:
        yield {"text": f"{_counted(failing, 'rule', 'rules')} could not be evaluated the last time.", "url": url}
    if blind:
        words = _counted(blind, "rule of your own finds", "rules of your own find")
        yield {"text": f"{words} no series: what they watch may be gone.", "url": f"{reverse('alerts')}?tab=rules"}
    silent = AlertRule.objects.filter(enabled=True, runbook="").count()
    if silent:
        words = _counted(silent, "rule has", "rules have")
        text = f"{words} no runbook: whoever is paged must guess what to do."
        yield {"text": text, "url": f"{url}&runbook__isempty=1"}
    due = AlertRule.objects.filter(enabled=True, review_on__lte=now.date()).count()
    if due:
        words = _counted(due, "rule is", "rules are")
        yield {"text": f"{words} due to be reviewed.", "url": f"{reverse('alerts')}?tab=hygiene"}


def _tokens(who: Principal, now: datetime) -> Iterator[Row]:
    if not who.can(Right.ADMINISTER):
        return
    ending = Token.objects.filter(revoked_at=None, expires_at__gt=now, expires_at__lte=now + SOON).count()
    if ending:
        words = _counted(ending, "token expires", "tokens expire")
        url = _list("accounts_token", "revoked_at__isempty=1&o=6")
        text = f"{words} within {SOON.days} days: issue others before the programs that use them stop."
        yield {"text": text, "url": url}


def _certificates(who: Principal, now: datetime) -> Iterator[Row]:
    end = Cast(KeyTextTransform("not_after", "certificate"), DateTimeField())
    ending = Check.objects.filter(enabled=True).alias(end=end).filter(end__lte=now + SOON).count()
    if ending:
        words = _counted(ending, "certificate ends", "certificates end")
        yield {"text": f"{words} within {SOON.days} days.", "url": f"{reverse('checks')}?tab=certificates"}


def _locked_out(who: Principal, now: datetime) -> Iterator[Row]:
    if not who.can(Right.ADMINISTER):
        return
    since = now - settings.AXES_COOLOFF_TIME
    tries = AccessAttempt.objects.filter(attempt_time__gte=since, failures_since_start__gte=settings.AXES_FAILURE_LIMIT)
    names = list(tries.order_by("username").values_list("username", flat=True).distinct()[: NAMED + 1])
    if names:
        more = " and others" if len(names) > NAMED else ""
        text = f"Locked out after failed log-ins: {', '.join(names[:NAMED])}{more}. The action Unlock lets them in."
        yield {"text": text, "url": _list("accounts_user", f"q={names[0]}")}


def _sources(who: Principal, now: datetime) -> Iterator[Row]:
    jobs = ScrapeJob.objects.filter(enabled=True).exclude(problem="").order_by("name")
    for name, problem in jobs.values_list("name", "problem")[:NAMED]:
        yield {"text": f"The targets of {name} cannot be found: {problem}", "url": _list("sources_scrapejob")}


def _templates(who: Principal, now: datetime) -> Iterator[Row]:
    broken = MessageTemplate.objects.filter(enabled=True).exclude(problem="").order_by("name")
    for name, problem in broken.values_list("name", "problem")[:NAMED]:
        url = _list("notifications_messagetemplate")
        yield {"text": f"The message template {name} could not be used: {problem}", "url": url}


def _deletions(who: Principal, now: datetime) -> Iterator[Row]:
    late = Tombstone.objects.filter(applied_at=None, created_at__lt=now - LATELY).count()
    if late:
        words = _counted(late, "deletion of series is", "deletions of series are")
        text = f"{words} not out of the stored rows after a day."
        yield {"text": text, "url": _list("metrics_tombstone", "applied_at__isempty=1")}
    late = LogDeletion.objects.filter(applied_at=None, created_at__lt=now - LATELY).count()
    if late:
        words = _counted(late, "deletion of log records is", "deletions of log records are")
        yield {
            "text": f"{words} not done after a day, and no log record is packed until then.",
            "url": _list("sources_logdeletion", "applied_at__isempty=1"),
        }


def _defaults(who: Principal, now: datetime) -> Iterator[Row]:
    """The wiring knows what is shipped: `extend(Shipped, "changed", f)`, f returns the differences by name."""
    if not who.can(Right.ADMINISTER):
        return
    changed = sum(len(ask()) for ask in extensions(Shipped, "changed"))
    if changed:
        words = _counted(changed, "shipped default has", "shipped defaults have")
        text = f"{words} changed with this release: `./portal manage defaults` shows how."
        yield {"text": text, "url": _list("core_shipped")}


QUESTIONS: tuple[Callable[[Principal, datetime], Iterator[Row]], ...] = (
    _deliveries, _locked_out, _sources, _certificates, _tokens, _templates, _rules, _deletions, _defaults,
)  # fmt: skip
