"""The base of every admin page of the house (`AuditedAdmin`), and the pages for people, roles, tokens and the audit.

Whatever the admin writes goes through an audited verb; who may do what is decided by rights, never by a checkbox.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any, ClassVar, Final, NamedTuple, TypeVar
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db import models, transaction
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html_join
from unfold.admin import ModelAdmin, StackedInline, TabularInline
from unfold.decorators import action, display
from unfold.forms import AdminOwnPasswordChangeForm, AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from apps.accounts import exports, ical, imports_page, logins, services
from apps.accounts.models import AuditEntry, Calendar, Login, Team, Token, User
from apps.accounts.paging import BoundedPaginator
from apps.accounts.permissions import Principal, principal_of
from apps.accounts.rights import ROLES, SCOPES, Quota, Right
from apps.core.registry import extend, extensions
from apps.core.secrets import EncryptedJSONField

M = TypeVar("M", bound=models.Model)

MOST_ACTED = 500
"""Rows that one action changes at most: each is a verb with its audit entry, in one transaction."""
SHOWN_ROWS = 20
MOST_OFFERED = 200
"""Related rows that a filter or a choice offers; beyond them a list is searched."""


def among(field: str, title: str, names: Iterable[str] | Callable[[], Iterable[str]]) -> type[admin.SimpleListFilter]:
    """Return a filter by a field with the given values: Django would read a whole table for those that occur in it."""

    class Among(admin.SimpleListFilter):
        parameter_name = field

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            return [(name, name) for name in (names() if callable(names) else names)]

        def queryset(self, request: HttpRequest, queryset: Any) -> Any:
            return queryset if self.value() is None else queryset.filter(**{field: self.value()})

    Among.title = title
    return Among


class FewRelated(admin.RelatedFieldListFilter):
    """Filters by what is related offer the first of it: ten thousand people would be all there is of a page."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: Any) -> Any:
        ordering = self.field_admin_ordering(field, request, model_admin)
        rows = field.related_model._default_manager.all()  # noqa: SLF001
        rows = rows.order_by(*ordering) if ordering else rows
        return [(row.pk, str(row)) for row in rows[:MOST_OFFERED]]


admin.FieldListFilter.register(lambda field: bool(field.remote_field), FewRelated, take_priority=True)


class Link(NamedTuple):
    """A way from a row to what belongs to it."""

    title: str
    url: str


def to_list(title: str, model: type[models.Model], **lookups: Any) -> Link:
    """Return the way to a list of the admin, narrowed by lookups: those through relations it has as "reached"."""
    meta = model._meta
    url = reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")
    return Link(title, f"{url}?{urlencode(lookups)}" if lookups else url)


def to_row(row: models.Model, title: str = "") -> Link:
    """Return the way to a row's own page in the admin."""
    meta = row._meta
    return Link(title or str(row), reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk]))


