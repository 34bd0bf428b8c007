"""Silences, maintenance windows, inhibition rules and services in the admin, written by the same verbs as elsewhere."""

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.accounts.admin import AuditedAdmin
from apps.accounts.permissions import principal_of
from apps.alerting import matching, services
from apps.alerting.matching import MatcherError
from apps.alerting.models import Inhibition, MaintenanceWindow, Service, Silence
from apps.alerting.services.dependencies import check_service
from apps.alerting.services.windows import INHIBITION_FIELDS, WINDOW_FIELDS, check_inhibition, check_window

STATES = {"active": "info", "pending": "warning", "expired": "default"}


class Matchers(forms.CharField):
    """Matchers, typed a line each; kept as Alertmanager's JSON."""

    widget = UnfoldAdminTextareaWidget

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, list):
            return "\n".join(map(str, matching.from_json(value)))
        return value

    def clean(self, value: Any) -> Any:
        text = super().clean(value)
        try:
            return matching.to_json(matching.parse_matchers(text or ""))
        except MatcherError as error:
            raise ValidationError(str(error)) from None


class Names(forms.CharField):
    """Names, with commas between them."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        return [name.strip() for name in (super().clean(value) or "").split(",") if name.strip()]


class Judged(forms.ModelForm[Any]):
    """A form that the verb's own check judges, before anything is saved."""

    def judge(self, draft: Any) -> None:
        raise NotImplementedError

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        draft = self._meta.model(pk=self.instance.pk)
        for name, value in {**_stored(self.instance), **values}.items():
            if name != "depends_on":
                setattr(draft, name, value)
        if not self.errors:
            try:
                self.judge(draft)
            except ValidationError as error:
                for name, texts in error.message_dict.items():
                    self.add_error(name if name in self.fields else None, texts)
        return values

    def _post_clean(self) -> None:
        """The verb sets the fields and validates the row."""


def _stored(instance: Any) -> dict[str, Any]:
    return {
        field.name: getattr(instance, field.name) for field in instance._meta.concrete_fields if not field.primary_key
    }


class WindowForm(Judged):
    """A maintenance window."""

    matchers = Matchers(
        required=False, help_text='One a line, like severity="warning"; instead of a service or beside it.'
    )

    class Meta:
        model = MaintenanceWindow
        fields = WINDOW_FIELDS

    def judge(self, draft: MaintenanceWindow) -> None:
        check_window(draft, timezone.now())


@admin.register(MaintenanceWindow)
class MaintenanceWindowAdmin(AuditedAdmin[MaintenanceWindow]):
    """Planned work: nobody is paged for it."""

    imported = "name"
    form = WindowForm
    list_display = (
        "name",
        "standing",
        "service",
        "shown_matchers",
        "starts_at",
        "ends_at",
        "recurrence",
        "excluded_from_sla",
    )
    list_filter = ("excluded_from_sla", "service")
    date_hierarchy = "starts_at"
    search_fields = ("name", "description")
    list_select_related = ("service",)

    @display(description="State", label=STATES)
    def standing(self, row: MaintenanceWindow) -> str:
        return row.state(timezone.now())

    @display(description="Matchers")
    def shown_matchers(self, row: MaintenanceWindow) -> str:
        return matching.spelled(row.parsed)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        stored = MaintenanceWindow.objects.get(pk=obj.pk) if change else None
        saved = services.save_window(
            by=principal_of(request), values=form.cleaned_data, window=stored, now=timezone.now()
        )
        obj.pk = saved.pk

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """There is nothing beside the row."""

    def delete_model(self, request: HttpRequest, obj: MaintenanceWindow) -> None:
        services.delete_window(by=principal_of(request), window=obj, now=timezone.now())


class InhibitionForm(Judged):
    """An inhibition rule."""

    source_matchers = Matchers(help_text="The alert that explains the others; one matcher a line.")
    target_matchers = Matchers(help_text="The alerts that nobody needs to hear of then.")
    equal = Names(required=False, help_text="Labels that both have in common, such as service, instance.")

    class Meta:
        model = Inhibition
        fields = INHIBITION_FIELDS

    def judge(self, draft: Inhibition) -> None:
        check_inhibition(draft)


