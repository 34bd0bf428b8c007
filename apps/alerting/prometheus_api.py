"""Prometheus' HTTP API over rules and alerts: `/api/v1/rules` and `/api/v1/alerts`."""

from typing import Final

from apps.core.lanes import Lane

LANES: Final[dict[str, Lane]] = {}
