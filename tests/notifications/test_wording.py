"""People's own words: the most specific template counts, what fails leaves the portal's, what is missing is said."""

import uuid
from dataclasses import replace
from typing import Any

import orjson
import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from apps.accounts.rights import Principal
from apps.dashboards.health import CHECKS
from apps.notifications import outbox, services, wording
from apps.notifications.channels import Channel, Sender, channels
from apps.notifications.channels.email import Email
from apps.notifications.channels.webhook import Webhook
from apps.notifications.message import Message
from apps.notifications.models import Delivery, MessageTemplate
from apps.notifications.plaintext import segments
from apps.notifications.sending import drain
from apps.notifications.wording import EXAMPLE, Wording, applied, choose, faults, lint, worded
from tests.notifications.conftest import NOW, Clock, a_message
from tests.notifications.receivers import HttpReceiver, SmtpReceiver
from tests.notifications.test_sandbox import EVIL, HOSTILE, sources

BY = Principal.system("test")
SENDER = Sender("night shift", "https://portal.example", ())


@pytest.mark.parametrize(
    ("kind", "severity", "chosen"),
    [("email", "critical", 1), ("email", "info", 2), ("sms", "critical", 3), ("sms", "info", 4)],
)
def test_the_most_specific_template_counts(kind: str, severity: str, chosen: int):
    places = [("", ""), ("", "critical"), ("email", ""), ("email", "critical"), ("slack", "critical")]
    order = {("email", "critical"): 1, ("email", ""): 2, ("", "critical"): 3, ("", ""): 4}
    rows = [Wording("x", kind=k, severity=s, pk=order.get((k, s), 9)) for k, s in places]
    found = choose(rows, kind=kind, severity=severity)
    assert found is not None
    assert found.pk == chosen


def test_without_a_fitting_template_the_message_stays():
    assert worded(EXAMPLE, (Wording("x", kind="sms"),), Email) == (EXAMPLE, "", 0)
    test = replace(EXAMPLE, status="test")
    assert worded(test, (Wording("x"),), Email) == (test, "", 0)


def test_a_body_stands_for_the_alerts_except_where_they_are_data():
    own = Wording(
        title="{{ name }} {{ value_text }}", body="{{ threshold_text }}, {{ incident.number }}, {{ changes[0] }}"
    )
    mail = applied(EXAMPLE, own, Email)
    assert (mail.title, mail.body) == ("Memory 93 %", "> 90 %, 12, 11:42 UTC shop: deployed 4.2 (ann)")
    assert (mail.alerts, mail.facts) == ((), ())
    assert applied(EXAMPLE, own, Webhook).alerts == EXAMPLE.alerts


def test_what_is_left_empty_or_comes_out_empty_stays_the_portals():
    assert applied(EXAMPLE, Wording(body="x"), Email).title == EXAMPLE.title
    assert applied(EXAMPLE, Wording(title="{{ labels.nothing }}", body="{{ absent }} "), Email) == EXAMPLE


def test_every_variable_of_the_docs_is_there_and_no_other():
    assert wording.variables(EXAMPLE).keys() | {"labels"} == wording.VARIABLES.keys()
    assert all(
        value not in (None, "", [], {}) for name, value in wording.variables(EXAMPLE).items() if name != "ends_at"
    )


@pytest.mark.parametrize("kind", list(channels.all()))
@pytest.mark.parametrize("message", [EXAMPLE, wording.ended(EXAMPLE), a_message(), Message("Only a title", "")])
def test_every_channel_shows_any_message(kind: str, message: Message):
    shown = channels.get(kind).shown(message)
    assert message.title in shown["title"] + shown["text"]


@given(sources)
@hypothesis_settings(max_examples=60)
def test_no_template_loses_a_message(source: str):
    for own in (Wording(source), Wording(body=source), Wording(document=source)):
        for channel in (Email, Webhook):
            message, wrong, _ = worded(EXAMPLE, (own,), channel)
            assert message.title
            assert message == EXAMPLE or not wrong


@pytest.mark.parametrize(
    ("template", "field", "words"),
    [
        (Wording(), "body", "says nothing"),
        (Wording(title="{{ titel }}"), "title", "Did you mean title?"),
        (Wording(body="{{ value | rond }}"), "body", "there is no filter 'rond'"),
        (Wording(body="line\n{% if %}"), "body", "Line 2"),
        (Wording(document="<p>{{ title }}</p>"), "document", "email, webhook"),
        (Wording(document='{"a": {{ title }} }', kind="webhook"), "document", "no JSON"),
        (Wording(body="{{ value + title }}"), "body", "+ is for numbers"),
    ],
)
def test_what_could_not_be_told_is_refused_beside_its_field(template: Wording, field: str, words: str):
    assert words in faults(template)[field]


