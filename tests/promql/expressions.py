"""Random well-typed PromQL over a fixed set of demo metrics: the same seed gives the same texts on every machine.

Samples stand at odd milliseconds and every time in an expression is a whole number of seconds that cannot meet the
step of a subquery, so that no window begins or ends on a sample. Windows closed on the left (Prometheus 2) and windows
open there (Prometheus 3) then hold the same samples, and either may be the judge of the other.
"""

import math
import random
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from apps.promql.series import STALE

BASE: Final = 1_700_000_000_000
"""First scrape, milliseconds."""
SCRAPE: Final = 15_000
SCRAPES: Final = 240
END: Final = BASE + SCRAPE * SCRAPES


class Series(NamedTuple):
    """One demo series: timestamps in ms, ascending."""

    labels: dict[str, str]
    times: list[int]
    values: list[float]


def demo() -> list[Series]:
    """Counters with resets and gaps, gauges with NaN, infinities and staleness markers, classic histograms."""
    chance = random.Random("demo")
    return [*_counters(chance), *_gauges(chance), *_histograms(chance)]


def _times(chance: random.Random, first: int = 0, last: int = SCRAPES) -> list[int]:
    """Scrapes of one target, each a little late."""
    late = chance.randrange(1, 9_000, 2)
    return [BASE + SCRAPE * i + late for i in range(first, last)]


