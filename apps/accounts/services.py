"""The verbs of accounts: tokens, roles, the first administrator, and the audited save and delete of every admin."""

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from django.contrib import admin
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db import models, transaction

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.models import Token, User
from apps.accounts.permissions import digest_of, recheck_tokens
from apps.accounts.rights import (
    ROLES,
    SCOPES,
    SHORTEST,
    UNLIMITED,
    Forbidden,
    Matcher,
    Principal,
    Quota,
    Right,
    is_matcher,
    rights_of_scopes,
)
from apps.core import live
from apps.core.registry import extensions

log = logging.getLogger(__name__)

SETUP: Final = Principal.system("setup", via="command")


# --- Tokens ------------------------------------------------------------------------------------------------------
@verb("accounts.issue_token", right=Right.ADMINISTER)
def issue_token(
    *,
    by: Principal,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None,
    now: datetime,
    owner: User | None = None,
    matchers: Sequence[Matcher] = (),
    quota: Quota = UNLIMITED,
) -> tuple[Token, str]:
    """Make a token; return it with its secret, which nothing can show again.

    Nobody can hand out what they may not do themselves: that is `Forbidden`. Wrong values are a ValidationError.
    """
    wanted = sorted(set(scopes))
    check_token(scopes=wanted, expires_at=expires_at, matchers=matchers, now=now)
    if beyond := rights_of_scopes(wanted) - by.rights:
        raise Forbidden(f"{by.name} cannot hand out the right to {', '.join(sorted(beyond))} without having it.")
    if missing := set(by.scope.matchers) - {tuple(matcher) for matcher in matchers}:
        own = ", ".join(f"{name}{operator}{value}" for name, operator, value in sorted(missing))
        raise Forbidden(f"{by.name} sees only {own}: a token that it hands out needs these matchers too.")
    secret = f"mp_{secrets.token_urlsafe(32)}"
    token = Token.objects.create(
        name=name,
        owner=owner,
        prefix=secret[:9],
        digest=digest_of(secret),
        scopes=wanted,
        matchers=[list(matcher) for matcher in matchers],
        series_limit=quota.series,
        samples_per_second=quota.samples_per_second,
        expires_at=expires_at,
        created_at=now,
    )
    record(by=by, verb="accounts.issue_token", target=token, after=state_of(token))
    return token, secret


def check_token(*, scopes: Sequence[str], expires_at: datetime | None, matchers: Any, now: datetime) -> None:
    """Raise ValidationError, by field, where a token of these values would be useless or wrong."""
    problems: dict[str, str] = {}
    if not scopes:
        problems["scopes"] = "A token needs at least one scope."
    elif unknown := sorted(set(scopes) - set(SCOPES)):
        problems["scopes"] = f"Unknown scope {', '.join(unknown)}; there are {', '.join(SCOPES)}."
    if expires_at is not None and expires_at <= now:
        problems["expires_at"] = "This moment has passed already."
    if not isinstance(matchers, (list, tuple)) or not all(is_matcher(matcher) for matcher in matchers):
        problems["matchers"] = 'Write a list of [label, operator, value], for example [["team", "=", "web"]].'
    if problems:
        raise ValidationError(problems)


@verb("accounts.revoke_token", right=Right.ADMINISTER)
def revoke_token(*, by: Principal, token: Token, now: datetime) -> Token:
    """End a token: here at once, in other processes within ten seconds. A revoked one stays as it is."""
    if Token.objects.filter(pk=token.pk, revoked_at__isnull=True).update(revoked_at=now):
        record(
            by=by,
            verb="accounts.revoke_token",
            target=token,
            before={"revoked_at": None},
            after={"revoked_at": now},
        )
    token.refresh_from_db()
    _tokens_changed()
    return token


