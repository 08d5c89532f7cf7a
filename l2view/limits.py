"""How much is read, written or held at a time: one value, which tests replace as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Sizes of what is read, written or held at a time.

    Attributes
    ----------
    run_rows
        The fewest rows of ``/meta`` in a run, where there are as many.
    chunks_at_once
        The chunks of ``/meta`` to request together.
    conditional_requests
        The most objects that are requested on a condition; to list a folder costs as much as
        some ten.
    field_chunk_rows
        The rows in a chunk of a field that is written.
    index_chunk_bytes
        The bytes in a chunk of an R-tree, of which a search reads a few.
    copy_chunk_rows, copy_bytes
        The footprints in a chunk of their copies, and the most bytes that are sorted at once.
    sorted_chunk_rows
        The values in a chunk of a sorted index.
    tree_node_boxes
        The boxes in a node of an R-tree: few levels, and so few requests.
    segment_rows
        The rows that an index need not know: so many are quickly scanned.
    scan_fraction
        Where an index leaves more than one in so many rows, a scan is as good.
    cached_documents
        The documents of nodes that a hierarchy remembers.
    cached_values
        The most values of a coordinate that are kept in memory whole.
    window_cells
        The most cells that are read together, but for a chunk that has more.
    view_chunk_rows
        The most granules in a chunk of a view's fields.
    checked_granules
        The most granules that opening a view checks.
    drawn_outlines
        The most footprints that are drawn.
    record_rows
        The rows of a table of records that are read at a time.
    image_pixels
        The most pixels of an image that are read at once; for more a window is halved again and
        again.
    stack_bytes
        The most bytes of images on top of one another, of which a median or function is made.
    """

    run_rows: int = 65_536
    chunks_at_once: int = 16
    conditional_requests: int = 16
    field_chunk_rows: int = 65_536
    index_chunk_bytes: int = 2**18
    copy_chunk_rows: int = 8_192
    copy_bytes: int = 2**29
    sorted_chunk_rows: int = 65_536
    tree_node_boxes: int = 64
    segment_rows: int = 65_536
    scan_fraction: int = 8
    cached_documents: int = 4096
    cached_values: int = 2**22
    window_cells: int = 2**20
    view_chunk_rows: int = 65_536
    checked_granules: int = 32
    drawn_outlines: int = 20_000
    record_rows: int = 1_000
    image_pixels: int = 2**25
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
