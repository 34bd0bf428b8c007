"""The page of who is on call: now, on a calendar, overrides and swaps, fairness, and calendars that subscribe."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django import forms
from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from apps.accounts.hours import parse_zone
from apps.accounts.models import User
from apps.accounts.permissions import Principal, Right, Throttled, authenticate, page, principal_of
from apps.dashboards import oncall_calendar as drawing
from apps.dashboards import snapshots
from apps.dashboards.snapshots import Row
from apps.dashboards.views import attempt, csv_file, shell
from apps.oncall import coverage, fairness, feeds, schedules, subscriptions
from apps.oncall.models import Override, Schedule
from apps.oncall.rotation import Gap, Shift

VIEWS = (("week", "Week"), ("month", "Month"))
SPANS = (("last-4", "Last 4 weeks"), ("last-12", "Last 12 weeks"), ("next-4", "Next 4 weeks"))
CHOICES = 150
"""Shifts that a swap can be chosen from."""
AHEAD = timedelta(days=42)


@require_GET
@never_cache
@page(Right.READ)
def on_call(request: HttpRequest) -> HttpResponse:
    """Who is on call, and everything that is to be seen and done about it."""
    return _page(request)


def _page(request: HttpRequest, secret: str = "", problems: Mapping[str, str] | None = None) -> HttpResponse:
    who, now = principal_of(request), timezone.now()
    rows = list(Schedule.objects.select_related("owner", "holidays").order_by("name"))
    chosen = _chosen(request, rows)
    zone = _zone(request, chosen)
    names = dict(User.objects.values_list("pk", "username"))
    query = {name: request.GET[name] for name in ("schedule", "view", "on", "zone", "fair") if request.GET.get(name)}
    state = {"alerts": snapshots.alerts(scope=who.scope), "oncall": snapshots.on_call(now)}
    content = {
        "standings": [_standing(one, names) for one in schedules.standings(rows, now)],
        "findings": coverage.problems(),
        "schedules": rows,
        "chosen": chosen,
        "zone": zone.key,
        "query": query,
        "may": {name: who.can(Right(name)) for name in ("operate", "edit")},
        "person_id": who.id if who.kind == "user" else "",
        "people": User.objects.filter(is_active=True).order_by("username"),
        "problems": problems or {},
        "secret": secret,
        **_calendar(request, [chosen] if chosen else rows, names, zone, now),
        **_forms(request, rows, names, who, zone, now),
        **_fairness(request, [chosen] if chosen else rows, now),
        **_subscription(request, who, rows, secret),
    }
    answer = shell(request, "oncall", "On call", "oncall", state, **content)
    answer.status_code = 422 if problems else 200
    return answer


def _chosen(request: HttpRequest, rows: list[Schedule]) -> Schedule | None:
    wanted = request.GET.get("schedule", "")
    if not wanted:
        return None
    found = next((row for row in rows if str(row.pk) == wanted), None)
    if found is None:
        raise Http404
    return found


def _zone(request: HttpRequest, chosen: Schedule | None) -> ZoneInfo:
    """Return the zone to draw in: the one asked for, the reader's own as their browser says, or the schedule's."""
    for name in (request.GET.get("zone"), request.COOKIES.get("zone"), chosen.zone if chosen else ""):
        try:
            if name:
                return parse_zone(name)
        except ValueError:
            continue
    return ZoneInfo("UTC")


def _standing(one: schedules.Standing, names: Mapping[int, str]) -> Row:
    following = one.following
    return {
        "schedule": one.schedule,
        "person": names.get(one.shift.person, "somebody who is gone") if one.shift else "",
        "reason": one.shift.reason if one.shift else "",
        "until": one.until,
        "next": names.get(following.person, "somebody who is gone") if following else "",
        "problem": one.problem,
        "tone": "warning" if one.problem else "ok",
    }


# --- The calendar ----------------------------------------------------------------------------------------------------
def _calendar(
    request: HttpRequest, rows: list[Schedule], names: Mapping[int, str], zone: ZoneInfo, now: datetime
) -> Row:
    view = request.GET.get("view", "week")
    if view not in dict(VIEWS):
        raise Http404
    today = now.astimezone(zone).date()
    span = (drawing.week if view == "week" else drawing.month)(_day(request.GET.get("on", ""), today), zone)
    plans = schedules.plans(rows, span.start, span.end)
    tones = drawing.colours([shift.person for plan in plans.values() for shift in plan.shifts])
    content: Row = {
        "scale": view, "scales": VIEWS, "span": span, "today": today, "marks": drawing.marks(span, zone, today),
        "now_at": drawing.now_at(span, now),
        "overrides": Override.objects.filter(schedule__in=rows, ends_at__gt=max(now, span.start))
        .select_related("schedule", "person").order_by("starts_at")[:100],
    }  # fmt: skip
    if view == "month":
        table = [drawing.cells(row.name, (plan := plans[row.pk]).shifts, plan.gaps, span, zone, names, tones)
                 for row in rows]  # fmt: skip
        days = [
            {"day": day, "cells": [each[day] for each in table], "is_other": day.month != span.days[10].month}
            for day in span.days
        ]
        return content | {"weeks": [days[number : number + 7] for number in range(0, len(days), 7)]}
    lanes = []
    for row in rows:
        plan = plans[row.pk]
        layers = [
            (layer.name, drawing.bars(
                [Shift(begin, after, person, f"layer {layer.name}") for begin, after, person
                 in layer.stretches(span.start, span.end)], span, zone, names, tones))
            for layer in reversed(plan.layers)
        ]  # fmt: skip
        final = drawing.holes(plan.empty, span, zone)
        final += drawing.bars(plan.shifts, span, zone, names, tones, plan.away)
        lanes.append({"schedule": row, "final": final, "layers": layers, "list": _listed(plan, row, names, zone)})
    return content | {"lanes": lanes}


def _listed(plan: schedules.Plan, row: Schedule, names: Mapping[int, str], zone: ZoneInfo) -> list[Row]:
    """Return shifts and gaps in order, as words: what the drawing says to those who do not see it."""
    entries: list[Shift | Gap] = sorted([*plan.shifts, *plan.empty], key=lambda each: each.start)
    return [
        {
            "when": drawing.spelled(each.start, each.end, zone),
            "who": names.get(each.person, "somebody who is gone") if isinstance(each, Shift) else "",
            "is_override": isinstance(each, Shift) and each.is_override,
            "why": each.reason,
            "problem": plan.away.get(each.person, "") if isinstance(each, Shift) else "nobody",
            "cover": urlencode({"schedule": row.pk, "from": _typed(each.start, zone), "to": _typed(each.end, zone)}),
        }
        for each in entries
    ]


def _day(text: str, today: date) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return today
    return day if 1990 < day.year < 2190 else today


def _typed(at: datetime, zone: ZoneInfo) -> str:
    """Write a moment as a field for date and time holds it."""
    return at.astimezone(zone).strftime("%Y-%m-%dT%H:%M")


# --- Overrides and swaps ---------------------------------------------------------------------------------------------
class CoverForm(forms.Form):
    """Somebody for somebody else, for a while; times are of the zone that the form was shown in."""

    schedule = forms.ModelChoiceField(Schedule.objects.all())
    person = forms.ModelChoiceField(User.objects.filter(is_active=True))
    starts = forms.CharField(max_length=30)
    ends = forms.CharField(max_length=30)
    zone = forms.CharField(max_length=64)
    reason = forms.CharField(max_length=200, required=False)

    def clean(self) -> Row:
        values: Row = super().clean() or self.cleaned_data
        try:
            zone = parse_zone(values.get("zone", "UTC"))
        except ValueError as error:
            raise ValidationError({"zone": str(error)}) from None
        for name in ("starts", "ends"):
            if name not in values:
                continue
            try:
                at = datetime.fromisoformat(values[name])
            except ValueError:
                raise ValidationError({name: "Give a date and a time."}) from None
            if not 1990 < at.year < 2190:
                raise ValidationError({name: "Give a date within reach."})
            values[f"{name}_at"] = (at.replace(tzinfo=zone) if at.tzinfo is None else at).astimezone(UTC)
        return values


def _forms(
    request: HttpRequest, rows: list[Schedule], names: Mapping[int, str], who: Principal, zone: ZoneInfo, now: datetime
) -> Row:
    if not who.can(Right.OPERATE):
        return {"mine": [], "theirs": [], "cover": {}}
    options: list[Row] = []
    for ident, plan in schedules.plans(rows, now, now + AHEAD).items():
        schedule = next(row for row in rows if row.pk == ident)
        for shift in plan.shifts:
            if shift.person in names:
                words = f"{names[shift.person]}: {drawing.spelled(shift.start, shift.end, zone)} ({schedule.name})"
                value = f"{ident}|{shift.person}|{shift.start.isoformat()}|{shift.end.isoformat()}"
                options.append({"value": value, "words": words, "person": str(shift.person), "at": shift.start})
    options = sorted(options, key=lambda each: (each["at"], each["words"]))[:CHOICES]
    mine = [each for each in options if each["person"] == who.id and who.kind == "user"]
    given = request.POST if request.method == "POST" else {}
    asked = request.GET
    cover = {
        "schedule": given.get("schedule") or asked.get("schedule", ""),
        "person": given.get("person") or (who.id if who.kind == "user" else ""),
        "starts": given.get("starts") or asked.get("from") or _typed(now, zone),
        "ends": given.get("ends") or asked.get("to") or _typed(now + timedelta(hours=8), zone),
        "reason": given.get("reason", ""),
    }
    first = (mine or options or [{"person": ""}])[0]["person"]
    others = [each for each in options if each not in mine]
    # Those of other people first: to swap with oneself is nothing.
    return {"mine": mine or options, "theirs": sorted(others, key=lambda each: each["person"] == first), "cover": cover}


@require_POST
@never_cache
@page(Right.OPERATE)
def cover(request: HttpRequest) -> HttpResponse:
    """Put somebody on call for a while."""
    form = CoverForm(request.POST)
    if not form.is_valid():
        return _page(request, problems={name: str(texts[0]) for name, texts in form.errors.items()})
    given = form.cleaned_data
    try:
        schedules.override(
            by=principal_of(request), schedule=given["schedule"], person=given["person"],
            starts_at=given["starts_at"], ends_at=given["ends_at"], reason=given["reason"],
        )  # fmt: skip
    except ValidationError as error:
        texts = error.message_dict if hasattr(error, "error_dict") else {"other": error.messages}
        return _page(request, problems={"ends" if name == "ends_at" else name: each[0] for name, each in texts.items()})
    span = drawing.spelled(given["starts_at"], given["ends_at"], parse_zone(given["zone"]))
    messages.success(request, f"{given['person']} is on call by {given['schedule']}, {span}.")
    return redirect(_back(given["schedule"], given["starts_at"]))


@require_POST
@never_cache
@page(Right.OPERATE)
def swap(request: HttpRequest) -> HttpResponse:
    """Have two people take each other's shift."""
    turns = {name: _turn(request.POST.get(name, "")) for name in ("mine", "theirs")}
    missing = {name: "Choose a shift." for name, turn in turns.items() if turn is None}
    mine, theirs = turns["mine"], turns["theirs"]
    if mine is None or theirs is None:
        return _page(request, problems=missing)
    reason = request.POST.get("reason", "")[:200]
    try:
        schedules.swap(by=principal_of(request), mine=mine, theirs=theirs, reason=reason)
    except ValidationError as error:
        return _page(request, problems={name: texts[0] for name, texts in error.message_dict.items()})
    messages.success(request, f"{mine.person} and {theirs.person} have swapped.")
    return redirect(_back(mine.schedule, mine.starts_at))


