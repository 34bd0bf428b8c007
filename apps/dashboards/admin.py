"""Admin pages of dashboards: folders with who sees them, dashboards and links that share them; and of the machinery."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from apps.accounts.admin import AuditedAdmin
from apps.accounts.permissions import principal_of
from apps.accounts.rights import ROLES, Right
from apps.core.models import Loop, Shipped
from apps.dashboards import (
    admin_beside,  # noqa: F401 - adds charts and ways to the pages of lower rooms
    services,
)
from apps.dashboards.models import Dashboard, DashboardVersion, Folder, ShareLink


class FolderForm(forms.ModelForm[Folder]):
    """A folder; roles are ticked."""

    roles = forms.MultipleChoiceField(
        choices=[(name, name) for name in ROLES], required=False, widget=UnfoldAdminCheckboxSelectMultipleWidget(),
        help_text="Who sees what is in it; none ticked: every role. Administrators see everything.",
    )  # fmt: skip

    class Meta:
        model = Folder
        fields = ("name", "roles", "teams")


@admin.register(Folder)
class FolderAdmin(AuditedAdmin[Folder]):
    """Folders of dashboards."""

    imported = "name"
    form = FolderForm
    list_display = ("name", "shown_roles", "count")
    search_fields = ("name",)
    filter_horizontal = ("teams",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Folder]:
        found = super().get_queryset(request)
        return (
            Folder.objects.filter(pk__in=found.values("pk"))
            .visible_to(principal_of(request))
            .annotate(held=Count("dashboards"))
        )

    @display(description="Roles")
    def shown_roles(self, folder: Folder) -> str:
        return ", ".join(folder.roles) or "every role"

    @display(description="Dashboards")
    def count(self, folder: Any) -> int:
        return int(folder.held)

    def save_model(self, request: HttpRequest, obj: Folder, form: Any, change: bool) -> None:
        services.save_folder(by=principal_of(request), folder=obj)

    def delete_model(self, request: HttpRequest, obj: Folder) -> None:
        services.delete_folder(by=principal_of(request), folder=obj)


class DashboardForm(forms.ModelForm[Dashboard]):
    """What is not drawn: title, address, description and folder."""

    class Meta:
        model = Dashboard
        fields = ("title", "slug", "description", "folder")

    def clean_slug(self) -> str:
        """Refuse the addresses of other pages."""
        if self.cleaned_data["slug"] in services.TAKEN:
            raise ValidationError("This is the address of another page.")
        return str(self.cleaned_data["slug"])


@admin.register(Dashboard)
class DashboardAdmin(AuditedAdmin[Dashboard]):
    """Dashboards; their panels are edited on their own page."""

    form = DashboardForm
    list_display = ("title", "folder", "version", "updated_at", "updated_by")
    list_filter = ("folder",)
    list_select_related = ("folder",)
    search_fields = ("title", "description", "slug")
    readonly_fields = ("page",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Dashboard]:
        found = super().get_queryset(request)
        return Dashboard.objects.filter(pk__in=found.values("pk")).visible_to(principal_of(request))

    @display(description="Its page")
    def page(self, row: Dashboard) -> str:
        return format_html('<a href="{}">Panels</a>', reverse("dashboard", args=[row.slug])) if row.pk else "–"

    def save_model(self, request: HttpRequest, obj: Dashboard, form: Any, change: bool) -> None:
        values = {name: getattr(obj, name) for name in ("title", "slug", "description", "folder")}
        stored = Dashboard.objects.get(pk=obj.pk) if change else None
        saved = services.save_dashboard(
            by=principal_of(request), values=values, now=timezone.now(), dashboard=stored, message="In the admin"
        )
        obj.pk, obj.version = saved.pk, saved.version

    def delete_model(self, request: HttpRequest, obj: Dashboard) -> None:
        services.delete_dashboard(by=principal_of(request), dashboard=obj)


@admin.register(DashboardVersion)
class DashboardVersionAdmin(AuditedAdmin[DashboardVersion]):
    """What was saved when by whom; a version is restored on the dashboard's own page."""

    edit_right = None
    list_display = ("title", "number", "message", "saved_by", "saved_at")
    list_filter = ("dashboard",)
    date_hierarchy = "saved_at"
    search_fields = ("title", "message", "saved_by")
    readonly_fields = ("page",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DashboardVersion]:
        visible = Dashboard.objects.all().visible_to(principal_of(request))
        return super().get_queryset(request).filter(dashboard__in=visible).select_related("dashboard")

    @display(description="Its history")
    def page(self, row: DashboardVersion) -> str:
        return format_html('<a href="{}">Restore</a>', reverse("dashboard-history", args=[row.dashboard.slug]))


@admin.register(ShareLink)
class ShareLinkAdmin(AuditedAdmin[ShareLink]):
    """Links that share dashboards: made on the dashboard's page, ended there or here."""

    edit_right = None
    list_display = ("dashboard", "prefix", "maker", "created_at", "expires_at", "revoked_at")
    list_select_related = ("dashboard", "maker")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "expires_at", "maker")
    search_fields = ("dashboard__title", "prefix")
    exclude = ("digest",)
    actions = ("revoke",)

    def has_edit_permission(self, request: HttpRequest, obj: ShareLink | None = None) -> bool:
        """For the action: whoever may edit dashboards may end their links."""
        return self._can(request, Right.EDIT)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ShareLink]:
        visible = Dashboard.objects.all().visible_to(principal_of(request))
        return super().get_queryset(request).filter(dashboard__in=visible)

    @action(description="End these links", permissions=["edit"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ShareLink]) -> HttpResponse | None:
        by, now = principal_of(request), timezone.now()
        return self.act_on(
            request, queryset.filter(revoked_at=None).select_related("dashboard"), action="revoke",
            title="End these links", done="ended", note="Whoever opens them sees nothing any more.",
            act=lambda link: services.revoke_share(by=by, link=link, now=now),
        )  # fmt: skip


# --- The machinery: core has no pages of its own --------------------------------------------------------------------
@admin.register(Loop)
class LoopAdmin(AuditedAdmin[Loop]):
    """What runs by the clock, when it last did and how that went: to be read."""

    edit_right = None
    list_display = ("name", "state", "every", "started_at", "duration", "runs", "failures", "error")
    list_filter = (("error", admin.EmptyFieldListFilter),)
    search_fields = ("name", "error")
    fields = ("name", "state", "every", "started_at", "finished_at", "duration", "runs", "failures", "error")
    readonly_fields = ("state",)

    @display(description="State", label={"fine": "success", "failed": "danger", "waiting": "info"})
    def state(self, loop: Loop) -> str:
        return "failed" if loop.error else "fine" if loop.finished_at else "waiting"


@admin.register(Shipped)
class ShippedAdmin(AuditedAdmin[Shipped]):
    """Defaults that were written once, as they were shipped: to be read."""

    edit_right = None
    list_display = ("key", "model", "shipped_at")
    list_filter = ("model",)
    search_fields = ("key", "model")
    fields = ("model", "key", "shipped_at", "row")
