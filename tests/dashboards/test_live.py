"""The live connection over a real Redis protocol server: a push reaches the socket, and only whom it may reach."""

import asyncio
import contextlib
import itertools
from typing import Any

import orjson
import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.db import transaction
from django.utils import timezone

from apps.accounts import services as accounts
from apps.accounts.models import Team
from apps.accounts.permissions import Principal
from apps.alerting import services as alerting
from apps.core import live
from apps.core.hub import LIMIT, Inbox, hub
from apps.dashboards import dashboard_pages, following, shared
from apps.dashboards.consumers import CLOSED, FORBIDDEN, MANY, NOBODY, LiveConsumer, desk
from apps.dashboards.models import Dashboard, Folder
from apps.metrics import services as metrics
from apps.metrics.samples import Samples
from tests.dashboards.test_delta import patched

pytestmark = pytest.mark.django_db(transaction=True)
WAIT = 10.0
"""How long a test waits for what must come."""


def session_of(user):
    """Return a saved session, as a login makes it."""
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session


class Socket(ApplicationCommunicator):
    """A client's side of one socket; `accepted` tells how the handshake ended."""

    accepted = False

    def __init__(self, *given):
        super().__init__(*given)
        self.parts: dict[str, Any] = {}

    def whole(self, text):
        """Return a frame with the whole of what it brings only changes of, as a page does."""
        frame = orjson.loads(text)
        for name, change in frame.pop("changed", {}).items():
            frame[name] = patched(self.parts[name], change)
        self.parts |= frame
        return frame

    async def say(self, text):
        await self.send_input({"type": "websocket.receive", "text": text})


@contextlib.asynccontextmanager
async def socket(session, view="overview", origin=b"http://testserver", host=b"testserver"):
    """Open a socket as a page of that session does; yields it connected, with the view asked for."""
    headers = [(b"host", host)] + ([(b"origin", origin)] if origin else [])
    scope = {"type": "websocket", "path": "/ws/live", "headers": headers, "session": session}
    it = Socket(LiveConsumer.as_asgi(), scope)
    await it.send_input({"type": "websocket.connect"})
    answer = await it.receive_output(timeout=WAIT)
    it.accepted = answer["type"] == "websocket.accept"
    if it.accepted:
        await it.say(orjson.dumps({"view": view}).decode())
    try:
        yield it
    finally:
        await it.send_input({"type": "websocket.disconnect", "code": 1000})
        await it.wait(timeout=WAIT)


async def frame_with(it, part, accept=lambda value: True):
    """Return the next frame's part of that name that the test accepts."""
    async with asyncio.timeout(WAIT):
        while True:
            message = await it.receive_output(timeout=WAIT)
            assert message["type"] == "websocket.send", message
            found = it.whole(message["text"]).get(part)
            if found is not None and accept(found):
                return found


async def code_of(it):
    """Return the code with which the socket is closed."""
    async with asyncio.timeout(WAIT):
        while True:
            message = await it.receive_output(timeout=WAIT)
            if message["type"] == "websocket.close":
                return message["code"]


def post(message="It burns"):
    by = Principal.system("test", via="api")
    return alerting.post_alert(by=by, type="fire", severity="critical", message=message, now=timezone.now())


def run(test):
    """Run a coroutine to its end; database work of the test itself goes through threads."""
    return asyncio.run(test)


def test_a_page_catches_up_when_it_connects(person):
    post("Before it came")
    session = session_of(person("viewer"))

    async def scenario():
        async with socket(session) as it:
            return await frame_with(it, "alerts")

    found = run(scenario())
    assert [row["message"] for row in found["rows"]] == ["Before it came"]


def test_a_new_alert_reaches_the_page_without_being_asked_for(person):
    session = session_of(person("viewer"))

    async def scenario():
        async with socket(session) as it:
            await frame_with(it, "alerts")
            await sync_to_async(post)()
            return await frame_with(it, "alerts", lambda alerts: alerts["total"] == 1)

    assert run(scenario())["rows"][0]["severity"] == "critical"


def test_a_commit_is_pushed_and_a_rollback_is_not():
    def change():
        with contextlib.suppress(ZeroDivisionError), transaction.atomic():
            live.publish("series", "never")
            raise ZeroDivisionError
        with transaction.atomic():
            live.publish("series", "host")
            live.publish("series", "host")

    async def scenario():
        with hub().inbox(["series", "alerts"]) as inbox:
            await settled(inbox)
            await sync_to_async(change)()
            async with asyncio.timeout(WAIT):
                await inbox.something.wait()
            return inbox.take()

    assert run(scenario()) == {"series": {"host"}}


