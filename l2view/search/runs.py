"""Runs of rows: what a chunk has of them, and what is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from l2view.index.rtree import Box, meets
from l2view.meta.schema import ROW, Field
from l2view.meta.zones import Zones, chunks_of, guarantee

WIDE = 2**31
"""Bytes of a column from which its offsets don't fit in 32 bits."""

TAKEN = 131_072
"""The values of such a column that are taken at a time."""


def joined(runs: Sequence[range], tail: int) -> list[range]:
    """Return runs of rows with those before `tail` as one: nothing is read for them."""
    before = [run for run in runs if run.stop <= tail]
    rest = [run for run in runs if run.stop > tail]
    return [range(before[0].start, before[-1].stop), *rest] if before else rest


def grouped[One](parts: Sequence[One], most: int, first: int) -> Iterator[Sequence[One]]:
    """Yield parts that are read together: `first` of them, then ever more, at most `most`."""
    start, count = 0, first
    while start < len(parts):
        yield parts[start : start + count]
        start, count = start + count, min(2 * count, most)


def numbers(field: Field, part: range, rows: NDArray[np.int64] | None) -> list[int]:
    """Return the numbers of the chunks that hold a run of rows, or some rows of it."""
    if rows is None:
        return list(chunks_of(field, part))
    found: list[int] = np.unique(rows // field.chunk_length).tolist()
    return found


def piece(
    field: Field, number: int, chunk: pa.Array, part: range, rows: NDArray[np.int64] | None
) -> pa.Array:
    """Return what a chunk has of a run of rows, or of some rows of it."""
    start = number * field.chunk_length
    if rows is None:
        return chunk[max(part.start - start, 0) : min(part.stop - start, field.chunk_length)]
    first, last = np.searchsorted(rows, (start, start + field.chunk_length))
    return chunk.take(pa.array(rows[first:last] - start))


def cut(field: Field, number: int, values: NDArray[Any], part: range) -> NDArray[Any]:
    """Return what is known of each row of a chunk, of those that a run has."""
    start = number * field.chunk_length
    return values[max(part.start - start, 0) : min(part.stop - start, field.chunk_length)]


def reaches(zones: Zones, rows: range, near: Sequence[Sequence[Box]]) -> bool:
    """Return whether a footprint of `rows` may meet one rectangle of each of `near`."""
    zone = zones.zone(rows)
    corners = None if zone is None else np.array([zone.low])
    return corners is None or all(meets(corners, boxes)[0] for boxes in near)


def known_of(field: Field | None, zones: Zones | None, rows: range) -> pc.Expression | None:
    """Return what holds for all of `rows`, None where nothing is known."""
    if field is None:
        column = pc.field(ROW)
        return (column >= rows.start) & (column < rows.stop)
    zone = None if zones is None else zones.zone(rows)
    return None if zone is None else guarantee(field, zone)


def taken(column: pa.ChunkedArray, positions: pa.Array) -> pa.ChunkedArray:
    """Return the values at `positions`.

    Arrow joins a column's pieces for that, which fails where strings or bytes are more than
    2 GiB unless their offsets are wide.
    """
    wide = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}.get(column.type)
    if wide is None or column.nbytes < WIDE:
        return column.take(positions)
    whole = column.cast(wide).combine_chunks()
    blocks = (positions[start : start + TAKEN] for start in range(0, len(positions), TAKEN))
    return pa.chunked_array([whole.take(block).cast(column.type) for block in blocks], column.type)
