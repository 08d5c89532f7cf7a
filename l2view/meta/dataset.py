"""The fields of ``/meta`` as a `pyarrow.dataset.Dataset`.

DataFusion, DuckDB and Polars all scan such a dataset and hand it their projection and
filter. A scan goes through the rows in ranges of whole chunks; the fields of the filter
are read first, the others only where a row of the range passed.

NULL is SQL's: ``IN`` over a NULL is NULL, and so is its inversion, whichever engine asks.

Not good for what needs a dataset of Arrow's own C++ (`pyarrow.dataset.write_dataset`,
`Scanner.from_dataset`, `sort_by`, `join`): those fail with a file-not-found error that
says so. ``scanner().to_reader()`` or ``to_table()`` give them something to work on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from l2view.errors import FieldError, L2ViewWarning, listed, unknown, warn
from l2view.hierarchy import reads_sync
from l2view.meta.decode import decode
from l2view.meta.footprints import not_finite, unreadable, without
from l2view.meta.nulls import hollow, with_sql_nulls
from l2view.meta.schema import ROW, Field, table_schema

RANGE_ROWS = 65_536
"""The fewest rows that a scan reads at a time, where there are as many."""

BATCH_ROWS = 65_536
"""The most rows in a batch, unless a caller asks for another number."""
WIDE = 2**31
"""Bytes of a column from which its offsets don't fit in 32 bits."""


