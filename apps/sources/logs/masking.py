"""Blacks out what looks like a secret or a person's: values of telling names, tokens, e-mail addresses, card numbers.

Pure, and no promise: what does not look like one passes. Patterns are linear; none nests what repeats.
"""

import re
from typing import Final

import orjson

_SECRET: Final = re.compile(
    r"""(?P<name>(?:passw(?:or)?d|pwd|secret|token|api[_-]?key|authorization|credentials?|session_?id|cookie)\b
        ["']?\s{0,2}[:=]\s{0,2})(?P<kind>(?:bearer|basic|token)\s{1,2})?(?P<value>"[^"\n]{1,500}"|'[^'\n]{1,500}'|[^\s,;&"'}\])]{1,500})""",
    re.IGNORECASE | re.VERBOSE,
)
_BEARER: Final = re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_-]{8,1000}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*")
_KEY: Final = re.compile(
    r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|sk_live_\w{10,})"
)
_URL: Final = re.compile(r"(?<=://)([^\s/:@]{1,100}):([^\s/@]{1,200})@")
_MAIL: Final = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}")
_CARD: Final = re.compile(r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w.-])")
_TELLING: Final = re.compile(
    r"(?:passw(?:or)?d|pwd|secret|token|api[_-]?key|authorization|credentials?|session_?id|cookie)$", re.IGNORECASE
)
SECRET: Final = "[secret]"  # noqa: S105  what stands instead of one
MAIL: Final = "[email]"
CARD: Final = "[card]"


def masked(text: str) -> str:
    """Return the text with what looks secret or personal replaced by a word in brackets.

    >>> masked("login of ada@example.org with password=hunter2 failed")
    'login of [email] with password=[secret] failed'
    """
    if "=" in text or ":" in text:
        if "://" in text:
            text = _URL.sub(f"{SECRET}@", text)
        text = _SECRET.sub(lambda found: f"{found['name']}{found['kind'] or ''}{SECRET}", text)
    if "earer" in text or "asic" in text or "EARER" in text:
        text = _BEARER.sub(lambda found: f"{found[1]} {SECRET}", text)
    if "eyJ" in text:
        text = _JWT.sub(SECRET, text)
    if "_" in text or "-" in text or "AKIA" in text:
        text = _KEY.sub(SECRET, text)
    if "@" in text:
        text = _MAIL.sub(MAIL, text)
    return _CARD.sub(_card, text)


def _card(found: "re.Match[str]") -> str:
    """A run of digits is a card's number if its check digit is right (Luhn)."""
    digits = [int(each) for each in found[0] if each.isdigit()]
    doubled = [2 * d - 9 * (d > 4) for d in digits[-2::-2]]
    return CARD if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1 else found[0]


def masked_attributes(attributes: str) -> str:
    """Return a JSON object of texts with its values masked; that of a telling name as a whole.

    >>> masked_attributes('{"user":"ada@example.org","api_key":"x"}')
    '{"user":"[email]","api_key":"[secret]"}'
    """
    told: dict[str, str] = orjson.loads(attributes)
    found = {name: SECRET if _TELLING.search(name) else masked(value) for name, value in told.items()}
    return attributes if found == told else orjson.dumps(found).decode()
