"""Names for the array types of the engine, so that signatures say what flows through them."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ids: TypeAlias = NDArray[np.int32]
"""Interned strings; 0 means absent."""
Index: TypeAlias = NDArray[np.int64]
"""Row or sample numbers."""
Times: TypeAlias = NDArray[np.int64]
"""Milliseconds since 1970."""
Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]
Hashes: TypeAlias = NDArray[np.uint64]
