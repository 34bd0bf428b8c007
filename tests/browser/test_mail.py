"""An e-mail as it left through a real SMTP server, and the editor of templates, as people see them."""

import base64
import os
import re
import uuid
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from apps.accounts.permissions import EVERYTHING
from apps.accounts.rights import Principal
from apps.notifications import services
from apps.notifications.channels import Sender
from apps.notifications.channels.email import Email
from apps.notifications.message import Message
from apps.oncall import examples
from tests.browser.conftest import LOOKS, picture
from tests.browser.test_look import CONTRAST
from tests.notifications.receivers import SmtpReceiver

BODY = """{{ summary }}{% if value %}: {{ value_text }} (threshold {{ threshold_text }}){% endif %}
Since {{ starts_at | time("%H:%M") }} UTC on {{ labels.instance | default("–") }}.
{% for change in changes %}Changed before: {{ change }}
{% endfor %}
What to do: {{ runbook }}"""


@pytest.fixture
def smtp(settings) -> Iterator[SmtpReceiver]:
    receiver = SmtpReceiver()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", receiver.port
    yield receiver
    receiver.close()


def received(smtp: SmtpReceiver, message: Message) -> str:
    """Send it, and return the HTML that came, each picture in its place."""
    sender = Sender("night shift", "http://127.0.0.1:3000")
    Email({"to": ["ann@example.com"]}, sender).send(message, uuid.uuid4())
    mail: EmailMessage = smtp.mails[-1]
    part = mail.get_body(("html",))
    assert part is not None
    html = str(part.get_content())
    for attached in mail.walk():
        if attached.get_content_type() == "image/png":
            data = base64.b64encode(attached.get_content()).decode()
            html = html.replace(f"cid:{attached['Content-ID'].strip('<>')}", f"data:image/png;base64,{data}")
    assert "cid:" not in html
    return html


def test_an_email_is_sound_in_light_in_dark_and_on_a_phone(window, full_scene, smtp):
    told = {
        "email": examples.message(full_scene[0].key, EVERYTHING, is_over=False),
        "email-posted": examples.message(full_scene[1].key, EVERYTHING, is_over=False),
        "email-resolved": examples.message(full_scene[0].key, EVERYTHING, is_over=True),
    }
    for name, message in told.items():
        assert message is not None
        html = received(smtp, message)
        assert (name, "<picture>" in html) == (name, name != "email-posted")
        for look in LOOKS:
            it = window(None, look)
            it.page.set_content(html)
            assert it.page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth)")
            assert (name, look, it.overflow()) == (name, look, [])
            assert (name, look, it.page.evaluate(CONTRAST)) == (name, look, [])
            if os.environ.get("PORTAL_SCREENSHOTS"):
                it.page.screenshot(path=picture(f"{name}-{look}"), full_page=True)


def test_a_template_is_tried_while_it_is_written(window, full_scene):
    own = services.save_message_template(
        by=Principal.system("test"), now=full_scene[0].seen_at, values={"name": "Short", "kind": "email", "body": BODY}
    )
    for look in LOOKS:
        it = window("ada", look)
        page = it.go(reverse("admin:notifications_messagetemplate_change", args=[own.pk]))
        results = page.locator("[data-results]")
        expect(results).to_have_attribute("data-shown", "1")
        page.locator("[data-alert]").select_option(full_scene[0].key)
        mail = page.frame_locator(".portal-preview-mail")
        expect(mail.locator("h1")).to_contain_text(re.compile("memory", re.IGNORECASE))
        expect(mail.locator("body")).to_contain_text("What to do:")
        assert (look, it.complaints) == (look, [])
        assert (look, it.overflow()) == (look, [])
        if os.environ.get("PORTAL_SCREENSHOTS"):
            page.wait_for_timeout(700)
            page.add_style_tag(content="[id=submit-row], .submit-row { display: none !important }")
            page.screenshot(path=picture(f"message-template-{look}"), full_page=True)
    page.locator("[name=title]").fill("{{ titel }}")
    expect(page.locator("[data-template-preview] [data-error]")).to_contain_text("Did you mean title?")
    page.locator("[name=title]").fill("Fire!")
    expect(results.locator(".portal-preview-warnings")).to_contain_text("when all is over")
    expect(mail.locator("h1")).to_have_text("Fire!")