@verb("accounts.bootstrap_token")
def bootstrap_token(*, value: str, by: Principal, now: datetime) -> Token | None:
    """Make MONITORING_AUTH_TOKEN the one token from the environment: all scopes but admin; an empty value ends it."""
    digest = digest_of(value) if value else ""
    current = Token.objects.select_for_update().filter(origin="environment", revoked_at__isnull=True).first()
    if current is not None and current.digest != digest:
        revoke_token(by=by, token=current, now=now)
        current = None
    if current is not None or not value:
        return current
    if len(value) < SHORTEST:
        log.warning("MONITORING_AUTH_TOKEN has %d letters and can be guessed: use at least %d.", len(value), SHORTEST)
    token, made = Token.objects.get_or_create(
        digest=digest,
        defaults={
            "name": "MONITORING_AUTH_TOKEN",
            "origin": "environment",
            "scopes": sorted(set(SCOPES) - {"admin"}),
            "created_at": now,
        },
    )
    if token.origin != "environment":
        log.warning("MONITORING_AUTH_TOKEN holds the secret of the token %s, which stays as it was issued.", token)
        return token
    if not made:
        token.revoked_at = None
        token.save(update_fields=["revoked_at"])
    record(by=by, verb="accounts.bootstrap_token", target=token, after=state_of(token))
    return token


def _tokens_changed() -> None:
    """Make cached answers be asked anew: now, and again once others can see the change; open pages look again too."""
    recheck_tokens()
    transaction.on_commit(recheck_tokens)
    live.publish("accounts")


# --- People and roles --------------------------------------------------------------------------------------------
@verb("accounts.create_roles")
def create_roles(*, by: Principal = SETUP) -> list[str]:
    """Make the five roles as groups and give each the model permissions that its rights mean; return what was new.

    Which model needs which right is asked of the admin pages. Members of a group are never touched.
    """
    grants = _grants()
    new = []
    for name, rights in ROLES.items():
        group, made = Group.objects.get_or_create(name=name)
        wanted = {permission for permission, right in grants.items() if right in rights}
        current = set(group.permissions.values_list("pk", flat=True))
        if wanted != current:
            group.permissions.set(wanted)
        if made:
            new.append(name)
        if made or wanted != current:
            record(
                by=by,
                verb="accounts.create_roles",
                target=group,
                before={"permissions": len(current)},
                after={"permissions": len(wanted), "rights": sorted(rights)},
            )
    return new


def _grants() -> dict[int, Right]:
    """Return the right that each Django permission (by key) stands for, by what the admin pages declare."""
    wanted: dict[tuple[type[models.Model], str], Right] = {}
    pages: dict[type[models.Model], Any] = dict(admin.site._registry)  # noqa: SLF001 - Django has no other way
    for model, page in pages.items():
        view = getattr(page, "view_right", None)
        if view is None:
            continue
        inlines = [inline.model for inline in page.get_inlines(None, None)]
        for each in (model, *inlines):
            wanted.setdefault((each, "view"), view)
            if page.edit_right is not None:
                wanted.setdefault((each, "add"), page.edit_right)
                wanted.setdefault((each, "change"), page.edit_right)
                wanted.setdefault((each, "delete"), page.delete_right or page.edit_right)
    types = ContentType.objects.get_for_models(*{model for model, _ in wanted})
    keys = {(p.content_type_id, p.codename): p.pk for p in Permission.objects.all()}
    grants = {}
    for (model, action), right in wanted.items():
        key = keys.get((types[model].pk, f"{action}_{model._meta.model_name}"))
        if key is not None:
            grants[key] = right
    return grants


@verb("accounts.create_admin")
def create_admin(*, now: datetime, by: Principal = SETUP) -> str | None:
    """Make the first administrator `admin` with a random password and return that; None when there is one already."""
    if User.objects.filter(is_superuser=True).exists():
        return None
    password = secrets.token_urlsafe(15)
    user = User.objects.create_superuser("admin", password=password, date_joined=now)
    record(by=by, verb="accounts.create_admin", target=user, after=state_of(user))
    return password


@verb("accounts.set_roles", right=Right.ADMINISTER)
def set_roles(*, by: Principal, user: User, roles: Iterable[str]) -> User:
    """Give a person exactly these roles; groups that are no roles stay."""
    wanted = set(roles)
    if unknown := sorted(wanted - set(ROLES)):
        raise ValidationError({"roles": f"Unknown role {', '.join(unknown)}; there are {', '.join(ROLES)}."})
    before = sorted(user.groups.filter(name__in=ROLES).values_list("name", flat=True))
    if set(before) != wanted:
        for name in sorted(wanted):
            Group.objects.get_or_create(name=name)
        others = list(user.groups.exclude(name__in=ROLES))
        user.groups.set([*others, *Group.objects.filter(name__in=wanted)])
        user.forget_rights()
        record(
            by=by,
            verb="accounts.set_roles",
            target=user,
            before={"roles": before},
            after={"roles": sorted(wanted)},
        )
        _tokens_changed()
    return user


