"""The sorted index of a field: its values in order, each with its row.

Both lie in chunks, and beside them the first value of each chunk, the fences: a search reads the
fences and then no more than the chunks between two of them. Values that are NULL aren't in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from l2view.index import storage
from l2view.index.candidates import Candidates
from l2view.index.indexes import FENCES, Indexes
from l2view.index.segments import Matches, Segment, Segments, read_segments
from l2view.index.storage import Progress
from l2view.limits import limits
from l2view.meta.chunks import Chunks, side_by_side
from l2view.meta.schema import Field
from l2view.meta.zones import is_orderable
from l2view.stores.hierarchy import JSON, Hierarchy, join

MAX_EDGES = 32  # of more spans than these, the chunks at their ends count as others do


@dataclass(frozen=True)
class Span:
    """Values between two ends; or several values, which are then both of them."""

    # The ends, arrays of the field's type; None where it is open.
    low: pa.Array | None = None
    high: pa.Array | None = None
    # Whether an end is included.
    with_low: bool = True
    with_high: bool = True

    @classmethod
    def of_values(cls, values: pa.Array) -> Span:
        """Make the span of some values alone."""
        values = values.unique()
        return cls(values, values)


def _positions(
    ordered: pa.Array, spans: Sequence[Span]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First positions of values in all spans among ordered ones, and those after the last."""
    starts, stops = np.zeros(1, dtype=np.int64), np.full(1, len(ordered))
    for span in spans:
        if span.low is not None:
            low = pc.search_sorted(ordered, span.low, "left" if span.with_low else "right")
            starts = np.maximum.outer(starts, low.to_numpy().astype(np.int64)).ravel()
        if span.high is not None:
            high = pc.search_sorted(ordered, span.high, "right" if span.with_high else "left")
            stops = np.minimum.outer(stops, high.to_numpy().astype(np.int64)).ravel()
    return starts, stops


@dataclass(frozen=True)
class SortedIndex(Segment):
    """The sorted index of some consecutive rows of a field."""

    values: Field  # the field's values that aren't NULL, in order, as an array
    row_numbers: Field  # their rows as an array, int64
    fences: pa.Array  # the first value of each chunk of `values`

    def find(self, chunks: Chunks, spans: Sequence[Span], max_rows: int) -> Matches | None:
        """Find the rows whose values lie in all `spans`.

        None where they may be far more than `max_rows`.
        """
        starts, stops = _positions(self.fences, spans)
        # The chunk whose fence is the last below the low end may hold it too.
        starts = np.maximum(starts - 1, 0)
        changes = np.zeros(len(self.fences) + 1, dtype=np.int64)
        np.add.at(changes, starts, 1)
        np.add.at(changes, np.maximum(starts, stops), -1)
        numbers = np.flatnonzero(changes.cumsum()[:-1] > 0).tolist()
        # Of the chunks at both ends of a span, most may lie outside.
        edges = 2 * len(starts) if len(starts) <= MAX_EDGES else 0
        if (len(numbers) - edges) * self.values.chunk_length > max_rows:
            return None
        if not numbers:
            return Matches(np.empty(0, dtype=np.int64), pa.array([], self.field.type))
        pieces = chunks.read(
            [(array, number) for array in (self.values, self.row_numbers) for number in numbers],
            scanned=False,
        )
        counts = [self.values.rows_in_chunk(number) for number in numbers] * 2
        pieces = [chunk[:count] for chunk, count in zip(pieces, counts, strict=True)]
        values, rows = (
            half[0] if len(half) == 1 else pa.concat_arrays(half)
            for half in (pieces[: len(numbers)], pieces[len(numbers) :])
        )
        starts, stops = _positions(values, spans)
        lengths = np.maximum(stops - starts, 0)
        positions = np.repeat(stops - lengths.cumsum(), lengths) + np.arange(lengths.sum())
        matching_rows = rows.to_numpy()[positions]
        order = np.argsort(matching_rows)
        order = order[: np.searchsorted(matching_rows, self.rows.stop, sorter=order)]
        return Matches(matching_rows[order], values.take(pa.array(positions[order])))


class SortedIndexes(Segments[SortedIndex]):
    """The sorted indexes of a field."""

    def candidates(self, chunks: Chunks, spans: Sequence[Span]) -> Candidates | None:
        """Find the rows whose value may lie in all `spans`.

        None where they are too many for the index to be of use.
        """
        most = self.max_candidates
        matches = side_by_side(lambda index: index.find(chunks, spans, most), self.segments)
        return self.combine("sorted index", matches)


def can_be_sorted(field: Field) -> bool:
    """Tell whether a field can have a sorted index."""
    return is_orderable(field.type) and not pa.types.is_boolean(field.type)


def _path(field: Field, begin: int) -> str:
    """Path of the sorted index of the rows from `begin`."""
    return storage.segment_path(field, begin) if begin else join(storage.SORTED, field.name)


def _read_index(indexes: Indexes, field: Field, begin: int) -> tuple[SortedIndex, JSON] | None:
    """Read the sorted index of the rows from `begin`, and its metadata."""
    path = _path(field, begin)
    buffer = indexes.read(join(path, "fences/c/0"))
    if buffer is None:
        return None
    table, metadata = storage.read_fences(buffer)
    values = indexes.array(join(path, "values"), field.type)
    row_numbers = indexes.array(join(path, "rows"), pa.int64())
    fences = table.column("fences").combine_chunks()
    if values is None or row_numbers is None or fences.type != field.type:
        return None
    rows = range(begin, min(int(metadata["rows"]), field.length))
    return SortedIndex(field, rows, values, row_numbers, fences), metadata


read_sorted = partial(read_segments, "sorted index", SortedIndexes, _read_index, FENCES)
"""Reads the sorted indexes of a field, None where none is stored."""


def build_sorted(hierarchy: Hierarchy, field: Field, progress: Progress, begin: int = 0) -> None:
    """Write the sorted index of a field, of all rows from `begin`."""
    valid_chunks, row_chunks = [], [np.empty(0, dtype=np.int64)]
    for first_row, values in storage.chunk_values(Chunks(hierarchy.store), field, begin):
        is_valid = values.is_valid()
        valid_chunks.append(values.filter(is_valid))
        row_chunks.append(first_row + np.flatnonzero(is_valid))
        progress(len(values))
    column = pa.chunked_array(valid_chunks, field.type)
    order = pc.sort_indices(column)
    rows = np.concatenate(row_chunks)[order.to_numpy()]
    del row_chunks
    path, size = _path(field, begin), limits().sorted_chunk_rows
    storage.remove(hierarchy, path)
    blocks = [slice(start, start + size) for start in range(0, len(rows), size)]
    values = (column.take(order[block]).combine_chunks() for block in blocks)
    shape = (len(rows), size)
    storage.put_column(hierarchy, join(path, "values"), field.type, values, shape=shape)
    row_arrays = (pa.array(rows[block]) for block in blocks)
    storage.put_column(hierarchy, join(path, "rows"), pa.int64(), row_arrays, shape=shape)
    fences = pa.table({"fences": column.take(order[::size])})
    storage.put_fences(hierarchy, path, fences, {"rows": field.length, "always": []})
    storage.register_segment(
        hierarchy, join(storage.SORTED, field.name), range(begin, field.length)
    )
