"""Operators between vectors and scalars: arithmetic, comparisons, set operators and vector matching."""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from apps.promql.arrays import Floats, Hashes, Index, Mask
from apps.promql.ast import COMPARISONS, Binary, Matching
from apps.promql.errors import QueryError
from apps.promql.labels import METADATA, NAME, Labels, group_numbers, join
from apps.promql.series import Vec
from apps.promql.text import label_set

Operation: TypeAlias = Callable[[Floats, Floats], Floats]
Comparison: TypeAlias = Callable[[Floats, Floats], Mask]


def _power(base: Floats, exponent: Floats) -> Floats:
    """IEEE's pow. numpy takes a lone exponent of 0.5 for a square root, which differs for -0 (+0) and -Inf (+Inf)."""
    found: Floats = np.power(base, exponent)
    root = exponent == 0.5
    if root.any():
        found = np.where(root, np.where(np.isneginf(base), np.inf, found + 0.0), found)
    return found


_ARITHMETIC: Final[dict[str, Operation]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": _power,
    "atan2": np.arctan2,
}
_COMPARISON: Final[dict[str, Comparison]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}


def scalars(op: str, left: Floats, right: Floats) -> Floats:
    """Between two scalars; a comparison (always with bool) gives 0 or 1."""
    with np.errstate(all="ignore"):
        if op in COMPARISONS:
            return _COMPARISON[op](left, right).astype(np.float64)
        return _ARITHMETIC[op](left, right)


def with_scalar(node: Binary, vec: Vec, scalar: Floats, *, scalar_left: bool) -> Vec:
    """Vector and scalar; a comparison keeps the vector's value, whichever side it stands on."""
    left, right = (scalar, vec.v) if scalar_left else (vec.v, scalar)
    with np.errstate(all="ignore"):
        if node.op in COMPARISONS:
            hit = _COMPARISON[node.op](left, right)
            if not node.bool_modifier:
                return Vec(vec.labels, vec.v, vec.ok & hit, vec.drop)
            value: Floats = hit.astype(np.float64)
        else:
            value = _ARITHMETIC[node.op](left, right)
    return Vec(vec.labels, value, vec.ok, np.ones(vec.size, dtype=np.bool_))


def signatures(labels: Labels, matching: Matching) -> Hashes:
    """uint64[S]: equal for label sets that match each other."""
    kept = labels.keep(matching.labels) if matching.on else labels.drop((*matching.labels, NAME))
    return kept.hashes()


def sets(op: str, matching: Matching, left: Vec, right: Vec) -> Vec:
    """and, or, unless: presence is judged step by step."""
    left_keys, right_keys = signatures(left.labels, matching), signatures(right.labels, matching)
    if op == "or":
        there = _present(right_keys, left_keys, left.ok, right.ok.shape)
        extra = right.ok & ~there
        rows = np.flatnonzero(extra.any(axis=1))
        if not len(rows):
            return left
        return Vec.concat([left, Vec(right.labels.take(rows), right.v[rows], extra[rows], right.drop[rows])])
    there = _present(left_keys, right_keys, right.ok, left.ok.shape)
    return Vec(left.labels, left.v, left.ok & (there if op == "and" else ~there), left.drop)


def _present(keys: Hashes, others: Hashes, ok: Mask, shape: tuple[int, ...]) -> Mask:
    """bool[len(keys), n]: is any of the others with this key present at the step?"""
    if not len(others) or not len(keys):
        return np.zeros(shape, dtype=np.bool_)
    first, group = group_numbers(others)
    if len(first) == len(others):
        any_ok = ok
    else:
        order = np.argsort(group, kind="stable")
        counts = np.bincount(group)
        any_ok = np.logical_or.reduceat(ok[order], np.cumsum(counts) - counts, axis=0)
    at = join(keys, others[first])
    found: Mask = any_ok[at] & (at >= 0)[:, None]
    return found


def vectors(node: Binary, left: Vec, right: Vec, check_cells: Callable[[int, int], None]) -> Vec:
    """Arithmetic and comparisons between two vectors, with one-to-one, group_left and group_right matching.

    check_cells(series, steps) refuses what is too large before it is built.
    """
    matching = node.matching
    n = left.v.shape[1]
    filled = matching.fill_left is not None or matching.fill_right is not None
    swapped = matching.group == "right"
    if filled:
        for_left, for_right = matching.fill_left, matching.fill_right
        if swapped:
            for_left, for_right = for_right, for_left
        left, right = _filled(matching, left, right, for_left), _filled(matching, right, left, for_right)
    if not left.size or not right.size:
        return Vec.empty(n)
    many, one = (right, left) if swapped else (left, right)
    many_keys, one_keys = signatures(many.labels, matching), signatures(one.labels, matching)
    one_row, many_row = _pairs(matching, many, one, many_keys, one_keys, swapped)
    if not len(many_row):
        return Vec.empty(n)
    check_cells(len(many_row), n)
    many_v, one_v = many.v[many_row], one.v[one_row]
    ok = many.ok[many_row] & one.ok[one_row]
    if not matching.group:
        _refuse_many_to_one(many_keys[many_row], ok)
    left_v, right_v = (one_v, many_v) if swapped else (many_v, one_v)
    filters = node.op in COMPARISONS and not node.bool_modifier
    with np.errstate(all="ignore"):
        if node.op in COMPARISONS:
            hit = _COMPARISON[node.op](left_v, right_v)
            if node.bool_modifier:
                value: Floats = hit.astype(np.float64)
            else:
                value, ok = left_v, ok & hit
        else:
            value = _ARITHMETIC[node.op](left_v, right_v)
    labels = _result_labels(matching, many.labels.take(many_row), one.labels, one_row, filters)
    drop = many.drop[many_row] if filters else np.ones(len(many_row), dtype=np.bool_)
    vec = Vec(labels, value, ok, drop)
    if not matching.group and not filled:
        return vec
    return merged(vec, "multiple matches for labels: grouping labels must ensure unique matches")


