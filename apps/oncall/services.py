"""The verbs of on-call: policies, routes and rules' own targets are saved and deleted; the shipped ones are written."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Max, Q, QuerySet

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.models import Calendar, Team, User
from apps.accounts.rights import Principal, Right
from apps.alerting.matching import MatcherError, parse_matcher
from apps.alerting.models import AlertRule
from apps.core.defaults import write_once
from apps.core.registry import UnknownKind
from apps.notifications import services as notifications
from apps.notifications.models import Contact
from apps.oncall import escalation, plans
from apps.oncall import steps as plugins
from apps.oncall.models import Policy, Route, RuleTarget, Schedule, Step

StepData = Mapping[str, Any]
NO_STEPS = "A policy needs at least one step: by one without any nobody is told but the fall-back contact."


# --- Policies --------------------------------------------------------------------------------------------------------
@verb("oncall.save_policy", right=Right.EDIT)
def save_policy(
    *,
    by: Principal,
    name: str,
    steps: Sequence[StepData],
    description: str = "",
    acknowledged_for: timedelta | None = None,
    policy: Policy | None = None,
) -> Policy:
    """Make or change a policy with its steps ({"kind", "config"}, in order). What runs keeps the copy it began with."""
    before = _policy_state(policy) if policy is not None else None
    cleaned = check_steps(steps)
    check_hand_overs(name.strip(), cleaned)
    policy = policy or Policy()
    if acknowledged_for is not None and acknowledged_for < timedelta(minutes=1):
        raise ValidationError({"acknowledged_for": "At least a minute."})
    policy.name, policy.description, policy.acknowledged_for = name.strip(), description, acknowledged_for
    policy.full_clean(validate_constraints=False)
    policy.save()
    policy.steps.all().delete()
    Step.objects.bulk_create(
        Step(policy=policy, position=position, kind=step["kind"], config=step["config"])
        for position, step in enumerate(cleaned, start=1)
    )
    _record("oncall.save_policy", by, policy, before, _policy_state(policy))
    return policy


@verb("oncall.delete_policy", right=Right.EDIT)
def delete_policy(*, by: Principal, policy: Policy) -> None:
    """Delete a policy that no route and no rule names; what runs by it goes on with its copy."""
    if sentence := refusal_of_policy(policy):
        raise ValidationError(sentence)
    _delete("oncall.delete_policy", by, policy, _policy_state(policy))


def refusal_of_policy(policy: Policy) -> str:
    """Return why a policy cannot be deleted, or nothing: routes, rules and other policies name it."""
    users = [str(route) for route in policy.routes.all()] + [str(target.rule) for target in policy.rule_targets.all()]
    users += [f"the policy {name}" for name in policy.policies]
    return f"{policy.name} is used by {', '.join(users)}: give those another policy first." if users else ""


def check_hand_overs(name: str, steps: Sequence[StepData]) -> None:
    """Refuse a policy that would come back to itself, or hand on for too often."""
    policies: dict[str, Any] = {**plans.reachable(steps, {name}), name: steps}
    if way := escalation.round_trip(name, policies):
        most = escalation.MOST_HAND_OVERS
        is_round = way[-1] in way[:-1]
        why = "goes in a circle" if is_round else f"hands on for more than {most} times"
        raise ValidationError({"steps": f"{' → '.join(way)} {why}: an escalation would never come to its end."})


def check_steps(data: Sequence[StepData]) -> list[dict[str, Any]]:
    """Return the steps with their settings cleaned; a ValidationError names the step and its field."""
    if not data:
        raise ValidationError({"steps": NO_STEPS})
    there, cleaned = known(), []
    for number, step in enumerate(data, start=1):
        try:
            config = step.get("config") or {}
            if not isinstance(config, Mapping):
                raise ValidationError("config must be an object.")
            kind = str(step.get("kind", ""))
            cleaned.append({"kind": kind, "config": plugins.clean(kind, config, there)})
        except UnknownKind:
            kinds = ", ".join(name for name, _ in plugins.kinds())
            raise ValidationError({"steps": f"Step {number}: there is no kind {kind!r}; known: {kinds}."}) from None
        except ValidationError as error:
            raise ValidationError({"steps": f"Step {number}: {_words(error)}"}) from None
    return cleaned


def known() -> plugins.Known:
    """Return what there is for a step to name: contacts, active people, teams and the rest by name."""
    contacts = list(Contact.objects.values_list("pk", "name", "kind"))
    return plugins.Known(
        contacts={pk: name for pk, name, _ in contacts},
        webhooks={pk: name for pk, name, kind in contacts if kind == "webhook"},
        people=dict(User.objects.filter(is_active=True).order_by("username").values_list("pk", "username")),
        teams=dict(Team.objects.values_list("pk", "name")),
        schedules={name: name for name in Schedule.objects.values_list("name", flat=True)},
        calendars={name: name for name in Calendar.objects.values_list("name", flat=True)},
        policies={name: name for name in Policy.objects.values_list("name", flat=True)},
    )


def _words(error: ValidationError) -> str:
    if hasattr(error, "error_dict"):
        named = error.message_dict.items()
        return " ".join(f"{'' if name == '__all__' else name + ': '}{' '.join(texts)}" for name, texts in named)
    return " ".join(error.messages)


def _policy_state(policy: Policy) -> dict[str, Any]:
    return {**state_of(policy), "steps": list(policy.steps.order_by("position").values("kind", "config"))}


# --- Routes ----------------------------------------------------------------------------------------------------------
ROUTE_FIELDS = (
    "name", "position", "enabled", "matchers", "continue_matching", "group_by",
    "group_wait", "group_interval", "repeat_interval", "policy",
)  # fmt: skip


@verb("oncall.save_route", right=Right.EDIT)
def save_route(
    *,
    by: Principal,
    values: Mapping[str, Any],
    contacts: Iterable[Contact] | None = None,
    route: Route | None = None,
) -> Route:
    """Make or change a route; `values` by field name, what is left out stays. A new one comes last before the root."""
    before = _route_state(route) if route is not None else None
    if unknown := sorted(set(values) - set(ROUTE_FIELDS)):
        raise ValidationError({unknown[0]: f"A route has no such field; it has {', '.join(ROUTE_FIELDS)}."})
    if route is None:
        last = Route.objects.filter(is_root=False).aggregate(last=Max("position"))["last"]
        route = Route(position=0 if last is None else last + 1)
    for name, value in values.items():
        setattr(route, name, value)
    check_route(route)
    route.save()
    if contacts is not None:
        route.contacts.set(contacts)
    _record("oncall.save_route", by, route, before, _route_state(route))
    return route


def check_route(route: Route) -> None:
    """Raise ValidationError by field where the route could not be used."""
    problems: dict[str, str] = {}
    if not _are_texts(route.matchers):
        problems["matchers"] = 'Write a list of matchers, for example ["severity=\\"critical\\""].'
    else:
        try:
            for text in route.matchers:
                parse_matcher(text)
        except MatcherError as error:
            problems["matchers"] = str(error)
    if not _are_texts(route.group_by):
        problems["group_by"] = 'Write a list of label names, for example ["alertname", "instance"].'
    if route.is_root and (route.matchers or route.continue_matching or not route.enabled):
        problems["matchers"] = "The root takes whatever no other route took: it has no matchers and is always on."
    for name, seconds in (("group_wait", 0), ("group_interval", 1), ("repeat_interval", 60)):
        if getattr(route, name) is not None and getattr(route, name) < timedelta(seconds=seconds):
            problems[name] = f"At least {seconds} seconds."
    if problems:
        raise ValidationError(problems)
    route.full_clean(validate_constraints=False)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and text.strip() for text in value)


@verb("oncall.delete_route", right=Right.EDIT)
def delete_route(*, by: Principal, route: Route) -> None:
    """Delete a route; its groups finish what they began, new alerts take the next route that matches."""
    if route.is_root:
        raise ValidationError(
            f"{route.name} is the root, which takes what no other route took: change its contacts or policy instead."
        )
    _delete("oncall.delete_route", by, route, _route_state(route))


def _route_state(route: Route) -> dict[str, Any]:
    return state_of(route, relations=True)


# --- A rule's own target ---------------------------------------------------------------------------------------------
@verb("oncall.save_target", right=Right.EDIT)
def save_target(
    *, by: Principal, rule: AlertRule, contacts: Iterable[Contact], policy: Policy | None = None
) -> RuleTarget:
    """Have a rule's alerts told to these contacts and by this policy, and by no route; without both, by the routes."""
    target = RuleTarget.objects.filter(rule=rule).first()
    before = state_of(target, relations=True) if target is not None else None
    target = target or RuleTarget(rule=rule)
    target.policy = policy
    target.save()
    target.contacts.set(contacts)
    _record("oncall.save_target", by, target, before, state_of(target, relations=True))
    return target


