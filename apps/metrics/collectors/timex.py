"""Whether the machine's clock is kept in step and how far off it may be, from adjtimex(2)."""

import ctypes
import errno
import os
from collections.abc import Iterator
from typing import Literal

from apps.core.telemetry import Reading
from apps.metrics.collectors import Collector, NoData

NANO = 0x2000
"""Bit of the status that says: offset and jitter are in nanoseconds, not microseconds."""
ERROR = 5
"""What the call returns while the clock is not synchronized."""
MICRO = 1e-6
FRACTION = 1e-6 / 65536
"""Frequencies are parts per million with sixteen bits of fraction."""


class Timex(ctypes.Structure):
    """`struct timex` of 64-bit Linux; native alignment gives the holes."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "seconds", "useconds", "tick")),
        *((name, ctypes.c_long) for name in ("ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


class ClockDiscipline(Collector):
    """Reads only: `modes` stays 0, which anybody may do."""

    kind = "timex"
    label = "Clock synchronization"
    platforms = ("linux",)

    def collect(self) -> Iterator[Reading]:
        found = Timex()
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(found))
        if state < 0:
            number = ctypes.get_errno()
            if number in {errno.EPERM, errno.ENOSYS}:
                raise NoData("This container may not ask for the state of the clock.")
            raise OSError(number, os.strerror(number))
        return readings(found, state)


def readings(found: Timex, state: int) -> Iterator[Reading]:
    """`state`: what the call returned."""
    unit = 1e-9 if found.status & NANO else MICRO
    rows: tuple[tuple[str, float, Literal["gauge", "counter"], str], ...] = (
        ("offset_seconds", found.offset * unit, "gauge", "How far the clock is from its reference."),
        ("frequency_adjustment_ratio", 1 + found.freq * FRACTION, "gauge", "Correction of the clock's speed."),
        ("maxerror_seconds", found.maxerror * MICRO, "gauge", "The most that the clock may be wrong."),
        ("estimated_error_seconds", found.esterror * MICRO, "gauge", "How much the clock is probably wrong."),
        ("status", float(found.status), "gauge", "The status bits of the clock."),
        ("loop_time_constant", float(found.constant), "gauge", "Time constant of the phase-locked loop."),
        ("tick_seconds", found.tick * MICRO, "gauge", "Seconds between two ticks."),
        ("pps_frequency_hertz", found.ppsfreq * FRACTION, "gauge", "Frequency of the pulse signal."),
        ("pps_jitter_seconds", found.jitter * unit, "gauge", "Jitter of the pulse signal."),
        (
            "pps_shift_seconds",
            float(found.shift),
            "gauge",
            "Interval of the pulse signal's average, as the kernel has it.",
        ),
        ("pps_stability_hertz", found.stabil * FRACTION, "gauge", "Wander of the pulse signal."),
        ("pps_jitter_total", float(found.jitcnt), "counter", "Pulses beyond the limit of jitter."),
        ("pps_calibration_total", float(found.calcnt), "counter", "Calibrations by the pulse signal."),
        ("pps_error_total", float(found.errcnt), "counter", "Calibrations that failed."),
        ("pps_stability_exceeded_total", float(found.stbcnt), "counter", "Calibrations beyond the limit of wander."),
        ("tai_offset_seconds", float(found.tai), "gauge", "Atomic time minus UTC."),
        ("sync_status", float(state != ERROR), "gauge", "Whether the clock is synchronized to a reference."),
    )
    for name, value, kind, help_text in rows:
        yield Reading(f"node_timex_{name}", value, {}, kind, help_text)
