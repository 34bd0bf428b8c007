"""Dashboards that people make: folders with who may see them, dashboards with their versions, links that share one."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.accounts.models import Team
from apps.accounts.rights import Principal, Right, Scope

if TYPE_CHECKING:
    from django.db.models.query import QuerySet


def _allowed(who: Principal, prefix: str) -> Q | None:
    """Return the condition under which a folder (or what lies in it) may be seen by somebody; None: always.

    Restrictions that name nobody's role or team leave it to all who may read; administrators see every folder.
    """
    if who.can(Right.ADMINISTER) and not who.scope.matchers:
        return None
    roles = Q(**{f"{prefix}roles": []})
    for role in who.roles:
        roles |= Q(**{f"{prefix}roles__contains": [role]})
    closed = Folder.teams.through.objects.values("folder_id")
    teams = ~Q(**{f"{prefix}pk__in": closed})
    if who.teams:
        mine = Folder.teams.through.objects.filter(team__in=who.teams)
        teams |= Q(**{f"{prefix}pk__in": mine.values("folder_id")})
    return roles & teams


class FolderQuerySet(models.QuerySet["Folder"]):
    """Questions about folders."""

    def visible_to(self, who: Principal) -> FolderQuerySet:
        """Return those that this person or token may see."""
        allowed = _allowed(who, "")
        return self if allowed is None else self.filter(allowed)


class Folder(models.Model):
    """Dashboards that belong together, and who may see them."""

    name = models.CharField(max_length=100, unique=True)
    roles = models.JSONField(
        default=list, blank=True, help_text='Roles that see what is in it, such as ["operator"]; empty: every role.'
    )
    teams = models.ManyToManyField(
        Team, blank=True, related_name="dashboard_folders", help_text="Only their members see it; empty: everybody."
    )

    objects = FolderQuerySet.as_manager()

    class Meta:
        ordering = ("name",)
        constraints = (models.CheckConstraint(condition=~Q(name=""), name="folder_has_a_name"),)

    def __str__(self) -> str:
        return self.name


class DashboardQuerySet(models.QuerySet["Dashboard"]):
    """Questions about dashboards."""

    def visible_to(self, who: Principal) -> DashboardQuerySet:
        """Return those in no folder, and in folders that this person or token may see."""
        allowed = _allowed(who, "folder__")
        return self if allowed is None else self.filter(Q(folder__isnull=True) | allowed)


class Dashboard(models.Model):
    """Panels and variables under a title; `document` is what `document.read` accepts, `version` counts the saves."""

    slug = models.SlugField(max_length=100, unique=True)
    title = models.CharField(max_length=200)
    description = models.CharField(max_length=500, blank=True, default="")
    folder = models.ForeignKey(Folder, on_delete=models.PROTECT, null=True, blank=True, related_name="dashboards")
    document = models.JSONField(default=dict, editable=False)
    version = models.PositiveIntegerField(default=1, editable=False)
    updated_at = models.DateTimeField(editable=False)
    updated_by = models.CharField(max_length=200, editable=False)

    objects = DashboardQuerySet.as_manager()

    class Meta:
        ordering = ("title", "id")
        constraints = (
            models.CheckConstraint(condition=~Q(title="") & ~Q(slug=""), name="dashboard_has_a_title"),
            models.CheckConstraint(condition=Q(version__gte=1), name="dashboard_version_counts_from_one"),
        )

    def __str__(self) -> str:
        return self.title


class DashboardVersion(models.Model):
    """A dashboard as it was saved once."""

    dashboard = models.ForeignKey(Dashboard, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    title = models.CharField(max_length=200)
    document = models.JSONField(default=dict)
    message = models.CharField(max_length=300, blank=True, default="")
    saved_by = models.CharField(max_length=200)
    saved_at = models.DateTimeField()

    class Meta:
        ordering = ("-number",)
        constraints = (models.UniqueConstraint(fields=["dashboard", "number"], name="dashboard_version_once"),)

    def __str__(self) -> str:
        return f"{self.title}, version {self.number}"


class ShareLinkQuerySet(models.QuerySet["ShareLink"]):
    """Questions about links."""

    def usable(self, now: datetime) -> QuerySet[ShareLink]:
        """Return those that are neither revoked nor expired and whose maker is still active."""
        return self.filter(revoked_at__isnull=True, expires_at__gt=now, maker__is_active=True)


class ShareLink(models.Model):
    """An address that shows one dashboard to whoever has it: only SHA-256 of its secret is kept.

    It shows what its maker may see, narrowed by `matchers`, with the variables as they were when it was made.
    """

    dashboard = models.ForeignKey(Dashboard, on_delete=models.CASCADE, related_name="links")
    maker = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="shared_dashboards")
    prefix = models.CharField(max_length=12, editable=False, help_text="The first letters of its secret.")
    digest = models.CharField(max_length=64, unique=True, editable=False)
    matchers = models.JSONField(default=list, help_text='What it sees at most, as [["team", "=", "web"], …].')
    values = models.JSONField(default=dict, help_text="What the dashboard's variables stand at.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)

    objects = ShareLinkQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        constraints = (
            models.CheckConstraint(condition=Q(expires_at__gt=models.F("created_at")), name="share_link_lasts"),
        )

    def __str__(self) -> str:
        return f"{self.dashboard_id} ({self.prefix}…)"

    def principal(self, address: str = "") -> Principal:
        """Return as whom the link reads: never more than its maker may now, and only reading."""
        maker = Principal.of_user(self.maker, address)
        narrowed = Scope((*maker.scope.matchers, *((str(n), str(o), str(v)) for n, o, v in self.matchers)))
        rights = maker.rights & {Right.READ, Right.QUERY}
        return Principal("anonymous", "", f"link of {maker.name}", rights, narrowed, address, roles=maker.roles)