def _turn(text: str) -> schedules.Turn | None:
    """Return the shift that an option of the form names; None where it names none."""
    try:
        schedule, person, start, end = text.split("|")
        starts_at, ends_at = datetime.fromisoformat(start), datetime.fromisoformat(end)
        is_span = starts_at.tzinfo is not None and ends_at.tzinfo is not None and starts_at < ends_at
        if not is_span or ends_at - starts_at > 2 * AHEAD:
            return None
        return schedules.Turn(
            Schedule.objects.get(pk=int(schedule)), User.objects.get(pk=int(person)), starts_at, ends_at
        )  # fmt: skip
    except (ValueError, OverflowError, Schedule.DoesNotExist, User.DoesNotExist):
        return None


@require_POST
@page(Right.OPERATE)
def end_override(request: HttpRequest, pk: int) -> HttpResponse:
    """Take an override back."""
    row = get_object_or_404(Override.objects.select_related("schedule", "person"), pk=pk)
    schedule, starts_at, words = row.schedule, row.starts_at, str(row)
    if attempt(request, lambda: schedules.delete_override(by=principal_of(request), override=row)):
        messages.success(request, f"The override is taken back: {words}.")
    return redirect(_back(schedule, starts_at))


def _back(schedule: Schedule, at: datetime) -> str:
    """The calendar of the schedule at that time."""
    return f"{reverse('oncall')}?{urlencode({'schedule': schedule.pk, 'on': at.date().isoformat()})}"


