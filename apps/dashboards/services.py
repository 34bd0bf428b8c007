"""The verbs of dashboards: who saves, restores, shares and deletes them. Each leaves an entry."""

import hashlib
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from django.core.exceptions import ValidationError
from django.utils.text import slugify

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.models import Team, User
from apps.accounts.permissions import Principal, Right
from apps.accounts.rights import ROLES, Forbidden
from apps.accounts.services import check_token
from apps.dashboards import document as documents
from apps.dashboards.document import BadDocument, Document
from apps.dashboards.models import Dashboard, DashboardVersion, Folder, ShareLink

KEPT: Final = 100
"""Versions of a dashboard that are kept; older ones go."""
LONGEST_SHARE: Final = timedelta(days=90)
TAKEN: Final = frozenset({"new", "import", "preview", "shared"})
"""Slugs that would hide a page."""


@verb("dashboards.save_folder", right=Right.EDIT)
def save_folder(*, by: Principal, folder: Folder, teams: list[Team] | None = None) -> Folder:
    """Write a new or changed folder and, where given, its teams. Raises ValidationError by field."""
    stored = Folder.objects.select_for_update().filter(pk=folder.pk).first() if folder.pk else None
    if stored is not None and not Folder.objects.filter(pk=stored.pk).visible_to(by).exists():
        raise Forbidden(f"{by.name} may not see this folder, so not change it either.")
    before = None if stored is None else state_of(stored, relations=True)
    if not isinstance(folder.roles, list) or not set(map(str, folder.roles)) <= set(ROLES):
        raise ValidationError({"roles": f"Roles are {', '.join(ROLES)}."})
    folder.full_clean(validate_constraints=False)
    folder.save()
    if teams is not None:
        folder.teams.set(teams)
    after = state_of(folder, relations=True)
    if before is not None:
        before, after = changes(before, after)
        if not (before or after):
            return folder
    record(by=by, verb="dashboards.save_folder", target=folder, before=before, after=after)
    return folder


@verb("dashboards.delete_folder", right=Right.EDIT)
def delete_folder(*, by: Principal, folder: Folder) -> None:
    """Delete an empty folder; what is in it would be everybody's."""
    if not Folder.objects.filter(pk=folder.pk).visible_to(by).exists():
        raise Forbidden(f"{by.name} may not see this folder.")
    if folder.dashboards.exists():
        raise ValidationError(f"{folder} is not empty: move its dashboards first, for without it everybody sees them.")
    before, target = state_of(folder, relations=True), (folder._meta.label_lower, str(folder.pk), folder.name)
    folder.delete()
    record(by=by, verb="dashboards.delete_folder", target=target, before=before)


@verb("dashboards.save_dashboard", right=Right.EDIT)
def save_dashboard(
    *,
    by: Principal,
    values: Mapping[str, Any],
    now: datetime,
    dashboard: Dashboard | None = None,
    version: int | None = None,
    message: str = "",
) -> Dashboard:
    """Write a new or changed dashboard as a new version. Raises ValidationError by field.

    `values`: title, slug, description, folder (Folder or None) and document (parsed JSON); what is missing stays.
    `version`: the one that was edited; where somebody else saved meanwhile, nothing is written.
    """
    row = Dashboard(version=0) if dashboard is None else _locked(by, dashboard)
    before = None if dashboard is None else _state(row)
    if version is not None and version != row.version:
        raise ValidationError(
            f"{row.updated_by} has saved version {row.version} meanwhile: load the page again, or save as a new one."
        )
    for name in ("title", "slug", "description", "folder"):
        if name in values:
            setattr(row, name, values[name].strip() if isinstance(values[name], str) else values[name])
    if "document" in values or dashboard is None:
        row.document = documents.write(_checked(values.get("document", {})))
    if not row.slug:
        row.slug = _free_slug(row.title)
    if row.slug in TAKEN:
        raise ValidationError({"slug": f"{row.slug} is the address of another page."})
    if row.folder is not None and not Folder.objects.filter(pk=row.folder.pk).visible_to(by).exists():
        raise ValidationError({"folder": "There is no such folder."})
    row.version, row.updated_at, row.updated_by = row.version + 1, now, by.name[:200]
    row.full_clean(validate_constraints=False)
    row.save()
    _keep(row, message.strip()[:300], now)
    after = _state(row)
    if before is not None:
        before, after = changes(before, after)
    record(by=by, verb="dashboards.save_dashboard", target=row, before=before, after=after)
    return row


def _locked(by: Principal, dashboard: Dashboard) -> Dashboard:
    found = Dashboard.objects.select_for_update(of=("self",)).select_related("folder").filter(pk=dashboard.pk)
    row = found.visible_to(by).first()
    if row is None:
        raise Forbidden(f"{by.name} may not see this dashboard.")
    return row


