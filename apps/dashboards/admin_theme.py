"""How the admin looks: title, colours, a side bar by room. The settings read it, so it imports nothing of Django."""

from typing import Any

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Monitoring Portal",
    "SITE_HEADER": "Monitoring Portal",
    "SITE_SUBHEADER": "Administration",
    "SITE_URL": "/monitoring/",
    "SITE_SYMBOL": "monitor_heart",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "apps.dashboards.admin_index.favicon"}],
    "STYLES": ["apps.dashboards.admin_index.first_style"],
    "SCRIPTS": ["apps.dashboards.admin_index.first_script"],
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "SHOW_BACK_BUTTON": True,
    "DASHBOARD_CALLBACK": "apps.dashboards.admin_index.dashboard",
    "SIDEBAR": {
        "show_search": True,
        "command_search": False,
        "show_all_applications": False,
        "navigation": "apps.dashboards.admin_index.navigation",
    },
    # The accent of the portal's own pages (static/portal/palette.css), from its lightest to its darkest shade.
    "COLORS": {
        "primary": {
            "50": "oklch(97% .015 270)",
            "100": "oklch(94% .03 270)",
            "200": "oklch(89% .055 270)",
            "300": "oklch(82% .09 270)",
            "400": "oklch(73% .13 270)",
            "500": "oklch(60% .18 268)",
            "600": "oklch(50% .2 267)",
            "700": "oklch(44% .19 267)",
            "800": "oklch(38% .16 268)",
            "900": "oklch(33% .13 268)",
            "950": "oklch(24% .09 268)",
        },
    },
}
