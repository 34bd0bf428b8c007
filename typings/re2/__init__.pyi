"""The part of google-re2 that the query engine uses."""

class error(Exception): ...  # noqa: N801 - its name there

class Options:
    max_mem: int
    log_errors: bool
    dot_nl: bool
    never_nl: bool
    case_sensitive: bool

class _Match:
    def group(self, group: int | str = ...) -> str | None: ...
    def groups(self) -> tuple[str | None, ...]: ...
    def start(self, group: int | str = ...) -> int: ...
    def end(self, group: int | str = ...) -> int: ...

class _Regexp:
    groups: int
    groupindex: dict[str, int]
    def fullmatch(self, text: str) -> _Match | None: ...
    def match(self, text: str) -> _Match | None: ...
    def search(self, text: str) -> _Match | None: ...

def compile(pattern: str, options: Options | None = ...) -> _Regexp: ...  # noqa: A001 - its name there