def take_notifications(*, rule: AlertRule, names: Sequence[str], by: Principal, now: datetime) -> None:
    """Take the seed's `notifications[]` of a rule: names of contacts, or kinds of channels, meaning all of a kind."""
    contacts: dict[int, Contact] = {}
    for name in names:
        found = Contact.objects.filter(name__iexact=name, owner=None) or Contact.objects.filter(kind=name, owner=None)
        if not found:
            known = ", ".join(Contact.objects.filter(owner=None).values_list("name", flat=True)) or "none"
            raise ValidationError({"notifications": [f"There is no contact or channel {name!r}; contacts: {known}."]})
        contacts |= {contact.pk: contact for contact in found}
    save_target(by=by, rule=rule, contacts=contacts.values())


# --- Contacts in use -------------------------------------------------------------------------------------------------
def refusal_of_calendar(calendar: Calendar) -> str:
    """Return why a calendar cannot be deleted or renamed, or nothing: policies name it and would not know the hours."""
    names = Policy.objects.filter(steps__config__calendar=calendar.name).distinct().values_list("name", flat=True)
    if not names:
        return ""
    return f"{calendar.name} is named by the {'policy' if len(names) == 1 else 'policies'} {', '.join(names)}."


def policies_of(contact: Contact) -> QuerySet[Policy]:
    """Return the policies of which a step names the contact."""
    return Policy.objects.filter(
        Q(steps__config__contacts__contains=[contact.pk]) | Q(steps__kind="webhook", steps__config__contact=contact.pk)
    ).distinct()


