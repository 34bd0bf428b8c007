"""Whether anybody can be told at all: health and every page's banner ask here."""

from dataclasses import dataclass

from apps.core.registry import UnknownKind
from apps.notifications.channels import Sender
from apps.notifications.models import Contact
from apps.notifications.sending import administrators


@dataclass(frozen=True)
class Reachability:
    """`ok`: some contact works. `sentence` says what is wrong and what to do, or what works."""

    ok: bool
    sentence: str
    working: tuple[str, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()


def reachability() -> Reachability:
    """Return who can be told now: enabled contacts whose last messages did not meet a lasting problem."""
    sender = Sender(administrators=administrators())
    working: list[str] = []
    broken: list[tuple[str, str]] = []
    for contact in Contact.objects.enabled():
        problem = contact.problem or _obstacle(contact, sender)
        if problem:
            broken.append((contact.name, problem))
        else:
            working.append(contact.name)
    return judge(tuple(working), tuple(broken))


def judge(working: tuple[str, ...], broken: tuple[tuple[str, str], ...]) -> Reachability:
    """Return the verdict on these contacts and their problems."""
    if working:
        count = f"{len(working)} of {len(working) + len(broken)} contacts work."
        return Reachability(True, count, working, broken)
    if not broken:
        sentence = "Nobody would be told of an alert: there is no contact. Add one in the admin under Contacts."
    else:
        name, problem = broken[0]
        others = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        sentence = f"Nobody would be told of an alert: no contact works. {name}{others}: {problem}"
    return Reachability(False, sentence, working, broken)


def _obstacle(contact: Contact, sender: Sender) -> str:
    try:
        return contact.channel.obstacle(contact.config, sender)
    except UnknownKind as error:
        return str(error)