@pytest.mark.parametrize(
    ("template", "sentences"),
    [
        (Wording(kind="email", body="{{ text }}"), []),
        (Wording("{{ title }}", "{{ value_text }} {{ runbook_url }} {{ links.answer }}"), []),
        (Wording(title="Fire!"), ["It looks the same when all is over: use {{ status }} or {{ title }}."]),
        (
            Wording(title="{{ title }}", body="Look."),
            [
                "It does not say what to do: use {{ runbook }} or {{ runbook_url }}.",
                "It does not say by how much: use {{ value_text }} and {{ threshold_text }}.",
            ],
        ),
        (
            Wording(kind="webhook", document='{"say": "{{ title }} {{ value }} {{ runbook }}"}'),
            ["It has no link, and the portal adds none to JSON: use {{ links.answer }} or {{ links.url }}."],
        ),
        (
            Wording(kind="sms", title="{{ title }}" + "x" * 280),
            ["SMS (Twilio) sends it in 3 parts, each of which is paid for."],
        ),
        (
            Wording(kind="sms", title="{{ status }}", body="{{ text }}" + "x" * 600),
            ["SMS (Twilio) cuts it off at 459 of 967 characters."],
        ),
    ],
    ids=range(7),
)
def test_lint_says_what_readers_will_miss(template: Wording, sentences: list[str]):
    assert lint(template) == sentences


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", 1),
        ("x" * 160, 1),
        ("x" * 161, 2),
        ("€" * 80, 1),
        ("€" * 81, 2),
        ("ж" * 70, 1),
        ("ж" * 71, 2),
        ("😀" * 35, 1),
    ],
)
def test_a_text_message_is_counted_in_its_parts(text: str, parts: int):
    assert segments(text) == parts


# --- As they are sent ------------------------------------------------------------------------------------------------
def template(**values: Any) -> MessageTemplate:
    given = {"name": "own", "title": "{{ name }} is {{ value_text }}", "body": "{{ summary }}"} | values
    return services.save_message_template(by=BY, now=NOW, values=given)


def test_a_message_leaves_in_the_words_of_its_template(webhook: Any, http_receiver: HttpReceiver, clock: Clock):
    template(kind="webhook", document='{"text": "{{ title }}", "host": {{ labels.instance | tojson }}}')
    outbox.enqueue(contact=webhook(), message=a_message(title=EVIL), purpose="firing", now=NOW)
    drain(clock=clock)
    [request] = http_receiver.requests
    assert orjson.loads(request.content) == {"text": EVIL, "host": "web-1"}


@pytest.mark.django_db
def test_an_email_of_ones_own_html_keeps_its_frame_and_escapes_what_alerts_say(
    smtp_receiver: SmtpReceiver, settings: Any
):
    own = template(kind="email", title="", body="", document="<p class='own'>{{ title }}</p>")
    message = applied(a_message(title=EVIL), own.wording, Email)
    Email({"to": ["a@example.com"]}, SENDER).send(message, uuid.uuid4())
    [mail] = smtp_receiver.mails
    part = mail.get_body(("html",))
    assert part is not None
    html = str(part.get_content())
    assert "<p class='own'>&lt;script&gt;" in html
    assert "<script" not in html
    assert ">Open</a>" in html


def test_a_template_that_fails_is_shown_and_the_message_leaves_in_the_portals_words(
    webhook: Any, http_receiver: HttpReceiver, clock: Clock
):
    own = template(kind="webhook", title="", body="", document='{"text": "{{ title }}"}')
    MessageTemplate.objects.filter(pk=own.pk).update(document='{"text": {{ title }}}')
    hook = webhook()
    for number in range(2):
        outbox.enqueue(contact=hook, message=a_message(title=f"Disk {number}"), purpose="firing", now=NOW)
    drain(clock=clock)
    assert [request.json()["title"] for request in http_receiver.requests] == ["Disk 0", "Disk 1"]
    assert set(Delivery.objects.values_list("state", flat=True)) == {"sent"}
    own.refresh_from_db()
    assert "no JSON" in own.problem
    assert own.problem_at == NOW
    services.save_message_template(by=BY, now=NOW, template=own, values={"document": '{"text": "{{ title }}"}'})
    assert own.problem == ""


def test_health_names_a_template_that_fails(webhook: Any, http_receiver: HttpReceiver, clock: Clock):
    webhook(is_fallback=True)
    own = template()
    MessageTemplate.objects.filter(pk=own.pk).update(problem="It failed.", problem_at=NOW)
    _, sentence = CHECKS["contacts"](NOW)
    assert sentence == "Message templates that fail, so that the portal's own words are told: own: It failed."


@pytest.mark.parametrize("source", HOSTILE, ids=lambda source: source[:40])
def test_no_hostile_template_stops_a_sender(source: str):
    message, wrong, _ = worded(EXAMPLE, (Wording(title=source),), Channel)
    assert message == EXAMPLE
    assert wrong


@pytest.mark.django_db
def test_a_place_has_one_enabled_template():
    template(kind="sms")
    with pytest.raises(ValidationError, match="enabled template"):
        template(name="other", kind="sms")
    template(name="draft", kind="sms", enabled=False)
