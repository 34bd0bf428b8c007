"""Finds the templates behind messages: what stays, with <…> where values stood. Pure, deterministic, bounded.

A message is masked (numbers, ids, addresses, paths, quoted texts become words in angle brackets) and cut into tokens.
It belongs to the template of its group (service and level) with as many tokens and the same first one whose tokens it
shares most; below SIMILAR it makes a new one. A template that a message joins gives up the tokens in which they differ.
So a template only ever gets wider, in whatever order: `widened` is commutative, associative and idempotent, which lets
processes that learn apart agree.

Source: He, Zhu, Zheng, Lyu: Drain, an online log parsing approach with fixed depth tree (ICWS 2017). Its tree is a
dictionary here (length, first token), since masks have taken most of what the tree was for. drain3 would keep a pickled
snapshot of one process; here ids are rows that several processes share.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

ANY: Final = "<*>"
OTHER: Final = "<other>"
"""The pattern under which a group's messages are put once it has as many templates as it may."""
SIMILAR: Final = 0.6
"""Share of tokens in which a message equals the template that it joins."""
MOST_TOKENS: Final = 40
LONGEST: Final = 400
"""Characters of a message that are looked at: those of its first line."""
MOST: Final = 200
"""Templates of one service at one level."""
REMEMBERED: Final = 4_000

_MASKS: Final = re.compile(
    r"""(?P<str>"[^"]{0,200}"|(?<![\w])'[^']{0,200}'(?![\w]))
    |(?P<url>\b[a-z][a-z0-9+.-]{1,12}://[^\s"'<>]+)
    |(?P<email>[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+)
    |(?P<uuid>\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b)
    |(?P<time>\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?
        |\b\d\d:\d\d:\d\d(?:[.,]\d+)?)
    |(?P<ip>\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b|(?<![\w:])(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}\b)
    |(?P<path>(?<![\w.])(?:[A-Za-z]:)?(?:[/\\][\w.@%+~-]+){2,}/?)
    |(?P<hex>\b0[xX][0-9a-fA-F]+\b|\b(?=[0-9a-fA-F]*\d)(?=[0-9a-fA-F]*[a-fA-F])[0-9a-fA-F]{7,}\b)
    |(?P<num>(?<![A-Za-z_])[+-]?\d+(?:[.,]\d+)*(?:[eE][+-]?\d+)?(?=%|[a-zA-Zµ]{0,3}(?![\w])|(?![\w])))
    |(?P<id>\b[A-Za-z_-]*+\d[\w-]*\b)""",
    re.VERBOSE,
)


def masked(message: str) -> str:
    """Return the first line of a message with its values replaced by what they are, such as <num>.

    >>> masked("GET /api/users/17 took 12.5 ms for 10.0.0.7")
    'GET <path> took <num> ms for <ip>'
    """
    line, _, more = message[:LONGEST].partition("\n")
    found = _MASKS.sub(lambda match: f"<{match.lastgroup}>", line)
    return f"{found} <lines>" if more else found


def tokens_of(message: str) -> tuple[str, ...]:
    """Return the tokens of a message's first line; one that has more than 40 ends in <…>."""
    return _tokens(masked(message))


def _tokens(shape: str) -> tuple[str, ...]:
    found = shape.split()
    return (*found[: MOST_TOKENS - 1], "<…>") if len(found) > MOST_TOKENS else tuple(found) or ("<empty>",)


def widened(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    """Return the tokens in which both are equal, <*> where they are not; both have the same length."""
    return tuple(mine if mine == theirs else ANY for mine, theirs in zip(one, other, strict=True))


def similarity(template: Sequence[str], tokens: Sequence[str]) -> float:
    """Return the share of tokens that are the same; a place that the template leaves open counts as half."""
    same = sum(
        1.0 if mine == theirs else 0.5 if mine == ANY else 0.0 for mine, theirs in zip(template, tokens, strict=True)
    )
    return same / len(template)


@dataclass(slots=True)
class Learned:
    """A template: its tokens, and its id once it has one."""

    tokens: tuple[str, ...]
    id: int | None = None
    is_wider: bool = False
    """Whether it has got wider since it was read."""

    @property
    def pattern(self) -> str:
        return " ".join(self.tokens)


@dataclass(slots=True)
class Group:
    """The templates of one service at one level, in the order in which they were made."""

    templates: list[Learned] = field(default_factory=list)
    most: int = MOST
    _leaves: dict[tuple[int, str], list[Learned]] = field(default_factory=dict)
    _shapes: dict[str, Learned] = field(default_factory=dict)

    @classmethod
    def of(cls, patterns: Iterable[tuple[int, str]], most: int = MOST) -> "Group":
        """Return the group with these templates (id, pattern), in the order of their ids."""
        group = cls(most=most)
        for ident, pattern in sorted(patterns):
            group._add(Learned(tuple(pattern.split(" ")), ident))
        return group

    def known(self, message: str) -> Learned | None:
        """Return the template of a message whose shape was seen, or that it fits as it stands; else None."""
        shape = masked(message)
        if (found := self._shapes.get(shape)) is not None:
            return found
        tokens = _tokens(shape)
        best = self._best(tokens)
        if best is None and len(self.templates) > self.most:
            return self._leaves[1, OTHER][0]
        if best is None or widened(best.tokens, tokens) != best.tokens:
            return None
        self._remember(shape, best)
        return best

    def learn(self, message: str) -> Learned:
        """Return the message's template, which may be new or wider than it was; ids are the caller's to give."""
        shape = masked(message)
        if (found := self._shapes.get(shape)) is not None:
            return found
        tokens = _tokens(shape)
        best = self._best(tokens)
        if best is None:
            best = self._new(tokens)
        elif (wider := widened(best.tokens, tokens)) != best.tokens:
            best.tokens, best.is_wider = wider, True
        self._remember(shape, best)
        return best

    def _new(self, tokens: tuple[str, ...]) -> Learned:
        if len(self.templates) >= self.most:
            tokens = (OTHER,)
            if (leaf := self._leaves.get((1, OTHER))) is not None:
                return leaf[0]
        return self._add(Learned(tokens))

    def _add(self, template: Learned) -> Learned:
        self.templates.append(template)
        self._leaves.setdefault((len(template.tokens), template.tokens[0]), []).append(template)
        return template

    def _best(self, tokens: tuple[str, ...]) -> Learned | None:
        """Return the most similar template that is similar enough; of equals the oldest."""
        best, score = None, SIMILAR
        for template in self._leaves.get((len(tokens), tokens[0]), ()):
            found = similarity(template.tokens, tokens)
            if found > score or (best is None and found >= score):
                best, score = template, found
        return best

    def _remember(self, shape: str, template: Learned) -> None:
        if len(self._shapes) >= REMEMBERED:
            self._shapes.clear()
        self._shapes[shape] = template
