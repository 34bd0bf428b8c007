"""The functions and aggregations of the language as a page of the documentation."""

from collections.abc import Iterable

from apps.promql.functions import AGGREGATIONS, FUNCTIONS, UNSUPPORTED, Aggregation, Function


def page() -> str:
    """Markdown: tables of functions, extensions, experimental ones and aggregations."""
    functions = sorted(FUNCTIONS.values(), key=lambda each: each.name)
    aggregations = sorted(AGGREGATIONS.values(), key=lambda each: each.name)
    parts = [
        "Types are written as in Prometheus' error messages; what stands in square brackets may be left out.",
        "## Functions",
        _functions(each for each in functions if not each.experimental and not each.extension),
        "## Functions that are experimental in Prometheus",
        "Prometheus has them behind a flag; here they need none.",
        _functions(each for each in functions if each.experimental),
        "## The portal's own functions",
        "Prometheus does not have them; a client that asks for plain PromQL is refused them by name.",
        _functions(each for each in functions if each.extension),
        "## Aggregations",
        _table(("aggregation", "what it gives", ""), map(_aggregation, aggregations)),
        "## Refused by name",
        _table(("function", "why"), ((f"`{name}`", f"It {why}.") for name, why in sorted(UNSUPPORTED.items()))),
    ]
    return "\n\n".join(parts)


def _functions(functions: Iterable[Function]) -> str:
    rows = ((f"`{each.signature}`", each.returns, _sentence(each.help)) for each in functions)
    return _table(("function", "returns", "what it gives"), rows)


def _aggregation(each: Aggregation) -> tuple[str, str, str]:
    return f"`{each.signature}`".replace("|", "\\|"), _sentence(each.help), "experimental" if each.experimental else ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _sentence(text: str) -> str:
    return text.replace("|", "\\|")
