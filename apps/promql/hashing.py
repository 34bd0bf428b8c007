"""Prometheus' hash of a label set, by which limit_ratio chooses series.

XXH64 (Yann Collet's xxHash specification, seed 0) of the set as Prometheus 3 keeps it in memory: names and values in
the order of names, each after its length. All rows of one length are hashed at once.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from apps.promql.arrays import Hashes

_P1: Final = np.uint64(0x9E3779B185EBCA87)
_P2: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_P3: Final = np.uint64(0x165667B19E3779F9)
_P4: Final = np.uint64(0x85EBCA77C2B2AE63)
_P5: Final = np.uint64(0x27D4EB2F165667C5)
_LONG: Final = 255
"""From this length on, it is written in three bytes after this one."""


def label_hashes(sets: Sequence[Mapping[str, str]]) -> Hashes:
    """uint64[n] of n label sets."""
    return xxh64([encoded(labels) for labels in sets])


def encoded(labels: Mapping[str, str]) -> bytes:
    """A label set as Prometheus 3 keeps it."""
    out = bytearray()
    for pair in sorted(labels.items()):
        for text in pair:
            data = text.encode("utf-8", "surrogateescape")
            out += len(data).to_bytes(1) if len(data) < _LONG else b"\xff" + len(data).to_bytes(3, "little")
            out += data
    return bytes(out)


def xxh64(rows: Sequence[bytes]) -> Hashes:
    """uint64[n]: XXH64 of n byte strings."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    out: Hashes = np.zeros(len(rows), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for length in np.unique(lengths).tolist():
            alike = np.flatnonzero(lengths == length)
            joined = b"".join(rows[row] for row in alike.tolist())
            out[alike] = _alike(np.frombuffer(joined, dtype=np.uint8).reshape(len(alike), length))
    return out


def _alike(data: "np.typing.NDArray[np.uint8]") -> Hashes:
    """The same of uint8[n, length]."""
    n, length = data.shape
    striped = length - length % 32
    if striped:
        lanes = np.ascontiguousarray(data[:, :striped]).view("<u8").reshape(n, -1, 4)
        state: list[Hashes] = [np.full(n, seed) for seed in (_P1 + _P2, _P2, np.uint64(0), ~_P1 + np.uint64(1))]
        for stripe in range(lanes.shape[1]):
            state = [_round(lane, lanes[:, stripe, i]) for i, lane in enumerate(state)]
        total: Hashes = np.zeros(n, dtype=np.uint64)
        for lane, by in zip(state, (1, 7, 12, 18), strict=True):
            total = total + _turned(lane, by)
        for lane in state:
            total = (total ^ _round(np.zeros(n, dtype=np.uint64), lane)) * _P1 + _P4
    else:
        total = np.full(n, _P5)
    total = total + np.uint64(length)
    for at in range(striped, length - 7, 8):
        lane = np.ascontiguousarray(data[:, at : at + 8]).view("<u8")[:, 0]
        total = _turned(total ^ _round(np.zeros(n, dtype=np.uint64), lane), 27) * _P1 + _P4
    at = length - length % 8
    if length - at >= 4:
        lane = np.ascontiguousarray(data[:, at : at + 4]).view("<u4")[:, 0].astype(np.uint64)
        total = _turned(total ^ lane * _P1, 23) * _P2 + _P3
        at += 4
    for column in range(at, length):
        total = _turned(total ^ data[:, column].astype(np.uint64) * _P5, 11) * _P1
    total = (total ^ total >> np.uint64(33)) * _P2
    total = (total ^ total >> np.uint64(29)) * _P3
    return total ^ total >> np.uint64(32)


def _turned(lane: Hashes, by: int) -> Hashes:
    """Rotated to the left."""
    return (lane << np.uint64(by)) | (lane >> np.uint64(64 - by))


def _round(lane: Hashes, data: Hashes) -> Hashes:
    return _turned(lane + data * _P2, 31) * _P1
