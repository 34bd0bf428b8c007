"""What a browser would send back of a form, read from its HTML."""

from html.parser import HTMLParser


class _Form(HTMLParser):
    """Collects the fields of the form with one id."""

    def __init__(self, ident: str) -> None:
        super().__init__()
        self.ident = ident
        self.values: dict[str, list[str]] = {}
        self.inside = False
        self.select: str | None = None
        self.area: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name, value = given.get("name"), given.get("value") or ""
        if tag == "form":
            self.inside = given.get("id") == self.ident
        if not self.inside:
            return
        if tag == "option" and self.select and "selected" in given:
            self.values.setdefault(self.select, []).append(value)
        if not name or "disabled" in given:
            return
        if tag == "select":
            self.select = name
        elif tag == "textarea":
            self.area = name
            self.values[name] = [""]
        elif tag == "input":
            kind = given.get("type") or "text"
            if kind in ("submit", "button", "file") or (kind in ("checkbox", "radio") and "checked" not in given):
                return
            self.values.setdefault(name, []).append(value or ("on" if kind == "checkbox" else ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self.inside = False
        elif tag == "select":
            self.select = None
        elif tag == "textarea":
            self.area = None

    def handle_data(self, data: str) -> None:
        if self.area:
            self.values[self.area][0] += data


def form_of(html: str, ident: str) -> dict[str, list[str]]:
    """Return the fields that the form with that id would send, unchanged."""
    form = _Form(ident)
    form.feed(html)
    return {name: [value.removeprefix("\n") for value in values] for name, values in form.values.items()}