def users_of(contact: Contact) -> list[str]:
    """Return, in words for people, the policies, routes and rules that name the contact."""
    targets = contact.rule_targets.select_related("rule").order_by("rule__name")
    return [
        *(f"the policy {policy}" for policy in policies_of(contact)),
        *(f"the route {route}" for route in contact.routes.all()),
        *(f"the rule {target.rule}" for target in targets),
    ]


# --- Shipped defaults ------------------------------------------------------------------------------------------------
def ship_defaults(rows: Sequence[Mapping[str, Any]], *, by: Principal, now: datetime) -> None:
    """Write the rows of fixtures/oncall.yaml that were never shipped: contacts, policies, then routes.

    Contacts that the environment asks for are made first and told by the root route: else nobody would use them.
    """
    made = notifications.contacts_from_environment(by=by, now=now)
    of = {what: [row for row in rows if row["model"] == what] for what in ("contact", "policy", "route")}
    writers = {"contact": _ship_contact, "policy": _ship_policy, "route": _ship_route}
    for what, write in writers.items():
        write_once(
            f"oncall.{what}",
            of[what],
            key=lambda row: str(row["name"]),
            write=lambda row, write=write: write(row, by, now),  # type: ignore[misc]
            now=now,
        )
    root = Route.objects.filter(is_root=True).first()
    if made and root is not None:
        save_route(by=by, route=root, values={}, contacts=[*root.contacts.all(), *made])


def _ship_contact(row: Mapping[str, Any], by: Principal, now: datetime) -> None:
    if Contact.objects.filter(name=row["name"]).exists():
        return
    is_fallback = bool(row.get("is_fallback")) and not Contact.objects.filter(is_fallback=True).exists()
    notifications.save_contact(
        by=by, now=now, name=row["name"], kind=row["kind"], values=row.get("values", {}), is_fallback=is_fallback,
        origin="shipped",
    )  # fmt: skip


def _ship_policy(row: Mapping[str, Any], by: Principal, now: datetime) -> None:
    if not Policy.objects.filter(name=row["name"]).exists():
        save_policy(by=by, name=row["name"], description=row.get("description", ""), steps=row["steps"])


def _ship_route(row: Mapping[str, Any], by: Principal, now: datetime) -> None:
    is_root = bool(row.get("is_root"))
    if Route.objects.filter(is_root=True).exists() if is_root else Route.objects.filter(name=row["name"]).exists():
        return
    values = {name: row[name] for name in ROUTE_FIELDS if name in row and name != "policy"}
    for name in ("group_wait", "group_interval", "repeat_interval"):
        if name in values:
            values[name] = timedelta(seconds=values[name])
    if "policy" in row:
        values["policy"] = Policy.objects.filter(name=row["policy"]).first()
    contacts = Contact.objects.filter(name__in=row.get("contacts", []))
    save_route(by=by, route=Route(is_root=is_root), values=values, contacts=contacts)


# --- Shared ----------------------------------------------------------------------------------------------------------
def _record(
    name: str, by: Principal, target: Policy | Route | RuleTarget, before: dict[str, Any] | None, after: dict[str, Any]
) -> None:
    if before is not None:
        before, after = changes(before, after)
        if not (before or after):
            return
    record(by=by, verb=name, target=target, before=before, after=after)


def _delete(name: str, by: Principal, target: Policy | Route, before: dict[str, Any]) -> None:
    label = (target._meta.label_lower, str(target.pk), str(target))
    target.delete()
    record(by=by, verb=name, target=label, before=before)