@admin.register(Inhibition)
class InhibitionAdmin(AuditedAdmin[Inhibition]):
    """Which alerts explain which others."""

    imported = "name"
    switched = "What they mute is told."
    form = InhibitionForm
    list_display = ("name", "source", "target", "equal", "enabled")
    list_filter = ("enabled",)
    search_fields = ("name",)

    def keep(self, request: HttpRequest, row: Inhibition) -> None:
        services.save_inhibition(by=principal_of(request), values={}, inhibition=row, now=timezone.now())

    @display(description="While this fires")
    def source(self, row: Inhibition) -> str:
        return matching.spelled(matching.from_json(row.source_matchers))

    @display(description="this is muted")
    def target(self, row: Inhibition) -> str:
        return matching.spelled(matching.from_json(row.target_matchers))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        stored = Inhibition.objects.get(pk=obj.pk) if change else None
        saved = services.save_inhibition(
            by=principal_of(request), values=form.cleaned_data, inhibition=stored, now=timezone.now()
        )
        obj.pk = saved.pk

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """There is nothing beside the row."""

    def delete_model(self, request: HttpRequest, obj: Inhibition) -> None:
        services.delete_inhibition(by=principal_of(request), inhibition=obj, now=timezone.now())


class ServiceForm(Judged):
    """A service with what it depends on."""

    class Meta:
        model = Service
        fields = ("name", "description", "team", "fails_at", "depends_on")

    def judge(self, draft: Service) -> None:
        check_service(draft, list(self.cleaned_data.get("depends_on") or ()))


@admin.register(Service)
class ServiceAdmin(AuditedAdmin[Service]):
    """What runs, who looks after it and what it cannot work without."""

    imported = "name"
    assigned = ("team",)
    form = ServiceForm
    list_display = ("name", "team", "needs", "fails_at", "description")
    list_filter = ("team", "fails_at")
    search_fields = ("name", "description")
    list_select_related = ("team",)
    filter_horizontal = ("depends_on",)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("depends_on")

    def keep(self, request: HttpRequest, row: Service) -> None:
        services.save_service(
            by=principal_of(request), values={"team": row.team}, depends_on=None, service=row, now=timezone.now()
        )

    @display(description="Depends on")
    def needs(self, row: Service) -> str:
        return ", ".join(map(str, row.depends_on.all()))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        values = dict(form.cleaned_data)
        parents = values.pop("depends_on")
        stored = Service.objects.get(pk=obj.pk) if change else None
        saved = services.save_service(
            by=principal_of(request), values=values, depends_on=parents, service=stored, now=timezone.now()
        )
        obj.pk = saved.pk

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """What it depends on is saved with it."""

    def delete_model(self, request: HttpRequest, obj: Service) -> None:
        services.delete_service(by=principal_of(request), service=obj, now=timezone.now())


@admin.register(Silence)
class SilenceAdmin(AuditedAdmin[Silence]):
    """Silences, to be read: they are made, changed and ended on the page Quiet."""

    edit_right = None
    list_display = ("spelled", "standing", "starts_at", "ends_at", "recurrence", "created_by", "comment")
    list_filter = ("until_resolved", "ends_at")
    date_hierarchy = "starts_at"
    search_fields = ("comment", "created_by")
    ordering = ("-ends_at",)
    fields = (
        "spelled", "standing", "starts_at", "ends_at", "until_resolved", "recurrence", "duration", "time_zone",
        "comment", "created_by", "author", "created_at", "updated_at", "remind_at", "reminded_at",
    )  # fmt: skip
    readonly_fields = ("spelled", "standing")

    def get_queryset(self, request: HttpRequest) -> Any:
        return Silence.objects.visible_to(principal_of(request).scope)

    @display(description="State", label=STATES)
    def standing(self, row: Silence) -> str:
        return row.state(timezone.now())