def test_a_page_of_one_alert_follows_it(person):
    user, alert = person("operator", name="mara"), post()
    session = session_of(user)

    def acknowledge():
        alerting.acknowledge(by=Principal.of_user(user), alert=alert, now=timezone.now())

    async def scenario():
        async with socket(session, f"alert:{alert.key}") as it:
            first = await frame_with(it, "alert")
            await sync_to_async(acknowledge)()
            return first, await frame_with(it, "alert", lambda now: now != first)

    first, then = run(scenario())
    assert first["may"]["acknowledge"] is True
    assert then["may"]["acknowledge"] is False
    assert then["headline"] == "Firing, mara is on it"


def test_nobody_gets_nothing():
    async def scenario():
        async with socket(SessionStore()) as it:
            return await code_of(it)

    assert run(scenario()) == NOBODY


def test_a_person_without_a_role_gets_nothing(person):
    session = session_of(person())

    async def scenario():
        async with socket(session) as it:
            return await code_of(it)

    assert run(scenario()) == FORBIDDEN


@pytest.mark.parametrize(
    ("origin", "host", "is_welcome"),
    [
        (b"http://testserver", b"testserver", True),
        (b"https://evil.example", b"testserver", False),
        (b"http://evil.example", b"evil.example", False),
        (b"", b"testserver", True),
    ],
)
def test_another_sites_page_cannot_read_with_this_persons_cookie(person, origin, host, is_welcome):
    session = session_of(person("viewer"))

    async def scenario():
        async with socket(session, origin=origin, host=host) as it:
            return it.accepted

    assert run(scenario()) is is_welcome


@pytest.mark.parametrize("end", ["role", "lock", "logout", "password"])
def test_a_lost_right_closes_the_socket_before_the_next_frame(person, end):
    user = person("viewer")
    session = session_of(user)

    def lose():
        if end == "role":
            user.groups.clear()
        elif end == "lock":
            user.is_active = False
            user.save()
        elif end == "password":
            user.set_password("another long one")
            user.save()
        else:
            SessionStore(session.session_key).flush()
        post("Not for them")

    async def scenario():
        async with socket(session) as it:
            await frame_with(it, "alerts")
            await sync_to_async(lose)()
            seen: list[str] = []
            async with asyncio.timeout(WAIT):
                while True:
                    message = await it.receive_output(timeout=WAIT)
                    if message["type"] == "websocket.close":
                        return message["code"], seen
                    seen.append(message["text"])

    code, seen = run(scenario())
    assert code == (FORBIDDEN if end == "role" else NOBODY)
    assert not [text for text in seen if "Not for them" in text]


def test_a_role_that_is_taken_away_closes_an_idle_page_at_once(person):
    user, by = person("viewer"), Principal.system("test", via="command")
    session = session_of(user)

    async def scenario():
        async with socket(session) as it:
            await frame_with(it, "alerts")
            await sync_to_async(accounts.set_roles)(by=by, user=user, roles=[])
            return await code_of(it)

    assert run(scenario()) == FORBIDDEN


def test_a_person_has_so_many_live_pages_and_the_next_one_is_told_so(person, settings):
    settings.LIVE_PAGES_PER_PERSON = 2
    mara, vic = person("viewer", name="mara"), person("viewer", name="vic")
    refused = CLOSED.value(reason="many")

    async def scenario():
        mine = [await sync_to_async(session_of)(mara) for _ in range(2)]
        other = await sync_to_async(session_of)(vic)
        async with socket(mine[0]) as first, socket(other) as others:
            await frame_with(first, "alerts")
            async with socket(mine[0]) as second, socket(mine[1]) as third:
                await frame_with(second, "alerts")
                closed = await third.receive_output(timeout=WAIT)
                await frame_with(others, "alerts")
            async with socket(mine[1]) as next_one:
                await frame_with(next_one, "alerts")
        return closed, dict(desk().pages)

    closed, left = run(scenario())
    assert (closed["code"], CLOSED.value(reason="many") - refused) == (MANY, 1)
    assert closed["reason"] == "You have 2 pages open, as many as may be live. Close one: this one follows."
    assert left == {}, "who has none is not remembered"


def test_what_is_no_request_closes_the_socket(person):
    session = session_of(person("viewer"))

    async def scenario():
        async with socket(session, view="overview") as it:
            await it.say("[]")
            return await code_of(it)

    assert run(scenario()) == 4400


def test_many_changes_become_few_frames(person):
    session = session_of(person("viewer"))

    def storm():
        for number in range(200):
            live.send({("alerts", str(number)): None, ("series", "host"): None})

    async def scenario():
        async with socket(session) as it:
            await frame_with(it, "alerts")
            await sync_to_async(storm)()
            frames = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.5):
                    while True:
                        await it.receive_output(timeout=WAIT)
                        frames += 1
            return frames

    assert run(scenario()) <= 8


