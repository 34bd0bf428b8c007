from collections.abc import Iterable
from datetime import datetime
from typing import Any

class CalendarQuery:
    def between(self, start: datetime, stop: datetime) -> Iterable[Any]: ...

def of(a_calendar: Any, *, skip_bad_series: bool = ...) -> CalendarQuery: ...
