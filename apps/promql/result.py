"""The answer of a query and its JSON shape, as Prometheus' HTTP API gives it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import orjson

from apps.promql.arrays import Floats, Mask, Times
from apps.promql.labels import Labels
from apps.promql.text import quote_json


@dataclass(frozen=True, slots=True)
class Stats:
    """What a query cost: series and samples fetched, steps, cells of result."""

    series: int = 0
    samples: int = 0
    steps: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """labels[S], ts int64[n] ms, v float64[S, n] valid where ok bool[S, n].

    A scalar is one row without labels; a string has no rows and its `text`. A vector has n == 1.
    """

    kind: Literal["vector", "matrix", "scalar", "string"]
    labels: Labels
    ts: Times
    v: Floats
    ok: Mask
    text: str = ""
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()
    stats: Stats = field(default_factory=Stats)

    def to_api(self) -> dict[str, Any]:
        """The `data` member of an API answer, plus `warnings` and `infos` where there are any."""
        data: dict[str, Any] = {"resultType": self.kind, "result": self._rows()}
        if self.warnings:
            data["warnings"] = list(self.warnings)
        if self.infos:
            data["infos"] = list(self.infos)
        return data

    def _rows(self) -> list[Any]:
        times = [t / 1000 for t in self.ts.tolist()]
        if self.kind == "string":
            return [times[0], self.text]
        if self.kind == "scalar":
            return [times[0], plain_number(float(self.v[0, 0]))]
        rows: list[Any] = []
        for labels, values, present in zip(self.labels.dicts(), self.v.tolist(), self.ok.tolist(), strict=True):
            if self.kind == "vector":
                rows.append({"metric": labels, "value": [times[0], number(values[0])]})
            else:
                points = [[t, number(v)] for t, v, here in zip(times, values, present, strict=True) if here]
                rows.append({"metric": labels, "values": points})
        return rows

    def json_slices(self, points: int = 20_000) -> Iterator[bytes]:
        """The JSON text of `{"resultType": …, "result": …}` in slices of about that many points.

        The caller yields to its event loop between slices. Joined strings, twice as fast as a JSON encoder over
        the objects of to_api(); warnings belong to the envelope and are not in here.
        """
        head = f'{{"resultType":"{self.kind}","result":'
        if self.kind == "string":
            yield f"{head}[{_seconds(int(self.ts[0]))},{quote_json(self.text)}]}}".encode()
            return
        if self.kind == "scalar":
            yield f'{head}[{_seconds(int(self.ts[0]))},"{plain_number(float(self.v[0, 0]))}"]}}'.encode()
            return
        yield (head + "[").encode()
        per_slice = max(1, points // max(1, len(self.ts)))
        for low in range(0, self.labels.size, per_slice):
            text = self._json_rows(low, min(low + per_slice, self.labels.size))
            yield ("," + text if low else text).encode()
        yield b"]}"

    def _json_rows(self, low: int, high: int) -> str:
        rows = []
        metrics = self.labels.take(np.arange(low, high)).dicts()
        before = [f'[{_seconds(t)},"' for t in self.ts.tolist()]
        for labels, values, present in zip(metrics, self.v[low:high], self.ok[low:high], strict=True):
            pairs = ",".join(f"{quote_json(name)}:{quote_json(value)}" for name, value in sorted(labels.items()))
            if self.kind == "vector":
                rows.append(f'{{"metric":{{{pairs}}},"value":{before[0]}{number(float(values[0]))}"]}}')
                continue
            if present.all():
                times, texts = before, numbers(values)
            else:
                here = np.flatnonzero(present)
                times, texts = [before[step] for step in here.tolist()], numbers(values[here])
            points = '"],'.join([time + text for time, text in zip(times, texts, strict=True)])
            rows.append(f'{{"metric":{{{pairs}}},"values":[{points + QUOTED_END if points else ""}]}}')
        return ",".join(rows)


QUOTED_END: Final = '"]'
PLAIN: Final = (1e-4, 1e15)
"""Between these sizes every writer of shortest digits leaves the exponent away."""


def numbers(values: Floats) -> list[str]:
    """`number` of each of float64[n]; an encoder in one go, where all of them are of an everyday size."""
    with np.errstate(invalid="ignore"):
        size = np.abs(values)
        plain = ((size >= PLAIN[0]) & (size < PLAIN[1])) | (values == 0)
    if len(values) < 2 or not plain.all():
        return [number(value) for value in values.tolist()]
    text = orjson.dumps(values.tolist()).decode()[1:-1] + ","
    return text.replace(".0,", ",")[:-1].split(",")


def number(value: float) -> str:
    """A sample value as Prometheus writes it: shortest digits, exponent only outside [1e-6, 1e21)."""
    text = repr(value)
    if text.endswith(".0"):
        return text[:-2]
    if "e" in text:
        size = abs(value)
        if 1e-6 <= size < 1e21:
            return np.format_float_positional(value, trim="-")
        mantissa, exponent = text.split("e")
        return f"{mantissa}e{exponent[0] if exponent[0] in '+-' else '+'}{exponent.lstrip('+-').rjust(2, '0')}"
    if text in ("nan", "inf", "-inf"):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[text]
    return text


def plain_number(value: float) -> str:
    """A number without an exponent, however long, as Prometheus writes scalars and labels that it makes of values."""
    text = number(value)
    return np.format_float_positional(value, trim="-") if "e" in text else text


def _seconds(ms: int) -> str:
    whole, rest = divmod(abs(ms), 1000)
    text = f"{whole}.{rest:03d}" if rest else str(whole)
    return f"-{text}" if ms < 0 else text
