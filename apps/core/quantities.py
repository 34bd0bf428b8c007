"""Numbers as people read them, with their units, and spans of time in words. Pure."""

import math
from collections.abc import Callable
from datetime import timedelta
from typing import Final

BYTES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
COUNT: Final = ("", "k", "M", "G", "T")


def quantity(value: float, unit: str = "") -> str:
    """Return "93 %", "1.2 GiB/s", "340 ms": three digits and the unit; a unit that is not known follows as it is."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    if unit in ("", "count", "plain"):
        return f"{value:.6g}"
    write = UNITS.get(unit)
    return write(value) if write is not None else f"{value:.6g} {unit}"


def span(length: timedelta) -> str:
    """Return a span in its two largest parts: "42 s", "5 min", "3 h 20 min", "2 d 4 h"."""
    seconds = max(0, round(length.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours and days < 7 else f"{days} d"


def digits(value: float) -> str:
    """Return the number with three digits, or all before the point where there are more; two of what is below 0.1."""
    size = abs(value)
    if size >= 0.1 or size == 0:
        places = 0 if size >= 100 or size == 0 else 1 if size >= 10 else 2
    else:
        places = min(6, 1 + math.ceil(-math.log10(size)))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def scaled(value: float, base: int, names: tuple[str, ...]) -> tuple[str, str]:
    """Return the number, divided by the base until it is below it, and the name of what it was divided by."""
    power, size = 0, abs(value)
    while size >= base and power < len(names) - 1:
        size /= base
        power += 1
    return digits(value / base**power), names[power]


def _milliseconds(value: float) -> str:
    return f"{digits(value / 1000)} s" if abs(value) >= 1000 else f"{digits(value)} ms"


def _seconds(value: float) -> str:
    if abs(value) < 1:
        return _milliseconds(value * 1000)
    # Beyond what a timedelta holds the number itself is said.
    return (
        f"{digits(value)} s" if abs(value) < 120 or abs(value) > 1e11 or value < 0 else span(timedelta(seconds=value))
    )


UNITS: Final[dict[str, Callable[[float], str]]] = {
    "ms": _milliseconds,
    "seconds": _seconds,
    "percent": lambda value: f"{digits(value)} %",
    "bytes": lambda value: " ".join(scaled(value, 1024, BYTES)),
    "bytes/s": lambda value: " ".join(scaled(value, 1024, BYTES)) + "/s",
    "req/s": lambda value: " ".join(filter(None, (*scaled(value, 1000, COUNT), "req/s"))),
    "/s": lambda value: " ".join(scaled(value, 1000, COUNT)).rstrip() + "/s",
}
"""Units as `alerting.units` guesses them; the browser's `format.js` writes the same."""
