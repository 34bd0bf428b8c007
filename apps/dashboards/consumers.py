"""The live connection of an open page: pushes what changed, read through the viewer's own permissions.

Protocol: the page sends {"view": "overview" | "alerts" | "alert:<key>" | "incidents" | "quiet" | "targets" |
"target:<id>" | "checks" | "check:<id>" | "heartbeat:<id>" | "oncall" | "business" | "databases" | "logs" | "badge"};
the server answers with frames of the same parts as the page's first state, at most four a second, and a {"beat"} when
nothing happened for a while.
Closes with 4401 when nobody is logged in (any more) and 4403 when the role may not read (any more).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import orjson
from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.http.request import validate_host
from django.utils import timezone

from apps.accounts.permissions import Principal, Right
from apps.core.hub import Inbox, hub
from apps.dashboards import snapshots
from apps.dashboards.health import Health, health

log = logging.getLogger(__name__)

TOPICS = (
    "alerts", "incidents", "silences", "series", "collection", "contacts", "health", "accounts", "targets",
    "checks", "schedules",
)  # fmt: skip
MEASURED = {"business": "businessmetric", "databases": "datasource"}
FRAME = 0.25
BEAT = 15.0
NOBODY, FORBIDDEN = 4401, 4403
HEALTH_AGE = 5.0

# A thread of their own: sockets that wait for the database must not wait for each other.
in_thread = partial(database_sync_to_async, thread_sensitive=False)

_health: tuple[float, Health] | None = None


def recent_health() -> Health:
    """Return the verdict, judged at most once in five seconds for all sockets of this process."""
    global _health
    if _health is None or time.monotonic() - _health[0] > HEALTH_AGE:
        _health = (time.monotonic(), health(now=timezone.now()))
    return _health[1]


class LiveConsumer(AsyncWebsocketConsumer):
    """One socket: an inbox of the process's hub, a task that turns it into frames."""

    view = ""
    pump: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        if not self._is_own_origin():
            await self.close(FORBIDDEN)
            return
        await self.accept()
        if (await self._principal()) is None:
            return

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
        try:
            wanted = str(orjson.loads(text_data or "")["view"])[:100]
        except (ValueError, KeyError, TypeError):
            await self.close(4400)
            return
        if self.pump is None:
            self.view = wanted
            self.pump = asyncio.create_task(self._pump(), name="live-page")

    async def disconnect(self, code: int) -> None:
        if self.pump is not None:
            self.pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self.pump
        raise StopConsumer

    async def _principal(self) -> Principal | None:
        """Read again who is there and what they may do; closes the socket where that is nothing."""
        return await self._welcome(await in_thread(present)(self.scope))

    async def _welcome(self, principal: Principal) -> Principal | None:
        if principal.can(Right.READ):
            return principal
        await self.close(NOBODY if principal.kind == "anonymous" else FORBIDDEN)
        return None

    async def _pump(self) -> None:
        try:
            # Records come all the time: only the page that shows them is woken by them.
            topics = (*TOPICS, "logs") if self.view == "logs" else TOPICS
            with hub().inbox(topics) as inbox:
                await self._follow(inbox)
        except asyncio.CancelledError:
            raise
        except OSError:
            pass  # the page has gone in the middle of a frame
        except Exception:
            log.exception("A live page broke off; it connects again by itself.")
            await self.close(1011)

    async def _follow(self, inbox: Inbox) -> None:
        sent: dict[str, bytes] = {}
        looked = 0.0
        while True:
            changed: Mapping[str, set[str | None]] = {}
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(inbox.something.wait(), BEAT)
                changed = inbox.take()
            is_due = time.monotonic() - looked >= BEAT
            looked = time.monotonic() if is_due else looked
            principal, frame = await in_thread(frame_for)(self.scope, self.view, changed, is_due=is_due)
            if await self._welcome(principal) is None:
                return
            fresh = {name: part for name, part in frame.items() if is_new(sent, name, part)}
            await self.send(text_data=orjson.dumps(fresh or {"beat": int(time.time())}).decode())
            await asyncio.sleep(FRAME)


def is_new(sent: dict[str, bytes], name: str, part: Any) -> bool:
    """Tell whether a part differs from what this page was last sent; notices of change always pass."""
    if name in ("series", "stale", "logs"):
        return True
    text = orjson.dumps(part)
    if sent.get(name) == text:
        return False
    sent[name] = text
    return True


def frame_for(
    scope: Mapping[str, Any], view: str, changed: Mapping[str, set[str | None]], *, is_due: bool
) -> tuple[Principal, dict[str, Any]]:
    """Return who is there and what they may see now.

    The right is looked at before and after reading: what was written after it was lost must not slip through.
    """
    principal = present(scope)
    while principal.can(Right.READ):
        frame = parts(view, principal, changed, is_due=is_due)
        before, principal = principal, present(scope)
        if (before.rights, before.scope) == (principal.rights, principal.scope):
            return principal, frame
    return principal, {}


def present(scope: Mapping[str, Any]) -> Principal:
    """Who holds the session now: it may have ended, the person may have been locked or lost a role."""
    session = scope.get("session")
    if session is None:
        return Principal.anonymous()
    fresh = session.__class__(session.session_key)
    request = _Holder()
    request.session = fresh
    return Principal.of_user(get_user(request))  # type: ignore[arg-type]


class _Holder:
    """What `get_user` wants of a request: its session."""

    session: Any
    META: Mapping[str, Any] = {}


def parts(view: str, principal: Principal, changed: Mapping[str, set[str | None]], *, is_due: bool) -> dict[str, Any]:
    """Return the parts of the page that these changes can have touched; `is_due` asks for what changes with time too.

    `series`, `stale` and `logs` only say that something is new: the page fetches it if it shows it.
    """
    frame: dict[str, Any] = {}
    now = timezone.now()
    touched = set(changed)
    about_alerts = bool(touched & {"alerts", "incidents"})
    about_people = bool(touched & {"collection", "contacts", "accounts"})
    if "series" in touched:
        ids = changed["series"]
        frame["series"] = ["*"] if None in ids else sorted(str(ident) for ident in ids)
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
