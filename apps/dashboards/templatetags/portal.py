"""Template tags of the portal's own pages: icons and moments."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlencode

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.core.quantities import BYTES, digits, scaled
from apps.core.quantities import span as written

register = template.Library()


@register.simple_tag
def icon(name: str, extra: str = "") -> SafeString:
    """Draw an icon of static/portal/icons.svg; it says nothing that the text beside it does not say."""
    return format_html(
        '<svg class="{}" aria-hidden="true"><use href="{}#{}"></use></svg>',
        f"icon {extra}".strip(),
        static("portal/icons.svg"),
        name,
    )


@register.simple_tag
def instant(at: datetime | str | None, kind: str = "moment") -> SafeString:
    """Write a moment that the browser puts into the reader's zone; without JavaScript it stands in UTC.

    `kind`: moment (14:02), exact (14:02:15), ago (3 min ago), for (3 min).
    """
    if not at:
        return SafeString("–")
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return format_html(
        '<time datetime="{}" data-time="{}">{}</time>', moment.isoformat(), kind, moment.strftime("%-d %b %H:%M UTC")
    )


@register.simple_tag
def querystring_of(query: Mapping[str, str], **changed: object) -> str:
    """Write a query with some of it changed; what is empty is left out."""
    values = {**query, **{name: str(value) for name, value in changed.items()}}
    return urlencode({name: value for name, value in values.items() if value})


@register.filter
def lasting(span: timedelta | None) -> str:
    """Write a duration in its two largest units; none is "at once"."""
    if span is None:
        return "–"
    return written(span) if span else "at once"


@register.filter
def lasted(span: timedelta | None) -> str:
    """Write how long something took, milliseconds included."""
    return "–" if span is None else measured(span.total_seconds(), "seconds")


@register.filter
def share_of_time(share: float | None) -> str:
    """Write a share of a time as people know uptimes: 99.95 %; nothing short of the whole is rounded up to it."""
    if share is None or share != share:
        return "–"
    return "100 %" if share >= 1 else f"{int(share * 100_000) / 1000:.3f}".rstrip("0").rstrip(".") + " %"


@register.filter
def measured(value: float | str | None, unit: str) -> str:
    """Write a number with its unit, as the charts do: 4.2 s, 83 %, 1.5 GiB. NaN and the infinities come as texts."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return value
    if unit == "percent":
        return f"{_short(value)} %"
    if unit == "ms":
        return f"{_short(value / 1000)} s" if abs(value) >= 1000 else f"{_short(value)} ms"
    if unit == "seconds":
        return f"{_short(value * 1000)} ms" if 0 < abs(value) < 1 else f"{_short(value)} s"
    if unit in ("bytes", "bytes/s"):
        number, name = scaled(value, 1024, BYTES)
        return f"{number} {name}" + ("/s" if unit == "bytes/s" else "")
    return f"{_short(value)} {unit}" if unit not in ("count", "/s") else _short(value) + (unit if unit == "/s" else "")


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 1e15 else digits(value)
