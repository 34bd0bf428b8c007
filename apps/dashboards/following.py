"""The new numbers of panels that open pages follow: many pages' questions at once, each read through its own person.

Whoever asks for the same panels of the same stretch with the same rights gets the same bytes, worked out once. Rights
are looked at before and after reading: what was written after they were lost must not slip through.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson
from django.http import QueryDict
from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.accounts.sessions import holders
from apps.dashboards import dashboard_pages, plots, shared, views
from apps.dashboards.timespan import BadSpan, Span, span_of
from apps.metrics.query import Outrun
from apps.promql.errors import PromQLError

KNOWN: Final = ("unit", "condensed", "stacked", "min", "max", "sources", "empty", "expressions", "kind", "calculation")
"""Fields that a page has had with the whole panel; where only new steps are sent they are left out."""
BACK: Final = 2
"""Steps that are sent once more with the next ones: late samples still change them."""


@dataclass(frozen=True)
class Question:
    """What one page wants to know: the panels with their `since` (ms; None: the whole), as new as that moment."""

    session: str
    place: str
    query: str
    panels: tuple[tuple[str, int | None], ...]
    newer_than: float


@dataclass(frozen=True)
class Numbers:
    """One panel's answer as JSON, and what following it needs: its sources, its step, from where on it goes on."""

    text: bytes
    sources: frozenset[str]
    step: float
    since: int | None


@dataclass
class Reply:
    """What a page gets: who reads, the panels, what was deployed or configured meanwhile (JSON)."""

    who: Principal
    panels: dict[str, Numbers] = field(default_factory=dict)
    changes: bytes = b"[]"


def answer(questions: Sequence[Question]) -> list[Reply | Exception]:
    """Answer a round, in its order."""
    who = holders(question.session for question in questions)
    while True:
        made: dict[Any, Reply | Exception] = {}
        replies: list[Reply | Exception] = []
        with shared.newer_than(max(question.newer_than for question in questions)):
            for question in questions:
                reader = who[question.session]
                # Pages show the same to all with the same rights and budgets; a dashboard may be closed to a person.
                person = "" if question.place == "page" else reader.id
                key = (question.place, question.query, question.panels, person, *_may(reader)[1:])
                if key not in made:
                    made[key] = _reply_or_error(question, reader) if reader.can(Right.READ) else Reply(reader)
                found = made[key]
                replies.append(found if isinstance(found, Exception) else replace(found, who=reader))
        again = holders(question.session for question in questions)
        if all(_may(again[key]) == _may(reader) for key, reader in who.items()):
            return replies
        who = again


def _may(who: Principal) -> Any:
    return (who.id, who.rights, who.scope, who.roles)


def _reply_or_error(question: Question, who: Principal) -> Reply | Exception:
    try:
        return _reply(question, who)
    except Exception as error:  # an address that cannot be read breaks off the page that has it, and no other
        return error


def _reply(question: Question, who: Principal) -> Reply:
    reply = Reply(who)
    now = timezone.now()
    ask = _asker(question.place)
    for since in dict.fromkeys(since for _, since in question.panels):
        given = QueryDict(question.query, mutable=True)
        given.setlist("panel", [key for key, each in question.panels if each == since])
        if since is not None:
            given["since"] = str(since)
        try:
            span = span_of(views.plain(given), now=now)
            found = ask(given, span, who)
            reply.changes = orjson.dumps(views.happened(span, who))
        except (BadSpan, LookupError, PromQLError, Outrun) as error:
            found = {key: {"error": str(error.args[0] if error.args else error)} for key in given.getlist("panel")}
            span = None
        for key, row in plots.slim(found).items():
            reply.panels[key] = _numbers(row, span, is_part=since is not None)
    return reply


def _asker(place: str) -> Callable[[QueryDict, Span, Principal], dict[str, dict[str, Any]]]:
    kind, _, slug = place.partition(":")
    if kind == "dashboard":
        return lambda given, span, who: dashboard_pages.numbers(slug, given, span, who)
    return views.numbers


def _numbers(row: dict[str, Any], span: Span | None, *, is_part: bool) -> Numbers:
    shown = {name: value for name, value in row.items() if not (is_part and name in KNOWN)}
    since = None
    if is_part and span is not None:
        since = int((span.end - BACK * span.step).timestamp() * 1000)
    return Numbers(
        orjson.dumps(shown, option=orjson.OPT_SERIALIZE_NUMPY),
        frozenset(row.get("sources", "*")),
        span.step.total_seconds() if span else 60.0,
        since,
    )