def test_the_hub_comes_back_by_itself_and_has_everybody_look_again(person):
    async def scenario():
        with hub().inbox(["alerts"]) as inbox:
            await settled(inbox)
            # The server throws every subscriber out, as a restart does.
            await asyncio.to_thread(live.client().execute_command, "CLIENT", "KILL", "TYPE", "pubsub")
            async with asyncio.timeout(WAIT):
                await inbox.something.wait()
            again = inbox.take()
            await settled(inbox)
            await asyncio.to_thread(live.send, {("alerts", "7"): None})
            async with asyncio.timeout(WAIT):
                await inbox.something.wait()
            return again, inbox.take()

    again, then = run(scenario())
    assert again == {"alerts": {None}}
    assert then == {"alerts": {"7"}}


async def settled(inbox):
    """Wait until the hub listens and has said so, and until the last question about that has come back."""
    for number in itertools.count():
        inbox.something.clear()
        await asyncio.to_thread(live.send, {("alerts", f"probe {number}"): None})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await inbox.something.wait()
        if f"probe {number}" in inbox.take().get("alerts", set()):
            return


def test_an_inbox_is_bounded_and_then_asks_for_everything():
    async def scenario():
        inbox = Inbox(["alerts"])
        inbox.put("series", "not asked for")
        assert not inbox.something.is_set()
        for number in range(LIMIT + 1):
            inbox.put("alerts", str(number))
        return inbox.take(), inbox.take()

    assert run(scenario()) == ({"alerts": {None}}, {})


# --- Panels that a page follows --------------------------------------------------------------------------------------
STEP = 15_000


def put(value, *, at=None, live_as="host"):
    """Store a value of a new step as the collectors do, and push that it is there."""
    at = at or int(timezone.now().timestamp() * 1000) // STEP * STEP
    names = [{"__name__": "node_load1", "instance": "web-1"}]
    by = Principal.system("test", via="command")
    metrics.ingest(samples=Samples.of(names, [at], [value]), by=by, now=timezone.now(), live=live_as)
    return at


def watch(number=1, *, panels, place="page", query="range=1h"):
    return orjson.dumps({"watch": {"number": number, "place": place, "query": query, "panels": panels}}).decode()


def last(panel):
    return panel["series"][0]["values"][-1] if panel.get("series") else None


def test_a_page_is_pushed_the_new_steps_of_the_panels_it_follows_and_no_others(person):
    session = session_of(person("viewer"))
    since = put(1.0) - 2 * STEP

    async def scenario():
        async with socket(session) as it:
            await it.say(watch(7, panels={"load": since}))
            first = await frame_with(it, "panels")
            await sync_to_async(put)(2.0)
            then = await frame_with(it, "panels", lambda panels: last(panels["load"]) == 2.0)
            return first, then

    first, then = run(scenario())
    assert set(first) == set(then) == {"load"}
    assert last(first["load"]) == 1.0
    assert first["load"]["count"] <= 4, "only from where the page is behind"
    assert "unit" not in then["load"], "what the page has is not sent again"


def test_pages_that_follow_the_same_panel_are_answered_by_one_query(person):
    session, other = session_of(person("viewer")), session_of(person("operator"))
    since = put(1.0) - 2 * STEP

    async def follow(it):
        await it.say(watch(panels={"network": since}))
        return await frame_with(it, "panels")

    async def scenario():
        async with socket(session) as one, socket(session) as two, socket(other) as three:
            everybody = (one, two, three)
            await asyncio.gather(*map(follow, everybody))
            before = shared.SHARED.value(how="computed")
            await sync_to_async(live.send)({("series", "host"): None})
            names = [{"__name__": "node_network_receive_bytes_total", "device": "eth0"}]
            at = put(3.0)
            samples = Samples.of(names * 2, [at - 2 * STEP, at], [0.0, 60.0])
            by = Principal.system("test", via="command")
            await sync_to_async(metrics.ingest)(samples=samples, by=by, now=timezone.now(), live="host")
            await asyncio.gather(*(frame_with(it, "panels", lambda p: p["network"]["series"]) for it in everybody))
            return shared.SHARED.value(how="computed") - before

    queries = 2  # the panel asks two things
    assert run(scenario()) <= 2 * queries, "one round, or two where the first came between the pushes"