@verb("accounts.change_password")
def change_password(*, by: Principal, user: User, save: Callable[[], Any]) -> None:
    """Let a checked password form save, and write down who changed whose password."""
    save()
    record(by=by, verb="accounts.change_password", target=user)


@verb("accounts.export_rows")
def export_rows(
    *, by: Principal, rows: models.QuerySet[Any], limit: int, write: Callable[[Any], object], kind: str
) -> int:
    """Hand each of at most `limit` rows to `write`, for a file of some `kind` that leaves the portal, and record it.

    Whoever calls has asked whether the person may see them. Returns how many there were.
    """
    count, first, last = 0, "", ""
    for row in rows[:limit].iterator(chunk_size=1_000):
        write(row)
        count, first, last = count + 1, first or str(row.pk), str(row.pk)
    meta = rows.model._meta
    after = {"rows": count, "first": first, "last": last, "kind": kind}
    record(
        by=by, verb="accounts.export_rows", target=(meta.label_lower, "", str(meta.verbose_name_plural)), after=after
    )
    return count


@verb("accounts.import_rows")
def import_rows(*, by: Principal, model: type[models.Model], write: Callable[[], Mapping[str, int]]) -> None:
    """Have `write` bring in the rows of a file, all of them or, where it raises, none; record how many of each action.

    Whoever calls has asked whether the person may add and change them; each row leaves an entry of its own.
    """
    meta = model._meta
    target = (meta.label_lower, "", str(meta.verbose_name_plural))
    record(by=by, verb="accounts.import_rows", target=target, after=dict(write()))


# --- Any room's admin --------------------------------------------------------------------------------------------
@verb("accounts.save_object")
def save_object(*, by: Principal, obj: models.Model) -> bool:
    """Save any row and write an entry with what changed; return False (and write none) when nothing did."""
    label = obj._meta.label_lower
    stored = type(obj)._default_manager.filter(pk=obj.pk).first() if obj.pk is not None else None  # noqa: SLF001
    obj.save()
    if stored is None:
        record(by=by, verb=f"{label}.add", target=obj, after=state_of(obj))
        return True
    before, after = changes(state_of(stored), state_of(obj))
    hidden = _hidden_changes(stored, obj)
    if not (before or after or hidden):
        return False
    if hidden:
        after["masked_changes"] = hidden
    record(by=by, verb=f"{label}.change", target=obj, before=before, after=after)
    if isinstance(obj, (User, Token)):
        _tokens_changed()
    return True


def _hidden_changes(stored: models.Model, obj: models.Model) -> list[str]:
    """Return the names of fields whose masked states are equal while the values are not."""
    before, after = state_of(stored), state_of(obj)
    return [
        field.name
        for field in obj._meta.concrete_fields
        if before[field.name] == after[field.name]
        and field.value_from_object(stored) != field.to_python(field.value_from_object(obj))
    ]


@verb("accounts.save_relations")
def save_relations(*, by: Principal, obj: models.Model, save: Callable[[], Any]) -> bool:
    """Run `save` (a form's save_m2m) and write an entry where many-to-many relations of the object changed."""
    before = state_of(obj, relations=True)
    save()
    was, now = changes(before, state_of(obj, relations=True))
    if not (was or now):
        return False
    record(by=by, verb=f"{obj._meta.label_lower}.change", target=obj, before=was, after=now)
    if isinstance(obj, User):
        obj.forget_rights()
        _tokens_changed()
    return True


def refusal(obj: models.Model) -> str:
    """Return why a row cannot be deleted, or nothing: each room says by `extend(Model, "refusal", f)`."""
    return next((sentence for ask in extensions(type(obj), "refusal") if (sentence := ask(obj))), "")


@verb("accounts.delete_object")
def delete_object(*, by: Principal, obj: models.Model) -> None:
    """Delete any row and write an entry with its last state and the count of rows that went with it.

    One that something else needs is a ValidationError that says what.
    """
    if sentence := refusal(obj):
        raise ValidationError(sentence)
    before, target = state_of(obj, relations=True), (obj._meta.label_lower, str(obj.pk), str(obj))
    _, counts = obj.delete()
    record(by=by, verb=f"{target[0]}.delete", target=target, before=before, after={"deleted": counts})
    if isinstance(obj, (User, Token)):
        _tokens_changed()
