"""Rows of ``/meta`` as record batches, of which the chunks are read together."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from l2view.errors import L2ViewWarning, warn
from l2view.limits import limits
from l2view.meta.chunks import Chunks
from l2view.meta.footprints import mask_rows, nonfinite_rows, unreadable_rows
from l2view.meta.schema import ROW, Field, table_schema
from l2view.meta.zones import chunks_of
from l2view.text import join_names

WIDE = 2**31  # bytes of a column from which its offsets don't fit in 32 bits
TAKE_ROWS = 131_072  # the values of such a column to take at a time

type Selection = tuple[range, NDArray[np.int64] | None]
"""A run of rows, and the selected rows among them, ascending; None for all."""


@dataclass(frozen=True)
class RowReader:
    """Reads rows of fields."""

    chunks: Chunks
    fields: Mapping[str, Field]  # the fields by name, all of one length
    checked: bool = False  # whether footprints are parsed, and NULL where they can't be
    # Returns a field's values at some rows, None where they must be read.
    known: Callable[[str, NDArray[np.int64]], pa.Array | None] = lambda name, rows: None

    def schema(self, names: Sequence[str]) -> pa.Schema:
        """Select these columns from the table's schema."""
        schema = table_schema(tuple(self.fields[name] for name in names if name != ROW))
        return pa.schema([schema.field(name) for name in names])

    def read(
        self, selections: Sequence[Selection], names: Sequence[str], learn: Collection[str] = ()
    ) -> list[pa.RecordBatch]:
        """Read the columns `names` of each selection.

        The chunks of all of them are requested together. The zones of the fields called `learn`
        are remembered.
        """
        fields = [self.fields[name] for name in names if name != ROW]
        needed = [
            {
                field.name: chunks_of(field, run)
                if rows is None
                else np.unique(rows // field.chunk_length).tolist()
                for field in fields
                if rows is None or self.known(field.name, rows) is None
            }
            for run, rows in selections
        ]
        chunk_ids = dict.fromkeys(
            (name, number)
            for numbered in needed
            for name, numbers in numbered.items()
            for number in numbers
        )
        arrays = self.chunks.read([(self.fields[name], n) for name, n in chunk_ids], learn)
        loaded = dict(zip(chunk_ids, arrays, strict=True))
        schema = self.schema(names)
        batches = []
        for (run, rows), numbered in zip(selections, needed, strict=True):
            numbers = np.arange(run.start, run.stop, dtype=np.int64) if rows is None else rows
            if not names:  # a batch of no columns still has a length
                batches.append(pa.record_batch({ROW: pa.nulls(len(numbers))}).select([]))
                continue
            columns: dict[str, pa.Array] = {ROW: pa.array(numbers)}
            for field in fields:
                if field.name in numbered:
                    pieces = [
                        _piece(field, number, loaded[field.name, number], run, rows)
                        for number in numbered[field.name]
                    ]
                    column = pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
                else:
                    column = self.known(field.name, numbers)
                columns[field.name] = self._usable(column, field, numbers)
            arrays = [columns[name] for name in names]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        return batches

    def read_grouped(
        self, selections: Sequence[Selection], names: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the columns `names` of each selection, some selections read at a time."""
        most = self.runs_at_once(names)
        for group in growing_groups(selections, most, most):
            yield from self.read(group, names)

    def take(self, rows: NDArray[np.int64], runs: Iterable[range], names: Sequence[str]) -> Any:
        """Read rows of `runs` by their numbers, in the order given; return a `pyarrow.Table`."""
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        selections = selections_of(ascending, runs)
        table = pa.Table.from_batches(self.read_grouped(selections, names), self.schema(names))
        if np.array_equal(ascending, rows):
            return table
        positions = pc.inverse_permutation(pa.array(order))
        columns = [_take(column, positions) for column in table.columns]
        return pa.table(columns, schema=table.schema)

    def runs_at_once(self, names: Sequence[str]) -> int:
        """Count the runs to read together, so that a store gets many requests at once."""
        step = len(next(row_runs(self.fields), range(limits().run_rows)))
        fields = [self.fields[name] for name in names if name != ROW]
        chunks = sum(-(-step // field.chunk_length) for field in fields)
        return max(1, limits().chunks_at_once // max(chunks, 1))

    def _usable(self, column: pa.Array, field: Field, rows: NDArray[np.int64]) -> pa.Array:
        """Replace footprints that would stop SQL's functions by NULL."""
        if field.geometry is None:
            return column
        if self.checked:
            column = mask_rows(column, unreadable_rows(column))
        bad = nonfinite_rows(column, field)
        if len(bad):
            examples = join_names(map(str, rows[bad]), most=5)
            warn(
                f'the field "{field.name}" of idx {examples} has a coordinate that is NaN or '
                "infinite; such a footprint is NULL",
                L2ViewWarning,
            )
        return mask_rows(column, bad)


def row_runs(fields: Mapping[str, Field], begin: int = 0) -> Iterator[range]:
    """Yield the runs of rows from `begin` that a scan decides about at a time.

    They end where chunks of the field with the longest ones end.
    """
    length = next((field.length for field in fields.values()), 0)
    longest = max((field.chunk_length for field in fields.values()), default=limits().run_rows)
    step = -(-limits().run_rows // longest) * longest
    for start in range(begin // step * step, length, step):
        yield range(max(start, begin), min(start + step, length))


def selections_of(rows: NDArray[np.int64], runs: Iterable[range]) -> list[Selection]:
    """Split ascending rows by run; runs without any are left out."""
    selections: list[Selection] = []
    for run in runs:
        lower, upper = np.searchsorted(rows, (run.start, run.stop))
        if lower < upper:
            selections.append((run, rows[lower:upper]))
    return selections


def growing_groups[Item](items: Iterable[Item], most: int, initial: int) -> Iterator[list[Item]]:
    """Yield groups of items: `initial` of them, then ever more, at most `most`."""
    pending, size = iter(items), initial
    while group := list(islice(pending, size)):
        yield group
        size = min(2 * size, most)


def part_in_run(field: Field, number: int, values: Any, run: range) -> Any:
    """Slice a chunk's values, one a row, to a run of rows."""
    start = number * field.chunk_length
    return values[max(run.start - start, 0) : min(run.stop - start, field.chunk_length)]


def _piece(
    field: Field, number: int, chunk: pa.Array, run: range, rows: NDArray[np.int64] | None
) -> pa.Array:
    """Slice a chunk to a run of rows, or take some rows of it."""
    if rows is None:
        return part_in_run(field, number, chunk, run)
    start = number * field.chunk_length
    lower, upper = np.searchsorted(rows, (start, start + field.chunk_length))
    return chunk.take(pa.array(rows[lower:upper] - start))


def _take(column: pa.ChunkedArray, positions: pa.Array) -> pa.ChunkedArray:
    """Take values by way of wide offsets, where those of strings or bytes of 2 GiB need them."""
    wide = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}.get(column.type)
    if wide is None or column.nbytes < WIDE:
        return column.take(positions)
    joined = column.cast(wide).combine_chunks()
    blocks = (positions[start : start + TAKE_ROWS] for start in range(0, len(positions), TAKE_ROWS))
    return pa.chunked_array([joined.take(block).cast(column.type) for block in blocks], column.type)
