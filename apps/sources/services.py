"""The verbs of sources: jobs are saved, deleted and taken over from a prometheus.yml; targets are asked at once.

Who may edit may say what is scraped and how. Secrets, files of this machine and addresses of private networks are an
administrator's: an editor who changes the addresses of a job takes its way into private networks away with that, and
cannot do so at all while the job carries secrets, which would go to the new addresses.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.db import transaction

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.rights import Forbidden, Principal, Right
from apps.core import live
from apps.core.http import Tls, context_of
from apps.core.secrets import merged, readable
from apps.core.tasks import wake
from apps.promql.text import IDENTIFIER
from apps.sources import schedule
from apps.sources.discovery import MOST_TIMEOUT, BadGroups, Group, How, Target, groups_of, targets_of
from apps.sources.models import ScrapeJob, ScrapeTarget
from apps.sources.relabel import BadRule, parse
from apps.sources.scrapeconfigs import Read

SECRETS: Final = ("credential", "client_key")
"""What a job keeps encrypted: password, token or header value; the key of its client certificate."""
WHERE: Final = (
    "targets",
    "file_sd",
    "http_sd",
    "scheme",
    "metrics_path",
    "params",
    "relabel",
    "insecure",
    "ca",
    "server_name",
)
"""Settings that decide where the portal goes, and whom it believes."""
FILES: Final = (".json", ".yml", ".yaml")


@verb("sources.save_job", right=Right.EDIT)
def save_job(
    *, by: Principal, job: ScrapeJob, now: datetime, secrets: Mapping[str, str | None] | None = None
) -> ScrapeJob:
    """Make or change a job. A secret that is absent, blank or masked stays; None removes it.

    Wrong values are a ValidationError by field; what only an administrator may is Forbidden.
    """
    stored = ScrapeJob.objects.select_for_update(no_key=True).filter(pk=job.pk).first() if job.pk else None
    before = None if stored is None else audited(stored)
    had = {} if stored is None else readable(stored)
    kept = _merged(had, secrets or {})
    _check(job, kept)
    job.trusted = _trusted(by, job, stored, had, kept)
    job.secrets = kept
    job.version = (0 if stored is None else stored.version) + 1
    if stored is not None:
        job.discovered, job.problem = _still_wanted(job, stored.discovered), stored.problem
    job.full_clean(exclude=["secrets"], validate_constraints=False)
    job.save()
    sync(job=job, now=now)
    after = audited(job)
    if before is not None:
        before, after = changes(before, after)
        before.pop("version", None)
        after.pop("version", None)
        if kept != had:
            after["secrets_changed"] = True
        if not (before or after):
            return job
    record(by=by, verb="sources.save_job", target=job, before=before, after=after)
    return job


def check(*, who: Principal, job: ScrapeJob, stored: ScrapeJob | None, secrets: Mapping[str, str | None]) -> None:
    """Refuse what `save_job` would refuse, for a form that shows it first. Raises ValidationError, Forbidden."""
    had = {} if stored is None else readable(stored)
    kept = _merged(had, secrets)
    _check(job, kept)
    _trusted(who, job, stored, had, kept)


def _trusted(
    by: Principal, job: ScrapeJob, stored: ScrapeJob | None, had: Mapping[str, str], kept: Mapping[str, str]
) -> bool:
    """Whether private networks are open to the job. Raises Forbidden for what only an administrator may."""
    if by.can(Right.ADMINISTER):
        return True
    if kept != had:
        raise Forbidden("Secrets of a job are an administrator's to set.")
    if job.file_sd != ([] if stored is None else stored.file_sd):
        raise Forbidden("Which files of this machine list targets is an administrator's to set.")
    moved = stored is None or any(getattr(job, name) != getattr(stored, name) for name in WHERE)
    if moved and kept:
        raise Forbidden("This job carries secrets, which would go to the new addresses: an administrator can do that.")
    return stored is not None and stored.trusted and not moved


def _merged(had: Mapping[str, str], given: Mapping[str, str | None]) -> dict[str, str]:
    if unknown := sorted(set(given) - set(SECRETS)):
        raise ValidationError({unknown[0]: f"A job has no such secret; it has {', '.join(SECRETS)}."})
    return merged(had, given)


def audited(job: ScrapeJob) -> dict[str, Any]:
    """The job for the audit trail: secrets masked, what discovery found left out."""
    job.secrets = readable(job)
    state = state_of(job)
    del state["discovered"]
    return state


def _check(job: ScrapeJob, secrets: Mapping[str, str]) -> None:
    """Raise ValidationError, by field, for what the fields themselves do not see."""
    problems: dict[str, str] = {}

    def attempt(name: str, check: Any) -> None:
        try:
            check()
        except (BadRule, BadGroups, ValueError) as error:
            text = str(error)
            problems.setdefault(name, f"{text[:1].upper()}{text[1:].rstrip('.')}.")

    attempt("targets", lambda: groups_of(job.targets, "static"))
    attempt("relabel", lambda: parse(job.relabel))
    attempt("metric_relabel", lambda: parse(job.metric_relabel))
    attempt("file_sd", lambda: _check_files(job.file_sd))
    attempt("http_sd", lambda: _check_urls(job.http_sd))
    attempt("params", lambda: _check_params(job.params))
    attempt("ca", lambda: context_of(Tls(ca=job.ca)))
    if job.certificate or secrets.get("client_key"):
        own = Tls(certificate=job.certificate, key=secrets.get("client_key", ""))
        attempt("certificate", lambda: context_of(own))
    if job.auth != "none" and not secrets.get("credential"):
        problems["auth"] = "Give the password, token or value that goes with it."
    if job.auth == "header" and not job.auth_name.replace("-", "").isalnum():
        problems["auth_name"] = "Give the name of the header, such as X-Api-Key."
    value = secrets.get("credential", "")
    if not value.isprintable() or (job.auth != "basic" and not value.isascii()) or "\n" in job.auth_name:
        problems["auth"] = "A header cannot carry line breaks and other signs that are not printed."
    if not timedelta(0) < job.timeout <= min(job.interval, MOST_TIMEOUT):
        problems["timeout"] = "The time-out can be as long as the interval, at most two minutes."
    for name in ("params", "relabel", "metric_relabel", "file_sd", "http_sd"):
        if "\\u0000" in (text := json.dumps(getattr(job, name))) or "\\ud8" in text:
            problems.setdefault(name, "It holds a NUL or half a surrogate pair.")
    if not timedelta(seconds=1) <= job.interval <= timedelta(days=1):
        problems["interval"] = "From a second to a day."
    if problems:
        raise ValidationError(problems)


def _check_files(listed: object) -> None:
    for entry in _entries(listed, "files"):
        files = entry["files"]
        if not isinstance(files, list) or not files:
            raise ValueError("files is a list of names or patterns")
        for name in files:
            path = PurePath(str(name))
            if not path.is_absolute() or path.suffix not in FILES or ".." in path.parts:
                raise ValueError(f"{str(name)[:100]}: a file is named from the root and ends in {', '.join(FILES)}")


def _check_urls(listed: object) -> None:
    for entry in _entries(listed, "url"):
        if not str(entry["url"]).startswith(("http://", "https://")):
            raise ValueError("url is an address that begins with http:// or https://")


def _entries(listed: object, needed: str) -> list[dict[str, Any]]:
    if not isinstance(listed, list) or len(listed) > 50:
        raise ValueError("this is a list of at most 50 entries")
    for entry in listed:
        if not isinstance(entry, dict) or needed not in entry or set(entry) - {needed, "refresh_interval"}:
            raise ValueError(f"each entry has {needed} and, if wanted, refresh_interval in seconds")
        every = entry.get("refresh_interval", 60)
        if not isinstance(every, (int, float)) or isinstance(every, bool) or not 5 <= every <= 86_400:
            raise ValueError("refresh_interval is a number of seconds from 5 to 86400")
    return listed


def _check_params(params: object) -> None:
    if not isinstance(params, dict) or not all(
        isinstance(name, str)
        and IDENTIFIER.match(name.replace("-", "_").replace("[]", ""))
        and isinstance(values, list)
        and all(isinstance(value, str) for value in values)
        for name, values in params.items()
    ):
        raise ValueError('parameters are names with lists of texts, such as {"module": ["ping"]}')


def _still_wanted(job: ScrapeJob, discovered: Mapping[str, Any]) -> dict[str, Any]:
    """What discovery has found, of the places that are still asked."""
    wanted = {f"http {entry['url']}" for entry in job.http_sd}
    wanted |= {f"file {name}" for entry in job.file_sd for name in entry["files"]}
    return {place: found for place, found in discovered.items() if place in wanted}


# --- Targets --------------------------------------------------------------------------------------------------------
def groups_found(job: ScrapeJob) -> list[Group]:
    """Every group of a job: written in it, and discovered."""
    groups = groups_of(job.targets, "static")
    for found in job.discovered.values():
        groups += [Group(tuple(one["targets"]), one["labels"], one["source"]) for one in found.get("groups", ())]
    return groups


def how_of(job: ScrapeJob) -> How:
    """What of the job becomes labels of its targets."""
    return How(job.name, job.scheme, job.metrics_path, job.params, job.interval, job.timeout)


def sync(*, job: ScrapeJob, now: datetime) -> list[str]:
    """Make the rows of the job's targets what they should be; return what is wrong with some addresses.

    New ones are due at their next tick but asked once at the next second, so that a new target shows at once. One that
    is gone, or whose job is switched off, is ended: its process marks its series and deletes the row.
    """
    wanted: dict[str, Target] = {}
    problems: list[str] = []
    if job.enabled:
        found, problems = targets_of(how_of(job), parse(job.relabel), groups_found(job))
        wanted = {target.key: target for target in found}
    with transaction.atomic():
        rows = {row.key: row for row in ScrapeTarget.objects.select_for_update().filter(job=job, ended=False)}
        gone = [row.pk for key, row in rows.items() if key not in wanted]
        ScrapeTarget.objects.filter(pk__in=gone, dropped=True).delete()
        _end(ScrapeTarget.objects.filter(pk__in=gone), now)
        new = [key for key in wanted if key not in rows]
        # One that left a moment ago and comes back takes its row, and what is known of its series, again.
        back = {row.key: row for row in ScrapeTarget.objects.filter(job=job, ended=True, key__in=new)}
        for key in new:
            _write(back.get(key) or ScrapeTarget(job=job, key=key), wanted[key], due=now, is_known=key in back)
        for key, row in rows.items():
            if key in wanted and _differs(row, wanted[key]):
                due = schedule.tick_after(key, wanted[key].interval, now)
                _write(row, wanted[key], due=due, is_known=True)
    if new or gone:
        live.publish("targets")
        wake("sources.scrape")
    return problems


def _write(row: ScrapeTarget, target: Target, *, due: datetime, is_known: bool) -> None:
    row.url, row.labels, row.discovered = target.url, dict(target.labels), dict(target.discovered)
    row.source, row.interval, row.timeout = target.source[:500], target.interval, target.timeout
    row.dropped, row.ended, row.due_at = target.dropped, False, None if target.dropped else due
    changed = ["url", "labels", "discovered", "source", "interval", "timeout", "dropped", "ended", "due_at"]
    row.save(update_fields=changed if is_known else None)


def _differs(row: ScrapeTarget, target: Target) -> bool:
    return (row.interval, row.timeout, row.discovered, row.source) != (
        target.interval,
        target.timeout,
        dict(target.discovered),
        target.source[:500],
    )


def _end(targets: Any, now: datetime) -> None:
    targets.update(ended=True, due_at=now)


@verb("sources.delete_job", right=Right.EDIT)
def delete_job(*, by: Principal, job: ScrapeJob, now: datetime) -> None:
    """Delete a job; its targets' series are marked as ended within seconds, what is stored stays."""
    before, target = audited(job), (job._meta.label_lower, str(job.pk), job.name)
    rows = ScrapeTarget.objects.filter(job=job)
    rows.filter(dropped=True).delete()
    _end(rows, now)
    rows.update(job=None)
    job.delete()
    live.publish("targets")
    wake("sources.scrape")
    record(by=by, verb="sources.delete_job", target=target, before=before)


