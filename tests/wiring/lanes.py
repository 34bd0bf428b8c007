"""Asks a lane in this thread and this test's transaction, as the fast lane does in a thread of its own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from apps.accounts import services
from apps.accounts.rights import Principal
from apps.core.lanes import Answer, Lanes, Request
from monitoring_portal import fastlane
from tests.house.rows import AT

LANES = Lanes(fastlane.ROUTES)
Headers = list[tuple[bytes, bytes]]


def token(*scopes: str, matchers: tuple[Any, ...] = ()) -> Headers:
    """Return the headers of a new token."""
    extra: dict[str, Any] = {"matchers": matchers} if matchers else {}
    _, secret = services.issue_token(
        by=Principal.system("test"), name="-".join(scopes), scopes=list(scopes), expires_at=None, now=AT, **extra
    )
    return [(b"authorization", f"Bearer {secret}".encode())]


@dataclass(frozen=True)
class Said:
    """An answer as a client sees it."""

    status: int
    body: bytes
    headers: dict[bytes, bytes]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        """The data of a success."""
        assert self.json["status"] == "success", self.json
        return self.json["data"]

    @property
    def error(self) -> tuple[int, str, str]:
        """(status, errorType, error) of a refusal."""
        assert self.json["status"] == "error", self.json
        return self.status, self.json["errorType"], self.json["error"]


def whole(said: Answer) -> Said:
    """Return the answer with all of its slices."""
    body = said.body + b"".join(said.slices or ())
    return Said(said.status, body, {b"content-type": said.content_type.encode(), **dict(said.headers)})


def ask(
    path: str,
    headers: Headers,
    parameters: Mapping[str, Any] | None = None,
    *,
    method: str = "GET",
    form: Mapping[str, Any] | None = None,
    body: bytes = b"",
) -> Said:
    """Ask the lane of that address; `form` is sent as one, `body` as it is."""
    found = LANES.find(path)
    assert found is not None, f"{path} is no lane"
    _, lane, captured = found
    kind: Headers = []
    if form is not None:
        body, kind = urlencode(form, doseq=True).encode(), [(b"content-type", b"application/x-www-form-urlencoded")]
    query = urlencode(parameters or {}, doseq=True).encode()
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": ("192.0.2.7", 1)}
    request = Request(method, path, query, body, [*headers, *kind], "192.0.2.7", captured)
    return whole(fastlane.answer(lane, scope, request).begun(packed=False))
