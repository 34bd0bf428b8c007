"""The live connection of an open page: pushes what changed, read through the viewer's own permissions.

Protocol: the page sends {"view": "overview" | "alerts" | "alert:<key>" | "incidents" | "quiet" | "targets" |
"target:<id>" | "checks" | "check:<id>" | "heartbeat:<id>" | "oncall" | "business" | "databases" | "logs" | "badge"};
the server answers with frames of the same parts as the page's first state, at most four a second, and a {"beat"} when
nothing happened for a while. Of a part that the page has already, only what changed is sent, as {"changed": {part: …}}
(see `delta`). {"watch": {"number", "place", "query", "panels": {key: since}}} replaces what panels the page follows
(see `watching`); frames {"of": number, "panels": {…}} bring their new steps. A page that does not read gets no frames
until it does, and then what is so by then. After a lost connection it says again what it has, and is brought up to
date.
Closes with 4400 on what is no request, 4401 when nobody is logged in (any more), 4403 when the role may not read
(any more) and 4429 when the person has as many pages open as one may have (LIVE_PAGES_PER_PERSON); such a page polls.
"""

import asyncio
import contextlib
import logging
import time
from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.http.request import validate_host
from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.core.hub import Hub, Inbox, hub
from apps.core.telemetry import Counter, Gauge
from apps.dashboards import following, shared, snapshots, watching
from apps.dashboards.delta import WHOLE, change
from apps.dashboards.health import Health, health
from apps.dashboards.rounds import Reply, Rounds, through_readers

log = logging.getLogger(__name__)

TOPICS = (
    "alerts", "incidents", "silences", "collection", "contacts", "health", "accounts", "targets", "checks", "schedules",
)  # fmt: skip
OF_PANELS = ("series", "changes", "accounts")
MEASURED = {"business": "businessmetric", "databases": "datasource"}
FRAME = 0.25
BEAT = 15.0
BROKEN, NO_REQUEST, NOBODY, FORBIDDEN, MANY = 1011, 4400, 4401, 4403, 4429
REASONS: Final = {BROKEN: "error", NO_REQUEST: "request", NOBODY: "login", FORBIDDEN: "right", MANY: "many"}
"""What a connection is closed for, by its code."""
HEALTH_AGE = 5.0
KEPT: Final = 256
"""States of parts that are remembered, so that pages which were sent the same one are sent the same change."""

PAGES = Gauge("portal_live_pages", "Pages with an open live connection.")
FRAMES = Counter("portal_live_frames_total", "Frames sent to open pages.", ("kind",))
CLOSED = Counter("portal_live_closed_total", "Live connections that the portal refused or ended, by why.", ("reason",))
BYTES = Counter("portal_live_bytes_total", "Bytes of frames sent to open pages, before compression.")

_health: tuple[float, Health] | None = None


def recent_health() -> Health:
    """Return the verdict, judged at most once in five seconds for all sockets of this process."""
    global _health
    if _health is None or time.monotonic() - _health[0] > HEALTH_AGE:
        _health = (time.monotonic(), health(now=timezone.now()))
    return _health[1]


@dataclass(eq=False)
class Part:
    """One state of a part of a page, the same object for all pages that show it."""

    value: Any
    text: bytes
    changes: dict[int, tuple["Part", bytes]] = field(default_factory=dict)

    def since(self, old: "Part") -> bytes | None:
        """Return what turns the older state into this one, None where sending the whole is as good."""
        kept = self.changes.get(id(old))
        if kept is None or kept[0] is not old:
            found = change(old.value, self.value)
            text = self.text if found is WHOLE else orjson.dumps(found)
            if len(self.changes) >= KEPT:
                self.changes.clear()
            kept = self.changes[id(old)] = (old, text)
        return kept[1] if len(kept[1]) < 0.8 * len(self.text) else None


Parts = Mapping[str, Part]


