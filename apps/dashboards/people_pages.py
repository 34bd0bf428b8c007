"""The page of how a person is told: their contacts in order, their quiet hours, a test, and what they were told."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.models import User
from apps.accounts.permissions import Right, page, principal_of
from apps.dashboards import snapshots
from apps.dashboards.snapshots import Row
from apps.dashboards.views import attempt, shell
from apps.notifications import personal
from apps.notifications.message import SEVERITIES
from apps.notifications.models import Contact, Delivery, QuietHours

TOLD = 15
LISTS = ("default", "important")


@require_GET
@never_cache
@page(Right.READ)
def me(request: HttpRequest) -> HttpResponse:
    """The page of whoever is logged in."""
    return _shown(request, get_object_or_404(User, pk=request.user.pk))


@require_GET
@never_cache
@page(Right.READ)
def person(request: HttpRequest, pk: int) -> HttpResponse:
    """The same page of anybody; only they and who administers may change it."""
    return _shown(request, get_object_or_404(User, pk=pk))


def _shown(request: HttpRequest, who: User, draft: Mapping[str, Any] | None = None, status: int = 200) -> HttpResponse:
    by, now = principal_of(request), timezone.now()
    quiet = QuietHours.objects.filter(person=who).first()
    is_self = personal.is_self(by, who)
    deliveries = Delivery.objects.filter(contact__owner=who).order_by("-id")[:TOLD]
    answer = shell(
        request, "person", "How you are told" if is_self else f"How {who} is told", "person",
        {"alerts": snapshots.alerts(scope=by.scope)},
        person=who,
        is_self=is_self,
        contacts=[_contact(contact) for contact in Contact.objects.filter(owner=who).order_by("name")],
        quiet=draft or {
            "hours": quiet.hours if quiet else "",
            "zone": quiet.zone if quiet else "UTC",
            "disturbed_from": quiet.disturbed_from if quiet else "critical",
        },
        severities=SEVERITIES[1:],
        prospects=_prospects(who),
        deliveries=[snapshots.delivery_entry(row, with_reason=True) for row in deliveries],
        may={
            "change": is_self or by.can(Right.ADMINISTER),
            "test": is_self or by.can(Right.OPERATE),
            "administer": by.can(Right.ADMINISTER),
        },
        now=now,
    )  # fmt: skip
    answer.status_code = status
    return answer


def _contact(contact: Contact) -> Row:
    try:
        kind, address = contact.get_kind_display(), contact.channel.address(contact.config)
    except LookupError as error:
        kind, address = contact.kind, str(error)
    return {
        "contact": contact,
        "kind": kind,
        "address": address,
        "default": _minutes(contact.default_after),
        "important": _minutes(contact.important_after),
    }


def _minutes(after: timedelta | None) -> str:
    return "" if after is None else f"{after.total_seconds() / 60:g}"


def _prospects(who: User) -> list[Row]:
    """What would happen now to a warning by each list."""
    now, severity = timezone.now(), "warning"
    return [
        {"name": name, "ways": personal.prospects(who, important=name == "important", severity=severity, now=now)}
        for name in LISTS
    ]


@require_POST
@page(Right.READ)
def order(request: HttpRequest, pk: int) -> HttpResponse:
    """Put contacts in order; an empty field keeps a contact out of the list."""
    who = get_object_or_404(User, pk=pk)
    places = {}
    for contact in Contact.objects.filter(owner=who):
        try:
            default, important = (_span(request.POST.get(f"{name}-{contact.pk}", "")) for name in LISTS)
        except ValueError:
            messages.error(request, f"{contact}: write minutes, such as 0, 3 or 0.5, or nothing.")
            return _back(request, who)
        places[contact.pk] = (default, important)
    by = principal_of(request)
    if attempt(request, lambda: personal.save_order(by=by, person=who, order=places, now=timezone.now())):
        messages.success(request, "Saved.")
    return _back(request, who)


def _span(text: str) -> timedelta | None:
    try:
        return timedelta(minutes=float(text.replace(",", "."))) if text.strip() else None
    except OverflowError:
        raise ValueError(text) from None


@require_POST
@page(Right.READ)
def quiet_hours(request: HttpRequest, pk: int) -> HttpResponse:
    """Save quiet hours; without hours there are none."""
    who = get_object_or_404(User, pk=pk)
    draft = {name: request.POST.get(name, "") for name in ("hours", "zone", "disturbed_from")}
    try:
        personal.save_quiet_hours(by=principal_of(request), person=who, now=timezone.now(), **draft)
    except ValidationError as error:
        for sentence in error.messages:
            messages.error(request, sentence)
        return _shown(request, who, draft, status=400)
    messages.success(request, "Saved.")
    return _back(request, who)


@require_POST
@page(Right.READ)
def test(request: HttpRequest, pk: int) -> HttpResponse:
    """Send a test to the first contact of each list, or to one of the person's contacts."""
    who, by = get_object_or_404(User, pk=pk), principal_of(request)
    if attempt(request, lambda: personal.try_out(by=by, person=who, now=timezone.now(), send=True)):
        messages.success(request, "A test is on its way to the first contact of each list.")
    return _back(request, who)


def _back(request: HttpRequest, who: User) -> HttpResponse:
    return redirect("me") if personal.is_self(principal_of(request), who) else redirect("person", pk=who.pk)
