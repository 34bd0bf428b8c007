"""The base of every admin page of the house (`AuditedAdmin`), and the pages for people, roles, tokens and the audit.

Whatever the admin writes goes through an audited verb; who may do what is decided by rights, never by a checkbox.
"""

import csv
from datetime import date
from typing import Any, ClassVar, TypeVar

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import models, transaction
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html_join
from unfold.admin import ModelAdmin, StackedInline, TabularInline
from unfold.decorators import action, display
from unfold.forms import AdminOwnPasswordChangeForm, AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from apps.accounts import ical, logins, services
from apps.accounts.models import AuditEntry, Calendar, Login, Team, Token, User
from apps.accounts.permissions import Principal, principal_of
from apps.accounts.rights import ROLES, SCOPES, Quota, Right
from apps.core.registry import extensions
from apps.core.secrets import EncryptedJSONField

M = TypeVar("M", bound=models.Model)

EXPORTED = 100_000
"""Audit entries in one file at most."""


class AuditedAdmin(ModelAdmin[M]):
    """An admin page by rights: `view_right` to see, `edit_right` to add and change, `delete_right` to delete.

    `edit_right = None` makes it read-only. A missing `delete_right` means `edit_right`. Saving, deleting (bulk too),
    inlines and many-to-many fields each leave an audit entry; actions call service verbs, which do so themselves.
    A page whose saving has a verb of its own overrides `save_model` and calls it. Upper rooms add inlines with
    `core.registry.extend(Model, "inlines", Inline)`, actions likewise with "actions".
    """

    view_right: ClassVar[Right] = Right.READ
    edit_right: ClassVar[Right | None] = Right.EDIT
    delete_right: ClassVar[Right | None] = None
    compressed_fields = True
    warn_unsaved_form = True
    list_filter_submit = False
    show_full_result_count = False

    # --- who may -----------------------------------------------------------------------------------------------
    def _can(self, request: HttpRequest, right: Right | None) -> bool:
        who = principal_of(request)
        # The admin's lists are of everybody's things: whom a team narrows reads and operates on the pages.
        return right is not None and who.can(right) and not who.scope.matchers

    def has_view_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return self._can(request, self.view_right)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self._can(request, self.view_right)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._can(request, self.edit_right)

    def has_change_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return self._can(request, self.edit_right)

    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return self.edit_right is not None and self._can(request, self.delete_right or self.edit_right)

    def has_operate_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        """For actions: `@action(permissions=["operate"])`."""
        return self._can(request, Right.OPERATE)

    def has_administer_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        """For actions: `@action(permissions=["administer"])`."""
        return self._can(request, Right.ADMINISTER)

    # --- what is shown -----------------------------------------------------------------------------------------
    def get_inlines(self, request: HttpRequest | None, obj: M | None) -> list[Any]:
        return [*self.inlines, *extensions(self.model, "inlines")]

    def _get_base_actions(self) -> Any:
        more = map(self.get_action, extensions(self.model, "actions"))
        return [*super()._get_base_actions(), *filter(None, more)]  # type: ignore[misc] # Django has no other way

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if isinstance(db_field, EncryptedJSONField):  # a secret is never put into a page; rooms offer their own field
            return None
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    # --- what is written ---------------------------------------------------------------------------------------
    def save_model(self, request: HttpRequest, obj: M, form: forms.ModelForm[M], change: bool) -> None:
        services.save_object(by=principal_of(request), obj=obj)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        services.save_relations(by=principal_of(request), obj=form.instance, save=form.save_m2m)
        for formset in formsets:
            self.save_formset(request, form, formset, change=change)

    def save_formset(
        self, request: HttpRequest, form: Any, formset: "BaseInlineFormSet[Any, Any, Any]", change: bool
    ) -> None:
        by = principal_of(request)
        rows = formset.save(commit=False)
        for row in formset.deleted_objects:
            services.delete_object(by=by, obj=row)
        for row in rows:
            services.save_object(by=by, obj=row)
        formset.save_m2m()

    def delete_model(self, request: HttpRequest, obj: M) -> None:
        services.delete_object(by=principal_of(request), obj=obj)

    def delete_queryset(self, request: HttpRequest, queryset: "models.QuerySet[M]") -> None:
        by = principal_of(request)
        with transaction.atomic():
            for obj in queryset:
                services.delete_object(by=by, obj=obj)

    # The audit trail is the one log: Django's own would be a second truth.
    def log_addition(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        return None

    def log_change(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        return None

    def log_deletions(self, request: HttpRequest, queryset: "models.QuerySet[M]") -> Any:
        return None

    def ask(self, request: HttpRequest, *, title: str, question: str, back: str) -> HttpResponse | None:
        """Return None once the person has confirmed, else the page that asks.

        For `actions_detail`, which are links: what a link does at once, any page on the web can make a browser do.
        """
        if request.method == "POST" and request.POST.get("confirmed"):
            return None
        context = {**self.admin_site.each_context(request), "title": title, "question": question, "back": back}
        return TemplateResponse(request, "admin/accounts/confirm.html", context | {"opts": self.opts})

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the audit entries of one object, to those who may edit it or read the audit trail."""
        if not (self._can(request, Right.AUDIT) or self._can(request, self.edit_right)):
            raise PermissionDenied
        obj = self.get_object(request, object_id)
        if obj is None:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)  # type: ignore[attr-defined, no-any-return]
        entries = AuditEntry.objects.filter(target_type=self.opts.label_lower, target_id=str(obj.pk))
        context = {
            **self.admin_site.each_context(request),
            "title": f"History: {obj}",
            "subtitle": None,
            "entries": Paginator(entries, 50).get_page(request.GET.get("p", 1)),
            "object": obj,
            "original": obj,
            "opts": self.opts,
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/accounts/history.html", context)


class _InlineByRights:
    """Inlines follow the rights of the page that they stand on, so that one declaration rules the whole form."""

    admin_site: Any
    parent_model: Any

    def _page(self) -> Any:
        return self.admin_site.get_model_admin(self.parent_model)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self._page().has_view_permission(request, obj))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self._page().has_change_permission(request, obj))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self._page().has_change_permission(request, obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(self._page().has_change_permission(request, obj))


class AuditedTabularInline(_InlineByRights, TabularInline[Any, Any]):
    """Rows of a related model on their parent's page, as a table."""

    extra = 0


class AuditedStackedInline(_InlineByRights, StackedInline[Any, Any]):
    """Rows of a related model on their parent's page, one below the other."""

    extra = 0


# --- People ----------------------------------------------------------------------------------------------------------
class OwnPasswordForm(AdminOwnPasswordChangeForm):
    """A person's own new password, audited."""

    def save(self, commit: bool = True) -> User:
        by = Principal.of_user(self.user, via="admin")
        services.change_password(by=by, user=self.user, save=super().save)
        return self.user


def password_change(request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponseBase:
    """The admin's "change password" with the audited form; the theme's own view has its form built in."""
    view = PasswordChangeView.as_view(
        form_class=OwnPasswordForm,
        success_url=reverse("admin:password_change_done"),
        extra_context={**admin.site.each_context(request), **(extra_context or {})},
    )
    return view(request)


admin.site.password_change = password_change  # type: ignore[method-assign, assignment]
admin.site.unregister(Group)


@admin.register(User)
class UserAdmin(AuditedAdmin[User], DjangoUserAdmin):  # type: ignore[type-arg]
    """People. An administrator who is no superuser cannot touch superusers, nor make one."""

    view_right = edit_right = Right.ADMINISTER
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "full_name", "email", "roles", "is_active", "last_login")
    list_filter = ("is_active", "is_superuser", "groups")
    search_fields = ("username", "first_name", "last_name", "email")
    actions = ("unlock",)
    readonly_fields = ("last_login", "date_joined")
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Access", {"fields": ("is_active", "groups", "is_staff", "is_superuser")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "usable_password", "password1", "password2", "email", "groups")}),)

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[User]":
        return super().get_queryset(request).prefetch_related("groups")

    @action(description="Unlock after failed log-ins", permissions=["change"])
    def unlock(self, request: HttpRequest, queryset: "models.QuerySet[User]") -> None:
        for user in queryset:
            count = logins.unlock(by=principal_of(request), username=user.username)
            self.message_user(request, f"{user.username}: failures at {count} addresses are forgotten.")

    @display(description="Name")
    def full_name(self, user: User) -> str:
        return user.get_full_name()

    @display(description="Roles")
    def roles(self, user: User) -> str:
        names = [group.name for group in user.groups.all()]
        return ", ".join(["superuser", *names] if user.is_superuser else names) or "none"

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "groups":
            kwargs["widget"] = UnfoldAdminCheckboxSelectMultipleWidget()
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        fixed = super().get_readonly_fields(request, obj)
        return fixed if self._is_superuser(request) else (*fixed, "is_superuser")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        mine = obj is not None and obj.pk == request.user.pk
        return super().has_delete_permission(request, obj) and self._may_touch(request, obj) and not mine

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, Any, Any]:
        """Let the page that asks, for one and for several, refuse whom upper rooms cannot do without, and say why."""
        listed, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        refusals = [sentence for user in objs for ask in extensions(User, "refusal") if (sentence := ask(user))]
        for sentence in refusals:
            self.message_user(request, sentence, messages.ERROR)
        return listed, counts, perms_needed, [*protected, *refusals]

    def _may_touch(self, request: HttpRequest, obj: User | None) -> bool:
        return obj is None or not obj.is_superuser or self._is_superuser(request)

    @staticmethod
    def _is_superuser(request: HttpRequest) -> bool:
        return bool(getattr(request.user, "is_superuser", False))

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        with transaction.atomic():  # the new password and its entry, or neither
            return super().user_change_password(request, id, form_url)

    def log_change(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        """Django calls this after it has set somebody's password, which no other hook sees."""
        if request.path.endswith("/password/") and isinstance(obj, User):
            services.change_password(by=principal_of(request), user=obj, save=lambda: None)


@admin.register(Login)
class LoginAdmin(AuditedAdmin[Login]):
    """From where people log in: to be read."""

    view_right = Right.AUDIT
    edit_right = None
    list_display = ("user", "network", "device", "first_seen_at", "last_seen_at", "count")
    list_filter = ("last_seen_at", "first_seen_at")
    list_select_related = ("user",)
    search_fields = ("user__username", "network", "device")
    fields = ("user", "network", "device", "first_seen_at", "last_seen_at", "count")


@admin.register(Group)
class RoleAdmin(AuditedAdmin[Group]):
    """Roles: what each may do, and how many have it. They are the house's own; people get them on their own page."""

    view_right = Right.ADMINISTER
    edit_right = None
    list_display = ("name", "rights", "members")
    fields = ("name", "rights", "members")
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Group]":
        return super().get_queryset(request).annotate(people=models.Count("user"))

    @display(description="May")
    def rights(self, group: Group) -> str:
        return ", ".join(sorted(ROLES.get(group.name, ()))) or "nothing: this group is no role"

    @display(description="People")
    def members(self, group: Group) -> int:
        return int(getattr(group, "people", 0))


# --- Teams and calendars ---------------------------------------------------------------------------------------------
@admin.register(Team)
class TeamAdmin(AuditedAdmin[Team]):
    """Teams and who is in them."""

    edit_right = Right.ADMINISTER
    list_display = ("name", "description", "people")
    search_fields = ("name", "description")
    autocomplete_fields = ("members",)

    def get_queryset(self, request: HttpRequest) -> "models.QuerySet[Team]":
        return super().get_queryset(request).annotate(member_count=models.Count("members"))

    @display(description="People", ordering="member_count")
    def people(self, team: Team) -> int:
        return int(vars(team).get("member_count", 0))


class CalendarForm(forms.ModelForm[Calendar]):
    """A calendar; closed days may come from an .ics file, such as a country or a company hands out."""

    holiday_file = forms.FileField(
        label="Closed days from a file",
        required=False,
        help_text="An .ics file: its all-day events of this year and the next two are added to the closed days above.",
    )

    class Meta:
        model = Calendar
        fields = ("name", "zone", "hours", "holidays", "country")

    def clean(self) -> dict[str, Any]:
        """Add the days of the file to those that were typed."""
        values = super().clean() or self.cleaned_data
        upload = values.get("holiday_file")
        if upload is None:
            return values
        today = timezone.now().date()
        start, end = today.replace(month=1, day=1), date(today.year + 3, 1, 1)
        try:
            found = ical.days(upload.read(ical.MOST_BYTES + 1), start=start, end=end)
        except ical.CalendarError as error:
            self.add_error("holiday_file", str(error))
            return values
        if not found:
            self.add_error("holiday_file", "There is no all-day event in this file within this year and the next two.")
            return values
        lines = [line for line in values.get("holidays", "").splitlines() if line.strip()]
        known = {line.split(maxsplit=1)[0] for line in lines}
        lines += [f"{day} {' '.join(name.split())[:80]}".strip() for day, name in found if str(day) not in known]
        values["holidays"] = "\n".join(lines)
        return values


@admin.register(Calendar)
class CalendarAdmin(AuditedAdmin[Calendar]):
    """Calendars: hours of a week and holidays in a time zone."""

    form = CalendarForm
    list_display = ("name", "zone", "week", "country", "now")
    search_fields = ("name", "zone")

    @display(description="Hours")
    def week(self, calendar: Calendar) -> str:
        return "; ".join(calendar.hours.split("\n")) or "around the clock"

    @display(description="Now", label={"open": "success", "closed": "info"})
    def now(self, calendar: Calendar) -> str:
        try:
            return "open" if calendar.times.covers(timezone.now()) else "closed"
        except ValueError as error:
            return str(error)


# --- Tokens ----------------------------------------------------------------------------------------------------------
class TokenForm(forms.ModelForm[Token]):
    """What a new token may do, see and until when."""

    scopes = forms.MultipleChoiceField(
        choices=[(name, f"{name}: {', '.join(sorted(rights))}") for name, rights in SCOPES.items()],
        widget=UnfoldAdminCheckboxSelectMultipleWidget(),
    )

    class Meta:
        model = Token
        fields = ("name", "owner", "scopes", "matchers", "series_limit", "samples_per_second", "expires_at")

    def clean(self) -> dict[str, Any] | None:
        values = super().clean() or {}
        try:
            services.check_token(
                scopes=values.get("scopes") or list(SCOPES),  # an empty choice has its own error already
                expires_at=values.get("expires_at"),
                matchers=values.get("matchers", []),
                now=timezone.now(),
            )
        except ValidationError as problems:
            self.add_error(None, problems)
        return values


@admin.register(Token)
class TokenAdmin(AuditedAdmin[Token]):
    """Tokens: issued here with their secret shown once; afterwards name and quota change, and revoking ends them."""

    view_right = edit_right = Right.ADMINISTER
    form = TokenForm
    list_display = ("name", "prefix", "owner", "scope_names", "state", "expires_at", "last_used_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "origin")
    list_select_related = ("owner",)
    search_fields = ("name", "prefix", "owner__username")
    actions = ("revoke",)
    fields = ("name", "owner", "scopes", "matchers", "series_limit", "samples_per_second", "expires_at")
    editable = ("name", "series_limit", "samples_per_second")

    @display(description="Scopes")
    def scope_names(self, token: Token) -> str:
        return ", ".join(token.scopes)

    @display(description="State", label={"usable": "success", "revoked": "danger", "expired": "warning"})
    def state(self, token: Token) -> str:
        if token.revoked_at is not None:
            return "revoked"
        return "expired" if token.expires_at is not None and token.expires_at <= timezone.now() else "usable"

    def get_fields(self, request: HttpRequest, obj: Token | None = None) -> Any:
        if obj is None:
            return self.fields
        return ("name", "owner", "prefix", "scope_names", "matchers", "series_limit", "samples_per_second", "state",
                "expires_at", "last_used_at", "created_at", "revoked_at", "origin")  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Token | None = None) -> Any:
        return () if obj is None else tuple(set(self.get_fields(request, obj)) - set(self.editable))

    def get_form(self, request: HttpRequest, obj: Token | None = None, change: bool = False, **kwargs: Any) -> Any:
        if obj is not None:
            kwargs["form"] = forms.ModelForm
        return super().get_form(request, obj, change, **kwargs)

    def save_model(self, request: HttpRequest, obj: Token, form: forms.ModelForm[Token], change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
            return
        values = form.cleaned_data
        token, secret = services.issue_token(
            by=principal_of(request),
            name=values["name"],
            scopes=values["scopes"],
            owner=values["owner"],
            matchers=values["matchers"] or [],
            quota=Quota(values["series_limit"], values["samples_per_second"]),
            expires_at=values["expires_at"],
            now=timezone.now(),
        )
        obj.__dict__.update(token.__dict__)
        request.issued_secret = secret  # type: ignore[attr-defined]

    def response_add(self, request: HttpRequest, obj: Token, post_url_continue: str | None = None) -> HttpResponse:
        """Show the secret in this answer: a redirect would have to keep it somewhere."""
        context = {
            **self.admin_site.each_context(request),
            "title": "Token issued",
            "token": obj,
            "secret": getattr(request, "issued_secret", ""),
            "opts": self.opts,
        }
        response = TemplateResponse(request, "admin/accounts/token_issued.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @action(description="Revoke", permissions=["administer"])
    def revoke(self, request: HttpRequest, queryset: "models.QuerySet[Token]") -> None:
        by, now = principal_of(request), timezone.now()
        for token in queryset:
            services.revoke_token(by=by, token=token, now=now)
        self.message_user(request, "Revoked. Other processes refuse them within ten seconds.")


# --- Audit -----------------------------------------------------------------------------------------------------------
class DoorFilter(admin.SimpleListFilter):
    """By door; a fixed list, since asking the table for its distinct values would read all of it."""

    title = "door"
    parameter_name = "via"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(door, door) for door in ("page", "admin", "api", "command", "task", "environment")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset if self.value() is None else queryset.filter(via=self.value())


class ActorFilter(admin.SimpleListFilter):
    """By kind of actor."""

    title = "actor"
    parameter_name = "actor"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(kind, kind) for kind in ("user", "token", "system", "contact", "anonymous")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset if self.value() is None else queryset.filter(actor_kind=self.value())


@admin.register(AuditEntry)
class AuditEntryAdmin(AuditedAdmin[AuditEntry]):
    """The audit trail: to be read, searched and exported, by those with the right to audit, and changed by nobody."""

    view_right = Right.AUDIT
    edit_right = None
    list_display = ("id", "at", "actor_name", "verb", "target_label", "via", "address")
    list_display_links = ("id", "verb")
    list_filter = (ActorFilter, DoorFilter, "at")
    search_fields = ("actor_name", "verb", "target_type", "target_id", "target_label", "address")
    fields = (
        "at", "actor_kind", "actor_id", "actor_name", "verb", "target_type", "target_id", "target_label",
        "was", "became", "address", "via",
    )  # fmt: skip
    readonly_fields = ("was", "became")
    list_per_page = 50
    actions = ("export",)

    @display(description="Before")
    def was(self, entry: AuditEntry) -> str:
        return _table(entry.before)

    @display(description="After")
    def became(self, entry: AuditEntry) -> str:
        return _table(entry.after)

    @action(description="Export as CSV", permissions=["view"])
    def export(self, request: HttpRequest, queryset: "models.QuerySet[AuditEntry]") -> HttpResponse:
        rows = services.export_audit(by=principal_of(request), entries=queryset, limit=EXPORTED)
        response = HttpResponse(content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = 'attachment; filename="audit.csv"'
        names = [field.name for field in AuditEntry._meta.concrete_fields]
        writer = csv.writer(response)
        writer.writerow(names)
        for row in rows:
            writer.writerow([_cell(getattr(row, name)) for name in names])
        return response


def _table(state: dict[str, Any] | None) -> str:
    """Return a state as lines of name and value."""
    if not state:
        return "–"
    return format_html_join("", "<div>{}: {}</div>", state.items())


def _cell(value: Any) -> str:
    """Return text that no spreadsheet takes for a formula."""
    text = "" if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text
