"""Where a log-in came from, as coarse as it may be kept: a network instead of an address, a kind of device. Pure."""

import ipaddress
import re
from typing import Final

PREFIXES: Final = {4: 24, 6: 48}
"""Bits of an address that are kept: about a site, not a person."""

_SYSTEMS: Final = (
    ("iPhone|iPad", "iOS"), ("Android", "Android"), ("Windows", "Windows"), ("Mac OS X|Macintosh", "macOS"),
    ("CrOS", "ChromeOS"), ("Linux|X11", "Linux"),
)  # fmt: skip
_BROWSERS: Final = (
    ("Edg/|EdgA/", "Edge"), ("OPR/|Opera", "Opera"), ("Firefox/|FxiOS/", "Firefox"),
    ("Chrome/|CriOS/|Chromium/", "Chrome"), ("Safari/", "Safari"), ("curl/", "curl"), ("python", "Python"),
)  # fmt: skip


def network_of(address: str) -> str:
    """The network of an address: 192.0.2.0/24, 2001:db8::/48; the empty string where it is none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(ipaddress.ip_network((found, PREFIXES[found.version]), strict=False))


def device_of(user_agent: str) -> str:
    """What kind of device a browser says it is: "Firefox on Linux"; without a version, so that an update is not new."""
    text = user_agent[:500]
    browser = next((name for pattern, name in _BROWSERS if re.search(pattern, text)), "unknown")
    system = next((name for pattern, name in _SYSTEMS if re.search(pattern, text)), "")
    return f"{browser} on {system}" if system else browser
