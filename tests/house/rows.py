"""Makes rows of any model of the house, so that the walks need no list of factories.

Fields without a default are filled by their type; OVERRIDES says what a constraint wants beyond that.
"""

import itertools
import uuid
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from django.apps import apps
from django.contrib.auth.models import Group
from django.db import connection, models

from apps.sources.logs.search import Wanted

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY = timedelta(days=1)
MATCHERS = [{"name": "service", "value": "db", "isRegex": False, "isEqual": True}]
_numbers = itertools.count(1)

OVERRIDES: dict[str, Callable[[int], dict[str, Any]]] = {
    "accounts.calendar": lambda n: {"zone": "Europe/Berlin"},
    "accounts.token": lambda n: {"scopes": ["read"], "digest": f"{n:064x}"},
    "alerting.adaptiveband": lambda n: {"rule": make("alerting.alertrule"), "slug": f"band-{n}"},
    "alerting.alert": lambda n: {
        "state": "firing", "fired_at": AT, "incident": make("alerting.incident"), "rule": make("alerting.alertrule"),
        "fingerprint": n.to_bytes(16, "big"), "severity": "warning", "category": "system",
    },
    "alerting.incident": lambda n: {"state": "open"},
    "alerting.ruletest": lambda n: {"rule": make("alerting.alertrule")},
    "alerting.silence": lambda n: {"matchers": MATCHERS, "starts_at": AT, "ends_at": AT + DAY * n, "duration": None},
    "alerting.maintenancewindow": lambda n: {
        "matchers": MATCHERS, "starts_at": AT, "ends_at": AT + DAY * n, "duration": None,
    },
    "alerting.inhibition": lambda n: {"source_matchers": MATCHERS, "target_matchers": MATCHERS},
    "metrics.block": lambda n: {"level": 0, "resolution": 0, "window": n, "t_min": n, "t_max": n},
    "notifications.messagetemplate": lambda n: {"title": "{{ name }}", "enabled": False},
    "notifications.quiethours": lambda n: {"zone": "Europe/Berlin"},
    "oncall.override": lambda n: {"starts_at": AT, "ends_at": AT + DAY},
    "oncall.schedule": lambda n: {"zone": "Europe/Berlin"},
    "oncall.escalation": lambda n: {"due_at": AT},
    "metrics.metric": lambda n: {"type": "gauge"},
    "sources.scrapetarget": lambda n: {"job": make("sources.scrapejob"), "key": f"{n:032x}", "due_at": AT},
    "sources.check": lambda n: {"kind": "tcp", "config": {"address": "db.example:5432"}},
    "sources.heartbeat": lambda n: {"zone": "Europe/Berlin"},
    "sources.datasource": lambda n: {
        "kind": "redis", "address": "127.0.0.1:1", "timeout": timedelta(seconds=1), "interval": timedelta(seconds=30),
    },
    "sources.businessmetric": lambda n: {
        "source": make("sources.datasource", kind="postgres", user="u", database="d"), "query": "SELECT 1 AS value",
        "timeout": timedelta(seconds=1), "interval": timedelta(seconds=30), "type": "gauge",
    },
    "sources.site": lambda n: {"origins": ["https://shop.example"], "key": f"key-{n}"},
    "sources.logdeletion": lambda n: {"wanted": asdict(Wanted(0, n))},
    "sources.logrun": lambda n: {"t_min": n, "t_max": n, "templates": [n]},
    "sources.scrapejob": lambda n: {"interval": timedelta(seconds=30), "timeout": timedelta(seconds=10)},
    "dashboards.sharelink": lambda n: {"digest": f"{n:064x}", "created_at": AT, "expires_at": AT + DAY},
    "metrics.querybudget": lambda n: {"role": f"role{n}", "seconds": 30},
}  # fmt: skip
SINGLE = {"metrics.collectionswitch", "metrics.seriesbudget", "sources.logintake"}
"""Tables of one row."""


def house_models() -> list[type[models.Model]]:
    """Return every model of the rooms, and Django's groups."""
    ours = [model for model in apps.get_models() if model._meta.app_config.name.startswith("apps.")]
    return [*ours, Group]


