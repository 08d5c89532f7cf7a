"""The sorted index of a field: its values in order, each with its row.

Both lie in chunks, and beside them the first value of each chunk, the fences: a search reads the
fences and then no more than the chunks between two of them. Values that are NULL aren't in it.
One is of the first rows, others of rows that came later.
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

from l2view.index.candidates import Candidates, most_of, rows_of
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

FEW = 32
"""The spans that are looked up one by one."""


@dataclass(frozen=True)
class Span:
    """Values between two ends.

    Attributes
    ----------
    low, high
        The ends, Arrow scalars of the field's type; None where it is open.
    with_low, with_high
        Whether an end is one of the values.
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
    covered
        The rows that it covers.
    """

    field: Field
    values: Field
    rows: Field
    fences: pa.Array
    covered: range

    def find(
        self, chunks: Chunks, spans: Sequence[Span], most: int
    ) -> tuple[NDArray[np.int64], pa.Array] | None:
        """Return the rows whose values lie in one of `spans`, and those values.

        None where they may be more than `most`. Spans don't overlap.
        """
        length, total = self.values.chunk_length, self.values.length
        if len(spans) > FEW:
            singles = [span.low for span in spans]
            if any(span.low is None or span.high != span.low for span in spans):
                return None
            return self._any_of(chunks, pa.array(singles, self.field.type), most)
        reaches: list[tuple[Span, int, int]] = []
        for span in spans:
            # The chunk whose fence is the last below the low end may hold it too.
            first = 0 if span.low is None else max(_bisect(self.fences, span.low, False) - 1, 0)
            stop = len(self.fences)
            if span.high is not None:
                stop = _bisect(self.fences, span.high, span.with_high)
            if first < stop:
                reaches.append((span, first, stop))
        # Of the chunks at both ends, most may lie outside.
        inside = sum(max(stop - first - 2, 0) * length for _, first, stop in reaches)
        if inside > most:
            return None
        numbers = sorted({n for _, first, stop in reaches for n in range(first, stop)})
        wanted = [(array, number) for array in (self.values, self.rows) for number in numbers]
        read = chunks.read(wanted, scanned=False)
        count = len(numbers)
        values = dict(zip(numbers, read[:count], strict=True))
        rows = dict(zip(numbers, read[count:], strict=True))
        parts: list[tuple[pa.Array, pa.Array]] = []
        for span, first, stop in reaches:
            for number in range(first, stop):
                some = values[number][: min(length, total - number * length)]
                low = 0 if span.low is None else _bisect(some, span.low, not span.with_low)
                high = len(some)
                if span.high is not None:
                    high = _bisect(some, span.high, span.with_high)
                if low < high:
                    parts.append((some[low:high], rows[number][low:high]))
        if not parts:
            return np.empty(0, dtype=np.int64), pa.array([], self.field.type)
        found = np.asarray(pa.concat_arrays([part for _, part in parts]))
        if len(found) > most:
            return None
        order = np.argsort(found)
        return found[order], pa.concat_arrays([part for part, _ in parts]).take(pa.array(order))

    def _any_of(
        self, chunks: Chunks, wanted: pa.Array, most: int
    ) -> tuple[NDArray[np.int64], pa.Array] | None:
        """Return the rows whose values are among many, and those values."""
        length, total = self.values.chunk_length, self.values.length
        # A value that begins a chunk may end the one before, too.
        sought = wanted.to_numpy(zero_copy_only=False)
        fences = self.fences.to_numpy(zero_copy_only=False)
        first = np.maximum(np.searchsorted(fences, sought, side="left") - 1, 0)
        stop = np.searchsorted(fences, sought, side="right")
        numbers = [
            number for number in range(len(fences)) if ((first <= number) & (number < stop)).any()
        ]
        if len(numbers) * length > most:
            return None
        wanted_chunks = [(array, n) for array in (self.values, self.rows) for n in numbers]
        read = chunks.read(wanted_chunks, scanned=False)
        if not numbers:
            return np.empty(0, dtype=np.int64), pa.array([], self.field.type)
        ends = [min(length, total - number * length) for number in numbers]
        values, rows = (
            pa.concat_arrays([part[:end] for part, end in zip(half, ends, strict=True)])
            for half in (read[: len(numbers)], read[len(numbers) :])
        )
        hit = pc.is_in(values, wanted)
        found = np.asarray(rows.filter(hit))
        order = np.argsort(found)
        return found[order], values.filter(hit).take(pa.array(order))


@dataclass(frozen=True)
class SortedIndexes:
    """The sorted indexes of a field.

    Attributes
    ----------
    parts
        The indexes, each of the rows after those of the one before.
    unindexed
        Rows of which they know nothing, ascending, int64.
    """

    parts: tuple[SortedIndex, ...]
    unindexed: NDArray[np.int64]

    @property
    def covered(self) -> int:
        """The rows that they cover, from the first."""
        return self.parts[-1].covered.stop

    def candidates(self, chunks: Chunks, spans: Sequence[Span]) -> Candidates | None:
        """Return the rows whose value may lie in one of `spans`.

        None where they are too many for the index to be of use. Spans don't overlap.
        """
        field, most = self.parts[0].field, most_of(self.covered)
        found = side_by_side(lambda part: part.find(chunks, spans, most), self.parts)
        inside = [
            None if some is None else (some[0] < part.covered.stop)
            for part, some in zip(self.parts, found, strict=True)
        ]
        told = [
            None if some is None else some[0][held]
            for some, held in zip(found, inside, strict=True)
        ]
        rows = rows_of([part.covered for part in self.parts], told, most)
        if rows is None:
            return None
        columns = {}
        values = [
            some[1].filter(pa.array(held))
            for some, held in zip(found, inside, strict=True)
            if some is not None
        ]
        if len(values) == len(self.parts) and not len(self.unindexed):
            columns[field.name] = pa.concat_arrays(values)
        every = np.union1d(np.concatenate(rows), self.unindexed)
        said = (f"sorted index of {field.name}",)
        return Candidates(every, self.covered, columns, pruned_by=said)


def _bisect(ordered: pa.Array, value: pa.Scalar, after: bool) -> int:
    """Return where `value` would stand among ordered values: before those equal to it, or after.

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


