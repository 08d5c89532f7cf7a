"""The sorted index of a field: its values in order, each with its row.

Both lie in chunks, and beside them the first value of each chunk, the fences: a search reads the
fences and then no more than the chunks between two of them. Values that are NULL aren't in it.
One covers the first rows, others later segments.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import zarr
from numpy.typing import NDArray

from l2view.index.candidates import Candidates, candidate_rows, max_candidates
from l2view.index.files import FENCES, IndexFiles
from l2view.index.storage import (
    GROUP,
    SEGMENTS,
    SORTED,
    Progress,
    chunk_values,
    ignore_progress,
    put_fences,
    put_groups,
    read_fences,
    remove,
    segment_path,
    segments,
    to_json_bytes,
    unindexed_rows,
)
from l2view.limits import limits
from l2view.meta.chunks import Chunks, side_by_side
from l2view.meta.schema import Field
from l2view.meta.zones import is_orderable
from l2view.stores.hierarchy import JSON, OWN, Hierarchy, join, put_values

MAX_BISECTED_SPANS = 32
"""The most spans that are looked up by bisection, one after another."""


@dataclass(frozen=True)
class Span:
    """Values between two ends.

    Attributes
    ----------
    low, high
        The ends, Arrow scalars of the field's type; None where it is open.
    with_low, with_high
        Whether an end is included.
    """

    low: pa.Scalar | None = None
    high: pa.Scalar | None = None
    with_low: bool = True
    with_high: bool = True


@dataclass(frozen=True)
class SortedIndex:
    """The sorted index of some consecutive rows of a field.

    Attributes
    ----------
    field
        The field.
    values
        Its values that aren't NULL, in order, as an array.
    rows
        Their rows as an array, int64.
    fences
        The first value of each chunk of `values`.
    row_range
        The rows that it covers.
    """

    field: Field
    values: Field
    rows: Field
    fences: pa.Array
    row_range: range

    def find(
        self, chunks: Chunks, spans: Sequence[Span], max_rows: int
    ) -> tuple[NDArray[np.int64], pa.Array] | None:
        """Find the rows whose values lie in one of `spans`, and those values.

        None where they may be more than `max_rows`. Spans don't overlap.
        """
        length, total = self.values.chunk_length, self.values.length
        if len(spans) > MAX_BISECTED_SPANS:
            points = [span.low for span in spans]
            if any(span.low is None or span.high != span.low for span in spans):
                return None
            return self._find_any(chunks, pa.array(points, self.field.type), max_rows)
        chunk_ranges: list[tuple[Span, int, int]] = []
        for span in spans:
            # The chunk whose fence is the last below the low end may hold it too.
            start = 0 if span.low is None else max(_bisect(self.fences, span.low, False) - 1, 0)
            stop = len(self.fences)
            if span.high is not None:
                stop = _bisect(self.fences, span.high, span.with_high)
            if start < stop:
                chunk_ranges.append((span, start, stop))
        # Of the chunks at both ends, most may lie outside.
        interior_rows = sum(max(stop - start - 2, 0) * length for _, start, stop in chunk_ranges)
        if interior_rows > max_rows:
            return None
        numbers = sorted(
            {number for _, start, stop in chunk_ranges for number in range(start, stop)}
        )
        keys = [(array, number) for array in (self.values, self.rows) for number in numbers]
        arrays = chunks.read(keys, scanned=False)
        count = len(numbers)
        values = dict(zip(numbers, arrays[:count], strict=True))
        rows = dict(zip(numbers, arrays[count:], strict=True))
        matches: list[tuple[pa.Array, pa.Array]] = []
        for span, start, stop in chunk_ranges:
            for number in range(start, stop):
                chunk = values[number][: min(length, total - number * length)]
                low = 0 if span.low is None else _bisect(chunk, span.low, not span.with_low)
                high = len(chunk)
                if span.high is not None:
                    high = _bisect(chunk, span.high, span.with_high)
                if low < high:
                    matches.append((chunk[low:high], rows[number][low:high]))
        if not matches:
            return np.empty(0, dtype=np.int64), pa.array([], self.field.type)
        matching_rows = np.asarray(pa.concat_arrays([match for _, match in matches]))
        if len(matching_rows) > max_rows:
            return None
        order = np.argsort(matching_rows)
        matching_values = pa.concat_arrays([match for match, _ in matches])
        return matching_rows[order], matching_values.take(pa.array(order))

    def _find_any(
        self, chunks: Chunks, targets: pa.Array, max_rows: int
    ) -> tuple[NDArray[np.int64], pa.Array] | None:
        """Find the rows whose values are among `targets`, and those values."""
        length, total = self.values.chunk_length, self.values.length
        # A value that begins a chunk may end the one before, too.
        target_values = targets.to_numpy(zero_copy_only=False)
        fences = self.fences.to_numpy(zero_copy_only=False)
        starts = np.maximum(np.searchsorted(fences, target_values, side="left") - 1, 0)
        stops = np.searchsorted(fences, target_values, side="right")
        numbers = [
            number for number in range(len(fences)) if ((starts <= number) & (number < stops)).any()
        ]
        if len(numbers) * length > max_rows:
            return None
        keys = [(array, number) for array in (self.values, self.rows) for number in numbers]
        arrays = chunks.read(keys, scanned=False)
        if not numbers:
            return np.empty(0, dtype=np.int64), pa.array([], self.field.type)
        counts = [min(length, total - number * length) for number in numbers]
        values, rows = (
            pa.concat_arrays([chunk[:count] for chunk, count in zip(half, counts, strict=True)])
            for half in (arrays[: len(numbers)], arrays[len(numbers) :])
        )
        is_match = pc.is_in(values, targets)
        matching_rows = np.asarray(rows.filter(is_match))
        order = np.argsort(matching_rows)
        return matching_rows[order], values.filter(is_match).take(pa.array(order))


@dataclass(frozen=True)
class SortedIndexes:
    """The sorted indexes of a field.

    Attributes
    ----------
    segments
        The indexes, each of the rows after those of its predecessor.
    unindexed
        Rows that they don't index, ascending, int64.
    """

    segments: tuple[SortedIndex, ...]
    unindexed: NDArray[np.int64]

    @property
    def tail(self) -> int:
        """The first row that no index covers."""
        return self.segments[-1].row_range.stop

    def candidates(self, chunks: Chunks, spans: Sequence[Span]) -> Candidates | None:
        """Find the rows whose value may lie in one of `spans`.

        None where they are too many for the index to be of use. Spans don't overlap.
        """
        field, max_rows = self.segments[0].field, max_candidates(self.tail)

        def find(index: SortedIndex) -> tuple[NDArray[np.int64], pa.Array] | None:
            match = index.find(chunks, spans, max_rows)
            if match is None:
                return None
            is_covered = match[0] < index.row_range.stop
            return match[0][is_covered], match[1].filter(pa.array(is_covered))

        matches = side_by_side(find, self.segments)
        row_sets = candidate_rows(
            [index.row_range for index in self.segments],
            [None if match is None else match[0] for match in matches],
            max_rows,
        )
        if row_sets is None:
            return None
        columns = {}
        values = [match[1] for match in matches if match is not None]
        if len(values) == len(self.segments) and not len(self.unindexed):
            columns[field.name] = pa.concat_arrays(values)
        rows = np.union1d(np.concatenate(row_sets), self.unindexed)
        pruned_by = (f"sorted index of {field.name}",)
        return Candidates(rows, self.tail, columns, pruned_by=pruned_by)


def _bisect(ordered: pa.Array, value: pa.Scalar, after: bool) -> int:
    """Find the position of `value` among ordered values: before those equal to it, or after.

    Bisection, by Arrow's own comparison: of texts by their bytes.
    """
    compare = pc.less_equal if after else pc.less
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        if compare(ordered[middle], value).as_py():
            low = middle + 1
        else:
            high = middle
    return low


def point_spans(values: Sequence[Any]) -> list[Span]:
    """Make a span of each value."""
    return [Span(value, value) for value in values]


def read_sorted(files: IndexFiles, field: Field) -> SortedIndexes | None:
    """Read the sorted indexes of a field, None where none is stored."""
    base = _read_index(files, field, join(SORTED, field.name), 0)
    if base is None:
        return None
    index, metadata = base
    paths = {rows: segment_path(field, rows.start) for rows in segments(metadata)}
    files.fetch([join(path, name) for path in paths.values() for name in FENCES])
    indexes = [index]
    for rows, path in paths.items():
        segment = _read_index(files, field, path, rows.start)
        is_complete = segment is not None and segment[0].row_range.stop >= rows.stop
        if segment is None or not is_complete or rows.start != indexes[-1].row_range.stop:
            break  # what isn't covered is scanned
        indexes.append(replace(segment[0], row_range=rows))
    return SortedIndexes(tuple(indexes), unindexed_rows(metadata))


def _read_index(
    files: IndexFiles, field: Field, path: str, first_row: int
) -> tuple[SortedIndex, JSON] | None:
    """Read the sorted index of the rows from `first_row`, and its metadata."""
    buffer = files.read(join(path, "fences/c/0"))
    if buffer is None:
        return None
    table = read_fences(buffer)
    metadata: JSON = json.loads(table.schema.metadata[OWN.encode()])
    values = files.array(join(path, "values"), field.type)
    rows = files.array(join(path, "rows"), pa.int64())
    fences = table.column("fences").combine_chunks()
    if values is None or rows is None or fences.type != field.type:
        return None
    row_range = range(first_row, min(int(metadata["rows"]), field.length))
    return SortedIndex(field, values, rows, fences, row_range), metadata


def can_be_sorted(field: Field) -> bool:
    """Tell whether a field can have a sorted index."""
    return is_orderable(field.type) and not pa.types.is_boolean(field.type)


def build_sorted(
    hierarchy: Hierarchy, field: Field, progress: Progress = ignore_progress, begin: int = 0
) -> list[int]:
    """Write the sorted index of a field, of all rows from `begin`: see `build_tree`."""
    chunks = Chunks(hierarchy.store)
    valid_chunks, row_chunks = [], []
    for first_row, values in chunk_values(chunks, field, begin):
        is_valid = values.is_valid()
        valid_chunks.append(values.filter(is_valid))
        row_chunks.append(first_row + np.flatnonzero(is_valid.to_numpy(zero_copy_only=False)))
        progress(len(values))
    is_text = pa.types.is_string(field.type)
    arrow_type = pa.large_string() if is_text else field.type
    column = pa.chunked_array(valid_chunks, field.type).cast(arrow_type).combine_chunks()
    rows = np.concatenate(row_chunks) if row_chunks else np.empty(0, dtype=np.int64)
    del valid_chunks, row_chunks
    order = pc.array_sort_indices(column)
    rows = rows[order.to_numpy()]
    path = segment_path(field, begin) if begin else join(SORTED, field.name)
    put_groups(hierarchy, join(path, "values"))
    remove(hierarchy, path)
    put_values(hierarchy.store, {f"{hierarchy.key(path)}/zarr.json": to_json_bytes(GROUP)})
    group = zarr.open_group(hierarchy.store, path=hierarchy.key(path), mode="a")
    dtype: Any = "string" if is_text else field.type.to_pandas_dtype()
    if pa.types.is_temporal(field.type):
        dtype = np.dtype(f"{'M' if pa.types.is_timestamp(field.type) else 'm'}8[{field.type.unit}]")
    fences, chunk_rows = [], limits().sorted_chunk_rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        shape, chunk_shape = (len(rows),), (chunk_rows,)
        value_array = group.create_array("values", shape=shape, chunks=chunk_shape, dtype=dtype)
        row_array = group.create_array("rows", shape=shape, chunks=chunk_shape, dtype="int64")
        for start in range(0, len(rows), chunk_rows):
            chunk = column.take(order[start : start + chunk_rows])
            fences.append(chunk[:1].cast(field.type))
            chunk_array = chunk.to_numpy(zero_copy_only=False)
            stop = start + len(chunk)
            if is_text:
                chunk_array = chunk_array.astype(np.dtypes.StringDType())
            value_array[start:stop] = chunk_array
            row_array[start:stop] = rows[start:stop]
    metadata: JSON = {"rows": field.length, "always": []}
    put_fences(hierarchy, path, pa.chunked_array(fences, field.type), metadata)
    if not begin:
        remove(hierarchy, join(SEGMENTS, field.name))
    return []
