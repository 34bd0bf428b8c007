"""Draws a curve as a PNG for an e-mail: its own background, so that it can be read in light and dark programs. Pure.

Pillow is imported by the process that first draws: mail programs show neither SVG nor a canvas.
"""

import io
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from apps.core.quantities import quantity
from apps.notifications.message import Curve

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

WIDTH: Final = 592
HEIGHT: Final = 200
"""Size in an e-mail's pixels."""
DENSITY: Final = 2
SMOOTH: Final = 2
"""Lines are drawn this much larger and scaled down: Pillow draws them with steps."""
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 18, 28
TEXT: Final = 14


@dataclass(frozen=True)
class Palette:
    """Colours of one look; each text and line has 4.5 to 1 against the background."""

    background: str
    grid: str
    text: str
    curve: str
    limit: str
    breach: str


LIGHT: Final = Palette("#ffffff", "#e4e7eb", "#57606a", "#1d5bbf", "#b3261e", "#fdeceb")
DARK: Final = Palette("#1e2227", "#343a42", "#a9b1ba", "#7fb0ff", "#ff8a80", "#3a2426")


def words(curve: Curve) -> str:
    """Return what the picture shows, for those who do not see it."""
    known = [value for value in curve.values if value is not None]
    end = curve.start + curve.step * (len(curve.values) - 1)
    said = (
        f"{curve.title} from {_clock(curve.start)} to {_clock(end)} UTC: last {quantity(known[-1], curve.unit)}, "
        f"lowest {quantity(min(known), curve.unit)}, highest {quantity(max(known), curve.unit)}"
    )
    return said + (f", threshold {quantity(curve.threshold, curve.unit)}" if curve.threshold is not None else "") + "."


def draw(curve: Curve, palette: Palette = LIGHT) -> bytes:
    """Return the PNG, DENSITY times as large as it is shown. ValueError where there is nothing to draw."""
    from PIL import Image, ImageDraw, ImageFont

    known = [value for value in curve.values if value is not None and math.isfinite(value)]
    if not known:
        raise ValueError("There are no values to draw.")
    ticks = scale(known, curve.threshold)
    field = _Field(curve, ticks[0], ticks[-1])
    large = DENSITY * SMOOTH
    picture = Image.new("RGB", (WIDTH * large, HEIGHT * large), palette.background)
    _lines(ImageDraw.Draw(picture), field, ticks, palette, large)
    picture = picture.resize((WIDTH * DENSITY, HEIGHT * DENSITY), Image.Resampling.BOX)
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=TEXT * DENSITY)

    def write(x: float, y: float, text: str, anchor: str, colour: str = palette.text) -> None:
        pen.text((x * DENSITY, y * DENSITY), text, fill=colour, font=font, anchor=anchor)

    for tick in ticks:
        write(LEFT - 8, field.y(tick), _plain(quantity(tick, curve.unit)), "rm")
    for at in times(curve):
        write(field.x(at), HEIGHT - 8, _clock(at), "ms")
    if curve.threshold is not None:
        above = field.y(curve.threshold) - 5
        label = _plain(f"threshold {quantity(curve.threshold, curve.unit)}")
        write(LEFT + 6, above if above > TOP + 8 else above + 18, label, "ls", palette.limit)
    if field.since:
        x = field.x(field.since)
        write(x + (5 if x < WIDTH / 2 else -5), TOP + 2, "fired", "lt" if x < WIDTH / 2 else "rt")
    out = io.BytesIO()
    # A third of the bytes of all colours, for a sixth of the time of the best choice of 64.
    picture.quantize(64, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, "PNG")
    return out.getvalue()


class _Field:
    """Where a time and a value lie in the picture."""

    def __init__(self, curve: Curve, low: float, high: float) -> None:
        self.curve, self.low, self.high = curve, low, high
        self.length = max(1, curve.step * (len(curve.values) - 1))
        self.since = curve.since if curve.start < curve.since <= curve.start + self.length else 0

    def x(self, at: float) -> float:
        return LEFT + (at - self.curve.start) / self.length * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - min(max(share, 0.0), 1.0) * (HEIGHT - BOTTOM - TOP)


def _lines(pen: "ImageDraw", field: _Field, ticks: list[float], palette: Palette, large: int) -> None:
    def line(points: list[tuple[float, float]], colour: str, width: float) -> None:
        pen.line([(x * large, y * large) for x, y in points], fill=colour, width=round(width * large), joint="curve")

    curve = field.curve
    if field.since:
        box = (field.x(field.since) * large, TOP * large, (WIDTH - RIGHT) * large, (HEIGHT - BOTTOM) * large)
        pen.rectangle(box, fill=palette.breach)
    for tick in ticks:
        line([(LEFT, field.y(tick)), (WIDTH - RIGHT, field.y(tick))], palette.grid, 1)
    if field.since:
        x = field.x(field.since)
        line([(x, TOP), (x, HEIGHT - BOTTOM)], palette.text, 1)
    if curve.threshold is not None:
        y = field.y(curve.threshold)
        for x in range(LEFT, WIDTH - RIGHT, 8):
            line([(x, y), (min(x + 5, WIDTH - RIGHT), y)], palette.limit, 1.5)
    run: list[tuple[float, float]] = []
    for number, value in enumerate([*curve.values, None]):
        if value is not None and math.isfinite(value):
            run.append((field.x(curve.start + number * curve.step), field.y(value)))
        elif run:
            # A value between two gaps is a dot.
            line(run if len(run) > 1 else [run[0], (run[0][0] + 1.5, run[0][1])], palette.curve, 2)
            run = []


def scale(values: list[float], threshold: float | None, about: int = 4) -> list[float]:
    """Return round ticks around all values and the threshold, at least two, the first and last beyond them."""
    shown = [*values, *([] if threshold is None else [threshold])]
    low, high = max(min(shown), -1e300), min(max(shown), 1e300)
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - (abs(low) * 0.1 or 1.0), high + (abs(high) * 0.1 or 1.0)
    if 0 <= low < (high - low):
        low = 0.0
    rough = high / about - low / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough), power * 10)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [number * step for number in range(first, last + 1)]


STEPS: Final = (60, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)


def times(curve: Curve, about: int = 6) -> list[int]:
    """Return round times (epoch seconds) inside the curve, about as many as fit beside each other."""
    length = curve.step * (len(curve.values) - 1)
    step = next((step for step in STEPS if length / step <= about), STEPS[-1])
    margin = length * 0.03
    first = math.ceil((curve.start + margin) / step) * step
    return list(range(first, int(curve.start + length - margin) + 1, step))[: 2 * about]


def _clock(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%H:%M}"


def _plain(text: str) -> str:
    """The font that comes with Pillow knows Latin letters."""
    return text.encode("latin-1", "replace").decode("latin-1")