def _counters(chance: random.Random) -> Iterator[Series]:
    for job, instance in (("api", "a:1"), ("api", "b:1"), ("db", "a:2"), ("db", "c:2")):
        times = _times(chance)
        for code in ("200", "404", "500"):
            value, values = float(chance.randrange(10_000)), []
            for _ in times:
                value = 0.0 if chance.random() < 0.01 else value + chance.randrange(0, 40 if code == "200" else 3)
                values.append(value)
            name = {"__name__": "demo_requests_total", "job": job, "instance": instance, "code": code}
            gap = chance.randrange(60, 180) if code == "404" else SCRAPES
            kept = [i for i in range(SCRAPES) if not gap <= i < gap + 30]
            yield Series(name, [times[i] for i in kept], [values[i] for i in kept])
        errors = [float(i // chance.randrange(20, 30)) for i in range(SCRAPES)]
        yield Series({"__name__": "demo_errors_total", "job": job, "instance": instance}, times, errors)
        state = [float(chance.random() > 0.1) for _ in times]
        yield Series({"__name__": "demo_up", "job": job, "instance": instance}, times, state)
        version = {"__name__": "demo_info", "instance": instance, "version": chance.choice(("1.0", "2.0-rc"))}
        yield Series(version, times, [1.0] * len(times))


def _gauges(chance: random.Random) -> Iterator[Series]:
    odd = (math.nan, math.inf, -math.inf, STALE, STALE)
    for instance in ("a:1", "b:1", "a:2", "c:2"):
        first = chance.choice((0, 0, 70))
        times = _times(chance, first, SCRAPES - chance.choice((0, 0, 60)))
        used = [float(2**20 * (100 + round(40 * math.sin(i / 20)) + chance.randrange(8))) for i in range(len(times))]
        yield Series({"__name__": "demo_memory_bytes", "instance": instance, "kind": "used"}, times, used)
        limit = [float(2**28)] * len(times)
        yield Series({"__name__": "demo_memory_bytes", "instance": instance, "kind": "limit"}, times, limit)
        for sensor in ("in", "out"):
            degrees = [chance.randrange(-80, 160) / 4 for _ in times]
            strange = chance.sample(range(len(times)), 6) if sensor == "out" else []
            for i in strange:
                degrees[i] = chance.choice(odd)
            yield Series({"__name__": "demo_degrees", "instance": instance, "sensor": sensor}, times, degrees)


def _histograms(chance: random.Random) -> Iterator[Series]:
    bounds = ("0.05", "0.1", "0.5", "1", "5", "+Inf")
    for job in ("api", "db"):
        times = _times(chance)
        seen = [[0.0] * len(bounds)]
        total = [0.0]
        for _ in times[1:]:
            step, before = [chance.randrange(6) for _ in bounds], seen[-1]
            seen.append([before[i] + sum(step[: i + 1]) for i in range(len(bounds))])
            total.append(total[-1] + sum(step) / 4)
        for i, bound in enumerate(bounds):
            labels = {"__name__": "demo_seconds_bucket", "job": job, "le": bound}
            yield Series(labels, times, [row[i] for row in seen])
        yield Series({"__name__": "demo_seconds_count", "job": job}, times, [row[-1] for row in seen])
        yield Series({"__name__": "demo_seconds_sum", "job": job}, times, total)


LABELS: Final = {
    "demo_requests_total": ("job", "instance", "code"),
    "demo_errors_total": ("job", "instance"),
    "demo_up": ("job", "instance"),
    "demo_info": ("instance", "version"),
    "demo_memory_bytes": ("instance", "kind"),
    "demo_degrees": ("instance", "sensor"),
    "demo_seconds_bucket": ("job", "le"),
    "demo_seconds_count": ("job",),
    "demo_seconds_sum": ("job",),
}
ALL_LABELS: Final = ("job", "instance", "code", "kind", "sensor", "version", "le")
VALUES: Final = {
    "job": ("api", "db"),
    "instance": ("a:1", "b:1", "a:2", "c:2", "gone:1"),
    "code": ("200", "404", "500"),
    "kind": ("used", "limit"),
    "sensor": ("in", "out"),
    "version": ("1.0", "2.0-rc"),
    "le": ("0.1", "1", "+Inf"),
}

PLAIN_WINDOWS: Final = (
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "deriv",
    "changes",
    "resets",
    "avg_over_time",
    "sum_over_time",
    "count_over_time",
    "min_over_time",
    "max_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "present_over_time",
    "last_over_time",
    "absent_over_time",
)
EACH: Final = (
    "abs",
    "ceil",
    "floor",
    "exp",
    "sqrt",
    "ln",
    "log2",
    "log10",
    "sgn",
    "deg",
    "rad",
    "sin",
    "cos",
    "tan",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "round",
    "timestamp",
    "absent",
    "minute",
    "hour",
    "day_of_week",
    "day_of_month",
    "day_of_year",
    "days_in_month",
    "month",
    "year",
    "sort",
    "sort_desc",
    "-",
)
SIMPLE: Final = ["sum", "avg", "min", "max", "count", "group", "stddev", "stdvar"]
ARITHMETIC: Final = ["+", "-", "*", "/", "%", "^", "atan2"]
COMPARISONS: Final = ["==", "!=", ">", "<", ">=", "<="]
WHOLE: Final = ("0", "1", "2", "-1", "3", "10", "100", "0.5", "1e6", "NaN", "Inf", "-Inf")
WINDOWS: Final = ("1m", "2m", "5m", "10m", "40s", "1h")
OFFSETS: Final = ("", "", "", "", "", " offset 1m", " offset -2m", " offset 30m", " @ {at}", " @ start()", " @ end()")


class Expressions:
    """An endless supply of texts; instant() vectors and scalars as they stand at the root of a query."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def query(self) -> str:
        """A vector mostly, a scalar now and then."""
        depth = self.chance.choice((1, 1, 2, 2, 3, 4))
        return self.scalar(depth) if self.chance.random() < 0.04 else self.vector(depth)

    def moment(self) -> int:
        """An evaluation time in ms that no window's start can bring onto a sample or a subquery's step."""
        return BASE + 1_000 * (10 * self.chance.randrange(30, 350) + 7)

    def pick(self, *options: str) -> str:
        return self.chance.choice(options)

    def vector(self, depth: int) -> str:
        if depth <= 0:
            return self.selector()
        kinds: dict[Callable[[int], str], int] = {
            self.selector: 1,
            self.window: 6,
            self.aggregation: 5,
            self.each: 3,
            self.with_scalar: 4,
            self.vectors: 5,
            self.sets: 2,
            self.labels: 1,
            self.quantiles: 1,
            self.ranking: 1,
            self.join: 2,
        }
        return self.chance.choices(list(kinds), list(kinds.values()))[0](depth - 1)

    def selector(self, _depth: int = 0) -> str:
        return self.matchers(self.pick(*LABELS)) + self.offset()

    def matchers(self, metric: str) -> str:
        found = []
        for label in LABELS[metric]:
            if self.chance.random() < 0.25:
                op = self.pick("=", "!=", "=~", "!~")
                values = self.chance.sample(VALUES[label], min(2, len(VALUES[label])))
                value = values[0] if op in ("=", "!=") else "|".join(text.replace("+", "\\\\+") for text in values)
                found.append(f'{label}{op}"{value}"')
        if self.chance.random() < 0.02:
            found.append('absent_label=""')
        return metric + ("{" + ",".join(found) + "}" if found else "")

    def offset(self) -> str:
        return self.pick(*OFFSETS).format(at=f"{self.moment() / 1000:.0f}")

    def range(self, depth: int) -> str:
        """A range vector: samples, or a subquery over any vector."""
        if depth <= 0 or self.chance.random() < 0.7:
            return f"{self.matchers(self.pick(*LABELS))}[{self.pick(*WINDOWS)}]{self.offset()}"
        # Three seconds off every step, or the first step would lie on the border of the window.
        width, step = self.pick("2m3s", "5m3s", "10m3s"), self.pick("", "10s", "30s", "1m")
        return f"({self.vector(depth - 1)})[{width}:{step}]{self.offset()}"

    def window(self, depth: int) -> str:
        chosen = self.chance.random()
        if chosen < 0.08:
            return f"quantile_over_time({self.scalar(depth)}, {self.range(depth)})"
        if chosen < 0.14:
            # Without @: Prometheus 2 loses the pinned samples as its steps go on.
            samples = f"{self.matchers(self.pick(*LABELS))}[{self.pick(*WINDOWS)}]{self.pick('', ' offset 1m')}"
            return f"predict_linear({samples}, {self.pick('60', '3600', '-600')})"
        if chosen < 0.18:
            return f"double_exponential_smoothing({self.range(depth)}, 0.5, 0.25)"
        return f"{self.pick(*PLAIN_WINDOWS)}({self.range(depth)})"

    def grouping(self) -> str:
        labels = self.chance.sample(ALL_LABELS, self.chance.randrange(3))
        return f"{self.pick('by', 'without')} ({', '.join(labels)})"

    def aggregation(self, depth: int) -> str:
        by = self.grouping() if self.chance.random() < 0.8 else ""
        chosen = self.chance.random()
        if chosen < 0.1:
            return f"quantile {by} ({self.scalar(depth)}, {self.vector(depth)})"
        if chosen < 0.18:
            return f'count_values {by} ("value", {self.vector(depth)})'
        if chosen < 0.22:
            return f"count by (__name__) ({self.selector()})"
        return f"{self.pick(*SIMPLE)} {by} ({self.vector(depth)})"

    def each(self, depth: int) -> str:
        function = self.pick(*EACH)
        if function == "round" and self.chance.random() < 0.5:
            return f"round({self.vector(depth)}, {self.scalar(0)})"
        if self.chance.random() < 0.2:
            low, high = self.scalar(depth), self.scalar(0)
            vector = self.vector(depth)
            return self.pick(
                f"clamp({vector}, {low}, {high})", f"clamp_min({vector}, {low})", f"clamp_max({vector}, {high})"
            )
        if function == "timestamp":  # as an age: squares of seconds since 1970 leave no digits for a variance
            return f"(time() - timestamp({self.vector(depth)}))"
        return f"{function}({self.vector(depth)})"

    def with_scalar(self, depth: int) -> str:
        vector, scalar = f"({self.vector(depth)})", self.scalar(depth)
        op = self.pick(*ARITHMETIC, *COMPARISONS)
        if op in COMPARISONS and self.chance.random() < 0.3:
            op += " bool"
        return f"{vector} {op} {scalar}" if self.chance.random() < 0.6 else f"{scalar} {op} {vector}"

    def vectors(self, depth: int) -> str:
        """Two vectors that have a chance to match: both summed by the same labels, or the same metric twice."""
        op = self.pick(*ARITHMETIC, *COMPARISONS)
        if op in COMPARISONS and self.chance.random() < 0.3:
            op += " bool"
        chosen = self.chance.random()
        if chosen < 0.4:
            by = self.grouping()
            left, right = (f"{self.pick(*SIMPLE)} {by} ({self.vector(depth)})" for _ in range(2))
            return f"({left}) {op} ({right})"
        if chosen < 0.7:
            metric = self.pick(*LABELS)
            left, right = (
                f"{self.pick('rate', 'avg_over_time', 'max_over_time', 'last_over_time')}({metric}[{width}])"
                for width in self.chance.sample(WINDOWS, 2)
            )
            return f"{left} {op} {right}"
        return f"({self.vector(depth)}) {op} {self.matching()} ({self.vector(depth)})"

    def matching(self) -> str:
        labels = ", ".join(self.chance.sample(ALL_LABELS, self.chance.randrange(3)))
        return self.pick("", f"on ({labels})", f"ignoring ({labels})")

    def join(self, depth: int) -> str:
        """Many to one, by what the demo's metrics have in common."""
        op = self.pick("*", "+", "/", "-", "> bool", "<", ">=")
        many, one, on, include = self.chance.choice(
            (
                ("demo_requests_total", "demo_info", "instance", "version"),
                ("demo_degrees", "demo_info", "instance", "version"),
                ("demo_memory_bytes", "demo_up", "instance", "job"),
                ("demo_requests_total", "demo_errors_total", "job, instance", ""),
                ("demo_seconds_bucket", "demo_seconds_count", "job", ""),
            )
        )
        function = self.pick("{}", "rate({}[5m])", "max_over_time({}[2m])", "abs({})")
        left, right = function.format(self.matchers(many)), self.matchers(one)
        if self.chance.random() < 0.5:
            return f"{left} {op} on ({on}) group_left ({include}) {right}"
        return f"{right} {op} on ({on}) group_right ({include}) {left}"

    def sets(self, depth: int) -> str:
        op = self.pick("and", "or", "unless")
        return f"({self.vector(depth)}) {op} {self.matching()} ({self.vector(depth)})"

    def labels(self, depth: int) -> str:
        vector = self.vector(depth)
        if self.chance.random() < 0.5:
            return f'label_join({vector}, "{self.pick("job", "new")}", "-", "job", "instance", "nothing")'
        target, template, source = (
            self.pick("job", "new", "instance"),
            self.pick("$1", "x-$1", ""),
            self.pick("job", "instance"),
        )
        return f'label_replace({vector}, "{target}", "{template}", "{source}", "(a.*|d).*")'

    def quantiles(self, depth: int) -> str:
        by = self.pick("job, le", "le")
        buckets = self.pick("rate({}[5m])", "increase({}[10m])", "{}").format(self.matchers("demo_seconds_bucket"))
        return f"histogram_quantile({self.scalar(depth)}, sum by ({by}) ({buckets}))"

    def ranking(self, depth: int) -> str:
        """Which of equal values stay is nobody's promise: only how large the chosen ones are is looked at."""
        labels = ", ".join(self.chance.sample(ALL_LABELS, self.chance.randrange(3)))
        return (
            f"sum by ({labels}) ({self.pick('topk', 'bottomk')} by ({labels}) ({self.scalar(0)}, {self.vector(depth)}))"
        )

    def scalar(self, depth: int) -> str:
        chosen = self.chance.random()
        if depth <= 0 or chosen < 0.7:
            return self.pick(*WHOLE, "0.9", "0.25", "pi()")
        if chosen < 0.8:
            return f"({self.scalar(depth - 1)} {self.pick(*ARITHMETIC, '> bool', '== bool')} {self.scalar(depth - 1)})"
        if chosen < 0.9:
            return f"scalar({self.vector(depth - 1)})"
        return self.pick("time()", "scalar(demo_seconds_count{job='api'})", "(time() % 60)")
