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
    of times, also none. keeps_name: the result is still the same metric. `help` is one sentence for the reader of an
    editor; experimental: Prometheus has it behind a flag; extension: Prometheus does not have it."""

    name: str
    args: tuple[ValueType, ...]
    returns: ValueType = VECTOR
    kind: Kind = "special"
    optional: int = 0
    repeats: bool = False
    keeps_name: bool = False
    experimental: bool = False
    extension: bool = False
    help: str = ""

    @property
    def signature(self) -> str:
        """How a call is written: `round(instant vector [, scalar])`."""
        needed = len(self.args) - self.optional - self.repeats
        text = ", ".join(self.args[:needed])
        for index, kind in enumerate(self.args[needed:]):
            more = ", …" if self.repeats and index == len(self.args[needed:]) - 1 else ""
            text += f"{' ' if text else ''}[{', ' if text else ''}{kind}{more}]"
        return f"{self.name}({text})"


@dataclass(frozen=True, slots=True)
class Aggregation:
    """`param` is the type of what stands before the vector, None for nothing; keeps: the answer is some of the
    series as they are, not one series for each group."""

    name: str
    help: str
    param: ValueType | None = None
    keeps: bool = False
    experimental: bool = False

    @property
    def signature(self) -> str:
        """How it is written: `topk by (label, …) (scalar, instant vector)`."""
        before = "" if self.param is None else f"{self.param}, "
        return f"{self.name} [by|without (label, …)] ({before}{VECTOR})"


def _window(
    name: str, text: str, *before: ValueType, after: int = 0, keeps: bool = False, new: bool = False
) -> Function:
    args: tuple[ValueType, ...] = (*before, RANGE, *([SCALAR] * after))
    return Function(name, args, kind="window", keeps_name=keeps, experimental=new, help=text)


def _own(name: str, text: str, after: int, optional: int = 0) -> Function:
    """A function of forecast.py: a range vector and scalars."""
    args: tuple[ValueType, ...] = (RANGE, *([SCALAR] * after))
    return Function(name, args, kind="window", optional=optional, extension=True, help=text)


def _each(name: str, text: str, *after: ValueType, optional: int = 0) -> Function:
    return Function(name, (VECTOR, *after), kind="elementwise", optional=optional, help=text)


def _date(name: str, text: str) -> Function:
    text = f"{text} in UTC, of each value taken as seconds since 1970, or of the evaluation time."
    return Function(name, (VECTOR,), kind="date", optional=1, help=text)


def _constant(name: str, text: str, *args: ValueType, new: bool = False) -> Function:
    return Function(name, args, returns=SCALAR, experimental=new, help=text)


_TABLE: Final = (
    _window("rate", "Growth of a counter per second over the range, resets made good."),
    _window("increase", "Growth of a counter over the range, resets made good and extrapolated to its edges."),
    _window("delta", "Difference of a gauge between the ends of the range, extrapolated to its edges."),
    _window("irate", "Growth of a counter per second between the last two samples of the range."),
    _window("idelta", "Difference between the last two samples of the range."),
    _window("deriv", "Slope of a gauge per second, by a straight line through all samples of the range."),
    _window("changes", "How often the value changed within the range."),
    _window("resets", "How often the value fell within the range, as a counter does on a restart."),
    _window("avg_over_time", "Average of the samples in the range."),
    _window("sum_over_time", "Sum of the samples in the range."),
    _window("count_over_time", "Number of samples in the range."),
    _window("min_over_time", "Smallest sample in the range."),
    _window("max_over_time", "Largest sample in the range."),
    _window("stddev_over_time", "Standard deviation of the samples in the range, taken as the whole population."),
    _window("stdvar_over_time", "Variance of the samples in the range, taken as the whole population."),
    _window("present_over_time", "1 for each series that has a sample in the range."),
    _window("last_over_time", "Newest sample in the range.", keeps=True),
    _window("first_over_time", "Oldest sample in the range.", keeps=True, new=True),
    _window("mad_over_time", "Median distance of the samples in the range from their median.", new=True),
    _window("ts_of_first_over_time", "When the oldest sample in the range was taken, in seconds.", new=True),
    _window("ts_of_last_over_time", "When the newest sample in the range was taken, in seconds.", new=True),
    _window("ts_of_min_over_time", "When the last of the smallest samples was taken, in seconds.", new=True),
    _window("ts_of_max_over_time", "When the last of the largest samples was taken, in seconds.", new=True),
    _window("quantile_over_time", "The given quantile (0 to 1) of the samples in the range.", SCALAR),
    _window("predict_linear", "Value in so many seconds, by a straight line through the range.", after=1),
    _window(
        "double_exponential_smoothing",
        "Smoothed value by Holt's method: a smoothing factor and a trend factor, each between 0 and 1.",
        after=2,
        new=True,
    ),
    Function("absent_over_time", (RANGE,), help="1 where the range holds no sample of any series, else nothing."),
    Function("absent", (VECTOR,), help="1 where the vector is empty, else nothing."),
    _each("abs", "Absolute value."),
    _each("ceil", "Next integer above."),
    _each("floor", "Next integer below."),
    _each("exp", "e to the power of the value."),
    _each("sqrt", "Square root."),
    _each("ln", "Natural logarithm."),
    _each("log2", "Logarithm to the base 2."),
    _each("log10", "Logarithm to the base 10."),
    _each("sgn", "Sign: 1, 0 or -1."),
    _each("deg", "Radians as degrees."),
    _each("rad", "Degrees as radians."),
    _each("sin", "Sine of an angle in radians."),
    _each("cos", "Cosine of an angle in radians."),
    _each("tan", "Tangent of an angle in radians."),
    _each("asin", "Angle in radians of which the value is the sine."),
    _each("acos", "Angle in radians of which the value is the cosine."),
    _each("atan", "Angle in radians of which the value is the tangent."),
    _each("sinh", "Hyperbolic sine."),
    _each("cosh", "Hyperbolic cosine."),
    _each("tanh", "Hyperbolic tangent."),
    _each("asinh", "Inverse hyperbolic sine."),
    _each("acosh", "Inverse hyperbolic cosine."),
    _each("atanh", "Inverse hyperbolic tangent."),
    _each("round", "Nearest multiple of the second argument (1 if left out), halves upwards.", SCALAR, optional=1),
    _each("clamp", "The value, held between a minimum and a maximum.", SCALAR, SCALAR),
    _each("clamp_min", "The value, but at least the second argument.", SCALAR),
    _each("clamp_max", "The value, but at most the second argument.", SCALAR),
    _date("minute", "Minute of the hour (0 to 59)"),
    _date("hour", "Hour of the day (0 to 23)"),
    _date("day_of_week", "Day of the week (0 is Sunday, 6 Saturday)"),
    _date("day_of_month", "Day of the month (1 to 31)"),
    _date("day_of_year", "Day of the year (1 to 366)"),
    _date("days_in_month", "Number of days of the month (28 to 31)"),
    _date("month", "Month (1 to 12)"),
    _date("year", "Year"),
    Function("timestamp", (VECTOR,), help="When each sample was taken, in seconds since 1970."),
    _constant("time", "Evaluation time in seconds since 1970."),
    _constant("pi", "The number pi."),
    _constant("start", "First evaluation time of the query, in seconds since 1970.", new=True),
    _constant("end", "Last evaluation time of the query, in seconds since 1970.", new=True),
    _constant("range", "Seconds between the query's first and last evaluation time.", new=True),
    _constant("step", "Seconds between two evaluation times of the query, 0 for an instant one.", new=True),
    _constant("min_of", "The smaller of two numbers.", SCALAR, SCALAR, new=True),
    _constant("max_of", "The larger of two numbers.", SCALAR, SCALAR, new=True),
    _constant("scalar", "The only value of a vector as a plain number, NaN where it has none or several.", VECTOR),
    Function("vector", (SCALAR,), help="A number as a vector with one series that has no labels."),
    Function("sort", (VECTOR,), keeps_name=True, help="Series by value, smallest first; instant queries only."),
    Function("sort_desc", (VECTOR,), keeps_name=True, help="Series by value, largest first; instant queries only."),
    Function(
        "sort_by_label",
        (VECTOR, STRING),
        repeats=True,
        keeps_name=True,
        experimental=True,
        help="Series by the values of these labels in natural order; instant queries only.",
    ),
    Function(
        "sort_by_label_desc",
        (VECTOR, STRING),
        repeats=True,
        keeps_name=True,
        experimental=True,
        help="Series by the values of these labels in reverse natural order; instant queries only.",
    ),
    Function(
        "label_replace",
        (VECTOR, STRING, STRING, STRING, STRING),
        keeps_name=True,
        help="Sets a label to a template (with $1, $2, …) where the whole value of another label matches a pattern.",
    ),
    Function(
        "label_join",
        (VECTOR, STRING, STRING, STRING),
        repeats=True,
        keeps_name=True,
        help="Sets a label to the values of other labels, joined by a separator.",
    ),
    Function(
        "info",
        (VECTOR, VECTOR),
        optional=1,
        keeps_name=True,
        experimental=True,
        help="Adds the labels of an info metric (target_info) with the same instance and job; matchers choose which.",
    ),
    Function(
        "histogram_quantile",
        (SCALAR, VECTOR),
        help="The given quantile (0 to 1) of classic histograms, interpolated between the bounds of their buckets.",
    ),
    Function(
        "histogram_fraction",
        (SCALAR, SCALAR, VECTOR),
        help="Share of a classic histogram's observations between two values.",
    ),
    Function(
        "histogram_quantiles",
        (VECTOR, STRING, SCALAR),
        repeats=True,
        experimental=True,
        help="Several quantiles of classic histograms at once, each named in the given label.",
    ),
    _own(
        "forecast_linear",
        "Value so many seconds after the range by a robust straight line, and so many standard errors above it.",
        after=2,
        optional=1,
    ),
    _own(
        "forecast_seasonal",
        "Value so many seconds after the range, of a season of so many seconds with a trend, "
        "and so many standard deviations above it.",
        after=3,
        optional=1,
    ),
    _own("time_until_above", "Seconds until a robust straight line rises above the limit, +Inf for never.", after=1),
    _own("time_until_below", "Seconds until a robust straight line falls below the limit, +Inf for never.", after=1),
    _own(
        "anomaly_score",
        "How many robust standard deviations the newest sample is off the others, "
        "or off those at the same point of earlier seasons of so many seconds.",
        after=1,
        optional=1,
    ),
    _own(
        "level_shift", "Size of the change of level within the range, 0 where none is significant.", after=1, optional=1
    ),
    _own(
        "ts_of_level_shift",
        "When the level changed within the range, in seconds; nothing where it did not.",
        after=1,
        optional=1,
    ),
)

FUNCTIONS: Final[dict[str, Function]] = {function.name: function for function in _TABLE}

UNSUPPORTED: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("histogram_avg", "histogram_count", "histogram_sum", "histogram_stddev", "histogram_stdvar"),
        "works on native histograms, and this store keeps floats",
    ),
    "holt_winters": "was removed in Prometheus 3; it is called double_exponential_smoothing() there",
    "start_timestamp": "needs start timestamps, which this store does not keep",
}

_AGGREGATIONS: Final = (
    Aggregation("sum", "Sum of the values of each group."),
    Aggregation("avg", "Average of the values of each group."),
    Aggregation("min", "Smallest value of each group."),
    Aggregation("max", "Largest value of each group."),
    Aggregation("count", "Number of series of each group."),
    Aggregation("group", "1 for each group that has a series."),
    Aggregation("stddev", "Standard deviation of the values of each group, taken as the whole population."),
    Aggregation("stdvar", "Variance of the values of each group, taken as the whole population."),
    Aggregation("topk", "The so many series of each group with the largest values.", SCALAR, keeps=True),
    Aggregation("bottomk", "The so many series of each group with the smallest values.", SCALAR, keeps=True),
    Aggregation("quantile", "The given quantile (0 to 1) of the values of each group.", SCALAR),
    Aggregation("count_values", "How many series of each group have each value, which the given label names.", STRING),
    Aggregation("limitk", "Any so many series of each group.", SCALAR, keeps=True, experimental=True),
    Aggregation(
        "limit_ratio",
        "About the given share of the series; a negative share takes the others.",
        SCALAR,
        keeps=True,
        experimental=True,
    ),
)

AGGREGATIONS: Final[dict[str, Aggregation]] = {aggregation.name: aggregation for aggregation in _AGGREGATIONS}

PARAMETER: Final[dict[str, ValueType]] = {each.name: each.param for each in _AGGREGATIONS if each.param is not None}
"""Aggregations that take a parameter, with its type."""
