"""What can go wrong in a query, in the words of Prometheus' API; nothing else may leave the engine on bad input."""

from typing import ClassVar


class PromQLError(Exception):
    """A query that cannot be answered; `kind` is the API's errorType (bad_data, execution, timeout or canceled)."""

    kind: ClassVar[str] = "execution"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ParseError(PromQLError):
    """The text is not PromQL; line and column count from 1 and point at the offending place."""

    kind = "bad_data"

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.line = line
        self.column = column

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: parse error: {self.message}"


class ConstantError(ParseError):
    """A constant that no evaluation can work with: found by reading, so it has a place; in the API an error of running,
    in Prometheus' words, since Prometheus finds it there.
    """

    kind = "execution"


class QueryError(PromQLError):
    """The expression is well formed and meets data that it cannot work on (duplicates, bad label names)."""


class LimitError(PromQLError):
    """The query asks for more than the operator allows; the message names the number and the limit."""


class TooMany(LimitError):
    """A request brings more samples than whoever asked for it can hold at once."""


class DeadlineExceeded(PromQLError):
    """The query ran longer than it was given."""

    kind = "timeout"


class Cancelled(PromQLError):
    """Whoever asked has gone away."""

    kind = "canceled"
