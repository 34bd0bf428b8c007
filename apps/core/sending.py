"""One thread of a process that posts what its feeds hold to one address, and never troubles the process it lives in.

It is for other projects, in the wheel (`manage.py client`): metrics and log records are feeds of the same sender. It
needs the standard library alone. What it promises: nothing that calls it waits for the network; a fork begins anew
(`ensure` looks at the process id, so that it holds where no hook of Python runs, as under uWSGI); memory stays
what the feeds hold plus one parcel each; while the other side is away it asks less and less often; what is wrong is
said once in the log, and once when it is well again.
"""

import atexit
import gzip
import io
import logging
import os
import random
import socket
import threading
import time
import urllib.error
import urllib.request
import weakref
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Final
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

TIMEOUT: Final = 10.0
"""Seconds for which a connect or a write of the thread may hang, and in which an answer must be there as a whole."""
FAREWELL: Final = 2.0
"""Seconds that an ending process waits for what it holds to be sent."""
FIRST: Final = 2.0
"""Seconds after the start of the first parcel."""
LONGEST: Final = 300.0
"""Seconds between two attempts while the other side is away, at most."""
PARCELS: Final = 50
"""Parcels of one feed that are sent in a row before the others have their turn."""
SMALL: Final = 1000
"""Bytes up to which a body is sent as it is."""
ANSWER: Final = 100_000
"""Bytes of an answer that are read."""


