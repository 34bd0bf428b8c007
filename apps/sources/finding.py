"""Asks the files and addresses that list targets, each when it is due; what was found last stays where one fails."""

import glob
import logging
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from apps.core import http
from apps.sources import plans, services
from apps.sources.discovery import MOST_BYTES, BadGroups, Group, read_groups
from apps.sources.models import ScrapeJob

log = logging.getLogger(__name__)

MOST_FILES: Final = 1_000
SECONDS: Final = 10.0


def discover(*, now: datetime) -> int:
    """Ask what is due and bring the targets of those jobs up to date; return how many jobs that were."""
    count = 0
    for job in ScrapeJob.objects.filter(enabled=True).exclude(file_sd=[], http_sd=[]):
        due = [place for place in _places(job) if _is_due(job, place[0], place[1], now)]
        if due:
            count += 1
            try:
                _refresh(job, due, now)
            except Exception:  # one job that cannot be brought up to date must not keep the others from it
                log.exception("The targets of the job %s could not be brought up to date", job.name)
    return count


def _places(job: ScrapeJob) -> Iterator[tuple[str, float, str]]:
    """(name, seconds between looks, file pattern or address) of everything that lists targets of the job."""
    for entry in job.file_sd:
        for name in entry["files"]:
            yield f"file {name}", float(entry.get("refresh_interval", 30)), name
    for entry in job.http_sd:
        yield f"http {entry['url']}", float(entry.get("refresh_interval", 60)), entry["url"]


def _is_due(job: ScrapeJob, place: str, every: float, now: datetime) -> bool:
    found = job.discovered.get(place)
    return found is None or now.timestamp() - float(found.get("at", 0)) >= every - 0.5


def _refresh(job: ScrapeJob, due: list[tuple[str, float, str]], now: datetime) -> None:
    plan = plans.plan_of(job)
    discovered = dict(job.discovered)
    for place, _, what in due:
        found: dict[str, Any] = {**discovered.get(place, {}), "at": now.timestamp(), "error": ""}
        try:
            groups = _from_files(what) if place.startswith("file ") else _from_address(plan, what)
            found["groups"] = [{"targets": one.targets, "labels": one.labels, "source": one.source} for one in groups]
        except (BadGroups, http.OutboundError, OSError, ValueError) as error:
            found["error"] = f"{what}: {error}"[:500]
        discovered[place] = found
    problems = [found["error"] for found in discovered.values() if found.get("error")]
    job.discovered = discovered
    problems += services.sync(job=job, now=now)
    ScrapeJob.objects.filter(pk=job.pk, version=job.version).update(
        discovered=discovered, problem="\n".join(problems)[:4000]
    )


def _from_files(pattern: str) -> list[Group]:
    names = sorted(glob.glob(pattern))[:MOST_FILES]  # noqa: PTH207 - Path.glob takes no absolute pattern
    if not names and not glob.has_magic(pattern):
        raise BadGroups("there is no such file")
    groups: list[Group] = []
    for name in names:
        path = Path(name)
        if path.stat().st_size > MOST_BYTES:
            raise BadGroups(f"{name} is larger than {MOST_BYTES} bytes")
        extra: Mapping[str, str] = {"__meta_filepath": name}
        groups += read_groups(path.read_bytes(), f"file {name}", extra, is_yaml=path.suffix != ".json")
    return groups


def _from_address(plan: plans.Plan, url: str) -> list[Group]:
    if plan.problem:
        raise BadGroups(plan.problem)
    line = http.Line(allow_private=plan.job.trusted, allow_loopback=plan.job.trusted)
    try:
        answer = line.ask(
            url,
            headers={
                "accept": "application/json",
                "accept-encoding": "gzip",
                "x-prometheus-refresh-interval-seconds": "60",
            },
            timeout=SECONDS,
            max_bytes=MOST_BYTES,
        )
    finally:
        line.close()
    if answer.status != 200:
        raise BadGroups(f"it answered with HTTP status {answer.status}")
    return read_groups(answer.content, f"http {url}", {"__meta_url": url})
