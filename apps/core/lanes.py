"""What a bare ASGI route (a lane) is: its request, its answer, and what is told of it; knows no room and no rights.

The wiring collects the rooms' lanes, authenticates, calls `Lane.serve` in a thread and sends what it returns.
"""

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

import orjson

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"
MOST_PARAMETERS: Final = 10_000
FIRST: Final = 64_000
"""Bytes of an answer that are gathered before it is sent in parts."""
WORTH_PACKING: Final = 4_000
"""Bytes from which gzip is worth its time."""
_LEVEL: Final = 1
_GZIP: Final = 31


class BadRequest(Exception):
    """The request cannot be read as what it says it is; 400."""


def never() -> bool:
    """Whether a request without a connection to lose was cancelled."""
    return False


@dataclass(frozen=True)
class Request:
    """One request with its whole body. `captured` are the parts of the path that the lane's pattern names."""

    method: str
    path: str
    query: bytes = b""
    body: bytes = b""
    headers: Sequence[tuple[bytes, bytes]] = ()
    address: str = ""
    captured: Mapping[str, str] = field(default_factory=dict)
    cancelled: Callable[[], bool] = never
    """Asked by what takes long: whether the client has left."""

    def header(self, name: bytes) -> str:
        """Return the first header of that (lower-case) name, or an empty string."""
        return next((value.decode("latin-1") for key, value in self.headers if key == name), "")

    @cached_property
    def parameters(self) -> Mapping[str, list[str]]:
        """All parameters: those of an urlencoded body first, then those of the address. Raises BadRequest."""
        found: dict[str, list[str]] = {}
        for text in (self.body if self._is_form() else b"", self.query):
            if not text:
                continue
            try:
                pairs = parse_qsl(text.decode(errors="replace"), keep_blank_values=True, max_num_fields=MOST_PARAMETERS)
            except ValueError as error:
                raise BadRequest(f"The parameters cannot be read: {error}.") from None
            for name, value in pairs:
                if "\0" in value or "\0" in name:
                    raise BadRequest("A parameter holds a NUL, which no text here can.")
                found.setdefault(name, []).append(value)
        return found

    def _is_form(self) -> bool:
        kind = self.header(b"content-type").partition(";")[0].strip().lower()
        return bool(self.body) and kind == "application/x-www-form-urlencoded"

    def one(self, name: str) -> str:
        """Return the first value of a parameter, or an empty string."""
        found = self.parameters.get(name)
        return found[0] if found else ""

    def every(self, name: str) -> list[str]:
        """Return all values of a parameter."""
        return self.parameters.get(name, [])


@dataclass(frozen=True)
class Answer:
    """A response: `body`, or `slices` of one that is too large to be held as a whole."""

    status: int
    body: bytes = b""
    content_type: str = TEXT
    headers: tuple[tuple[bytes, bytes], ...] = ()
    slices: Iterator[bytes] | None = None

    def begun(self, *, packed: bool) -> "Answer":
        """Return the same answer with its first bytes in `body` and what is left, if anything, in `slices`.

        `packed`: the client takes gzip, and gets it where the answer is large.
        """
        rest = self.slices
        body = self.body
        if rest is not None:
            body, rest = _gathered(rest)
        if not packed or (rest is None and len(body) < WORTH_PACKING):
            return Answer(self.status, body, self.content_type, self.headers, rest)
        headers = (*self.headers, (b"content-encoding", b"gzip"), (b"vary", b"accept-encoding"))
        if rest is None:
            return Answer(self.status, gzip.compress(body, _LEVEL, mtime=0), self.content_type, headers)
        packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
        return Answer(self.status, packing.compress(body), self.content_type, headers, _packed(rest, packing))


def _gathered(slices: Iterator[bytes]) -> tuple[bytes, Iterator[bytes] | None]:
    """(the first FIRST bytes or all of them, what follows or None)."""
    parts, size = [], 0
    for part in slices:
        parts.append(part)
        size += len(part)
        if size >= FIRST:
            return b"".join(parts), slices
    return b"".join(parts), None


def _packed(slices: Iterator[bytes], packing: Any) -> Iterator[bytes]:
    for part in slices:
        yield packing.compress(part)
    yield packing.flush()


def plain_refusal(status: int, sentence: str) -> Answer:
    """Return a refusal as most of the portal's API says it: {"error": sentence}."""
    return Answer(status, orjson.dumps({"error": sentence}), JSON)


@dataclass(frozen=True)
class Parameter:
    """What the API's document says of one parameter of a lane."""

    name: str
    help: str
    type: Literal["string", "number", "integer", "boolean"] = "string"
    required: bool = False
    many: bool = False
    choices: tuple[str, ...] = ()
    example: str = ""


@dataclass(frozen=True)
class Lane:
    """One bare route: methods, the right that is needed (None: open to all) and the callable.

    `writes` is the right for methods other than GET and HEAD where it is another one. `secret` finds the caller's token
    in a request that carries none in its headers. `serve` gets the caller and the request, and may block (it runs in a
    thread). `refuse` says an error in the shape that clients of this lane know. Requests of lanes with the same
    `together` that wait at the same time are served one after the other within it, and their answers count once it has
    ended well. `summary` and `parameters` are for the
    API's document.
    """

    methods: frozenset[str]
    right: Any
    serve: Callable[[Any, Request], Answer]
    refuse: Callable[[int, str], Answer] = plain_refusal
    summary: str = ""
    parameters: tuple[Parameter, ...] = ()
    together: Callable[[], AbstractContextManager[None]] | None = None
    writes: Any = None
    secret: Callable[[Request], str] | None = None

    def right_for(self, method: str) -> Any:
        """Return the right that a request by this method needs."""
        return self.right if self.writes is None or method in READ else self.writes


READ: Final = frozenset({"GET", "HEAD"})
GET: Final = frozenset({"GET"})
GET_OR_POST: Final = frozenset({"GET", "POST"})


def _pattern(path: str) -> str:
    """The regular expression of an address as it is written in the table."""
    return re.sub(r"<(\w+)(\.\.\.)?>", lambda found: f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})", path)


class Lanes:
    """The table of lanes by address; a part in angle brackets stands for anything but a slash, `<x...>` for all."""

    def __init__(self, routes: Mapping[str, Lane]) -> None:
        self.routes = routes
        self._patterns = [(re.compile(_pattern(path)), path, lane) for path, lane in routes.items() if "<" in path]

    def find(self, path: str) -> tuple[str, Lane, Mapping[str, str]] | None:
        """(its address as written in the table, the lane, what stands in the brackets), or None."""
        path = path.rstrip("/") or "/"
        lane = self.routes.get(path)
        if lane is not None:
            return path, lane, {}
        for pattern, written, candidate in self._patterns:
            if (found := pattern.fullmatch(path)) is not None:
                return written, candidate, found.groupdict()
        return None
