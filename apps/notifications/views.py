"""The page behind a message's link. Opening it changes nothing, for mail scanners open links; a button acts."""

from datetime import timedelta
from typing import Final

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from apps.notifications import replies
from apps.notifications.links import LinkError, key_in
from apps.notifications.message import Message
from apps.notifications.models import Delivery

WAITING: Final = timedelta(seconds=30)
"""How long the page asks again for what came of an answer."""


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
