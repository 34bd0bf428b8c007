"""Prepares the database for this release: migrations, roles, shipped defaults, contacts from the environment, admin.

Runs at every start in one short-lived process; each step is idempotent, and an edited or deleted row stays as it is.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml
from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from apps.accounts import services as accounts
from apps.accounts.permissions import Principal
from apps.alerting import services as alerting
from apps.core.defaults import changes, write_once
from apps.dashboards import services as dashboards
from apps.metrics import services as metrics
from apps.notifications import services as notifications
from apps.oncall import services as oncall
from monitoring_portal import environment
from monitoring_portal.demo import story as demo

log = logging.getLogger(__name__)
Progress = Callable[[str], None]
BY = Principal.system("setup")


@dataclass(frozen=True)
class Prepared:
    """What the first start has to tell: the generated password (None on every later start) and the warnings."""

    admin_password: str | None
    warnings: tuple[str, ...] = ()


def prepare(progress: Progress) -> Prepared:
    """Bring the database to this release; `progress` is told each step in a few words."""
    now = timezone.now()
    migrate(progress)
    progress("Writing roles and shipped defaults")
    accounts.create_roles()
    load_defaults(now=now)
    accounts.bootstrap_token(value=settings.MONITORING_AUTH_TOKEN, by=BY, now=now)
    password = accounts.create_admin(now=now)
    if settings.DEMO:
        demo.write(progress, now=now, password=password)
    connection.close()
    warnings = [sentence for _, sentence in environment.PROBLEMS]
    warnings += notifications.environment_warnings()
    if changed := changed_defaults():
        warnings.append(f"{len(changed)} shipped defaults changed; `./portal manage defaults` shows the differences.")
    return Prepared(password, tuple(warnings))


def migrate(progress: Progress) -> None:
    """Apply what is not applied; nearly free when nothing is."""
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        progress(f"Applying {len(plan)} migrations")
        call_command("migrate", interactive=False, verbosity=0)


@cache
def read(name: str) -> list[dict[str, Any]]:
    """Return the rows of one file in fixtures/."""
    loaded = yaml.safe_load((Path(settings.BASE_DIR) / "fixtures" / f"{name}.yaml").read_text())
    if not isinstance(loaded, list):
        raise TypeError(f"fixtures/{name}.yaml must hold a list of rows.")
    return loaded


@dataclass(frozen=True)
class Shipment:
    """One file of shipped rows: how a row is recognised and written."""

    model: str
    file: str
    key: Callable[[Mapping[str, Any]], str]
    write: Callable[..., object]


def _by(field: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: str(row[field])


SHIPMENTS = (
    Shipment("metrics.RetentionPolicy", "retention", _by("category"), metrics.ship_retention),
    Shipment("metrics.CollectorSetting", "collectors", _by("kind"), metrics.ship_collector),
    Shipment("metrics.QueryBudget", "query_budgets", _by("role"), metrics.ship_query_budget),
    Shipment("alerting.RecordingRule", "recording_rules", _by("name"), alerting.ship_recording_rule),
    Shipment("alerting.AlertRule", "alert_rules", _by("slug"), alerting.ship_rule),
    Shipment("dashboards.Dashboard", "dashboards", _by("slug"), dashboards.ship_dashboard),
)


def load_defaults(*, now: datetime) -> None:
    """Write each shipped row whose natural key was never shipped before."""
    for shipment in SHIPMENTS:
        write = partial(shipment.write, by=BY, now=now)
        write_once(shipment.model, read(shipment.file), key=shipment.key, write=write, now=now)
    oncall.ship_defaults(read("oncall"), by=BY, now=now)


def changed_defaults() -> dict[str, str]:
    """Return the diff of each shipped row that this release would ship otherwise, by kind and key."""
    return {
        f"{shipment.model} {key}": diff
        for shipment in SHIPMENTS
        for key, diff in changes(shipment.model, read(shipment.file), key=shipment.key).items()
    }
