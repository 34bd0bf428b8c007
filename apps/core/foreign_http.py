"""The guarded door for libraries that speak HTTP by themselves: what they do through `requests` passes it, too.

A provider's library (Anymail, Apprise) builds its own requests and cannot be handed a client. While a thread is inside
`guarded()`, every connection that urllib3 opens in it is checked as `core.http` checks its own, redirects included.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import requests
from urllib3.util import connection

from apps.core.http import Refused, Response, check_address

_thread = threading.local()
_connect: Final = connection.create_connection
_send: Final = requests.Session.send


@contextmanager
def guarded() -> Iterator[list[Response]]:
    """Guard this thread's requests; yields the list of their answers so far (bodies left out).

    A refused address is raised as `Refused` when the block ends, whatever the library made of it.
    """
    answers: list[Response] = []
    before = getattr(_thread, "answers", None)
    _thread.answers, _thread.refusal = answers, None
    try:
        yield answers
        if _thread.refusal is not None:
            raise _thread.refusal
    finally:
        _thread.answers = before


def _guarded_connect(address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
    if getattr(_thread, "answers", None) is None:
        return _connect(address, *args, **options)
    host, port = address
    failure: OSError | None = None
    for *_, found in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM):
        literal = str(found[0])
        try:
            check_address(host, port, literal, allow_private=False)
            # The literal, not the name: a second look-up could answer with another address.
            return _connect((literal, port), *args, **options)
        except Refused as refusal:
            _thread.refusal = refusal
            failure = failure or OSError(str(refusal))
        except OSError as error:
            failure = error
    raise failure or OSError(f"The name {host} has no address.")


def _noted_send(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    answers = getattr(_thread, "answers", None)
    if answers is None:
        return _send(session, request, **options)
    # No proxy of the environment: it would connect wherever it is told, behind the check.
    options["proxies"] = {}
    answer = _send(session, request, **options)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    answers.append(Response(answer.status_code, headers, b"", answer.elapsed.total_seconds()))
    return answer


connection.create_connection = _guarded_connect
requests.Session.send = _noted_send  # type: ignore[method-assign, assignment]
