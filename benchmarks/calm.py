"""No collection of garbage while the clock runs: this process is no part of what is measured.

A measure's own process holds a hundred thousand objects, the requests it has made among them. One
look at all of them took 50 ms, three times what the SELECT of 10,000 rows takes, and came now in
the measure, now in the baseline.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def calm() -> Iterator[None]:
    """Collect first, then not until the end of the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