class _Parts:
    """The last states of parts, by their text: equal ones become one object."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, bytes], Part] = OrderedDict()

    def of(self, name: str, value: Any) -> Part:
        text = orjson.dumps(value)
        part = self._known.get((name, text))
        if part is None:
            part = self._known[name, text] = Part(value, text)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end((name, text))
        return part


_parts = _Parts()


@dataclass(frozen=True)
class Question:
    """What one page shows, what has changed since it last asked, and whether what changes with time is due."""

    session: str
    view: str
    changed: frozenset[tuple[str, frozenset[str | None]]]
    is_due: bool


@dataclass
class Desk:
    """Where the pages of one event loop ask: one row of rounds for what they show, one for each place of panels.

    `pages` counts the open pages of each person.
    """

    hub: Hub
    states: Rounds[Question, Reply[Parts]]
    pages: Tally[str] = field(default_factory=Tally)
    numbers: dict[str, Rounds[following.Question, Reply[following.News]]] = field(default_factory=dict)

    def of(self, place: str) -> Rounds[following.Question, Reply[following.News]]:
        """The rounds of a place: a dashboard that is slow keeps nobody waiting but those who look at it."""
        if place not in self.numbers:
            if len(self.numbers) >= KEPT:
                self.numbers.clear()
            self.numbers[place] = Rounds(following.answer)
        return self.numbers[place]


_desks: dict[int, Desk] = {}


def desk() -> Desk:
    """Return the desk of the running event loop, which lives as long as its hub."""
    mine = hub()
    found = _desks.get(id(mine))
    if found is None or found.hub is not mine:
        _desks.clear()
        found = _desks[id(mine)] = Desk(mine, Rounds(states))
    return found


class LiveConsumer(AsyncWebsocketConsumer):
    """One socket: an inbox of the process's hub for what the page shows, one for the panels that it follows."""

    session = ""
    view = ""
    person = ""
    is_open = False
    is_ended = False
    watch: watching.Watch | None = None
    inbox: Inbox | None = None
    tasks: tuple[asyncio.Task[None], ...] = ()

    async def connect(self) -> None:
        if not self._is_own_origin():
            await self._end(FORBIDDEN)
            return
        session = self.scope.get("session")
        self.session = str(getattr(session, "session_key", "") or "")
        await self.accept()
        self.is_open = True
        PAGES.inc()
        who = (await self._ask(frozenset(), is_due=False)).who
        if not await self._welcome(who):
            return
        pages = desk().pages
        most = settings.LIVE_PAGES_PER_PERSON
        if pages[who.id] >= most:
            await self._end(MANY, f"You have {most} pages open, as many as may be live. Close one: this one follows.")
            return
        self.person = who.id
        pages[self.person] += 1

    async def _end(self, code: int, why: str = "") -> None:
        if self.is_ended:
            return
        self.is_ended = True
        CLOSED.inc(reason=REASONS[code])
        await self.close(code, why or None)

    def _is_own_origin(self) -> bool:
        """Another site's page must not read with this person's cookie."""
        headers = dict(self.scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1")
        host = headers.get(b"host", b"").decode("latin-1")
        if not origin:
            return True  # programs; browsers always say where a page comes from
        parts = urlsplit(origin)
        return parts.netloc == host and validate_host(parts.hostname or "", settings.ALLOWED_HOSTS)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.is_ended:
            return  # what was under way when it was closed
        try:
            given = orjson.loads(text_data or "")
            if "watch" in given:
                self._follow_panels(watching.read(given["watch"], now=current_from()))
                return
            wanted = str(given["view"])[:100]
        except (ValueError, KeyError, TypeError):
            await self._end(NO_REQUEST)
            return
        if not self.view:
            self.view = wanted
            # Records come all the time: only the page that shows them is woken by them.
            topics = (*TOPICS, "logs") if wanted == "logs" else TOPICS
            self.tasks += (asyncio.create_task(self._pump(self._show, topics), name="live-page"),)

    def _follow_panels(self, watch: watching.Watch) -> None:
        is_first, self.watch = self.watch is None, watch
        if is_first:
            self.tasks += (asyncio.create_task(self._pump(self._count, OF_PANELS), name="live-panels"),)
        elif self.inbox is not None:
            self.inbox.something.set()

    async def disconnect(self, code: int) -> None:
        if self.is_open:
            PAGES.dec()
        if self.person:
            pages = desk().pages
            pages[self.person] -= 1
            if pages[self.person] <= 0:
                del pages[self.person]
        for task in self.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        raise StopConsumer

    async def _ask(self, changed: frozenset[tuple[str, frozenset[str | None]]], *, is_due: bool) -> Reply[Parts]:
        return await desk().states.ask(Question(self.session, self.view, changed, is_due))

    async def _welcome(self, principal: Principal) -> bool:
        """Tell whether they may read; closes the socket where not."""
        if principal.can(Right.READ):
            return True
        await self._end(NOBODY if principal.kind == "anonymous" else FORBIDDEN)
        return False

    async def _pump(self, work: Callable[[Inbox], Awaitable[None]], topics: tuple[str, ...]) -> None:
        try:
            with hub().inbox(topics) as inbox:
                await work(inbox)
        except asyncio.CancelledError:
            raise
        except OSError:
            pass  # the page has gone in the middle of a frame
        except Exception:
            log.exception("A live page broke off; it connects again by itself.")
            await self._end(BROKEN)

    async def _push(self, kind: str, frame: Mapping[str, Any]) -> None:
        """Send a frame; waits while the page does not read, so that it gets fewer of them and none piles up here."""
        text = orjson.dumps(frame).decode()
        await self.send(text_data=text)
        FRAMES.inc(kind=kind)
        BYTES.inc(len(text))

    async def _show(self, inbox: Inbox) -> None:
        """Keep what the page shows up to date."""
        sent: dict[str, Part] = {}
        looked = 0.0
        while True:
            changed: Mapping[str, set[str | None]] = {}
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(inbox.something.wait(), BEAT)
                changed = inbox.take()
            is_due = time.monotonic() - looked >= BEAT
            looked = time.monotonic() if is_due else looked
            asked = frozenset((topic, frozenset(ids)) for topic, ids in changed.items())
            reply = await self._ask(asked, is_due=is_due)
            if not await self._welcome(reply.who):
                return
            frame = frame_of(reply.found or {}, sent)
            if frame or is_due:
                await self._push("state" if frame else "beat", frame or {"beat": int(time.time())})
            await asyncio.sleep(FRAME)

    async def _count(self, inbox: Inbox) -> None:
        """Keep the panels that the page follows up to date."""
        self.inbox = inbox
        inbox.take()
        changes = b""
        while True:
            watch = self.watch or watching.NOTHING
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(inbox.something.wait(), watch.wait(time.monotonic()))
            now = time.monotonic()
            arrived = inbox.take()
            if watch is not self.watch:
                continue
            if "changes" in arrived or "accounts" in arrived:
                watch.note({None}, now)
            watch.note(arrived.get("series", ()), now)
            due = watch.due(now)
            if not due:
                continue
            newest = max(
                (panel.changed for panel in due.values() if panel.changed is not None), default=now - shared.AGE
            )
            asked = tuple((key, panel.since) for key, panel in due.items())
            question = following.Question(self.session, watch.place, watch.query, asked, newest)
            reply = await desk().of(watch.place).ask(question)
            if not await self._welcome(reply.who):
                return
            found = reply.found or following.News()
            news = taken(watch, due, found.panels, now)
            frame: dict[str, Any] = {"of": watch.number, "panels": news} if news else {}
            if found.changes != changes:
                changes = found.changes
                frame |= {"of": watch.number, "changes": orjson.Fragment(changes)}
            if frame:
                await self._push("panels", frame)
            await asyncio.sleep(FRAME)


def current_from() -> float:
    """From when on an answer has all that has arrived; of what is stored unannounced it lacks a second at most."""
    return max(desk().hub.arrived, time.monotonic() - shared.AGE)


def taken(
    watch: watching.Watch, due: Mapping[str, watching.Followed], found: Mapping[str, following.Numbers], now: float
) -> dict[str, orjson.Fragment]:
    """Note what was found of the panels that were due; return what the page has not been sent yet."""
    news = {}
    for key, panel in due.items():
        watch.looked(key, now)
        numbers = found.get(key)
        if numbers is None:
            continue
        panel.sources, panel.step = numbers.sources, numbers.step
        if numbers.since is not None:
            panel.since = numbers.since
        if numbers.text != panel.sent:
            panel.sent = numbers.text
            news[key] = orjson.Fragment(numbers.text)
    return news


def frame_of(parts: Mapping[str, Part], sent: dict[str, Part]) -> dict[str, Any]:
    """Return a frame of the parts that this page was not sent yet, as changes where it was sent an older state."""
    frame: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    for name, part in parts.items():
        if name in ("stale", "logs"):  # a notice, no state
            frame[name] = part.value
            continue
        old = sent.get(name)
        if old is part:
            continue
        sent[name] = part
        delta = None if old is None else part.since(old)
        if delta is None:
            frame[name] = orjson.Fragment(part.text)
        else:
            changes[name] = orjson.Fragment(delta)
    return frame | ({"changed": changes} if changes else {})


def states(questions: Sequence[Question]) -> list[Reply[Parts] | Exception]:
    """Answer a round: what those who look may see now."""
    return through_readers(
        questions, _parts_of, lambda asked, who: (asked.view, asked.changed, asked.is_due, who.rights, who.scope)
    )


def _parts_of(question: Question, who: Principal) -> Parts:
    changed = {topic: set(ids) for topic, ids in question.changed}
    found = parts(question.view, who, changed, is_due=question.is_due)
    return {name: _parts.of(name, value) for name, value in found.items()}


def parts(view: str, principal: Principal, changed: Mapping[str, set[str | None]], *, is_due: bool) -> dict[str, Any]:
    """Return the parts of the page that these changes can have touched; `is_due` asks for what changes with time too.

    `stale` and `logs` only say that something is new: the page fetches it if it shows it.
    """
    frame: dict[str, Any] = {}
    now = timezone.now()
    touched = set(changed)
    about_alerts = bool(touched & {"alerts", "incidents"})
    about_people = bool(touched & {"collection", "contacts", "accounts"})
    if about_alerts:
        frame["alerts"] = snapshots.alerts(scope=principal.scope)
    if about_people or is_due:
        frame["warnings"] = snapshots.warnings(principal)
    if view == "overview" and (about_alerts or about_people or "health" in touched or is_due):
        active = frame.get("alerts") or snapshots.alerts(scope=principal.scope)
        frame["health"] = snapshots.verdict(recent_health(), active)
        frame["activity"] = snapshots.activity(principal, now=now)
    if view in ("overview", "alerts", "oncall") and (touched & {"schedules", "contacts", "accounts"} or is_due):
        frame["oncall"] = snapshots.on_call(now)
    if "logs" in touched:
        frame["logs"] = True
    if is_stale(view, changed, is_due=is_due):
        frame["stale"] = True
    if view.startswith("alert:") and (about_alerts or "contacts" in touched or is_due):
        frame["alert"] = snapshots.alert(principal, view.removeprefix("alert:"), now=now)
    return frame


def is_stale(view: str, changed: Mapping[str, set[str | None]], *, is_due: bool) -> bool:
    """Whether what the server draws of that page may have changed."""
    touched = set(changed)
    kind, _, ident = view.partition(":")
    match kind:
        case "alerts":
            return bool(touched & {"alerts", "incidents", "contacts"})
        case "incidents" | "quiet":
            return bool(touched & {"alerts", "incidents", "silences"})
        case "oncall":
            return "schedules" in touched
        case "targets" | "checks":
            return None in changed.get(kind, ()) or is_due
        case "business" | "databases":
            return MEASURED[kind] in changed.get("checks", ()) or is_due
        case "target" | "check":
            return bool(set(changed.get(f"{kind}s", ())) & {None, ident})
        case "heartbeat":
            return bool(set(changed.get("checks", ())) & {None, f"beat-{ident}"}) or is_due
    return False