# --- Fairness --------------------------------------------------------------------------------------------------------
def _fair_span(request: HttpRequest, now: datetime) -> tuple[str, datetime, datetime]:
    wanted = request.GET.get("fair", SPANS[0][0])
    if wanted not in dict(SPANS):
        raise Http404
    direction, _, weeks = wanted.partition("-")
    length = timedelta(weeks=int(weeks))
    return (wanted, now - length, now) if direction == "last" else (wanted, now, now + length)


def _fairness(request: HttpRequest, rows: list[Schedule], now: datetime) -> Row:
    wanted, start, end = _fair_span(request, now)
    shares = fairness.report(rows, start=start, end=end)
    most = max((share.load.hours for share in shares), default=0.0) or 1.0
    return {
        "fair": wanted,
        "fair_spans": SPANS,
        "shares": [{"share": share, "width": f"{share.load.hours / most * 100:.1f}%"} for share in shares],
    }


@require_GET
@never_cache
@page(Right.READ)
def fairness_table(request: HttpRequest) -> HttpResponse:
    """The fairness report as CSV."""
    rows = list(Schedule.objects.select_related("holidays").order_by("name"))
    chosen = _chosen(request, rows)
    wanted, start, end = _fair_span(request, timezone.now())
    shares = [share.as_dict() for share in fairness.report([chosen] if chosen else rows, start=start, end=end)]
    heading = ["person", "hours", "nights", "weekends", "holidays", "pages"]
    return csv_file(f"on-call-{wanted}", [heading, *(share.values() for share in shares)])


