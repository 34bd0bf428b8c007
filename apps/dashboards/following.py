"""The new numbers of panels that open pages follow: many pages' questions at once, each read through its own person.

Whoever asks for the same panels of the same stretch with the same rights gets the same bytes, worked out once.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from django.http import QueryDict
from django.utils import timezone

from apps.accounts.permissions import Principal
from apps.dashboards import dashboard_pages, plots, shared, views
from apps.dashboards.rounds import Reply, through_readers
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
class News:
    """What a page gets: the panels, and what was deployed or configured meanwhile (JSON)."""

    panels: dict[str, Numbers] = field(default_factory=dict)
    changes: bytes = b"[]"


def answer(questions: Sequence[Question]) -> list[Reply[News] | Exception]:
    """Answer a round, in its order."""
    with shared.newer_than(max(question.newer_than for question in questions)):
        return through_readers(questions, _news, _same)


def _same(question: Question, who: Principal) -> Hashable:
    """What is shown depends on rights, scope and budgets (of roles), and folders are open to roles and teams."""
    return (question.place, question.query, question.panels, who.rights, who.scope, who.roles, who.teams)


def _news(question: Question, who: Principal) -> News:
    news = News()
    now = timezone.now()
    ask = _asker(question.place)
    whole = None
    for since in dict.fromkeys(since for _, since in question.panels):
        given = QueryDict(question.query, mutable=True)
        given.setlist("panel", [key for key, each in question.panels if each == since])
        if since is not None:
            given["since"] = str(since)
        try:
            span = span_of(views.plain(given), now=now)
            found, whole = ask(given, span, who), span
        except (BadSpan, LookupError, PromQLError, Outrun) as error:
            found = {key: {"error": str(error.args[0] if error.args else error)} for key in given.getlist("panel")}
            span = None
        for key, row in plots.slim(found).items():
            news.panels[key] = _numbers(row, span, is_part=since is not None)
    if whole is not None:
        news.changes = orjson.dumps(views.happened(whole, who))
    return news


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
