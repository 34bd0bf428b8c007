"""The tests' time."""

from datetime import UTC, datetime

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