def _checked(raw: Any) -> Document:
    try:
        return documents.read(raw)
    except BadDocument as error:
        raise ValidationError({"document": str(error)}) from None


def _state(row: Dashboard) -> dict[str, Any]:
    """What an entry says: the document by its size, for its versions hold it."""
    state = state_of(row)
    state["document"] = f"{len(row.document.get('panels', []))} panels"
    return state


def _free_slug(title: str) -> str:
    wanted = slugify(title)[:80] or "dashboard"
    taken = set(Dashboard.objects.filter(slug__startswith=wanted).values_list("slug", flat=True)) | TAKEN
    return next(name for name in (wanted, *(f"{wanted}-{n}" for n in range(2, 10_000))) if name not in taken)


def _keep(row: Dashboard, message: str, now: datetime) -> None:
    DashboardVersion.objects.create(
        dashboard=row, number=row.version, title=row.title, document=row.document, message=message,
        saved_by=row.updated_by, saved_at=now,
    )  # fmt: skip
    row.versions.filter(number__lte=row.version - KEPT).delete()


@verb("dashboards.restore_version", right=Right.EDIT)
def restore_version(*, by: Principal, dashboard: Dashboard, number: int, now: datetime) -> Dashboard:
    """Make an earlier version the newest; nothing is lost."""
    row = _locked(by, dashboard)
    old = row.versions.filter(number=number).first()
    if old is None:
        raise ValidationError(f"There is no version {number} any more.")
    row.title, row.document = old.title, old.document
    row.version, row.updated_at, row.updated_by = row.version + 1, now, by.name[:200]
    row.save()
    _keep(row, f"Version {number} again", now)
    record(
        by=by, verb="dashboards.restore_version", target=row, before={"version": row.version - 1},
        after={"version": row.version, "restored": number},
    )  # fmt: skip
    return row


@verb("dashboards.delete_dashboard", right=Right.EDIT)
def delete_dashboard(*, by: Principal, dashboard: Dashboard) -> None:
    """Delete a dashboard with its versions and links."""
    row = _locked(by, dashboard)
    before, target = _state(row), (row._meta.label_lower, str(row.pk), row.title)
    row.delete()
    record(by=by, verb="dashboards.delete_dashboard", target=target, before=before)


@verb("dashboards.share", right=Right.EDIT)
def share(
    *,
    by: Principal,
    dashboard: Dashboard,
    lasts: timedelta,
    now: datetime,
    matchers: Any = (),
    values: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[ShareLink, str]:
    """Make a link that shows one dashboard to whoever has it; return it and its secret, which is kept nowhere."""
    row = _locked(by, dashboard)
    maker = User.objects.filter(pk=int(by.id)).first() if by.kind == "user" and by.id.isdecimal() else None
    if maker is None:
        raise ValidationError("Only a person can share a dashboard: the link sees what they may see.")
    if not timedelta(minutes=5) <= lasts <= LONGEST_SHARE:
        raise ValidationError({"lasts": f"A link lasts from 5 minutes to {LONGEST_SHARE.days} days."})
    rows = [list(matcher) for matcher in (*by.scope.matchers, *matchers)]
    check_token(scopes=["read"], expires_at=None, matchers=rows, now=now)
    secret = secrets.token_urlsafe(32)
    link = ShareLink.objects.create(
        dashboard=row, maker=maker, prefix=secret[:6], digest=digest_of(secret), matchers=rows,
        values={name: list(chosen) for name, chosen in (values or {}).items()}, created_at=now, expires_at=now + lasts,
    )  # fmt: skip
    record(by=by, verb="dashboards.share", target=row, after=state_of(link))
    return link, secret


def digest_of(secret: str) -> str:
    """Return the SHA-256 (hex) under which a link is kept: 256 random bits need no salt."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@verb("dashboards.revoke_share", right=Right.EDIT)
def revoke_share(*, by: Principal, link: ShareLink, now: datetime) -> ShareLink:
    """End a link at once."""
    if link.revoked_at is None:
        link.revoked_at = now
        link.save(update_fields=["revoked_at"])
    record(by=by, verb="dashboards.revoke_share", target=link.dashboard, after={"link": f"{link.prefix}…"})
    return link


def ship_dashboard(row: Mapping[str, Any], *, by: Principal, now: datetime) -> Dashboard:
    """Write one row of fixtures/dashboards.yaml, unless a person has made a dashboard of that slug."""
    known = Dashboard.objects.filter(slug=row["slug"]).first()
    if known is not None:
        return known
    folder = Folder.objects.filter(name=row["folder"]).first()
    if folder is None:
        folder = save_folder(by=by, folder=Folder(name=row["folder"]))
    values = {name: row[name] for name in ("slug", "title", "description", "document")} | {"folder": folder}
    return save_dashboard(by=by, values=values, now=now, message="As shipped")
