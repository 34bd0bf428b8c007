"""The verbs of checks: they are saved, deleted and asked at once.

Who may edit may say what is asked. Secrets and addresses of private networks are an administrator's: an editor who
changes what a check asks takes its way into private networks away with that, and cannot do so at all while it carries
secrets, which would go to the new address.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.rights import Forbidden, Principal, Right
from apps.core import live
from apps.core.registry import UnknownKind
from apps.core.secrets import merged, readable
from apps.core.tasks import wake
from apps.promql.text import IDENTIFIER
from apps.sources import checking
from apps.sources.models import Check
from apps.sources.probes import probes

STATE: Final = (
    "health", "health_at", "failures", "last_at", "duration", "error", "certificate", "shown", "due_at", "claim",
    "claimed_until",
)  # fmt: skip
"""What the portal writes down about a check: no part of its settings, and of no interest to the audit trail."""
RESERVED: Final = ("job", "check", "instance", "__name__")
MOST_LABELS: Final = 10


@verb("sources.save_check", right=Right.EDIT)
def save_check(*, by: Principal, check: Check, values: Mapping[str, Any], now: datetime) -> Check:
    """Write a new or changed check. `values` are the probe's settings, secrets among them: one that is left out, blank
    or masked stays, null removes it; so does a setting that is left out. A change asks anew, as if nothing were known.

    Raises ValidationError by field, Forbidden for what only an administrator may.
    """
    stored = Check.objects.select_for_update().filter(pk=check.pk).first() if check.pk else None
    before = None if stored is None else audited(stored)
    had = {} if stored is None else readable(stored)
    config, secrets, trusted = examine(by=by, check=check, values=values, stored=stored)
    is_other = stored is None or _asks(stored, had) != (check.kind, config, secrets, check.name, check.labels)
    check.config, check.secrets, check.trusted = config, secrets, trusted
    if stored is not None:
        for name in STATE:
            setattr(check, name, getattr(stored, name))
    check.claim = check.claimed_until = None
    check.due_at = now
    check.full_clean(exclude=["secrets"], validate_constraints=False)
    if stored is not None and (is_other or not check.enabled):
        checking.end(stored, now=now)
        _forget(check, now)
    check.save()
    if check.enabled:
        wake("sources.check")
    live.publish("checks")
    after = audited(check)
    if before is not None:
        before, after = changes(before, after)
        if secrets != had:
            after["secrets_changed"] = True
        if not (before or after):
            return check
    record(by=by, verb="sources.save_check", target=check, before=before, after=after)
    return check


def examine(
    *, by: Principal, check: Check, values: Mapping[str, Any], stored: Check | None = None
) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Return (settings to show, secrets, trusted) that a check would get; refuse what `save_check` would refuse."""
    stored = stored or (Check.objects.filter(pk=check.pk).first() if check.pk else None)
    had = {} if stored is None else readable(stored)
    config, secrets = cleaned(check, values, had)
    _check(check)
    return config, secrets, _trusted(by, check, config, stored, had, secrets)


def _asks(check: Check, secrets: Mapping[str, Any]) -> tuple[Any, ...]:
    return (check.kind, check.config, dict(secrets), check.name, check.labels)


def _forget(check: Check, now: datetime) -> None:
    """What is asked is something else, or nothing: what was known of it does not hold any more."""
    check.health, check.health_at, check.failures, check.error = "unknown", now, 0, ""
    check.certificate, check.shown = None, []


def cleaned(check: Check, values: Mapping[str, Any], had: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (settings to show, secrets) as the probe's form cleans them. Raises ValidationError by field."""
    try:
        probe = probes.get(check.kind)
    except UnknownKind as error:
        raise ValidationError({"kind": str(error)}) from None
    fields = probe.Config.base_fields
    if unknown := sorted(set(values) - set(fields)):
        raise ValidationError(
            {unknown[0]: f"A check of kind {check.kind} has no such setting; it has {', '.join(fields)}."}
        )
    secret = {name: value for name, value in values.items() if name in probe.secrets}
    plain = {name: value for name, value in values.items() if name not in probe.secrets}
    initial = {name: field.initial for name, field in fields.items()}
    given = {**initial, **check.config, **plain, **merged(had, secret)}
    form = probe.Config(given)
    if not form.is_valid():
        raise ValidationError(form.errors.as_data())
    found = form.cleaned_data
    shown = {name: value for name, value in found.items() if name not in probe.secrets}
    return shown, {name: found[name] for name in probe.secrets if found.get(name)}


def _trusted(
    by: Principal,
    check: Check,
    config: Mapping[str, Any],
    stored: Check | None,
    had: Mapping[str, Any],
    secrets: Mapping[str, Any],
) -> bool:
    """Whether private networks are open to the check. Raises Forbidden for what only an administrator may."""
    if by.can(Right.ADMINISTER):
        return True
    if secrets != had:
        raise Forbidden("Secrets of a check are an administrator's to set.")
    is_same = stored is not None and (stored.kind, stored.config) == (check.kind, config)
    if not is_same and secrets:
        raise Forbidden("This check carries secrets, which would go to the new address: an administrator can do that.")
    return stored is not None and stored.trusted and is_same


def _check(check: Check) -> None:
    """Raise ValidationError, by field, for what the fields themselves do not see."""
    problems: dict[str, str] = {}
    if problem := label_problem(check.labels, reserved=RESERVED):
        problems["labels"] = problem
    if not timedelta(seconds=5) <= check.interval <= timedelta(days=1):
        problems["interval"] = "From 5 seconds to a day."
    elif not timedelta(seconds=1) <= check.timeout <= min(check.interval, timedelta(minutes=2)):
        problems["timeout"] = "From a second to as long as the interval, at most two minutes."
    if problems:
        raise ValidationError(problems)


def label_problem(labels: object, *, reserved: Collection[str]) -> str:
    """Return what is wrong with the labels that somebody gives to series, or nothing."""
    if not isinstance(labels, dict) or len(labels) > MOST_LABELS:
        return f"At most {MOST_LABELS} labels: a name and a text each."
    for name, value in labels.items():
        if name in reserved or not IDENTIFIER.fullmatch(str(name)) or str(name).startswith("__"):
            return f"{str(name)[:60]!r} is taken or no name of a label."
        if not isinstance(value, str) or not 0 < len(value) <= 200 or "\0" in value:
            return f"The label {name} is a text of 1 to 200 characters."
    return ""


def audited(check: Check) -> dict[str, Any]:
    """The check for the audit trail: secrets masked, how it stands left out."""
    check.secrets = readable(check)
    state = state_of(check)
    return {name: value for name, value in state.items() if name not in STATE}


@verb("sources.delete_check", right=Right.EDIT)
def delete_check(*, by: Principal, check: Check, now: datetime) -> None:
    """Delete a check: its series end, what is stored of them stays."""
    before = audited(check)
    target = (check._meta.label_lower, str(check.pk), check.name)
    checking.end(check, now=now)
    live.publish("checks")
    check.delete()
    record(by=by, verb="sources.delete_check", target=target, before=before)


@verb("sources.check_now", right=Right.OPERATE)
def check_now(*, by: Principal, check: Check, now: datetime) -> None:
    """Have it asked at once; what was found stands on the check within seconds."""
    if not check.enabled:
        raise ValidationError(f"{check.name} is switched off: switch it on to have it asked.")
    Check.objects.filter(pk=check.pk).update(due_at=now)
    wake("sources.check")
    record(by=by, verb="sources.check_now", target=check)
