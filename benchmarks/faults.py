"""Faults under load, counted: what was acknowledged against what is stored, by the part that was killed.

`./portal bench faults` kills parts of a running portal for ten minutes. `--prometheus` lets a real Prometheus push as
well, through a disk that runs full where the machine allows it. `--snapshot` holds one snapshot open beside a full
load, as a slow pg_dump does, and tells what becomes of the tables. `--telling` kills those who tell instead: a
thousand alerts to five contacts each, while the worker, the broker and the clock die twenty times.
"""

import argparse
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from monitoring_portal.testing import Portal
from tests.faults.disk import NoDisk, SmallDisk
from tests.faults.peer import PROGRAM, free_port
from tests.faults.run import TOKEN, Peer, Run
from tests.faults.sender import Account, Sender, account
from tests.faults.telling import TellingRun


def faults(seconds: float, *, prometheus: bool, seed: int) -> bool:
    """One run; True when nothing is missing."""
    with tempfile.TemporaryDirectory(prefix="portal-faults-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o711)
        disk = None
        if prometheus:
            try:
                disk = stack.enter_context(SmallDisk(folder / "disk"))
            except NoDisk as why:
                print(f"The disk is not filled: {why}.")
        outcome = Run(folder, disk=disk, seed=seed).go(seconds, prometheus=prometheus)
        told = show(outcome.account)
        return (show_peer(outcome.peer) if outcome.peer else True) and told


def show(found: Account) -> bool:
    """Print the table of a run; True when it is without fault."""
    names = ("kills", "acknowledged", "stored", "missing", "doubled")
    print(f"{'killed':<18}" + "".join(f"{name:>14}" for name in names))
    for part, tally in [*sorted(found.parts.items()), ("in all", found.whole)]:
        print(f"{part:<18}" + "".join(f"{getattr(tally, name):>14,}" for name in names))
    print(f"never sent and there: {found.unsent}; requests sent again: {found.repeated}; refused: {len(found.refused)}")
    for words in found.refused[:5]:
        print(f"  {words}")
    whole = found.whole
    return not (whole.missing or whole.doubled or found.unsent or found.refused)


def show_peer(found: Peer) -> bool:
    """Print what Prometheus held against what is here."""
    print(
        f"Prometheus held {found.held:,} samples, {found.markers:,} of them staleness markers; here: missing "
        f"{found.missing}, of other bits {found.different}, without being held {found.unheld}; "
        f"given up by Prometheus: {found.failed:g}"
    )
    for words in found.examples:
        print(f"  {words}")
    return not (found.missing or found.different or found.unheld)


def telling(*, alerts: int, kills: int, a_second: float, seed: int) -> bool:
    """Alerts come in and are told while who tells is killed; True when nothing is lost, and hardly anything doubled."""
    with tempfile.TemporaryDirectory(prefix="portal-faults-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        told = TellingRun(folder, seed=seed).go(alerts=alerts, a_second=a_second, kills=kills)
    parts = Counter(kill.part for kill in told.kills)
    print(f"{told.alerts:,} alerts, {told.wanted:,} messages, {told.seconds:.0f} s; killed: {dict(parts)}")
    print(
        f"missing {len(told.missing)}, out of order {len(told.misordered)}, told again {told.told_again}, doubled "
        f"{told.doubled} (all under the same idempotency key): {told.doubles_in_a_thousand:.2f} in a thousand"
    )
    return not (told.missing or told.misordered or told.told_again) and told.doubles_in_a_thousand <= 1


# --- A held snapshot ------------------------------------------------------------------------------------------------

_SIZES = """
SELECT pg_total_relation_size('metrics_batch'), pg_total_relation_size('metrics_block'),
       (SELECT coalesce(sum(samples), 0) FROM metrics_batch), (SELECT coalesce(sum(samples), 0) FROM metrics_block)
"""


def snapshot(seconds: float) -> bool:
    """Full load for three times `seconds`: before, while and after a snapshot is held; True when nothing is lost."""
    with tempfile.TemporaryDirectory(prefix="portal-faults-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        portal = Portal(folder, {"MONITORING_AUTH_TOKEN": TOKEN, "PORT": str(free_port())})
        with portal, psycopg.connect(portal.database_url, autocommit=True) as watching:
            senders = [Sender(portal.url, TOKEN, name, series=2000, a_second=0).start() for name in ("a", "b")]
            print(f"{'':<28}{'log MB':>10}{'blocks MB':>12}{'young samples':>16}{'block samples':>16}{'samples/s':>12}")
            before = _row("at the start", watching, senders, None)
            before = _phase("load alone", watching, senders, seconds, before)
            with psycopg.connect(portal.database_url) as held:
                held.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                held.execute("SELECT count(*) FROM metrics_batch")
                before = _phase("snapshot held", watching, senders, seconds, before)
            before = _phase("let go, load goes on", watching, senders, seconds, before)
            for sender in senders:
                sender.stop()
            _phase("load over", watching, senders, 30, before)
            return show(account(senders, [], portal.url, TOKEN))


def _phase(
    name: str, watching: "psycopg.Connection[Any]", senders: list[Sender], seconds: float, before: tuple[float, int]
) -> tuple[float, int]:
    time.sleep(seconds)
    return _row(f"{name}, {seconds:g} s", watching, senders, before)


def _row(
    name: str, watching: "psycopg.Connection[Any]", senders: list[Sender], before: tuple[float, int] | None
) -> tuple[float, int]:
    log, blocks, young, compacted = watching.execute(_SIZES).fetchone() or (0, 0, 0, 0)
    now = time.monotonic(), sum(len(sender.acknowledged) * sender.series for sender in senders)
    rate = (now[1] - before[1]) / (now[0] - before[0]) if before else 0.0
    print(f"{name:<28}{log / 1e6:>10.1f}{blocks / 1e6:>12.1f}{young:>16,}{compacted:>16,}{rate:>12,.0f}", flush=True)
    return now


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--seed", type=int, default=0, help="of the order and the moments of the kills")
    options.add_argument("--prometheus", action="store_true", help="a real Prometheus pushes, and the disk runs full")
    options.add_argument("--snapshot", action="store_true", help="hold a snapshot beside a full load instead")
    options.add_argument("--telling", action="store_true", help="kill those who tell of alerts instead")
    options.add_argument("--alerts", type=int, default=1000, help="of --telling")
    options.add_argument("--kills", type=int, default=20, help="of --telling")
    options.add_argument("--rate", type=float, default=10, help="of --telling: alerts a second")
    given = options.parse_args()
    if given.prometheus and PROGRAM is None:
        raise SystemExit("There is no prometheus on PATH: install Debian's package of that name.")
    started = time.monotonic()
    if given.telling:
        well = telling(alerts=given.alerts, kills=given.kills, a_second=given.rate, seed=given.seed)
    elif given.snapshot:
        well = snapshot(given.seconds)
    else:
        well = faults(given.seconds, prometheus=given.prometheus, seed=given.seed)
    print(f"{time.monotonic() - started:.0f} s in all")
    raise SystemExit(0 if well else 1)


if __name__ == "__main__":
    main()
