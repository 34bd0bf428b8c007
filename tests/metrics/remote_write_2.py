"""A sender's side of remote write 2.0, written from the specification: what tests and benchmarks send."""

from collections.abc import Iterable, Mapping, Sequence

from tests.metrics.remote_write import chunk, packed, sample, varint

__all__ = ["Message", "packed"]


class Message:
    """An io.prometheus.write.v2.Request in the making."""

    def __init__(self) -> None:
        self.symbols: dict[str, int] = {"": 0}
        self.parts: list[bytes] = []

    def ref(self, text: str) -> int:
        return self.symbols.setdefault(text, len(self.symbols))

    def refs(self, labels: Mapping[str, str] | Sequence[tuple[str, str]]) -> bytes:
        pairs = labels.items() if isinstance(labels, Mapping) else labels
        return b"".join(varint(self.ref(text)) for pair in pairs for text in pair)

    def series(
        self,
        labels: Mapping[str, str] | Sequence[tuple[str, str]],
        samples: Iterable[tuple[int, float]],
        about: tuple[int, str, str] | None = None,
        more: bytes = b"",
    ) -> "Message":
        """Add a series; `about` is (type, help, unit), `more` stands between samples and metadata."""
        told = b""
        if about is not None:
            kind, text, unit = about
            told = chunk(5, b"\x08%b\x18%b\x20%b" % (varint(kind), varint(self.ref(text)), varint(self.ref(unit))))
        body = chunk(1, self.refs(labels)) + b"".join(sample(*one) for one in samples) + more + told
        self.parts.append(chunk(5, body))
        return self

    @property
    def body(self) -> bytes:
        return b"".join(chunk(4, symbol.encode()) for symbol in self.symbols) + b"".join(self.parts)
