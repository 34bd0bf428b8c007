"""The audit trail's pen: `record` writes an entry in the caller's transaction, `@verb` marks what must leave one."""

import datetime as dt
import decimal
import functools
import inspect
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

from django.db import models, transaction

from apps.accounts.models import AuditEntry
from apps.accounts.rights import Principal, Right, require
from apps.core.secrets import MASK, EncryptedJSONField, mask

P = ParamSpec("P")
R = TypeVar("R")

SECRET_NAME: Final = re.compile(
    r"password|passwd|secret|digest|authorization|credential|api_?key|private_?key|(^|_)token$", re.I
)
"""Fields and keys of such a name never reach an entry in clear."""

Target = models.Model | tuple[str, str, str]
"""What was acted on: an object, or (type label such as "metrics.series", id, label for people)."""


@dataclass(frozen=True)
class Verb:
    """A registered service verb: its name, its function and the right that it demands of `by`, if it does so itself."""

    name: str
    call: Callable[..., Any]
    right: Right | None


VERBS: dict[str, Verb] = {}
"""Every service verb of the house that was imported; the audit test walks it."""


def verb(name: str, *, right: Right | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a service function a verb: one transaction, keyword-only with `by`, registered under `name`.

    With a `right` the verb itself refuses principals without it (`Forbidden`), whatever door they came through.
    The function records its own entry, since only it knows the target.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters
        if any(parameter.kind is not inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values()):
            raise TypeError(f"The verb {name} takes its arguments by keyword only: def {function.__name__}(*, by, …).")
        if "by" not in parameters:
            raise TypeError(f"The verb {name} needs the argument `by`, the principal who acts.")
        if name in VERBS and VERBS[name].call.__module__ != function.__module__:
            raise ValueError(f"{function.__module__} and {VERBS[name].call.__module__} both define the verb {name}.")

        @functools.wraps(function)
        def act(*args: P.args, **kwargs: P.kwargs) -> R:
            by = kwargs.get("by", parameters["by"].default)
            if not isinstance(by, Principal):
                raise TypeError(f"The verb {name} wants a Principal as `by`, not {type(by).__name__}.")
            if right is not None:
                require(by, right)
            with transaction.atomic():
                return function(*args, **kwargs)

        VERBS[name] = Verb(name, act, right)
        return act

    return decorate


def record(
    *,
    by: Principal,
    verb: str,
    target: Target,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Write one entry: `by` did `verb` to `target`. Costs one INSERT, in the caller's transaction if there is one."""
    if isinstance(target, models.Model):
        target = (target._meta.label_lower, str(target.pk or ""), str(target))
    kind, ident, label = target
    return AuditEntry.objects.create(
        actor_kind=by.kind,
        actor_id=by.id,
        actor_name=by.name[:200],
        verb=verb,
        target_type=kind,
        target_id=ident[:100],
        target_label=label[:300],
        before=None if before is None else _plain(before),
        after=None if after is None else _plain(after),
        address=by.address[:64],
        via=by.via,
    )


def state_of(instance: models.Model, *, relations: bool = False) -> dict[str, Any]:
    """Return the row as JSON-safe values by field name, secrets masked; with `relations` many-to-many keys too."""
    state: dict[str, Any] = {}
    for field in instance._meta.concrete_fields:
        value = field.value_from_object(instance)
        if isinstance(field, EncryptedJSONField):
            value = mask(value) if isinstance(value, dict) else MASK if value else None
        elif SECRET_NAME.search(field.name):
            value = MASK if value else ""
        state[field.name] = value
    if relations and instance.pk is not None:
        for many in instance._meta.many_to_many:
            state[many.name] = sorted(getattr(instance, many.name).values_list("pk", flat=True))
    return {name: _plain(value) for name, value in state.items()}


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return only what differs of both, so that an entry about one field shows one field."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {n: before[n] for n in names if n in before}, {n: after[n] for n in names if n in after}


def _masked(value: Any) -> Any:
    """Return the mask for anything that could be a secret; that one changed (True) or is empty is none."""
    return value if isinstance(value, bool) else MASK if value else ""


def _plain(value: Any) -> Any:
    """Return the value with nothing in it that JSON lacks, and nothing under a secret's name."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value - value == 0 else str(value)
        case Mapping():
            return {
                str(key): _masked(item) if SECRET_NAME.search(str(key)) else _plain(item) for key, item in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_plain(item) for item in value]
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return _duration(value)
        case bytes() | memoryview():
            raw = bytes(value)
            return raw.hex() if len(raw) <= 32 else f"{len(raw)} bytes"
        case models.Model():
            return str(value.pk)
        case uuid.UUID() | decimal.Decimal():
            return str(value)
        case _:
            return str(value)


def _duration(span: dt.timedelta) -> str:
    """Write a duration as Prometheus does, in its largest units.

    >>> _duration(dt.timedelta(days=30)), _duration(dt.timedelta(hours=36, seconds=1.5)), _duration(dt.timedelta(0))
    ('30d', '1d12h1.5s', '0s')
    """
    rest = abs(span)
    text = ""
    for unit, length in (("d", dt.timedelta(days=1)), ("h", dt.timedelta(hours=1)), ("m", dt.timedelta(minutes=1))):
        count, rest = divmod(rest, length)
        text += f"{count}{unit}" if count else ""
    if rest or not text:
        text += f"{f'{rest.total_seconds():.6f}'.rstrip('0').rstrip('.')}s"
    return f"-{text}" if span < dt.timedelta(0) else text
