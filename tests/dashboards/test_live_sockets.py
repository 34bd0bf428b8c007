"""The live connection over real sockets: a page that does not read gets fewer frames, and then what is so by then."""

import contextlib
import socket
import time

import orjson
import pytest
from django.utils import timezone
from websockets.sync.client import connect
from websockets.typing import Origin

from apps.alerting.models import Alert
from apps.core import live
from tests.dashboards.test_delta import patched
from tests.dashboards.test_live import post, session_of
from tests.serving import serving

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
ROUNDS = 10
BUFFER = 8_192
HIGH_WATER = 65_536


@pytest.fixture
def server(transactional_db):
    """The portal's own ASGI application on a free port; the system keeps little of what a socket does not read."""
    with serving((socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)) as served:
        yield served


@contextlib.contextmanager
def page(server, session):
    """A page's socket; little is kept of what it does not read."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    host, port = server[1].split(":")
    raw.connect((host, int(port)))
    with connect(
        f"ws://{server[1]}/ws/live",
        sock=raw,
        origin=Origin(f"http://{server[1]}"),
        additional_headers={"Cookie": f"sessionid={session.session_key}"},
        compression=None,
        max_queue=(2, 0),  # then the client stops to take from the network
        close_timeout=0.2,
    ) as opened:
        opened.send(orjson.dumps({"view": "alerts"}).decode())
        yield opened


class Reader:
    """Puts frames together as a page does."""

    def __init__(self, opened):
        self.opened = opened
        self.parts = {}
        self.frames = 0

    def read(self, wait=10.0):
        frame = orjson.loads(self.opened.recv(wait))
        for name, change in frame.pop("changed", {}).items():
            frame[name] = patched(self.parts[name], change)
        self.parts |= frame
        self.frames += 1
        return self.parts

    def until(self, word):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            found = self.parts.get("alerts", {"rows": []})["rows"]
            if found and all(row["message"].startswith(word) for row in found):
                return found
            self.read()
        raise AssertionError(f"{word} never came")


def waiting(server):
    """The most bytes that the server keeps for one connection."""
    found = [one.transport.get_write_buffer_size() for one in list(server[0].server_state.connections)]
    return max(found, default=0)


def test_a_page_that_does_not_read_gets_fewer_frames_holds_nobody_up_and_ends_with_the_same_state(server, person):
    session = session_of(person("viewer"))
    for number in range(40):
        post(f"Alert {number}")
    keys = list(Alert.objects.values_list("pk", flat=True))
    with page(server, session) as one, page(server, session) as two:
        fast, slow = Reader(one), Reader(two)
        fast.until("Alert"), slow.until("Alert")
        kept = 0
        for turn in range(ROUNDS):
            for key in keys:
                Alert.objects.filter(pk=key).update(message=f"Turn {turn}. " + f"{key:07}" * 500)
            live.send({("alerts", None): None})
            fast.until(f"Turn {turn}.")
            kept = max(kept, waiting(server))
        whole = len(orjson.dumps(fast.parts["alerts"]))
        assert kept <= HIGH_WATER + 2 * whole, "one frame waits, and no second one"
        last = slow.until(f"Turn {ROUNDS - 1}.")
    assert last == fast.parts["alerts"]["rows"]
    assert slow.frames < fast.frames - 2


def test_what_a_page_missed_while_it_was_away_is_there_when_it_comes_back(server, person):
    session = session_of(person("viewer"))
    with page(server, session) as one:
        Reader(one).read()
    post("Missed meanwhile")
    with page(server, session) as one:
        rows = Reader(one).until("Missed")
    assert [row["message"] for row in rows] == ["Missed meanwhile"]
    assert rows[0]["since"] <= timezone.now().isoformat()
