"""The shipped storm: what arrives in a night when one thing fails that ten others need. Pure: a text in, values out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Arrival:
    """One alert of the storm: how long after the fault, and what is posted."""

    after: timedelta
    name: str
    severity: str
    service: str
    message: str


@dataclass(frozen=True, slots=True)
class Storm:
    """Services with what they depend on, and the faults by name: their root and their alerts in order."""

    services: Mapping[str, tuple[str, ...]]
    faults: Mapping[str, tuple[str, tuple[Arrival, ...]]]

    def of(self, *faults: str) -> list[Arrival]:
        """Return the alerts of these faults, which begin at the same moment, as they arrive."""
        return sorted((one for name in faults for one in self.faults[name][1]), key=lambda one: one.after)


def read(text: str) -> Storm:
    """Read fixtures/storm.yaml."""
    found = yaml.safe_load(text)
    services = {name: tuple(parents) for name, parents in found["services"].items()}
    faults = {name: (fault["root"], tuple(_arrivals(fault["alerts"]))) for name, fault in found["faults"].items()}
    return Storm(services, faults)


def _arrivals(rows: list[dict[str, Any]]) -> Iterator[Arrival]:
    for row in rows:
        for service in row["services"]:
            for number in range(row["instances"]):
                message = f"{row['name']} on {service}-{number + 1}"
                # Instances notice one after the other.
                after = timedelta(seconds=row["after"] + number)
                yield Arrival(after, row["name"], row["severity"], service, message)
