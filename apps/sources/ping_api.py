"""Where jobs call: Healthchecks' ping URLs, so that crontabs move by a changed host name; and Uptime Kuma's push URL.

`/ping/UUID` and `/ping/KEY/SLUG`, each with nothing (success), `/start`, `/fail`, `/log` or an exit status behind it.
KEY is a token that may ingest. `?rid=UUID` ties a start to its end; `?create=1` makes an unknown slug's heartbeat.

Source: https://healthchecks.io/docs/http_api/ and https://github.com/louislam/uptime-kuma (push monitors).
"""

import re
import time
from typing import Final
from uuid import UUID

from django.utils import timezone

from apps.accounts import permissions
from apps.accounts.permissions import Principal, Right, Throttled
from apps.core.lanes import Answer, Lane, Parameter, Request
from apps.metrics.throttle import Throttle
from apps.sources import heartbeats
from apps.sources.heartbeats import Call
from apps.sources.models import Heartbeat

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT"})
SIGNALS: Final = {"": "success", "start": "start", "fail": "fail", "log": "log"}
SLUG: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
RATE: Final = 1
"""Calls of one heartbeat in a second, on average; those beyond are answered and not kept."""
LIMIT: Final = (b"ping-body-limit", str(heartbeats.MOST_BODY).encode())

_throttle: Final = Throttle()


def said(status: int, words: str) -> Answer:
    """Answer as Healthchecks does, in a few plain words."""
    return Answer(status, words.encode(), headers=(LIMIT,))


def ping(by: Principal, request: Request) -> Answer:
    """Take a call by UUID, or by key and slug."""
    first, *rest = request.captured.get("path", "").split("/")
    code = uuid_in(first)
    if code is not None:
        beat = Heartbeat.objects.filter(code=code).first()
        signal = signal_of(rest)
        if signal is None:
            return said(400, "invalid url format")
        # A job must not fail because somebody deleted its heartbeat.
        return said(200, "OK (not found)") if beat is None else take(beat, signal, request, limited=200)
    if not rest or not SLUG.fullmatch(rest[0]):
        return said(404, "not found")
    return _by_slug(first, rest[0], rest[1:], request)


def _by_slug(key: str, slug: str, rest: list[str], request: Request) -> Answer:
    signal = signal_of(rest)
    if signal is None:
        return said(400, "invalid url format")
    try:
        caller = permissions.authenticate(key, address=request.address)
    except Throttled as wait:
        return said(429, str(wait))
    if caller is None or not caller.can(Right.INGEST):
        return said(404, "not found")
    beat = Heartbeat.objects.visible_to(caller.scope).filter(slug=slug).first()
    status = 200
    if beat is None:
        if request.one("create") != "1":
            return said(404, "not found")
        if not caller.can(Right.EDIT):
            return said(403, "this key may not create heartbeats: it needs the scope admin")
        beat, status = heartbeats.create_by_call(slug=slug, by=caller, now=timezone.now()), 201
    return take(beat, signal, request, limited=429, status=status)


def take(
    beat: Heartbeat, signal: tuple[str, int | None], request: Request, *, limited: int, status: int = 200
) -> Answer:
    """Take the call of a heartbeat that was found."""
    clock = time.monotonic()
    key = str(beat.pk)
    if _throttle.wait(key, RATE, clock) > 0:
        return said(limited, "OK (rate limited)" if limited == 200 else "rate limited")
    _throttle.take(key, RATE, 1, clock)
    run = uuid_in(request.one("rid"))
    if run is None and request.one("rid"):
        return said(400, "invalid uuid format")
    call = Call(
        signal[0],
        signal[1],
        run,
        request.method,
        request.header(b"user-agent"),
        request.address,
        request.body[: heartbeats.MOST_BODY].decode(errors="replace").replace("\0", ""),
    )
    heartbeats.ping(beat=beat, call=call, now=timezone.now())
    return said(status, "Created" if status == 201 else "OK")


def push(by: Principal, request: Request) -> Answer:
    """Take a call in the way of Uptime Kuma's push monitors: `?status=up|down&msg=…`."""
    code = uuid_in(request.captured.get("code", ""))
    beat = Heartbeat.objects.filter(code=code).first() if code else None
    if beat is None:
        return Answer(404, b'{"ok":false,"msg":"Monitor not found or not active."}', "application/json")
    is_up = request.one("status") in ("", "up")
    body = request.one("msg").encode()
    told = Request(request.method, request.path, b"", body, request.headers, request.address, request.captured)
    answer = take(beat, ("success" if is_up else "fail", None), told, limited=429)
    words = b'{"ok":true}' if answer.status == 200 else b'{"ok":false,"msg":"rate limited"}'
    return Answer(answer.status, words, "application/json")


def uuid_in(text: str) -> UUID | None:
    """Return the UUID that the text is, or None."""
    try:
        return UUID(text) if len(text) == 36 else None
    except ValueError:
        return None


def signal_of(rest: list[str]) -> tuple[str, int | None] | None:
    """Return (signal, exit status) of what stands behind the name; None for what means nothing."""
    if len(rest) > 1:
        return None
    word = rest[0] if rest else ""
    if word in SIGNALS:
        return SIGNALS[word], None
    if word.isascii() and word.isdigit() and int(word) <= 255:
        return ("success" if int(word) == 0 else "fail"), int(word)
    return None


LANES: Final[dict[str, Lane]] = {
    "/ping/<path...>": Lane(
        METHODS,
        None,
        ping,
        summary="Takes the call of a job, by Healthchecks' ping URLs.",
        parameters=(
            Parameter("rid", "The run (a UUID), which ties a start to its end."),
            Parameter("create", "1 makes the heartbeat of a slug that nobody knows; the key needs the scope admin."),
        ),
    ),
    "/api/push/<code>": Lane(
        METHODS,
        None,
        push,
        summary="Takes the call of a job, by Uptime Kuma's push URL.",
        parameters=(
            Parameter("status", "How the job went.", choices=("up", "down")),
            Parameter("msg", "What it says."),
        ),
    ),
}
