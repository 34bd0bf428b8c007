"""What every process shows about itself, under the names of Prometheus' client libraries, from /proc alone."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from apps.core.telemetry import Reading

SELF: Final = Path("/proc/self")
_STARTED: Final = time.time()


def readings() -> Iterator[Reading]:
    """Yield processor, memory, open files and threads of this process; what the system does not tell is left out."""
    spent = os.times()
    yield Reading(
        "process_cpu_seconds_total", spent.user + spent.system, {}, "counter", "Processor seconds of the process."
    )
    with contextlib.suppress(OSError, ValueError, IndexError):
        pages = (SELF / "statm").read_text().split()
        size = os.sysconf("SC_PAGE_SIZE")
        yield Reading("process_virtual_memory_bytes", float(pages[0]) * size, help="Address space of the process.")
        yield Reading("process_resident_memory_bytes", float(pages[1]) * size, help="Resident memory of the process.")
    with contextlib.suppress(OSError):
        yield Reading("process_open_fds", float(sum(1 for _ in (SELF / "fd").iterdir())), help="Open file descriptors.")
    yield Reading("process_start_time_seconds", _STARTED, help="When counting began in the process, since 1970.")
    yield Reading("process_threads", float(threading.active_count()), help="Threads that run Python.")
