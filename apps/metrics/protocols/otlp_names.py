"""OpenTelemetry's names as Prometheus', the way Prometheus does it by default (UnderscoreEscapingWithSuffixes).

Pure: a metric's name, unit and type in, a name out; attributes in, labels out.

Source: opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics, and Prometheus' behaviour where that
leaves a choice.
"""

import re
from collections.abc import Iterable
from typing import Final

UNITS: Final = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
    "ns": "nanoseconds", "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes",
    "TiBy": "tibibytes", "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes", "m": "meters",
    "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams", "Cel": "celsius", "Hz": "hertz", "1": "",
    "%": "percent",
}  # fmt: skip
PER: Final = {
    "s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year",
}  # fmt: skip
_NO_TOKEN: Final = re.compile(r"[^a-zA-Z0-9:]+")
_NO_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")
_LINES: Final = re.compile(r"__+")


def metric_name(name: str, unit: str, *, is_counter: bool, is_gauge: bool) -> str:
    """The name under which a metric is kept.

    >>> metric_name("http.server.duration", "ms", is_counter=False, is_gauge=False)
    'http_server_duration_milliseconds'
    >>> metric_name("system.io", "By/s", is_counter=True, is_gauge=False)
    'system_io_bytes_per_second_total'
    >>> metric_name("cpu.utilization", "1", is_counter=False, is_gauge=True)
    'cpu_utilization_ratio'
    >>> metric_name("2xx{x}", "{request}", is_counter=True, is_gauge=False)
    '_2xx_x_total'
    """
    tokens = [token for token in _NO_TOKEN.split(name) if token]
    main, per = units(unit)
    if main in tokens:
        main = ""
    if per in tokens:
        per = ""
    if main:
        tokens.append(main)
    if per:
        tokens += ["per", per]
    if is_counter:
        tokens = [*(word for word in tokens if word != "total"), "total"]
    if unit == "1" and is_gauge:
        tokens = [*(word for word in tokens if word != "ratio"), "ratio"]
    found = "_".join(tokens)
    return f"_{found}" if found[:1].isdigit() else found


def units(unit: str) -> tuple[str, str]:
    """(what is measured, per what) as words; empty where the unit names none or is an annotation in braces.

    >>> units("By/s"), units("{packet}/s"), units("s"), units("1"), units("furlong/fortnight")
    (('bytes', 'second'), ('', 'second'), ('seconds', ''), ('', ''), ('furlong', 'fortnight'))
    """
    main, _, per = (part.strip() for part in unit.partition("/"))
    return _word(main, UNITS), _word(per, PER)


def _word(unit: str, words: dict[str, str]) -> str:
    if not unit or "{" in unit or "}" in unit:
        return ""
    return _NO_TOKEN.sub("_", words.get(unit, unit)).strip("_")


def label_name(name: str) -> str:
    """The name of an attribute as a label.

    >>> label_name("http.route"), label_name("2x"), label_name("_private"), label_name("__a"), label_name("é")
    ('http_route', 'key_2x', 'key_private', '__a', 'key_')
    """
    found = _LINES.sub("_", _NO_LABEL.sub("_", name)) if not name.startswith("__") else _NO_LABEL.sub("_", name)
    if found[:1].isdigit():
        return f"key_{found}"
    return f"key{found}" if found.startswith("_") and not found.startswith("__") else found


def labels_of(attributes: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Attributes as labels; values of attributes that become one label are joined by a semicolon, sorted by name.

    >>> labels_of([("b", "2"), ("a.b", "y"), ("a_b", "x"), ("", "z")])
    {'a_b': 'y;x', 'b': '2'}
    """
    found: dict[str, str] = {}
    for name, value in sorted(attributes):
        if not (label := label_name(name)):
            continue
        found[label] = f"{found[label]};{value}" if label in found else value
    return found