def spans_of(values: Sequence[Any]) -> list[Span]:
    """Return the spans of single values."""
    return [Span(value, value) for value in values]


def read_sorted(files: IndexFiles, field: Field) -> SortedIndexes | None:
    """Read the sorted indexes of a field, None where none is stored."""
    first = _read_index(files, field, join(SORTED, field.name), 0)
    if first is None:
        return None
    index, metadata = first
    places = {rows: segment_path(field, rows.start) for rows in segments(metadata)}
    files.fetch([join(path, name) for path in places.values() for name in FENCES])
    indexes = [index]
    for rows, path in places.items():
        segment = _read_index(files, field, path, rows.start)
        is_complete = segment is not None and segment[0].covered.stop >= rows.stop
        if segment is None or not is_complete or rows.start != indexes[-1].covered.stop:
            break  # what isn't covered is scanned
        indexes.append(replace(segment[0], covered=rows))
    return SortedIndexes(tuple(indexes), unindexed_rows(metadata))


def _read_index(
    files: IndexFiles, field: Field, path: str, first: int
) -> tuple[SortedIndex, JSON] | None:
    """Read the sorted index of the rows from `first`, and what it says of itself."""
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
    covered = range(first, min(int(metadata["rows"]), field.length))
    return SortedIndex(field, values, rows, fences, covered), metadata


def can_be_sorted(field: Field) -> bool:
    """Return whether a field can have a sorted index."""
    return is_orderable(field.type) and not pa.types.is_boolean(field.type)


def build_sorted(
    hierarchy: Hierarchy, field: Field, progress: Progress = ignore_progress, begin: int = 0
) -> list[int]:
    """Write the sorted index of a field, of all rows from `begin`: see `build_tree`."""
    chunks = Chunks(hierarchy.store)
    parts, numbers = [], []
    for first, values in chunk_values(chunks, field, begin):
        some = values.is_valid()
        parts.append(values.filter(some))
        numbers.append(first + np.flatnonzero(some.to_numpy(zero_copy_only=False)))
        progress(len(values))
    texts = pa.types.is_string(field.type)
    kind = pa.large_string() if texts else field.type
    whole = pa.chunked_array(parts, field.type).cast(kind).combine_chunks()
    rows = np.concatenate(numbers) if numbers else np.empty(0, dtype=np.int64)
    del parts, numbers
    order = pc.array_sort_indices(whole)
    rows = rows[order.to_numpy()]
    path = segment_path(field, begin) if begin else join(SORTED, field.name)
    put_groups(hierarchy, join(path, "values"))
    remove(hierarchy, path)
    put_values(hierarchy.store, {f"{hierarchy.key(path)}/zarr.json": to_json_bytes(GROUP)})
    group = zarr.open_group(hierarchy.store, path=hierarchy.key(path), mode="a")
    dtype: Any = "string" if texts else field.type.to_pandas_dtype()
    if pa.types.is_temporal(field.type):
        dtype = np.dtype(f"{'M' if pa.types.is_timestamp(field.type) else 'm'}8[{field.type.unit}]")
    fences, chunk_rows = [], limits().sorted_chunk_rows
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        chunk = (chunk_rows,)
        values = group.create_array("values", shape=(len(rows),), chunks=chunk, dtype=dtype)
        places = group.create_array("rows", shape=(len(rows),), chunks=chunk, dtype="int64")
        for start in range(0, len(rows), chunk_rows):
            part = whole.take(order[start : start + chunk_rows])
            fences.append(part[:1].cast(field.type))
            said = part.to_numpy(zero_copy_only=False)
            stop = start + len(part)
            values[start:stop] = said.astype(np.dtypes.StringDType()) if texts else said
            places[start:stop] = rows[start:stop]
    known: JSON = {"rows": field.length, "always": []}
    put_fences(hierarchy, path, pa.chunked_array(fences, field.type), known)
    if not begin:
        remove(hierarchy, join(SEGMENTS, field.name))
    return []