SLUGS: Final = ("admin/js/urlify.js", "admin/js/prepopulate.js", "admin/js/vendor/xregexp/xregexp.min.js")
"""What django's admin loads for `prepopulated_fields`."""


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
    switched: ClassVar[str | None] = None
    """For rows that have `enabled`: what else happens when they are switched off; with it come two actions."""
    assigned: ClassVar[tuple[str, ...]] = ()
    """Fields that an action sets for many rows at once: an owner, a team, a service."""
    exported: ClassVar[tuple[str, ...]] = ()
    """Columns of a file of the rows, instead of those that list and form show."""
    imported: ClassVar[str] = ""
    """The column with the name by which an imported file finds a row again; with it comes the import."""
    formed_by: ClassVar[str] = ""
    """The column that says which fields a row's form has; a new row's page is asked with it, as ?kind=."""
    compressed_fields = True
    warn_unsaved_form = True
    list_filter_submit = False
    show_full_result_count = False
    paginator = BoundedPaginator

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self.imported:
            self.actions_list = (*self.actions_list, "import_rows")

    @property
    def media(self) -> forms.Media:
        """Without the scripts that make a slug of a name where no field wants one: each delays the first paint."""
        found = super().media
        if self.prepopulated_fields:
            return found
        files: Any = found  # its types do not tell what it holds
        kept = [path for path in files._js if path not in SLUGS]  # noqa: SLF001
        return forms.Media(css=files._css, js=kept)  # noqa: SLF001

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

    def has_import_permission(self, request: HttpRequest) -> bool:
        """For actions: whoever may write rows at all; which of them, each row asks."""
        return self._can(request, self.edit_right)

    # --- what is shown -----------------------------------------------------------------------------------------
    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Also by those that links from other pages use: `extend(Model, "reached", lookup)`."""
        return lookup in extensions(self.model, "reached") or super().lookup_allowed(lookup, value, request)

    def get_inlines(self, request: HttpRequest | None, obj: M | None) -> list[Any]:
        return [*self.inlines, *extensions(self.model, "inlines")]

    def _get_base_actions(self) -> Any:
        own = ["switch_on", "switch_off"] if self.switched is not None else []
        own += ["assign"] if self.assigned else []
        more = map(self.get_action, [*own, *extensions(self.model, "actions"), "export_csv", "export_json"])
        return [*super()._get_base_actions(), *filter(None, more)]  # type: ignore[misc] # Django has no other way

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if isinstance(db_field, EncryptedJSONField):  # a secret is never put into a page; rooms offer their own field
            return None
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    change_form_outer_before_template = "admin/accounts/beside.html"

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Add what stands beside the form of a row: `extend(Model, "links", f)` and `extend(Model, "charts", f)`.

        Each f takes the row and who looks. One of links returns `Link`s; one of charts None, or a `template` and what
        that shows, of which the first counts.
        """
        if (row := kwargs.get("obj")) is not None:
            who = principal_of(request)
            context["links"] = [link for ask in extensions(self.model, "links") for link in ask(row, who)]
            found = (ask(row, who) for ask in extensions(self.model, "charts"))
            context["charts"] = next((charts for charts in found if charts), None)
        return super().render_change_form(request, context, *args, **kwargs)

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

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[Any, Any, Any, Any]:
        """Let the page that asks, for one and for several, refuse what a verb would refuse, and say why."""
        listed, counts, perms_needed, protected = super().get_deleted_objects(objs, request)
        refusals = [sentence for row in objs if (sentence := services.refusal(row))]
        for sentence in refusals:
            self.message_user(request, sentence, messages.ERROR)
        return listed, counts, perms_needed, [*protected, *refusals]

    def delete_queryset(self, request: HttpRequest, queryset: "models.QuerySet[M]") -> None:
        """Delete all of them or none, each as its own page does."""
        with transaction.atomic():
            for obj in queryset:
                self.delete_model(request, obj)

    # The audit trail is the one log: Django's own would be a second truth.
    def log_addition(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        return None

    def log_change(self, request: HttpRequest, obj: models.Model, message: Any) -> Any:
        return None

    def log_deletions(self, request: HttpRequest, queryset: "models.QuerySet[M]") -> Any:
        return None

    # --- what asks first ---------------------------------------------------------------------------------------
    def ask(
        self,
        request: HttpRequest,
        *,
        title: str,
        question: str,
        back: str,
        rows: Sequence[Any] = (),
        action: str = "",
        form: forms.Form | None = None,
    ) -> HttpResponse | None:
        """Return None once the person has confirmed (and filled in the form), else the page that asks.

        For `actions_detail`, which are links: what a link does at once, any page on the web can make a browser do.
        For an `action` on many `rows`, which are shown; use `act_on`.
        """
        confirmed = request.method == "POST" and bool(request.POST.get("confirmed"))
        if confirmed and (form is None or form.is_valid()):
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "question": question,
            "back": back,
            "rows": rows[:SHOWN_ROWS],
            "more": max(0, len(rows) - SHOWN_ROWS),
            "selected": [row.pk for row in rows] if action else [],
            "action": action,
            "form": form,
            "opts": self.opts,
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
        }
        return TemplateResponse(request, "admin/accounts/confirm.html", context)

    def act_on(
        self,
        request: HttpRequest,
        queryset: "models.QuerySet[M]",
        *,
        action: str,
        title: str,
        act: Callable[[M], object],
        done: str,
        note: str = "",
        form: forms.Form | None = None,
    ) -> HttpResponse | None:
        """Say which rows an action would change; once that is confirmed, do it to all of them or to none.

        `done` is what is said afterwards, behind their number. What a verb refuses is said with the row's name.
        """
        rows = list(queryset[: MOST_ACTED + 1])
        if len(rows) > MOST_ACTED:
            self.message_user(request, f"At most {MOST_ACTED} rows at once: choose fewer.", messages.ERROR)
            return None
        if not rows:
            self.message_user(request, "None of these needs it.", messages.WARNING)
            return None
        names = self.opts.verbose_name if len(rows) == 1 else self.opts.verbose_name_plural
        question = f"{title}: {len(rows)} {names}? {note}".strip()
        back = request.get_full_path()
        if (page := self.ask(
            request, title=title, question=question, back=back, rows=rows, action=action, form=form
        )) is not None:  # fmt: skip
            return page
        row: M | None = None
        try:
            with transaction.atomic():
                for row in rows:
                    act(row)
        except (ValidationError, PermissionDenied) as error:
            words = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            self.message_user(request, f"Nothing was done, because of {row}: {words}", messages.ERROR)
        else:
            self.message_user(request, f"{len(rows)} {names} {done}.", messages.SUCCESS)
        return HttpResponseRedirect(back)

    # --- what each list offers ---------------------------------------------------------------------------------
    def keep(self, request: HttpRequest, row: M) -> None:
        """Store a row that an action has changed; a page whose saving has a verb calls it."""
        services.save_object(by=principal_of(request), obj=row)

    @action(description="Switch on", permissions=["change"])
    def switch_on(self, request: HttpRequest, queryset: "models.QuerySet[M]") -> HttpResponse | None:
        return self._switch(request, queryset, on=True)

    @action(description="Switch off", permissions=["change"])
    def switch_off(self, request: HttpRequest, queryset: "models.QuerySet[M]") -> HttpResponse | None:
        return self._switch(request, queryset, on=False)

    def _switch(self, request: HttpRequest, queryset: "models.QuerySet[M]", *, on: bool) -> HttpResponse | None:
        def act(row: M) -> None:
            fresh: Any = self.model._default_manager.get(pk=row.pk)  # noqa: SLF001
            fresh.enabled = on
            self.keep(request, fresh)

        word = "on" if on else "off"
        return self.act_on(
            request, queryset.filter(enabled=not on), action=f"switch_{word}", title=f"Switch {word}", act=act,
            done=f"switched {word}", note="" if on else self.switched or "",
        )  # fmt: skip

    @action(description="Assign", permissions=["change"])
    def assign(self, request: HttpRequest, queryset: "models.QuerySet[M]") -> HttpResponse | None:
        form = self._assignment(request)

        def act(row: M) -> None:
            fresh = self.model._default_manager.get(pk=row.pk)  # noqa: SLF001
            for name, value in form.chosen().items():
                setattr(fresh, name, value)
            self.keep(request, fresh)

        words = " and ".join(self.assigned) if len(self.assigned) < 3 else f"{', '.join(self.assigned)}"
        return self.act_on(
            request, queryset, action="assign", title=f"Assign {words}", act=act, done="assigned", form=form
        )

    def _assignment(self, request: HttpRequest) -> "Assignment":
        fields = [self.opts.get_field(name) for name in self.assigned]
        return Assignment(request.POST if request.POST.get("confirmed") else None, fields=fields)

    @action(description="Export as CSV", permissions=["view"])
    def export_csv(self, request: HttpRequest, queryset: "models.QuerySet[M]") -> HttpResponse:
        response = self._file("csv")
        columns = exports.columns_of(self, request)
        self._leave(request, queryset, columns, exports.csv_writer(response, columns), "csv")  # type: ignore[arg-type] # a response is written to like a file
        return response

    @action(description="Export as JSON", permissions=["view"])
    def export_json(self, request: HttpRequest, queryset: "models.QuerySet[M]") -> HttpResponse:
        rows: list[dict[str, Any]] = []
        self._leave(request, queryset, exports.columns_of(self, request), rows.append, "json")
        response = self._file("json")
        response.writelines(exports.json_lines(rows))
        return response

    def _file(self, kind: str) -> HttpResponse:
        response = HttpResponse(content_type={"csv": "text/csv", "json": "application/json"}[kind] + "; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="{self.opts.model_name}.{kind}"'
        return response

    def _leave(
        self,
        request: HttpRequest,
        queryset: "models.QuerySet[M]",
        columns: list[str],
        write: Callable[[dict[str, Any]], object],
        kind: str,
    ) -> None:
        related = [name for name in columns if name in _singly_related(self.opts)]
        rows = queryset.select_related(*related) if related else queryset
        rows = rows.prefetch_related(*(many.name for many in self.opts.many_to_many if many.name in columns))
        services.export_rows(
            by=principal_of(request), rows=rows, limit=exports.MOST_ROWS, kind=kind,
            write=lambda row: write(exports.values_of(self, row, columns)),
        )  # fmt: skip

    @action(description="Import CSV or JSON", permissions=["import"], url_path="import-rows")
    def import_rows(self, request: HttpRequest) -> HttpResponse:
        """Say what a file of rows would do; do that once it is confirmed."""
        return imports_page.page(self, request)

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
            "trail": to_list("In the audit trail", AuditEntry, target_type=self.opts.label_lower, target_id=obj.pk).url
            if self._can(request, Right.AUDIT)
            else "",
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/accounts/history.html", context)


def _singly_related(opts: Any) -> set[str]:
    return {field.name for field in opts.concrete_fields if field.is_relation}


LEAVE, NOBODY = "", "-"


class Assignment(forms.Form):
    """For each of some fields: leave it, empty it, or give it to somebody."""

    def __init__(self, data: Any, *, fields: Iterable[Any]) -> None:
        super().__init__(data)
        self.model_fields = {field.name: field for field in fields}
        for name, field in self.model_fields.items():
            label = str(field.verbose_name).capitalize()
            if field.is_relation:
                there = field.related_model._default_manager.all()[:MOST_OFFERED]  # noqa: SLF001
                none = [(NOBODY, "nobody")] if field.null else []
                choices = [(LEAVE, "as it is"), *none, *((str(row.pk), str(row)) for row in there)]
                self.fields[name] = forms.ChoiceField(
                    label=label, choices=choices, required=False, widget=UnfoldAdminSelectWidget
                )
            else:
                self.fields[name] = forms.CharField(
                    label=label, required=False, max_length=field.max_length, widget=UnfoldAdminTextInputWidget,
                    help_text="Left empty: as it is. A dash: none.",
                )  # fmt: skip

    def clean(self) -> dict[str, Any]:
        """Want at least one."""
        values = super().clean() or self.cleaned_data
        if not self.errors and not any(values.values()):
            raise ValidationError("Choose what is assigned.")
        return values

    def chosen(self) -> dict[str, Any]:
        """Return the fields that are set, by the names of their columns."""
        found: dict[str, Any] = {}
        for name, value in self.cleaned_data.items():
            field = self.model_fields[name]
            if value != LEAVE:
                empty = None if field.is_relation else ""
                chosen = field.target_field.to_python(value) if field.is_relation and value != NOBODY else value
                found[field.attname] = empty if value == NOBODY else chosen
        return found


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

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Name each field for those who hear the page: in a table there is only the heading, far away."""
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if field is not None:
            field.widget.attrs.setdefault("aria-label", field.label or db_field.verbose_name)
        return field


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


def _trail(row: Any, who: Principal) -> list[Link]:
    """What a person or token did, for those who may read it."""
    if not who.can(Right.AUDIT):
        return []
    kind = "token" if isinstance(row, Token) else "user"
    return [
        to_list("What it did" if kind == "token" else "What they did", AuditEntry, actor_kind=kind, actor_id=row.pk)
    ]


def _person_links(person: Any, who: Principal) -> list[Link]:
    found = [to_list("Tokens", Token, owner__id__exact=person.pk)] if who.can(Right.ADMINISTER) else []
    return [*found, *([to_list("Log-ins", Login, user__id__exact=person.pk)] if who.can(Right.AUDIT) else [])]


extend(User, "links", _trail)
extend(User, "links", _person_links)
extend(Token, "links", _trail)


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
    def unlock(self, request: HttpRequest, queryset: "models.QuerySet[User]") -> HttpResponse | None:
        return self.act_on(
            request, queryset, action="unlock", title="Unlock after failed log-ins", done="unlocked",
            note="Their failed log-ins are forgotten, from every address.",
            act=lambda user: logins.unlock(by=principal_of(request), username=user.username),
        )  # fmt: skip

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

    imported = "name"
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

    imported = "name"
    form = CalendarForm
    list_display = ("name", "zone", "week", "country", "now")
    list_filter = ("country",)
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
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "origin", "expires_at", "last_used_at", "owner")
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
    def revoke(self, request: HttpRequest, queryset: "models.QuerySet[Token]") -> HttpResponse | None:
        by, now = principal_of(request), timezone.now()
        return self.act_on(
            request, queryset.filter(revoked_at=None), action="revoke", title="Revoke", done="revoked",
            note="They cannot be taken into use again; every process refuses them within ten seconds.",
            act=lambda token: services.revoke_token(by=by, token=token, now=now),
        )  # fmt: skip


# --- Audit -----------------------------------------------------------------------------------------------------------
@admin.register(AuditEntry)
class AuditEntryAdmin(AuditedAdmin[AuditEntry]):
    """The audit trail: to be read, searched and exported, by those with the right to audit, and changed by nobody."""

    view_right = Right.AUDIT
    edit_right = None
    list_display = ("id", "at", "actor_name", "verb", "target_label", "via", "address")
    list_display_links = ("id", "verb")
    list_filter = (
        among("actor_kind", "actor", ("user", "token", "system", "contact", "anonymous")),
        among("via", "door", ("page", "admin", "api", "command", "task", "environment")),
        "at",
    )
    search_fields = ("actor_name", "verb", "target_type", "target_id", "target_label", "address")
    fields = (
        "at", "actor_kind", "actor_id", "actor_name", "verb", "target_type", "target_id", "target_label",
        "was", "became", "address", "via",
    )  # fmt: skip
    readonly_fields = ("was", "became")
    list_per_page = 50
    exported = (
        "id", "at", "actor_kind", "actor_id", "actor_name", "verb", "target_type", "target_id", "target_label",
        "before", "after", "address", "via",
    )  # fmt: skip

    @display(description="Before")
    def was(self, entry: AuditEntry) -> str:
        return _table(entry.before)

    @display(description="After")
    def became(self, entry: AuditEntry) -> str:
        return _table(entry.after)


def _table(state: dict[str, Any] | None) -> str:
    """Return a state as lines of name and value."""
    if not state:
        return "–"
    return format_html_join("", "<div>{}: {}</div>", state.items())
