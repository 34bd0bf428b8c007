"""What makes an alert the same alert: a fingerprint over labels. Pure."""

import hashlib
from collections.abc import Mapping
from typing import Final

NAME: Final = "__name__"


def fingerprint(labels: Mapping[str, str]) -> bytes:
    """16 bytes of blake2b over the sorted labels; the metric's name and empty values do not count, as in Prometheus."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(labels):
        if name != NAME and labels[name]:
            # 0xff stands in no UTF-8 text, so no two label sets have the same bytes.
            digest.update(name.encode(errors="surrogatepass") + b"\xff")
            digest.update(labels[name].encode(errors="surrogatepass") + b"\xff")
    return digest.digest()
