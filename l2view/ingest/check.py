"""Whether a granule's arrays can be read from their references, and well."""

from __future__ import annotations

from collections.abc import Iterable

from l2view.granules.references import ArrayReferences
from l2view.text import join_names

MANY = 1_000
SMALL = 2**10
"""The mean bytes of so many chunks below which they are slow to read."""


def notes_on_chunks(arrays: Iterable[ArrayReferences]) -> list[str]:
    """Return notes on arrays whose chunks are slow to read."""
    slow = [
        array.path
        for array in arrays
        if (count := len(array.locations) - array.locations.count("")) > MANY
        and int(array.lengths.sum()) < SMALL * count
    ]
    if not slow:
        return []
    return [f"the chunks of {join_names(slow)} are many and small, which is slow to read"]
