"""People, their teams, calendars, tokens and the audit trail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractUser, UserManager
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Func, Q
from django.db.models.functions import Now

from apps.accounts.hours import Hours, check_country, parse_dates, parse_week, parse_zone
from apps.accounts.rights import (
    EVERYTHING,
    NARROWED,
    ROLES,
    Quota,
    Right,
    Scope,
    is_matcher,
    rights_of_roles,
    rights_of_scopes,
    scope_of_teams,
)
from apps.core.registry import extensions

COARSE = timedelta(minutes=1)
"""How exact `Token.last_used_at` is: a write per request would cost more than the request."""


MOST_MATCHERS = 20
"""Of one team."""


class People(UserManager["User"]):
    """Makes people who may open the admin, where their roles decide what they see."""

    use_in_migrations = False

    def create_user(self, username: str, email: str | None = None, password: str | None = None, **extra: Any) -> User:
        return super().create_user(username, email, password, **{"is_staff": True, **extra})


class User(AbstractUser):
    """A person who logs in; what they may do follows from the groups named after roles."""

    is_staff = models.BooleanField(
        "may open the admin", default=True, help_text="The admin shows a person what their roles allow, no more."
    )

    objects: ClassVar[People] = People()

    _standing: tuple[frozenset[str], Scope, frozenset[int]] | None = None

    @property
    def roles(self) -> frozenset[str]:
        """The roles this person has."""
        if not self.is_active:
            return frozenset()
        if self.is_superuser:
            return frozenset({"administrator"})
        return self._looked_up()[0]

    @property
    def scope(self) -> Scope:
        """What this person's teams let them see; administrators, who could change that, see everything."""
        if not self.is_active or self.is_superuser:
            return EVERYTHING
        roles, scope, _ = self._looked_up()
        return EVERYTHING if "administrator" in roles else scope

    @property
    def member_of(self) -> frozenset[int]:
        """The keys of this person's teams; none of whom no team lets see more or less."""
        return frozenset() if not self.is_active or self.is_superuser else self._looked_up()[2]

    def _looked_up(self) -> tuple[frozenset[str], Scope, frozenset[int]]:
        """Roles and teams, remembered on the instance: one query a request."""
        if self._standing is None:
            nothing = models.Value(None, output_field=models.JSONField())
            none = models.Value(None, output_field=models.BigIntegerField())
            roles = self.groups.annotate(narrows=nothing, team=none).values_list("name", "narrows", "team")
            teams = Team.objects.filter(members=self).order_by().annotate(role=models.Value(""))
            found = list(roles.union(teams.values_list("role", "matchers", "pk"), all=True))
            return self.remember(
                (name for name, _, team in found if team is None),
                {team: matchers for _, matchers, team in found if team is not None},
            )
        return self._standing

    def remember(self, groups: Iterable[str], teams: Mapping[int, Any]) -> tuple[frozenset[str], Scope, frozenset[int]]:
        """Take these as the names of this person's groups and their teams' matchers by key, read for many at once."""
        self._standing = frozenset(groups).intersection(ROLES), scope_of_teams(teams.values()), frozenset(teams)
        return self._standing

    @property
    def rights(self) -> frozenset[Right]:
        """What this person may do."""
        return rights_of_roles(self.roles)

    def forget_rights(self) -> None:
        """Read roles and teams again on next use."""
        self._standing = None

    def can(self, right: Right) -> bool:
        """Tell whether this person has the right (for templates and tests; edges ask the principal)."""
        return right in self.rights


def check_matchers(value: Any) -> None:
    """Refuse what is no list of matchers."""
    if not isinstance(value, list) or len(value) > MOST_MATCHERS or not all(map(is_matcher, value)):
        raise ValidationError('Write a list of [label, operator, value], for example [["team", "=", "web"]].')


