"""Open file descriptors of the whole machine against their maximum, from /proc/sys/fs/file-nr."""

from collections.abc import Iterator

from apps.core.telemetry import Reading
from apps.metrics.collectors import PROC, Collector, read


class FileDescriptors(Collector):
    """Two gauges."""

    kind = "filefd"
    label = "File descriptors"
    platforms = ("linux",)

    def collect(self) -> Iterator[Reading]:
        return parse(read(PROC / "sys/fs/file-nr"))


def parse(text: str) -> Iterator[Reading]:
    """Allocated, unused and maximum (beyond float64's whole numbers on today's kernels).

    >>> [r.value for r in parse("1024\\t0\\t65536")]
    [1024.0, 65536.0]
    """
    allocated, _, maximum = text.split()
    yield Reading("node_filefd_allocated", float(allocated), help="File descriptors in use.")
    yield Reading("node_filefd_maximum", float(maximum), help="File descriptors that the kernel allows.")