def make(model: type[models.Model] | str, **given: Any) -> Any:
    """Make one row of the model, with rows of its own wherever it needs others."""
    kind = apps.get_model(model) if isinstance(model, str) else model
    number = next(_numbers)
    override = OVERRIDES.get(kind._meta.label_lower, lambda n: {})(number)
    if kind._meta.label_lower in SINGLE:
        return kind._default_manager.get_or_create(**given)[0]
    values = {
        field.name: _value(field, number)
        for field in kind._meta.concrete_fields
        if field.name not in override and field.name not in given and _is_needed(field)
    }
    return kind._default_manager.create(**values | override | given)


def many(kind: type[models.Model] | str, count: int) -> None:
    """Make that many rows in one statement: a handful by `make`, the others like them but for what is unique."""
    model = apps.get_model(kind) if isinstance(kind, str) else kind
    few = [make(model) for _ in range(min(count, 6))]
    rest = count - len(few)
    if model._meta.label_lower in SINGLE or rest <= 0:
        return
    first = next(_numbers)
    for _ in range(rest):
        next(_numbers)
    copied = [field for field in model._meta.concrete_fields if not field.has_db_default() and not _is_counted(field)]
    values = []
    for field in copied:
        is_single = field.unique or field.name in _together(model)
        if field.name in OWNED.get(model._meta.label_lower, ()):
            owner: Any = field.related_model
            many(owner, rest)
            key, table = owner._meta.pk.column, owner._meta.db_table
            values.append(f"(ARRAY(SELECT {key} FROM {table} ORDER BY {key} DESC LIMIT {rest}))[i]")
        else:
            values.append(_fresh(field, first) if is_single and not field.is_relation else f'"{field.column}"')
    columns, table = ", ".join(f'"{field.column}"' for field in copied), model._meta.db_table
    keys = [row.pk for row in few]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({columns}) SELECT {', '.join(values)}"
            f" FROM (SELECT *, row_number() OVER () AS i FROM {table}, generate_series(1, %s)"
            f' WHERE "{model._meta.pk.column}" = ANY(%s) LIMIT %s) few',
            [rest, keys, rest],
        )


def _fresh(field: models.Field[Any, Any], first: int) -> str:
    """SQL for a value that no row has; `i` numbers the rows."""
    match field:
        case models.UUIDField():
            return "gen_random_uuid()"
        case models.BinaryField():
            return f"decode(lpad(to_hex({first} + i), 32, '0'), 'hex')"
        case models.CharField() | models.TextField():
            return f"'n' || ({first} + i)"
        case models.IntegerField() | models.BigIntegerField():
            return f"{first} + i"
        case _:
            return f'"{field.column}"'


OWNED = {
    "alerting.adaptiveband": {"rule"}, "notifications.quiethours": {"person"}, "notifications.reply": {"delivery"},
}  # fmt: skip
"""What each row of these has to itself."""
ALSO_UNIQUE = {"alerting.recordingrule": {"name"}, "core.shipped": {"key"}}
"""Constraints on expressions, which name no fields."""


def _is_counted(field: models.Field[Any, Any]) -> bool:
    return field.primary_key and isinstance(field, models.AutoField)


def _together(model: type[models.Model]) -> set[str]:
    rules = [rule for rule in model._meta.constraints if isinstance(rule, models.UniqueConstraint)]
    named = {name for rule in rules for name in rule.fields} | ALSO_UNIQUE.get(model._meta.label_lower, set())
    return named | {name for names in model._meta.unique_together for name in names}


def _is_needed(field: models.Field[Any, Any]) -> bool:
    if isinstance(field, models.AutoField) or field.has_default() or field.has_db_default():
        return False
    return not (field.null or getattr(field, "auto_now_add", False) or (field.blank and field.empty_strings_allowed))


def _value(field: models.Field[Any, Any], number: int) -> Any:
    if isinstance(field, models.ForeignKey):
        return make(field.related_model)
    if field.choices:
        return next(iter(field.flatchoices))[0]
    match field:
        case models.DateTimeField():
            return AT + timedelta(seconds=number)
        case models.DurationField():
            return timedelta(days=1)
        case models.UUIDField():
            return uuid.UUID(int=number)
        case models.BinaryField():
            return number.to_bytes(16, "big")
        case models.JSONField():
            return {}
        case models.BooleanField():
            return False
        case models.IntegerField() | models.FloatField() | models.DecimalField():
            return number
        case _:
            return f"x{number}"[: field.max_length or 100]