@verb("sources.scrape_now", right=Right.OPERATE)
def scrape_now(*, by: Principal, target: ScrapeTarget, now: datetime) -> None:
    """Have a target scraped at once, and what it shows stored; what becomes of it stands on the target in seconds."""
    if not ScrapeTarget.objects.active().filter(pk=target.pk).update(due_at=now):
        raise ValidationError("This target is not scraped: it was dropped by relabelling, or taken out of its job.")
    wake("sources.scrape")
    record(by=by, verb="sources.scrape_now", target=target)


# --- Import ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Imported:
    """What an import did, or would do: (action, job, what differs) in the order of the file, and what was left out."""

    changes: tuple[tuple[str, str, tuple[str, ...]], ...]
    notes: tuple[str, ...]
    dry_run: bool


@verb("sources.import_jobs", right=Right.ADMINISTER)
def import_jobs(*, by: Principal, read: Read, now: datetime, dry_run: bool = False) -> Imported:
    """Take over scrape_configs: jobs by name, all or nothing. Twice changes nothing; jobs not in it stay.

    Raises ValidationError, by job, for what cannot be taken.
    """
    done: list[tuple[str, str, tuple[str, ...]]] = []
    problems: list[str] = []
    with transaction.atomic():
        for values, secrets in zip(read.jobs, read.secrets, strict=True):
            try:
                done.append(_import_one(by, values, secrets, now))
            except ValidationError as error:
                told = error.message_dict if hasattr(error, "error_dict") else {"job": error.messages}
                problems += [f"{values['name']}: {name}: {' '.join(texts)}" for name, texts in told.items()]
        if problems:
            raise ValidationError({"jobs": problems})
        transaction.set_rollback(dry_run)
    counts = {action: sum(one[0] == action for one in done) for action in ("new", "changed", "unchanged")}
    record(
        by=by,
        verb="sources.import_jobs",
        target=("sources.scrapejob", "", "prometheus.yml"),
        after={**counts, "left_out": len(read.notes), "dry_run": dry_run},
    )
    return Imported(tuple(done), tuple(read.notes), dry_run)


def _import_one(
    by: Principal, values: Mapping[str, Any], secrets: Mapping[str, str], now: datetime
) -> tuple[str, str, tuple[str, ...]]:
    stored = ScrapeJob.objects.filter(name=values["name"]).first()
    is_new, job = stored is None, stored or ScrapeJob()
    different = [name for name, value in values.items() if getattr(job, name) != value]
    had = {} if is_new else readable(job)
    if not is_new and _merged(had, secrets) != had:
        different.append("secrets")
    if not is_new and not different:
        return "unchanged", values["name"], ()
    for name, value in values.items():
        setattr(job, name, value)
    save_job(by=by, job=job, now=now, secrets=secrets)
    return ("new" if is_new else "changed"), job.name, () if is_new else tuple(different)
