"""The admin loads 18 kB of symbols in place of 290: each one that it names has to be among them."""

import re
from pathlib import Path

import unfold
from django.conf import settings

from apps.dashboards import admin_index


def test_each_symbol_that_the_admin_names_is_in_the_font_that_it_loads():
    folder = settings.ROOT / "static/unfold/fonts/material-symbols"
    known = set((folder / "icons.txt").read_text().split())
    templates = Path(unfold.__file__).parent / "templates"
    symbol = re.compile(r'material-symbols-outlined[^>]*>\s*([a-z][a-z0-9_]+)|icon="([a-z][a-z0-9_]+)"')
    text = "".join(path.read_text() for path in templates.rglob("*.html"))
    named = {one or other for one, other in symbol.findall(text)} | set(admin_index.ICONS.values())
    assert named - known == set()
    assert (folder / "Material-Symbols-Outlined.woff2").stat().st_size < 40_000