def test_people_of_the_same_rights_and_teams_are_answered_once_and_a_folder_tells_teams_apart(person, monkeypatch):
    night = Team.objects.create(name="Night")
    people = [person("viewer", name=name) for name in ("ann", "ben", "cem", "dan")]
    night.members.set(people[:2])
    folder = Folder.objects.create(name="Night")
    folder.teams.set([night])
    panel = {"id": "a", "kind": "stat", "queries": [{"expression": "vector(42)"}]}
    Dashboard.objects.create(
        slug="night", title="Night", document={"panels": [panel]}, updated_at=timezone.now(), folder=folder
    )
    asked, numbers = [], dashboard_pages.numbers

    def noted(slug, given, span, who):
        asked.append(who.name)
        return numbers(slug, given, span, who)

    monkeypatch.setattr(dashboard_pages, "numbers", noted)
    questions = [
        following.Question(session_of(user).session_key, "dashboard:night", "range=1h", (("a", None),), 0.0)
        for user in people
    ]
    replies: list[Any] = list(following.answer(questions))
    texts = [orjson.loads(reply.found.panels["a"].text) for reply in replies]
    assert [last(found) for found in texts] == [42.0, 42.0, None, None]
    assert texts[2] == {"error": "There is no such dashboard any more."}
    assert asked == ["ann", "cem"], "the others were given the same"


def test_a_page_that_comes_back_is_brought_up_to_date_with_all_it_missed(person):
    session = session_of(person("viewer"))
    end = int(timezone.now().timestamp() * 1000) // STEP * STEP
    for back in range(6, -1, -1):
        put(float(10 - back), at=end - back * STEP)

    async def scenario():
        async with socket(session) as it:
            await it.say(watch(panels={"load": end - 4 * STEP}))
            return (await frame_with(it, "panels"))["load"]

    found = run(scenario())
    assert found["start"] * 1000 == end - 4 * STEP
    assert found["series"][0]["values"][:5] == [6.0, 7.0, 8.0, 9.0, 10.0]


def test_a_panel_that_is_not_there_says_so_and_closes_nothing(person):
    session = session_of(person("viewer"))

    async def scenario():
        async with socket(session) as it:
            await it.say(watch(panels={"made-up": None}))
            first = await frame_with(it, "panels")
            await it.say(watch(2, place="dashboard:gone", panels={"a": None}))
            return first, await frame_with(it, "panels", lambda panels: "a" in panels)

    first, then = run(scenario())
    assert first["made-up"]["error"] == "There is no panel 'made-up'."
    assert then["a"]["error"] == "There is no such dashboard any more."


def test_a_watch_that_is_none_closes_the_socket(person):
    session = session_of(person("viewer"))

    async def scenario():
        async with socket(session) as it:
            await it.say(watch(panels={str(number): None for number in range(100)}))
            return await code_of(it)

    assert run(scenario()) == 4400


def test_a_page_that_asks_what_cannot_be_read_breaks_off_no_other(person):
    session = session_of(person("viewer"))
    put(1.0)
    post()

    async def scenario():
        async with socket(session) as one, socket(session, view="alert:\0") as two, socket(session) as three:
            await three.say(watch(panels={"alert": None}, query="range=1h&alert=%00"))
            await one.say(watch(panels={"load": None}))
            bad = {await code_of(two), await code_of(three)}
            await sync_to_async(post)("Another")
            await frame_with(one, "alerts", lambda alerts: alerts["total"] >= 1)
            return bad, await frame_with(one, "panels") if "panels" not in one.parts else one.parts["panels"]

    bad, panels = run(scenario())
    assert bad == {1011}
    assert last(panels["load"]) == 1.0


def test_a_dashboard_of_a_folder_that_is_closed_to_the_person_is_pushed_no_more(person):
    user = person("viewer")
    folder = Folder.objects.create(name="Night", roles=["operator"])
    panel = {"id": "a", "kind": "stat", "queries": [{"expression": "vector(42)"}]}
    row = Dashboard.objects.create(slug="night", title="Night", document={"panels": [panel]}, updated_at=timezone.now())
    session = session_of(user)

    async def scenario():
        async with socket(session) as it:
            await it.say(watch(place="dashboard:night", panels={"a": None}))
            first = await frame_with(it, "panels")
            await sync_to_async(Dashboard.objects.filter(pk=row.pk).update)(folder=folder)
            await sync_to_async(live.send)({("accounts", None): None})
            return first, await frame_with(it, "panels")

    first, then = run(scenario())
    assert last(first["a"]) == 42.0
    assert then["a"] == {"error": "There is no such dashboard any more."}


def test_a_lost_role_ends_what_is_followed_before_the_next_numbers(person):
    user = person("viewer")
    session = session_of(user)
    since = put(1.0) - 2 * STEP

    def lose():
        user.groups.clear()
        put(666.0)

    async def scenario():
        async with socket(session, view="") as it:
            await it.say(watch(panels={"load": since}))
            await frame_with(it, "panels")
            await sync_to_async(lose)()
            seen = []
            async with asyncio.timeout(WAIT):
                while (message := await it.receive_output(timeout=WAIT))["type"] != "websocket.close":
                    seen.append(message["text"])
            return message["code"], seen

    code, seen = run(scenario())
    assert code == FORBIDDEN
    assert not [text for text in seen if "666" in text]
