"""The table of PromQL's functions and aggregations: parser, evaluator, editor and docs read the same one."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

ValueType: TypeAlias = Literal["scalar", "instant vector", "range vector", "string"]

SCALAR: Final[ValueType] = "scalar"
STRING: Final[ValueType] = "string"
VECTOR: Final[ValueType] = "instant vector"
RANGE: Final[ValueType] = "range vector"

Kind: TypeAlias = Literal["window", "elementwise", "date", "special"]


@dataclass(frozen=True, slots=True)
class Function:
    """`args` are the declared types; the last `optional` of them may be missing; `repeats`: the last one any number
    of times, also none. keeps_name: the result is still the same metric."""

    name: str
    args: tuple[ValueType, ...]
    returns: ValueType = VECTOR
    kind: Kind = "special"
    optional: int = 0
    repeats: bool = False
    keeps_name: bool = False
    experimental: bool = False


def _window(name: str, *before: ValueType, after: int = 0, keeps: bool = False, new: bool = False) -> Function:
    args: tuple[ValueType, ...] = (*before, RANGE, *([SCALAR] * after))
    return Function(name, args, kind="window", keeps_name=keeps, experimental=new)


def _each(name: str) -> Function:
    return Function(name, (VECTOR,), kind="elementwise")


def _date(name: str) -> Function:
    return Function(name, (VECTOR,), kind="date", optional=1)


_TABLE: Final = (
    *map(_window, ("rate", "increase", "delta", "irate", "idelta", "deriv", "changes", "resets")),
    *map(_window, ("avg_over_time", "sum_over_time", "count_over_time", "min_over_time", "max_over_time")),
    *map(_window, ("stddev_over_time", "stdvar_over_time", "present_over_time")),
    _window("last_over_time", keeps=True),
    _window("first_over_time", keeps=True, new=True),
    _window("mad_over_time", new=True),
    *(_window(f"ts_of_{which}_over_time", new=True) for which in ("first", "last", "min", "max")),
    _window("quantile_over_time", SCALAR),
    _window("predict_linear", after=1),
    _window("double_exponential_smoothing", after=2, new=True),
    Function("absent_over_time", (RANGE,)),
    Function("absent", (VECTOR,)),
    *map(_each, ("abs", "ceil", "floor", "exp", "sqrt", "ln", "log2", "log10", "sgn", "deg", "rad")),
    *map(_each, ("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh")),
    Function("round", (VECTOR, SCALAR), kind="elementwise", optional=1),
    Function("clamp", (VECTOR, SCALAR, SCALAR), kind="elementwise"),
    Function("clamp_min", (VECTOR, SCALAR), kind="elementwise"),
    Function("clamp_max", (VECTOR, SCALAR), kind="elementwise"),
    *map(_date, ("minute", "hour", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month", "year")),
    Function("timestamp", (VECTOR,)),
    Function("time", (), returns=SCALAR),
    Function("pi", (), returns=SCALAR),
    *(Function(name, (), returns=SCALAR, experimental=True) for name in ("start", "end", "range", "step")),
    *(Function(name, (SCALAR, SCALAR), returns=SCALAR, experimental=True) for name in ("min_of", "max_of")),
    Function("scalar", (VECTOR,), returns=SCALAR),
    Function("vector", (SCALAR,)),
    Function("sort", (VECTOR,), keeps_name=True),
    Function("sort_desc", (VECTOR,), keeps_name=True),
    Function("sort_by_label", (VECTOR, STRING), repeats=True, keeps_name=True, experimental=True),
    Function("sort_by_label_desc", (VECTOR, STRING), repeats=True, keeps_name=True, experimental=True),
    Function("label_replace", (VECTOR, STRING, STRING, STRING, STRING), keeps_name=True),
    Function("label_join", (VECTOR, STRING, STRING, STRING), repeats=True, keeps_name=True),
    Function("histogram_quantile", (SCALAR, VECTOR)),
    Function("histogram_fraction", (SCALAR, SCALAR, VECTOR)),
    Function("histogram_quantiles", (VECTOR, STRING, SCALAR), repeats=True, experimental=True),
)

FUNCTIONS: Final[dict[str, Function]] = {function.name: function for function in _TABLE}

UNSUPPORTED: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("histogram_avg", "histogram_count", "histogram_sum", "histogram_stddev", "histogram_stdvar"),
        "works on native histograms, and this store keeps floats",
    ),
    "info": "is experimental in Prometheus; use group_left() to join the labels of an info metric",
    "holt_winters": "was removed in Prometheus 3; it is called double_exponential_smoothing() there",
    "start_timestamp": "needs start timestamps, which this store does not keep",
}

PARAMETER: Final[dict[str, ValueType]] = {
    "topk": SCALAR,
    "bottomk": SCALAR,
    "quantile": SCALAR,
    "count_values": STRING,
    "limitk": SCALAR,
    "limit_ratio": SCALAR,
}
"""Aggregations that take a parameter, with its type."""

AGGREGATIONS: Final = frozenset(("sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", *PARAMETER))
UNSUPPORTED_AGGREGATIONS: Final = frozenset(("limit_ratio",))