class Feed(ABC):
    """Something that has parcels to be sent. `take` is called by the sender's thread alone."""

    path: str
    """Where at the address it posts to, such as `/v1/metrics`."""
    every: float = 15.0
    """Seconds between two parcels."""
    keeps: bool = False
    """Whether a parcel that did not arrive is sent again, and further ones follow at once; else it is taken anew."""
    content_type: str = "application/json"

    @abstractmethod
    def take(self, *, last: bool) -> bytes | None:
        """Return the next parcel, or None; `last`: the process ends."""

    def forked(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of what belongs to the parent: this is another process now."""

    def refused_of(self, answer: bytes) -> str:
        """Return what an answer of 2xx says was not taken; empty where all was."""
        return ""


@dataclass
class _Turn:
    """A feed, when it is next due (monotonic seconds), and its parcel that did not arrive."""

    feed: Feed
    due: float = 0.0
    held: bytes | None = None


@dataclass(frozen=True)
class Trouble:
    """Why a parcel did not arrive; `again`: the same one may arrive later; `wait` in seconds, where one was told."""

    sentence: str
    again: bool = True
    wait: float = 0.0


class Opener(urllib.request.OpenerDirector):
    """Follows no redirect, for the token must not go elsewhere, and is not counted as a call of the application."""


class _Until(io.RawIOBase):
    """What a socket says until a time (monotonic seconds): however it drips, it ends then with a TimeoutError."""

    def __init__(self, sock: socket.socket, ends: float) -> None:
        self._sock, self._ends = sock, ends
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("its answer did not end in time")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(HTTPResponse):
    """An answer with a deadline for all of it, status and headers too; the standard library has one for each read."""

    def __init__(self, sock: socket.socket, *args: Any, seconds: float, **more: Any) -> None:
        super().__init__(sock, *args, **more)
        self.fp.close()
        self.fp = io.BufferedReader(_Until(sock, time.monotonic() + seconds))


def _waiting(kind: type[HTTPConnection]) -> Any:
    """A connection of that kind whose answers have as long as its timeout says."""

    def make(host: str, timeout: float = TIMEOUT, **more: Any) -> HTTPConnection:
        connection = kind(host, timeout=timeout, **more)
        connection.response_class = partial(_Answer, seconds=timeout)  # type: ignore[assignment]
        return connection

    return make


class _Plain(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_waiting(HTTPConnection), req)


class _Secure(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_waiting(HTTPSConnection), req)


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class Sender:
    """`address` such as `https://portal.example`, `token` for its Authorization; empty where feeds only take."""

    address: str
    token: str = field(repr=False, default="")
    feeds: list[Feed] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.address and urlsplit(self.address).scheme not in ("http", "https"):
            raise ValueError(f"{self.address!r} is no address to send to; it begins with https:// or http://.")
        self._clear()
        _senders.add(self)

    def __hash__(self) -> int:
        return id(self)

    def _clear(self) -> None:
        """As in a process that has not begun."""
        self._process = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._is_ending = False
        self._turns: list[_Turn] = []
        self._failures = 0
        self._not_before = 0.0
        self._said = ""

    def add(self, feed: Feed) -> None:
        """Have that feed's parcels sent, too."""
        with self._lock:
            self.feeds.append(feed)
            if self._process:
                self._turns.append(_Turn(feed, time.monotonic() + FIRST))

    def ensure(self) -> None:
        """Begin in this process, unless it has; cheap enough for every request."""
        if self._process != os.getpid():
            self._begin()

    def _begin(self) -> None:
        if self._process:  # a fork: thread and locks are the parent's
            self.forked()
        with self._lock:
            if self._process:
                return
            begun = time.monotonic()
            # Workers that were started together do not call together.
            self._turns = [_Turn(feed, begun + FIRST * random.uniform(0.5, 1.5)) for feed in self.feeds]  # noqa: S311
            self._thread = threading.Thread(target=self._run, name="portal-metrics", daemon=True)
            self._process = os.getpid()
            try:
                self._thread.start()
            except RuntimeError:  # no more threads, or the interpreter ends
                self._thread = None
        atexit.unregister(self.stop)
        atexit.register(self.stop)

    def forked(self) -> None:
        """Forget the parent: its thread did not come along, and what it has yet to send is its own."""
        if not self._process:
            return
        self._clear()
        for feed in self.feeds:
            feed.forked()

    def wake(self, feed: Feed) -> None:
        """Have that feed asked now: it is full."""
        for turn in self._turns:
            if turn.feed is feed:
                turn.due = 0.0
        self._woken.set()

    def stop(self, *, timeout: float = FAREWELL) -> None:
        """Send what is held a last time, waiting so many seconds at most."""
        if self._process != os.getpid() or self._thread is None:
            return
        self._is_ending = True
        self._woken.set()
        self._thread.join(timeout)

    # --- The thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_ending:
            now = time.monotonic()
            due = min((turn.due for turn in self._turns), default=now + 1)
            self._woken.wait(max(due, self._not_before) - now)
            self._woken.clear()
            if not self._is_ending and time.monotonic() >= self._not_before:
                for turn in list(self._turns):
                    if turn.due <= time.monotonic():
                        self._serve(turn, last=False)
        if not self._failures:
            for turn in self._turns:
                self._serve(turn, last=True)

    def _serve(self, turn: _Turn, *, last: bool) -> None:
        """Send what the feed has; whatever goes wrong is told in the log and stays here."""
        now = time.monotonic()
        turn.due = now + turn.feed.every
        try:
            for _ in range(PARCELS):
                body = turn.held if turn.held is not None else turn.feed.take(last=last)
                turn.held = None
                if body is None:
                    return
                if (trouble := self._post(turn.feed, body)) is not None:
                    self._note(trouble, turn.feed.every)
                    if trouble.again and turn.feed.keeps:
                        turn.held = body
                    return
                self._note_well()
                if not turn.feed.keeps:
                    return
            turn.due = now
        except Exception:
            self._say("failed", f"What {type(turn.feed).__name__} holds could not be sent.", trace=True)

    def _post(self, feed: Feed, body: bytes) -> Trouble | None:
        """Post one parcel; None: it arrived."""
        if not self.address:
            return Trouble("There is no address to send to.", again=False)
        headers = {"Content-Type": feed.content_type, "User-Agent": "portal-metrics"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        if len(body) > SMALL:
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        url = self.address.rstrip("/") + feed.path
        request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - http and https alone
        timeout = FAREWELL if self._is_ending else TIMEOUT
        try:
            with _opener().open(request, timeout=timeout) as answer:
                refused = feed.refused_of(answer.read(ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                return _trouble(error, url)
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            return Trouble(f"{url} did not answer ({reason}).")
        if refused:
            self._say("refused", f"{url} refused a part: {refused}")
        return None

    def _note(self, trouble: Trouble, every: float) -> None:
        if not trouble.again:
            self._say(trouble.sentence, f"{trouble.sentence} The parcel is dropped.")
            return
        self._failures += 1
        wait = max(trouble.wait, min(LONGEST, every * 2 ** min(self._failures - 1, 10)))
        self._not_before = time.monotonic() + min(wait, LONGEST) * random.uniform(0.8, 1.2)  # noqa: S311
        if self._failures == 1:
            self._say(trouble.sentence, f"{trouble.sentence} It is tried again, less and less often.")

    def _note_well(self) -> None:
        if self._failures:
            log.info("%s takes what is sent again, after %d attempts.", self.address, self._failures)
            self._failures, self._said = 0, ""

    def _say(self, what: str, sentence: str, *, trace: bool = False) -> None:
        """Say it in the log unless it was what was said last."""
        if self._said != what:
            self._said = what
            log.warning(sentence, exc_info=trace)


def _trouble(error: urllib.error.HTTPError, url: str) -> Trouble:
    """What a status that is not 2xx means."""
    try:
        told = error.read(300).decode("utf-8", "replace").strip()
    except (OSError, HTTPException, ValueError):  # the status is there, the words are not
        told = "no reason"
    if 300 <= error.code < 400:
        place = (error.headers or Message()).get("Location", "elsewhere")
        return Trouble(f"{url} points to {place}; PORTAL_METRICS_URL must name the place itself.")
    if error.code in (401, 403):
        return Trouble(f"{url} does not accept the token ({error.code}): it needs the scope `ingest`.")
    if error.code in (404, 405):
        return Trouble(f"{url} answers {error.code}: PORTAL_METRICS_URL is not that of a portal.")
    if error.code == 429 or error.code >= 500:
        after = (error.headers or Message()).get("Retry-After", "")
        return Trouble(f"{url} answers {error.code}: {told}", wait=float(after) if after.isdecimal() else 0.0)
    return Trouble(f"{url} answers {error.code}: {told}", again=False)


def _opener() -> Opener:
    """What urllib opens with by itself, proxies of the environment included, without redirects."""
    opener = Opener()
    for handler in (
        urllib.request.ProxyHandler(),
        _Plain(),
        _Secure(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Stay(),
    ):
        opener.add_handler(handler)
    return opener


_senders: "weakref.WeakSet[Sender]" = weakref.WeakSet()


def _after_fork() -> None:
    for sender in list(_senders):
        sender.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
