"""The R-trees of a field of footprints: one of the first rows, others of rows that came later.

Beside each lie copies of its footprints in the order of its leaves, so that those that it finds
are read together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from l2view.index import rtree
from l2view.index.candidates import Candidates, most_of, rows_of
from l2view.index.rtree import Box
from l2view.meta.chunks import Chunks, side_by_side
from l2view.meta.footprints import are_rectangles, bounds
from l2view.meta.schema import Field


@dataclass(frozen=True)
class Tree:
    """The R-tree of some consecutive rows of a field of footprints.

    Attributes
    ----------
    field
        The footprints.
    bytes
        Its bytes as an array.
    layout
        Where its parts lie.
    rows
        The rows that it covers.
    copies
        The footprints in the order of its leaves, None where there is no copy.
    ours
        Whether l2view made it, whose boxes are never smaller than the footprints.
    covering
        The fields that hold west, south, east and north of each footprint, if any do.
    """

    field: Field
    bytes: Field
    layout: rtree.Layout
    rows: range
    copies: Field | None
    ours: bool
    covering: tuple[str, ...]

    def leaves(self, chunks: Chunks, boxes: Sequence[Box], most: int) -> rtree.Leaves | None:
        """Return what meets one of `boxes`, in the order of the rows; None for more than `most`."""

        def read(spans: Sequence[tuple[int, int]]) -> list[NDArray[np.uint8]]:
            return read_bytes(chunks, self.bytes, spans)

        wanted = boxes if self.ours else rtree.widened(boxes, self.layout.dtype)
        found = rtree.search(self.layout, read, wanted, most)
        if found is None:
            return None
        found = found[np.argsort(found.rows)]
        return found[found.rows < len(self.rows)]


@dataclass(frozen=True)
class Trees:
    """The R-trees of a field of footprints.

    Attributes
    ----------
    parts
        The trees, each of the rows after those of the one before.
    always
        Rows of which they know nothing, ascending, int64.
    """

    parts: tuple[Tree, ...]
    always: NDArray[np.int64]

    @property
    def covered(self) -> int:
        """The rows that they cover, from the first."""
        return self.parts[-1].rows.stop

    @cached_property
    def covering(self) -> tuple[str, ...]:
        """The fields that hold west, south, east and north of each footprint, if any do."""
        first, *others = {part.covering for part in self.parts}
        return () if others else first

    def candidates(
        self,
        chunks: Chunks,
        boxes: Sequence[Box],
        *,
        filled: bool = False,
        with_covering: bool = False,
    ) -> Candidates | None:
        """Return the rows whose footprints may meet one of `boxes`.

        None where they are too many for the index to be of use. Where the boxes are `filled`,
        those in them certainly do.
        """
        most = most_of(self.covered)
        found = side_by_side(lambda part: part.leaves(chunks, boxes, most), self.parts)
        pairs = list(zip(self.parts, found, strict=True))
        told = [None if leaves is None else part.rows.start + leaves.rows for part, leaves in pairs]
        rows = rows_of([part.rows for part in self.parts], told, most)
        if rows is None:
            return None
        sure = [
            np.zeros(len(part.rows), dtype=bool)
            if leaves is None
            else rtree.within(leaves.corners, boxes) & (filled and part.ours)
            for part, leaves in pairs
        ]
        columns: dict[str, pa.Array] = {}
        copied = [
            (part.copies, leaves.places)
            for part, leaves in pairs
            if part.copies is not None and leaves is not None
        ]
        if len(copied) == len(self.parts) and not len(self.always):
            copies = pa.concat_arrays(side_by_side(lambda one: _values_at(chunks, *one), copied))
            field = self.parts[0].field
            columns[field.name] = copies
            if with_covering:
                corners = bounds(copies, field) + 0.0  # which makes 0.0 of -0.0
                columns |= zip(self.covering, map(pa.array, corners.T), strict=True)
        said = (f"R-tree of {self.parts[0].field.name}",)
        every, known = np.concatenate(rows), np.concatenate(sure)
        if filled and columns:
            _meet(known, columns[self.parts[0].field.name], self.parts[0].field, boxes)
        certain = np.setdiff1d(every[known], self.always, assume_unique=True)
        every = np.union1d(every, self.always)
        return Candidates(every, self.covered, columns, pruned_by=said, certain=certain)


def _meet(
    known: NDArray[np.bool_], footprints: pa.Array, field: Field, boxes: Sequence[Box]
) -> None:
    """Add to those known to meet one of `boxes` the footprints that are rectangles and do."""
    others = np.flatnonzero(~known)
    left = footprints.take(pa.array(others))
    known[others] = are_rectangles(left, field) & rtree.meets(bounds(left, field), boxes)


def read_bytes(
    chunks: Chunks, array: Field, spans: Sequence[tuple[int, int]]
) -> list[NDArray[np.uint8]]:
    """Return the bytes between starts and stops of a uint8 array, its chunks read together."""
    size = array.chunk_length
    numbers = sorted({n for a, b in spans for n in range(a // size, -(-b // size))})
    read = chunks.read([(array, number) for number in numbers], scanned=False)
    parts = {n: np.asarray(part) for n, part in zip(numbers, read, strict=True)}
    found = []
    for start, stop in spans:
        inside = range(start // size, -(-stop // size))
        whole = parts[inside[0]]
        if len(inside) > 1:
            whole = np.concatenate([parts[number] for number in inside])
        first = inside[0] * size
        found.append(whole[start - first : stop - first])
    return found


def _values_at(chunks: Chunks, field: Field, places: NDArray[np.int64]) -> pa.Array:
    """Return a field's values at places in any order."""
    if not len(places):
        return pa.array([], field.type)
    order = np.argsort(places)
    ascending = places[order]
    numbers, firsts = np.unique(ascending // field.chunk_length, return_index=True)
    read = chunks.read([(field, number) for number in numbers.tolist()], scanned=False)
    inside = np.split(ascending % field.chunk_length, firsts[1:])
    parts = [chunk.take(pa.array(some)) for chunk, some in zip(read, inside, strict=True)]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return pa.concat_arrays(parts).take(pa.array(back))