class Team(models.Model):
    """People who look after the same things: rules and services name one. `matchers` narrow what its members see."""

    name = models.CharField(max_length=100, unique=True)
    description = models.CharField(max_length=300, blank=True, default="")
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="teams")
    matchers = models.JSONField(
        default=list,
        blank=True,
        validators=[check_matchers],
        help_text='What its members see at most, and then only read and operate: [["team", "=", "web"]]. Empty: all. '
        "Teams that name values of one label add up. Administrators always see everything.",
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Calendar(models.Model):
    """Hours of a week and holidays in one time zone: when people work, and so when a rule or a shift applies."""

    name = models.CharField(max_length=100, unique=True)
    zone = models.CharField("time zone", max_length=64, default="UTC", help_text="Such as Europe/Berlin.")
    hours = models.TextField(
        blank=True,
        default="",
        help_text="One line each, such as mon-fri 08:00-18:00 or sat 22:00-06:00. Empty: around the clock.",
    )
    holidays = models.TextField(
        blank=True, default="", help_text="Closed days, one line each: 2026-12-24 Christmas Eve."
    )
    country = models.CharField(
        max_length=10,
        blank=True,
        default="",
        help_text="Its public holidays are closed, too: DE, or DE-BY for a part of it. Empty: none.",
    )

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def times(self) -> Hours:
        """What its texts mean; ValueError where one of them is no such thing."""
        return Hours(parse_zone(self.zone), parse_week(self.hours), parse_dates(self.holidays), self.country)

    def clean(self) -> None:
        """Refuse, by field, what does not mean anything, and another name while something goes by this one."""
        problems: dict[str, str] = {}
        renamed = Calendar.objects.filter(pk=self.pk).exclude(name=self.name).first() if self.pk else None
        named = [] if renamed is None else [ask(renamed) for ask in extensions(Calendar, "refusal")]
        if users := " ".join(filter(None, named)):
            problems["name"] = f"{users} Change that first."
        for name, read in (("zone", parse_zone), ("hours", parse_week), ("holidays", parse_dates)):
            try:
                read(getattr(self, name))
            except ValueError as error:
                problems[name] = str(error)
        self.country = self.country.upper()
        try:
            if self.country:
                check_country(self.country)
        except ValueError as error:
            problems["country"] = str(error)
        if problems:
            raise ValidationError(problems)


class Login(models.Model):
    """A network and a kind of device that a person has logged in from: the first, the last time and how often."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="logins")
    network = models.CharField(max_length=50, blank=True, default="", help_text="Such as 192.0.2.0/24, no address.")
    device = models.CharField(max_length=60, blank=True, default="", help_text="Such as Firefox on Linux.")
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    count = models.PositiveIntegerField(default=1)

    class Meta:
        ordering = ("-last_seen_at", "-id")
        constraints = (models.UniqueConstraint(fields=["user", "network", "device"], name="login_place_once_a_person"),)

    def __str__(self) -> str:
        return f"{self.user_id}: {self.network} {self.device}"


class TokenQuerySet(models.QuerySet["Token"]):
    """Questions about tokens."""

    def usable(self, now: datetime) -> TokenQuerySet:
        """Return those that are neither revoked nor expired and whose owner, if any, is still active."""
        return self.filter(
            Q(owner__isnull=True) | Q(owner__is_active=True),
            Q(expires_at__isnull=True) | Q(expires_at__gt=now),
            revoked_at__isnull=True,
        )

    def note_use(self, now: datetime) -> int:
        """Write down that they were used, at most once a minute each; return how many were written."""
        stale = Q(last_used_at__isnull=True) | Q(last_used_at__lt=now - COARSE)
        return self.filter(stale).update(last_used_at=now)


def token_origins() -> list[tuple[str, str]]:
    """Where a token comes from."""
    return [("", "Issued here"), ("environment", "MONITORING_AUTH_TOKEN")]


class Token(models.Model):
    """Access for a program. The secret is shown once; only its SHA-256 is kept (SPEC K2)."""

    name = models.CharField(max_length=100, help_text="What uses it, for example: agent on web-1.")
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="tokens",
        help_text="With an owner it can never do more than the owner, and ends with the owner's account.",
    )
    prefix = models.CharField(max_length=16, editable=False, help_text="The first letters of the secret.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    scopes = models.JSONField(default=list)
    matchers = models.JSONField(default=list, blank=True, help_text='What it sees, as [["team", "=", "web"], …].')
    series_limit = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="The most series that it may have had within a day; empty: as many as the series budget gives each.",
    )
    samples_per_second = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="The most samples a second, in each web process, by remote write; empty: no limit.",
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    origin = models.CharField(max_length=20, choices=token_origins, blank=True, default="", editable=False)

    objects = TokenQuerySet.as_manager()

    class Meta:
        ordering = ("name", "id")
        constraints = (
            models.UniqueConstraint(
                fields=["origin"],
                condition=Q(origin="environment", revoked_at__isnull=True),
                name="token_one_from_environment",
            ),
            models.CheckConstraint(condition=~Q(scopes=[]), name="token_has_a_scope"),
            models.CheckConstraint(
                condition=Q(samples_per_second=None) | Q(samples_per_second__gte=1), name="token_may_write_a_sample"
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)" if self.prefix else self.name

    @property
    def rights(self) -> frozenset[Right]:
        """What it may do: its scopes, never more than its owner, and with matchers nothing that concerns all labels."""
        allowed = rights_of_scopes(list(self.scopes))
        if self.matchers:
            allowed &= NARROWED
        return allowed & self.owner.rights if self.owner is not None else allowed

    @property
    def scope(self) -> Scope:
        """What it sees."""
        return Scope(tuple((str(name), str(op), str(value)) for name, op, value in self.matchers))

    @property
    def quota(self) -> Quota:
        """How much it may write."""
        return Quota(self.series_limit, self.samples_per_second)


class Xid8(models.Field[Any, int]):
    """PostgreSQL's 64-bit transaction id: orders entries by commit where identity order cannot (DESIGN §1)."""

    def db_type(self, connection: Any) -> str:
        return "xid8"

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> int | None:
        return None if value is None else int(value)


class AuditEntry(models.Model):
    """Who did what to what, before and after, from where. Rows are only ever added: a trigger refuses the rest.

    No foreign keys: an entry outlives everything that it names. The id is the sequence.
    """

    at = models.DateTimeField(db_default=Now(), editable=False)
    actor_kind = models.CharField(max_length=10)
    actor_id = models.CharField(max_length=40, blank=True, default="")
    actor_name = models.CharField(max_length=200)
    verb = models.CharField(max_length=100)
    target_type = models.CharField(max_length=100)
    target_id = models.CharField(max_length=100, blank=True, default="")
    target_label = models.CharField(max_length=300, blank=True, default="")
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    address = models.CharField(max_length=64, blank=True, default="")
    via = models.CharField(max_length=20, blank=True, default="")
    xid = Xid8(db_default=Func(function="pg_current_xact_id", output_field=Xid8()), editable=False)

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "audit entries"
        indexes = (
            models.Index(fields=["target_type", "target_id", "-id"], name="audit_of_target"),
            models.Index(fields=["actor_kind", "actor_id", "-id"], name="audit_of_actor"),
            models.Index(fields=["verb", "-id"], name="audit_of_verb"),
            models.Index(fields=["-at"], name="audit_newest"),
        )

    def __str__(self) -> str:
        return f"#{self.pk} {self.actor_name} {self.verb} {self.target_label}".strip()