def _filled(matching: Matching, vec: Vec, other: Vec, value: float | None) -> Vec:
    """With a series of this value wherever the other side has no partner here; it has the labels that are matched."""
    if value is None or not other.size:
        return vec
    keys = signatures(other.labels, matching)
    first, _ = group_numbers(keys)
    labels = other.labels.take(first)
    labels = labels.keep(matching.labels) if matching.on else labels.drop((*matching.labels, *METADATA))
    shape = (len(first), other.v.shape[1])
    wanted = _present(keys[first], keys, other.ok, shape)
    missing = wanted & ~_present(keys[first], signatures(vec.labels, matching), vec.ok, shape)
    rows = np.flatnonzero(missing.any(axis=1))
    stand_ins = np.full((len(rows), shape[1]), value)
    return Vec.concat([vec, Vec(labels.take(rows), stand_ins, missing[rows], np.zeros(len(rows), dtype=np.bool_))])


def _pairs(
    matching: Matching, many: Vec, one: Vec, many_keys: Hashes, one_keys: Hashes, swapped: bool
) -> tuple[Index, Index]:
    """Rows that match: (one side int64[p], many side int64[p])."""
    first, group = group_numbers(one_keys)
    at = join(many_keys, one_keys[first])
    if len(first) == len(one_keys):
        many_row = np.flatnonzero(at >= 0)
        return first[at[many_row]], many_row
    _refuse_duplicates(matching, many, one, group, swapped)
    counts = np.bincount(group)
    order = np.argsort(group, kind="stable")
    starts = np.cumsum(counts) - counts
    many_row = np.flatnonzero(at >= 0)
    repeat = counts[at[many_row]]
    expanded = np.repeat(many_row, repeat)
    within = np.arange(len(expanded)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    return order[starts[at[expanded]] + within], expanded


def _refuse_duplicates(matching: Matching, many: Vec, one: Vec, group: Index, swapped: bool) -> None:
    """Two series of the "one" side with one key are an error where both are present at a step."""
    order = np.argsort(group, kind="stable")
    ok = one.ok[order] & many.ok.any(axis=0)
    counts = np.bincount(group)
    starts = np.cumsum(counts) - counts
    crowded = np.add.reduceat(ok, starts, axis=0, dtype=np.int64) > 1
    if not crowded.any():
        return
    which, step = (int(part[0]) for part in np.nonzero(crowded))
    rows = [int(row) for row in order[starts[which] : starts[which] + counts[which]] if one.ok[row, step]][:2]
    sets = [one.labels.row(row) for row in rows]
    matched = sets[0]
    if matching.on:
        matched = {name: value for name, value in matched.items() if name in matching.labels}
    else:
        matched = {name: value for name, value in matched.items() if name not in (*matching.labels, NAME)}
    side = "left" if swapped else "right"
    raise QueryError(
        f"found duplicate series for the match group {label_set(matched)} on the {side} hand-side of the operation: "
        f"[{label_set(sets[0])}, {label_set(sets[1])}];many-to-many matching not allowed: matching labels must be "
        "unique on one side"
    )


def _refuse_many_to_one(keys: Hashes, ok: Mask) -> None:
    first, group = group_numbers(keys)
    if len(first) == len(keys):
        return
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group)
    together = np.add.reduceat(ok[order], np.cumsum(counts) - counts, axis=0, dtype=np.int64)
    if (together > 1).any():
        raise QueryError("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)")


def _result_labels(matching: Matching, many: Labels, one: Labels, one_row: Index, filters: bool) -> Labels:
    if not matching.group:
        return many.keep(matching.labels) if matching.on else many.drop(matching.labels)
    if not filters:
        # Dropped now and not at the end: an included label may bring in a name again.
        kept = [name for name in METADATA if name in matching.include]
        many = many.drop(kept)
    for name in matching.include:
        many = many.replace(name, one.column(name)[one_row])
    return many


def merged(vec: Vec, message: str = "vector cannot contain metrics with the same labelset") -> Vec:
    """Rows of equal labels become one; QueryError where two of them are present at one step."""
    if vec.size < 2:
        return vec
    first, group = vec.labels.group()
    if len(first) == vec.size:
        return vec
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group)
    starts = np.cumsum(counts) - counts
    ok = vec.ok[order]
    together = np.add.reduceat(ok, starts, axis=0, dtype=np.int64)
    if (together > 1).any():
        raise QueryError(message)
    # At most one row of a group is present at a step: its value is the sum over the group, NaN and all.
    value = vec.v[first].copy()
    for row, target in zip(range(vec.size), group.tolist(), strict=True):
        if row != first[target]:
            np.copyto(value[target], vec.v[row], where=vec.ok[row])
    drop = np.logical_or.reduceat(vec.drop[order], starts)
    return Vec(vec.labels.take(first), value, together > 0, drop)
