"""The verbs of front ends, and the look-up of a site by the key that stands in its pages."""

import re
import time
from typing import Final

from django.core.exceptions import ValidationError

from apps.accounts.audit import changes, record, state_of, verb
from apps.accounts.permissions import Principal
from apps.accounts.rights import Right
from apps.sources.models import Site, public_key

ORIGIN: Final = re.compile(r"https?://[a-z0-9.-]{1,253}(:\d{1,5})?")
MOST_ORIGINS: Final = 50
KNOWN_FOR: Final = 10.0
"""Seconds for which a web process remembers the sites: a flood costs no queries, whatever keys it brings."""

_known: tuple[float, dict[str, Site]] = 0.0, {}
"""Until when, and the sites that report by their keys; replaced whole."""


@verb("sources.save_site", right=Right.EDIT)
def save_site(*, by: Principal, site: Site) -> Site:
    """Write a new or changed front end. Raises ValidationError by field."""
    stored = Site.objects.select_for_update().filter(pk=site.pk).first() if site.pk else None
    before = None if stored is None else state_of(stored)
    site.origins = origins_of(site.origins)
    site.full_clean(validate_constraints=False)
    site.save()
    forget()
    after = state_of(site)
    if before is not None:
        before, after = changes(before, after)
        if not (before or after):
            return site
    record(by=by, verb="sources.save_site", target=site, before=before, after=after)
    return site


def origins_of(listed: object) -> list[str]:
    """Return the origins as browsers write them. Raises ValidationError under `origins`."""
    if not isinstance(listed, list) or not 1 <= len(listed) <= MOST_ORIGINS:
        raise ValidationError({"origins": f"Name 1 to {MOST_ORIGINS} origins."})
    origins = [str(origin).strip().rstrip("/").lower() for origin in listed]
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            raise ValidationError({"origins": f"{origin[:100]} is no origin: give it as https://shop.example."})
    return origins


@verb("sources.renew_site_key", right=Right.EDIT)
def renew_site_key(*, by: Principal, site: Site) -> Site:
    """Give the site another key: pages that carry the old one report no more."""
    site.key = public_key()
    site.save(update_fields=["key"])
    forget()
    record(by=by, verb="sources.renew_site_key", target=site)
    return site


@verb("sources.delete_site", right=Right.EDIT)
def delete_site(*, by: Principal, site: Site) -> None:
    """Delete a front end; what is stored of it stays."""
    before, target = state_of(site), (site._meta.label_lower, str(site.pk), site.name)
    site.delete()
    forget()
    record(by=by, verb="sources.delete_site", target=target, before=before)


def by_key(key: str) -> Site | None:
    """Return the site of a key, or None; all sites are remembered for some seconds."""
    global _known
    until, known = _known
    clock = time.monotonic()
    if until <= clock:
        known = {site.key: site for site in Site.objects.filter(enabled=True)}
        _known = clock + KNOWN_FOR, known
    return known.get(key)


def forget() -> None:
    """Look sites up anew in this process; others do within seconds."""
    global _known
    _known = 0.0, {}