class MetaDataset(pads.FileSystemDataset):  # type: ignore[misc]
    """One row a granule: the row number ``idx`` and the fields.

    Parameters
    ----------
    store
        The Zarr store that holds the fields.
    fields
        The fields, all of one length.
    rows
        The number of rows. It is the fields' length, and is asked for where there are
        no fields.
    checked
        Whether footprints are parsed, and NULL where they can't be.
    condition
        What every row fulfils that is shown, None to show all.
    """

    def __init__(
        self,
        store: Store,
        fields: Sequence[Field],
        rows: int | None = None,
        *,
        checked: bool = False,
        condition: pc.Expression | None = None,
    ) -> None:
        self.store = store
        self.fields = {field.name: field for field in fields}
        self.rows = fields[0].length if fields else rows or 0
        self.checked = checked
        self.condition = condition
        self.failure: Exception | None = None
        """What stopped the last scan, for engines that report only its text."""
        self._schema = table_schema(tuple(fields))
        super().__init__(*hollow(self._schema))

    def __reduce__(self) -> tuple[Callable[..., MetaDataset], tuple[Any, ...]]:
        state = (self.store, tuple(self.fields.values()), self.rows, self.checked, self.condition)
        return _rebuild, state

    def __repr__(self) -> str:
        return (
            f"<MetaDataset {self.rows:,} rows>\n{self._schema.to_string(show_field_metadata=False)}"
        )

    @property
    def schema(self) -> pa.Schema:
        """The schema: ``idx``, then the fields by name."""
        return self._schema

    def with_checked_geometries(self) -> MetaDataset:
        """Return the same dataset with NULL for every footprint that isn't one."""
        fields = tuple(self.fields.values())
        return MetaDataset(self.store, fields, self.rows, checked=True, condition=self.condition)

    def scanner(
        self,
        columns: list[str] | dict[str, pc.Expression] | None = None,
        filter: pc.Expression | None = None,
        batch_size: int = BATCH_ROWS,
        **options: Any,
    ) -> pads.Scanner:
        """Return a scanner, as `pyarrow.dataset.Dataset.scanner` does."""
        return self._scanner(range(self.rows), columns, filter, batch_size)

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[MetaFragment]:
        """Yield the dataset's parts: runs of rows, about as many as there are processors.

        An engine that scans fragments side by side holds a range of each in memory.
        """
        ranges = list(self.ranges())
        share = -(-len(ranges) // (os.cpu_count() or 1)) or 1
        for first in range(0, len(ranges), share):
            part = ranges[first : first + share]
            yield MetaFragment(self, range(part[0].start, part[-1].stop))

    def filter(self, expression: pc.Expression) -> MetaDataset:
        """Return the rows that fulfil a condition; nothing is read until they are asked for."""
        if self.condition is not None:
            expression = self.condition & expression
        fields = tuple(self.fields.values())
        return MetaDataset(
            self.store, fields, self.rows, checked=self.checked, condition=expression
        )

    def count_rows(self, filter: pc.Expression | None = None, **options: Any) -> int:
        """Return the number of rows; without a filter nothing is read."""
        if filter is None and self.condition is None:
            return self.rows
        return int(self.scanner([ROW], filter).count_rows())

    def take(self, indices: Any, columns: list[str] | None = None, **options: Any) -> pa.Table:
        """Return rows by their numbers, in the order given.

        Parameters
        ----------
        indices
            Row numbers, int64, of shape (n,); of a dataset that is filtered, among the rows
            that are left.
        columns
            The columns to return, all by default.
        """
        names = self._schema.names if columns is None else list(columns)
        schema = pa.schema([self._schema.field(name) for name in names])
        wanted = np.asarray(indices, dtype=np.int64)
        if wanted.size == 0:
            return schema.empty_table()
        if self.condition is not None:
            left = self.scanner([ROW]).to_table().column(ROW).to_numpy()
        else:
            left = None
        count = self.rows if left is None else len(left)
        if wanted.min() < 0 or wanted.max() >= count:
            raise IndexError(f"row numbers go from 0 to {count - 1}")
        if left is not None:
            wanted = left[wanted]
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        parts = []
        for part in self.ranges():
            first, last = np.searchsorted(ascending, (part.start, part.stop))
            if first < last:
                found = pa.array(ascending[first:last] - part.start)
                parts.append(self.read(part, names).take(found))
        table = pa.Table.from_batches(parts, schema)
        if np.array_equal(ascending, wanted):
            return table
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        columns = [_taken(column, pa.array(position)) for column in table.columns]
        return pa.table(columns, schema=schema)

    def ranges(self) -> Iterator[range]:
        """Yield the runs of rows that a scan reads at a time.

        They end where the chunks of the field with the longest chunks end.
        """
        longest = max((field.chunk_length for field in self.fields.values()), default=RANGE_ROWS)
        step = -(-RANGE_ROWS // longest) * longest
        for start in range(0, self.rows, step):
            yield range(start, min(start + step, self.rows))

    def read(self, rows: range, names: Sequence[str]) -> pa.RecordBatch:
        """Read the columns `names` of consecutive `rows`."""
        fields = [self.fields[name] for name in names if name != ROW]
        chunks = _fetch(self.store, [key for f in fields for key in _chunk_keys(f, rows)])
        columns: dict[str, pa.Array] = {}
        for field in fields:
            length, parts = field.chunk_length, []
            for index in _chunk_range(field, rows):
                chunk = decode(field, chunks[field.chunk_key(index)])
                start = max(rows.start - index * length, 0)
                parts.append(chunk[start : min(rows.stop - index * length, length)])
            column = parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
            columns[field.name] = self._usable(column, field, rows)
        if ROW in names:
            columns[ROW] = pa.array(np.arange(rows.start, rows.stop, dtype=np.int64))
        if not names:  # a batch of no columns still has a length
            return pa.record_batch({ROW: pa.nulls(len(rows))}).select([])
        schema = pa.schema([self._schema.field(name) for name in names])
        return pa.RecordBatch.from_arrays([columns[name] for name in names], schema=schema)

    def _usable(self, column: pa.Array, field: Field, rows: range) -> pa.Array:
        """Return footprints with NULL for those that would stop the functions of SQL."""
        if field.geometry is None:
            return column
        if self.checked:
            column = without(column, unreadable(column))
        bad = not_finite(column, field)
        if len(bad):
            named = listed(map(str, bad + rows.start), most=5)
            warn(
                f'the field "{field.name}" of idx {named} has a coordinate that is NaN or '
                "infinite; such a footprint is NULL",
                L2ViewWarning,
            )
        return without(column, bad)

    def _scanner(
        self,
        rows: range,
        columns: list[str] | dict[str, pc.Expression] | None,
        condition: pc.Expression | None,
        batch_size: int | None,
    ) -> pads.Scanner:
        if self.condition is not None:
            condition = self.condition if condition is None else self.condition & condition
        if condition is not None:
            condition = with_sql_nulls(condition)
        first = self._used(condition)
        if columns is None:
            columns = self._schema.names
        if isinstance(columns, dict):
            wanted = sorted({name for column in columns.values() for name in self._used(column)})
        else:
            wanted = list(columns)
            for name in wanted:
                if name not in self._schema.names:
                    raise FieldError(unknown("field", name, self._schema.names))
        schema = pa.schema([self._schema.field(name) for name in wanted])
        batches = self._batches(rows, wanted, condition, first, batch_size or BATCH_ROWS)
        return pads.Scanner.from_batches(batches, schema=schema, columns=columns)

    def _batches(
        self,
        rows: range,
        columns: list[str],
        condition: pc.Expression | None,
        first: list[str],
        batch_size: int,
    ) -> Iterator[pa.RecordBatch]:
        for whole in self.ranges():
            part = range(max(whole.start, rows.start), min(whole.stop, rows.stop))
            if not part:
                continue
            try:
                if condition is None:
                    batch = self.read(part, columns)
                else:
                    batch = self._matches(part, columns, condition, first)
            except Exception as error:
                self.failure = error
                raise
            if batch is None:
                continue
            for offset in range(0, batch.num_rows, batch_size):
                yield batch.slice(offset, batch_size)

    def _matches(
        self, part: range, columns: list[str], condition: pc.Expression, first: list[str]
    ) -> pa.RecordBatch | None:
        """Return the rows of `part` that pass `condition`, whose fields are read `first`."""
        tested = self.read(part, [ROW, *(name for name in first if name != ROW)])
        found = pa.Table.from_batches([tested]).filter(condition).column(ROW).to_numpy()
        if len(found) == 0:
            return None
        positions = pa.array(found - part.start)
        rest = [name for name in columns if name not in tested.schema.names]
        table = tested.take(positions)
        if rest:
            others = self.read(part, rest).take(positions)
            for name in rest:
                table = table.append_column(self._schema.field(name), others.column(name))
        return table.select(columns)

    def _used(self, expression: pc.Expression | None) -> list[str]:
        """Return the columns that `expression` names.

        An expression doesn't tell, so it is bound to the schema without each in turn.
        """
        if expression is None:
            return []
        used = []
        for index, name in enumerate(self._schema.names):
            try:
                pads.Scanner.from_batches(
                    iter(()), schema=self._schema.remove(index), columns={"_": expression}
                )
            except pa.ArrowInvalid:
                used.append(name)
        return used


class MetaFragment:
    """A run of the rows of a `MetaDataset`."""

    def __init__(self, dataset: MetaDataset, rows: range) -> None:
        self.dataset = dataset
        self.rows = rows

    def __repr__(self) -> str:
        return f"<MetaFragment rows {self.rows.start:,} to {self.rows.stop:,}>"

    @property
    def physical_schema(self) -> pa.Schema:
        """The dataset's schema."""
        return self.dataset.schema

    def scanner(
        self,
        schema: pa.Schema | None = None,
        columns: list[str] | None = None,
        filter: pc.Expression | None = None,
        batch_size: int = BATCH_ROWS,
        **options: Any,
    ) -> pads.Scanner:
        """Return a scanner of these rows."""
        return self.dataset._scanner(self.rows, columns, filter, batch_size)


def _rebuild(
    store: Store,
    fields: Sequence[Field],
    rows: int,
    checked: bool,
    condition: pc.Expression | None,
) -> MetaDataset:
    return MetaDataset(store, fields, rows, checked=checked, condition=condition)


def _taken(column: pa.ChunkedArray, positions: pa.Array) -> pa.ChunkedArray:
    """Return the values at `positions`.

    Arrow joins a column's pieces for that, which fails where strings or bytes are more than
    2 GiB unless their offsets are wide.
    """
    wide = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}.get(column.type)
    if wide is None or column.nbytes < WIDE:
        return column.take(positions)
    whole = column.cast(wide).combine_chunks()
    blocks = (
        positions[start : start + BATCH_ROWS] for start in range(0, len(positions), BATCH_ROWS)
    )
    return pa.chunked_array([whole.take(block).cast(column.type) for block in blocks], column.type)


def _chunk_range(field: Field, rows: range) -> range:
    return range(rows.start // field.chunk_length, -(-rows.stop // field.chunk_length))


def _chunk_keys(field: Field, rows: range) -> list[str]:
    return [field.chunk_key(index) for index in _chunk_range(field, rows)]


def _fetch(store: Store, keys: Iterable[str]) -> dict[str, Any]:
    """Return the stored bytes by key, None where there is no such chunk."""
    keys = list(keys)
    prototype = default_buffer_prototype()
    if reads_sync(store):
        found = [store.get_sync(key, prototype=prototype) for key in keys]
    else:

        async def gather() -> list[Any]:
            return await asyncio.gather(*(store.get(key, prototype) for key in keys))

        found = sync(gather()) if keys else []
    return {
        key: None if buffer is None else buffer.as_numpy_array().tobytes()
        for key, buffer in zip(keys, found, strict=True)
    }
