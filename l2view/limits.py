"""How much is read, written or held at a time: one value, which tests replace as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Sizes of what is read, written or held at a time."""

    run_rows: int = 65_536  # the fewest rows of ``/meta`` in a run, where there are as many
    chunks_at_once: int = 16  # the chunks of ``/meta`` to request together
    # The most objects to request on a condition: to list a folder costs as much as some ten.
    conditional_requests: int = 16
    field_chunk_rows: int = 65_536  # the rows in a chunk of a field that is written
    # The bytes in a chunk of an R-tree, of which a search reads a few.
    index_chunk_bytes: int = 2**18
    # The footprints in a chunk of their copies, and the most bytes that are sorted at once.
    copy_chunk_rows: int = 8_192
    copy_bytes: int = 2**29
    sorted_chunk_rows: int = 65_536  # the values in a chunk of a sorted index
    tree_node_boxes: int = 64  # the boxes in a node of an R-tree: few levels, and so few requests
    segment_rows: int = 65_536  # the rows that an index need not know: so many are quickly scanned
    scan_fraction: int = 8  # where an index leaves more than one in so many rows, a scan is as good
    cached_documents: int = 4096  # the documents of nodes that a hierarchy remembers
    cached_values: int = 2**22  # the most values of a coordinate that are kept in memory whole
    # The most cells that are read together, but for a chunk that has more.
    window_cells: int = 2**20
    view_chunk_rows: int = 65_536  # the most granules in a chunk of a view's fields
    checked_granules: int = 32  # the most granules that opening a view checks
    drawn_outlines: int = 20_000  # the most footprints that are drawn
    record_rows: int = 1_000  # the rows of a table of records that are read at a time
    # The most pixels of an image that are read at once; for more a window is halved repeatedly.
    image_pixels: int = 2**25
    # The most bytes of images on top of one another, of which a median or function is made.
    stack_bytes: int = 2**27


_limits = Limits()


def limits() -> Limits:
    """Return the limits that hold now, in all threads of the process."""
    return _limits


@contextmanager
def override_limits(**changes: Any) -> Iterator[None]:
    """Replace some limits while the context lasts."""
    global _limits
    before = _limits
    _limits = replace(before, **changes)
    try:
        yield
    finally:
        _limits = before
