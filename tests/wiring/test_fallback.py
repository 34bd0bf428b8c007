"""The fall-back's watch over the loops lives on, whatever it meets."""

import threading

from apps.core import tasks
from monitoring_portal import fallback


def test_the_watch_goes_on_after_an_error_of_any_kind(monkeypatch):
    looks = []
    seen_again = threading.Event()

    def stale(watched):
        looks.append(1)
        if len(looks) > 1:
            seen_again.set()
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr(fallback, "EVERY", 0.01)
    monkeypatch.setattr(tasks, "stale", stale)
    stop = fallback.start()
    assert seen_again.wait(20)
    stop.set()
