"""What on-call's loops share: one lock, one piece of work in one transaction, one way into the audit.

One process works at a time: each transaction takes the advisory lock, so that what a contact was told is read and
written without a race.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from django.db import connection, transaction

from apps.accounts.audit import record
from apps.accounts.rights import Principal

log = logging.getLogger(__name__)

BY: Final = Principal.system("oncall")
LOCK: Final = 0x6F6E6361
"""The advisory lock that on-call's loops share ("onca")."""
BATCH: Final = 200


def lock() -> None:
    """Wait until no other loop is at work; it is let go with the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def each(keys: Sequence[Any], work: Callable[[Any], object], what: str) -> int:
    """Do one piece after the other; a piece that fails is rolled back, logged and stays due, the others go on."""
    failed = 0
    for key in keys:
        try:
            with transaction.atomic():
                lock()
                work(key)
        except Exception:
            failed += 1
            log.exception("%s %s could not be told; it is tried again.", what, key)
    if failed:
        raise RuntimeError(f"{failed} of {len(keys)} could not be told and are tried again; the log says why.")
    return len(keys)


def enter_in_audit(verb: str, target: Any, after: Mapping[str, Any]) -> None:
    """Write down what on-call did by itself."""
    record(by=BY, verb=verb, target=target, after=dict(after))