# --- Calendars that subscribe ----------------------------------------------------------------------------------------
def _subscription(request: HttpRequest, who: Principal, rows: list[Schedule], secret: str) -> Row:
    token = subscriptions.subscription(int(who.id)) if who.kind == "user" else None
    names = [("Everybody", reverse("oncall-feed"))]
    if who.kind == "user":
        names.append(("Your own shifts", reverse("oncall-person-feed", args=[who.id])))
    names += [(row.name, reverse("oncall-schedule-feed", args=[row.pk])) for row in rows]
    addresses = [
        {"name": name, "path": path, "url": request.build_absolute_uri(f"{path}?token={secret}") if secret else ""}
        for name, path in names
    ]
    return {"subscription": token, "addresses": addresses}


@require_POST
@never_cache
@page(Right.READ)
def subscribe(request: HttpRequest) -> HttpResponse:
    """Make this person's secret address, and show it in this one answer: a redirect would have to keep it."""
    who = principal_of(request)
    person = get_object_or_404(User, pk=who.id)
    return _page(request, secret=subscriptions.subscribe(by=who, person=person, now=timezone.now()))


@require_POST
@page(Right.READ)
def unsubscribe(request: HttpRequest) -> HttpResponse:
    """End this person's secret address."""
    who = principal_of(request)
    subscriptions.unsubscribe(by=who, person=get_object_or_404(User, pk=who.id), now=timezone.now())
    messages.success(request, "Your address has ended: calendars that use it are refused from now on.")
    return redirect("oncall")


@require_GET
@never_cache
def feed(request: HttpRequest) -> HttpResponse:
    """Everybody's shifts as iCalendar."""
    return _feed(request, lambda: ("On call", list(Schedule.objects.order_by("name")), None))


@require_GET
@never_cache
def schedule_feed(request: HttpRequest, pk: int) -> HttpResponse:
    """A schedule's shifts, or with `?form=layers` its layers as recurring events."""

    def asked() -> tuple[str, list[Schedule], int | None]:
        row = get_object_or_404(Schedule, pk=pk)
        return f"On call: {row.name}", [row], None

    return _feed(request, asked)


@require_GET
@never_cache
def person_feed(request: HttpRequest, pk: int) -> HttpResponse:
    """One person's shifts by whatever schedule."""

    def asked() -> tuple[str, list[Schedule], int | None]:
        person = get_object_or_404(User, pk=pk)
        return f"On call: {person}", list(Schedule.objects.order_by("name")), person.pk

    return _feed(request, asked)


def _feed(request: HttpRequest, asked: Any) -> HttpResponse:
    """Answer for who is logged in, or with `?token=`, which is all that calendars can send."""
    who = principal_of(request)
    if secret := request.GET.get("token"):
        try:
            who = authenticate(secret[:200], address=who.address) or Principal.anonymous(address=who.address)
        except Throttled as error:
            return HttpResponse(str(error), "text/plain", 429, headers={"Retry-After": str(round(error.retry_after))})
    if not who.can(Right.SUBSCRIBE):
        status = 401 if who.kind == "anonymous" else 403
        words = '{"error": "The address of the calendar has ended, or a token with the scope calendar is needed."}'
        return HttpResponse(words, "application/json", status)
    now = timezone.now()
    title, rows, person = asked()
    names = dict(User.objects.values_list("pk", "username"))
    plans = schedules.plans(rows, *feeds.span(now))
    if request.GET.get("form") == "layers" and len(rows) == 1:
        text = feeds.write_layers(rows[0].pk, title, plans[rows[0].pk].layers, names, now=now)
    else:
        entries = [
            feeds.Entry(row.pk, row.name, names.get(shift.person, "somebody who is gone"), shift)
            for row in rows
            for shift in plans[row.pk].shifts
            if person in (None, shift.person)
        ]
        text = feeds.write(title, entries, now=now, address=request.build_absolute_uri(reverse("oncall")))
    disposition = {"Content-Disposition": 'inline; filename="on-call.ics"'}
    return HttpResponse(text, "text/calendar; charset=utf-8", headers=disposition)
