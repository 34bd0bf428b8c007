"""How a check stands after one more try. Pure: values in, a value and its reason out."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Standing:
    """How a check stands, and how many tries have failed since it was last up.

    unknown ► up | failing; up ► failing (fewer than `confirm` failures) ► down; the first success makes it up.
    """

    health: str = "unknown"
    failures: int = 0

    def after(self, *, failed: bool, confirm: int) -> "Standing":
        """Return how it stands after a try."""
        if not failed:
            return Standing("up")
        failures = self.failures + 1
        is_down = self.health == "down" or failures >= confirm
        return Standing("down" if is_down else "failing", failures)

    @property
    def is_up(self) -> bool:
        """Whether people should think that it is up: a failure that is not confirmed yet does not count."""
        return self.health != "down"


def is_change(before: str, after: str) -> bool:
    """Whether the history should tell of it: up and down, and what it was first found to be."""
    return after in ("up", "down") and before != after and not (before == "failing" and after == "up")
