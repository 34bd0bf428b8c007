"""The page behind a message's link, and the addresses that providers call.

Opening the page changes nothing, for mail scanners open links; a button acts. A provider's call is proved by a secret
instead of a log-in, so it carries no CSRF token; addresses that send unproved ones are held up.
"""

import time
from datetime import timedelta
from typing import Final

from anymail.exceptions import AnymailWebhookValidationFailure
from django.conf import settings
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from apps.metrics.throttle import Throttle
from apps.notifications import callbacks, email_events, replies
from apps.notifications.callbacks import Unknown
from apps.notifications.incoming import Call, Unverified
from apps.notifications.links import LinkError, key_in
from apps.notifications.message import Message
from apps.notifications.models import Delivery

WAITING: Final = timedelta(seconds=30)
"""How long the page asks again for what came of an answer."""
LARGEST: Final = 64_000
"""Bytes in a provider's call; those of Slack and Twilio have a few thousand."""
LARGEST_OF_EMAIL: Final = 2_000_000
"""Mail providers send their events by the hundred."""
UNPROVED: Final = 20
"""Unproved calls a second from one address, five times as many at once; proved ones are not limited."""
_unproved = Throttle()


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def answer(request: HttpRequest, token: str) -> HttpResponse:
    """Show the message and its four answers (GET), or take one (POST); no log-in, the link is the right."""
    try:
        delivery = Delivery.objects.filter(key=key_in(token)).first()
        if delivery is None:
            raise LinkError("The message of this link is no longer kept. Log in to see how things stand.")
    except LinkError as error:
        return _page(request, {"problem": str(error)}, status=404)
    problem = ""
    if request.method == "POST":
        try:
            by = replies.principal_for(delivery, address=str(request.META.get("REMOTE_ADDR") or ""))
            replies.reply(by=by, delivery=delivery, action=request.POST.get("action", ""), now=timezone.now())
            return HttpResponseRedirect(request.path)
        except ValidationError as error:
            problem = " ".join(error.messages)
        except PermissionDenied as error:
            problem = str(error)
    given = list(delivery.replies.order_by("at"))
    waits = any(reply.handled_at is None and reply.at > timezone.now() - WAITING for reply in given)
    message = Message.from_json(delivery.message)
    context = {"message": message, "delivery": delivery, "given": given, "waits": waits, "problem": problem}
    return _page(request, context, status=400 if problem else 200)


def _page(request: HttpRequest, context: dict[str, object], *, status: int) -> HttpResponse:
    page = render(request, "notifications/answer.html", context, status=status)
    page["X-Robots-Tag"] = "noindex"
    page["Referrer-Policy"] = "same-origin"  # the address is the right: no other site learns it
    return page


@csrf_exempt
@never_cache
@require_http_methods(["POST"])
def provider(request: HttpRequest, kind: str, token: str = "") -> HttpResponse:
    """Take what a provider of messages tells: receipts, and answers of people."""
    if (refused := _refused(request, LARGEST)) is not None:
        return refused
    headers = {name.lower(): value for name, value in request.headers.items()}
    # The address as the provider was given it: behind a proxy the request names another one.
    url = f"{settings.PORTAL_URL}{request.get_full_path()}"
    call = Call(url, headers, request.body, time.time(), _address(request))
    try:
        content_type, body = callbacks.take(kind=kind, call=call, token=token, now=timezone.now())
    except Unverified as error:
        return _unproved_call(request, str(error))
    except Unknown as error:
        return _unproved_call(request, str(error), status=404)
    return HttpResponse(body, content_type=content_type)


@csrf_exempt
@never_cache
@require_http_methods(["POST", "HEAD"])
def mail_events(request: HttpRequest) -> HttpResponseBase:
    """Take what the mail provider tells of messages: Anymail's own view of that provider checks and reads it."""
    if (refused := _refused(request, LARGEST_OF_EMAIL)) is not None:
        return refused
    if (view := email_events.view_of(settings.EMAIL_BACKEND)) is None:
        return _unproved_call(request, email_events.CLOSED, status=404)
    try:
        return view(request)
    except AnymailWebhookValidationFailure:
        return _unproved_call(request, "The secret of the webhook is missing or wrong: see ANYMAIL_WEBHOOK_SECRET.")
    except (ValueError, KeyError, TypeError, AttributeError):
        return _unproved_call(request, "This is no event of the mail provider that EMAIL_BACKEND names.")


def _refused(request: HttpRequest, largest: int) -> HttpResponse | None:
    """Return the refusal of a call that is too large, or from an address that sent too many unproved ones."""
    if (wait := _unproved.wait(_address(request), UNPROVED, time.monotonic())) > 0:
        return HttpResponse("Too many calls.", status=429, headers={"Retry-After": str(int(wait) + 1)})
    length = request.META.get("CONTENT_LENGTH") or "0"
    if (length.isdecimal() and int(length) > largest) or len(request.body) > largest:
        return _unproved_call(request, "The body is too large.", status=413)
    return None


def _unproved_call(request: HttpRequest, sentence: str, *, status: int = 400) -> HttpResponse:
    _unproved.take(_address(request), UNPROVED, 1, time.monotonic())
    return HttpResponse(sentence, status=status, content_type="text/plain; charset=utf-8")


def _address(request: HttpRequest) -> str:
    return str(request.META.get("REMOTE_ADDR") or "")
