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

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import batched
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray
from zarr.abc.store import Store

from l2view.errors import L2ViewWarning, warn
from l2view.index.candidates import EVERY, Candidates
from l2view.index.indexes import Indexes
from l2view.index.rtree import meets
from l2view.meta.chunks import Chunks, Tally
from l2view.meta.footprints import not_finite, unreadable, without
from l2view.meta.schema import ROW, Field, table_schema
from l2view.meta.zones import Zones, chunks_of, prune, runs_of, zones_of
from l2view.scan.fragments import (
    BATCH_ROWS,
    Fragment,
    Scan,
    columns_of,
    columns_read,
    hollow,
    scan_of,
)
from l2view.scan.nulls import passing, with_sql_nulls
from l2view.search.runs import cut, grouped, joined, known_of, numbers, piece, reaches, taken
from l2view.text import join_names

RANGE_ROWS = 65_536
"""The fewest rows that a scan reads at a time, where there are as many."""

AT_ONCE = 16
"""The chunks that a scan asks a store for at once, where it is bound to ask for so many."""

RUNS_KEPT = 64
"""The sets of fields whose zone maps are kept as Arrow wants them."""


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
    snapshot
        The Icechunk snapshot that the store shows, None where its chunks may change.
    indexes
        The indexes that are stored beside the fields.
    checked
        Whether footprints are parsed, and NULL where they can't be.
    condition
        What every row fulfils that is shown, None to show all.
    candidates
        The rows that are looked at; whoever asks knows that no other is wanted.
    span
        The consecutive rows that are looked at, all by default.
    early
        Whether who reads may stop early, so that little is read at first.
    tally
        Where the cost of reading is counted.
    """

    def __init__(
        self,
        store: Store,
        fields: Sequence[Field],
        rows: int | None = None,
        *,
        snapshot: str | None = None,
        indexes: Indexes | None = None,
        checked: bool = False,
        condition: pc.Expression | None = None,
        candidates: Candidates = EVERY,
        span: range | None = None,
        early: bool = False,
        tally: Tally | None = None,
    ) -> None:
        self.store = store
        self.fields = {field.name: field for field in fields}
        self.rows = fields[0].length if fields else rows or 0
        self.snapshot = snapshot
        self.indexes = indexes
        self.checked = checked
        self.condition = condition
        self.candidates = candidates
        self.span = range(self.rows) if span is None else span
        self.early = early
        self.tally = Tally() if tally is None else tally
        self.failure: Exception | None = None
        """What stopped the last scan, for engines that report only its text."""
        self._schema = table_schema(tuple(fields))
        super().__init__(*hollow(self._schema))

    def _state(self) -> dict[str, Any]:
        return {
            "snapshot": self.snapshot,
            "indexes": self.indexes,
            "checked": self.checked,
            "condition": self.condition,
            "candidates": self.candidates,
            "span": self.span,
            "early": self.early,
            "tally": self.tally,
        }

    def _but(self, **changes: Any) -> MetaDataset:
        """Return the same dataset but for `changes`."""
        fields = tuple(self.fields.values())
        return MetaDataset(self.store, fields, self.rows, **(self._state() | changes))

    def __reduce__(self) -> tuple[Callable[..., MetaDataset], tuple[Any, ...]]:
        state = self._state() | {"tally": None}  # what was counted stays here
        return _rebuild, (self.store, tuple(self.fields.values()), self.rows, state)

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
        return self._but(checked=True)

    def refresh(self) -> None:
        """Forget what indexes said, where they may be others by now."""
        if self.indexes is not None:
            self.indexes.refresh()

    def among(self, candidates: Candidates) -> MetaDataset:
        """Return the same dataset, of which only some rows are looked at."""
        return self._but(candidates=candidates)

    def restrict(self, candidates: Candidates, span: range | None = None) -> None:
        """Look at some rows only, in queries that are planned already, too."""
        self.candidates = candidates
        self.span = self.span if span is None else span

    def is_ruled_out(self) -> bool:
        """Return whether no row is looked at, and count that where it is so."""
        inside = self.candidates.within(self.span)
        if inside is None or len(inside):
            return False
        runs = len(list(self.ranges()))
        self.tally.rule_out(runs, {" and ".join(self.candidates.said): runs})
        return True

    def spans(self) -> Iterator[range]:
        """Yield consecutive rows, few at first and ever more, for who may stop early."""
        start = 0
        step = len(next(self.ranges(), range(1)))
        while start < self.rows:
            yield range(start, min(start + step, self.rows))
            start, step = start + step, 2 * step

    def counting(self, tally: Tally) -> MetaDataset:
        """Return the same dataset, the cost of which is counted elsewhere."""
        return self._but(tally=tally)

    def scanner(
        self,
        columns: list[str] | dict[str, pc.Expression] | None = None,
        filter: pc.Expression | None = None,
        batch_size: int = BATCH_ROWS,
        **options: Any,
    ) -> Scan:
        """Return a scan, as `pyarrow.dataset.Dataset.scanner` does."""
        return self.scan(None, columns, filter, batch_size)

    def get_fragments(self, filter: pc.Expression | None = None) -> Iterator[Fragment]:
        """Yield the dataset's parts: runs of rows, about as many as there are processors.

        An engine that scans fragments side by side holds a few runs of each in memory.
        """
        runs = self._promising(list(self.ranges()), self._whole(filter))
        share = len(runs) if self.early else -(-len(runs) // (os.cpu_count() or 1))
        # There is always one: DataFusion can't sort what has no parts.
        for first in range(0, len(runs) or 1, share or 1):
            yield Fragment(self, tuple(runs[first : first + share]))

    def filter(self, expression: pc.Expression) -> MetaDataset:
        """Return the rows that fulfil a condition; nothing is read until they are asked for."""
        return self._but(condition=self._whole(expression))

    def count_rows(self, filter: pc.Expression | None = None, **options: Any) -> int:
        """Return the number of rows; without a filter nothing is read."""
        if filter is None and self.condition is None and self.candidates.everything:
            return len(self.span)
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
        left = None
        if self.condition is not None or self.span != range(self.rows):
            left = self.scanner([ROW]).to_table().column(ROW).to_numpy()
        count = self.rows if left is None else len(left)
        if wanted.min() < 0 or wanted.max() >= count:
            raise IndexError(f"row numbers go from 0 to {count - 1}")
        if left is not None:
            wanted = left[wanted]
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        found, parts = [], list(self.ranges())
        if {*names} <= {ROW, *self.candidates.columns}:
            parts = joined(parts, self.candidates.tail)
        for part in parts:
            first, last = np.searchsorted(ascending, (part.start, part.stop))
            if first < last:
                found.append((part, ascending[first:last]))
        chunks = Chunks(self.store, self.snapshot, self.tally)
        batches = [
            batch
            for some in batched(found, self._together(names))
            for batch in self._read(chunks, some, names)
        ]
        table = pa.Table.from_batches(batches, schema)
        if np.array_equal(ascending, wanted):
            return table
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        columns = [taken(column, pa.array(position)) for column in table.columns]
        return pa.table(columns, schema=schema)

    def ranges(self) -> Iterator[range]:
        """Yield the runs of rows that a scan decides about at a time.

        They end where the chunks of the field with the longest chunks end.
        """
        longest = max((field.chunk_length for field in self.fields.values()), default=RANGE_ROWS)
        step = -(-RANGE_ROWS // longest) * longest
        for start in range(self.span.start // step * step, self.span.stop, step):
            yield range(max(start, self.span.start), min(start + step, self.span.stop))

    def read(self, rows: range, names: Sequence[str]) -> pa.RecordBatch:
        """Read the columns `names` of consecutive `rows`."""
        chunks = Chunks(self.store, self.snapshot, self.tally)
        return self._read(chunks, [(rows, None)], names)[0]

    def zones(self, name: str, chunks: Chunks | None = None) -> Zones | None:
        """Return the zone map of a field, None where nothing is known of it.

        It is the one that is stored, or what was seen when chunks of the field were read.
        """
        field = self.fields[name]
        stored = self._stored(name)
        if stored is not None and stored.rows >= self.rows:
            return stored
        chunks = chunks or Chunks(self.store, self.snapshot, self.tally)
        numbers = chunks_of(field, range(self.rows))
        seen = chunks.zones([(field, number) for number in numbers])
        if not any(seen):
            return stored
        if stored is not None:
            for number in range(stored.rows // field.chunk_length):
                rows = range(number * field.chunk_length, (number + 1) * field.chunk_length)
                seen[number] = seen[number] or stored.zone(rows)
        return zones_of(field, seen, self.rows)

    def _stored(self, name: str) -> Zones | None:
        return None if self.indexes is None else self.indexes.zones(self.fields[name])

    def _read(
        self,
        chunks: Chunks,
        parts: Sequence[tuple[range, NDArray[np.int64] | None]],
        names: Sequence[str],
        learn: Collection[str] = (),
    ) -> list[pa.RecordBatch]:
        """Read the columns `names` of runs of rows: of some rows of each, or of all.

        The chunks of all of them are asked for together. The zones of the fields called `learn`
        are remembered.
        """
        schema = pa.schema([self._schema.field(name) for name in names])
        fields = [self.fields[name] for name in names if name != ROW]
        wanted: dict[tuple[str, int], int] = {}
        asked: list[tuple[Field, int]] = []
        needed: list[dict[str, list[int]]] = []
        for part, rows in parts:
            needed.append({})
            for field in fields:
                if rows is not None and self.candidates.values(field.name, rows) is not None:
                    continue
                held = needed[-1][field.name] = numbers(field, part, rows)
                for number in held:
                    if (field.name, number) not in wanted:
                        wanted[field.name, number] = len(asked)
                        asked.append((field, number))
        arrays = chunks.read(asked, learn)
        batches = []
        for (part, rows), numbered in zip(parts, needed, strict=True):
            count = len(part) if rows is None else len(rows)
            whole = np.arange(part.start, part.stop, dtype=np.int64) if rows is None else rows
            columns: dict[str, pa.Array] = {ROW: pa.array(whole)}
            for field in fields:
                if field.name in numbered:
                    pieces = [
                        piece(field, number, arrays[wanted[field.name, number]], part, rows)
                        for number in numbered[field.name]
                    ]
                    column = pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
                else:
                    column = self.candidates.values(field.name, whole)
                columns[field.name] = self._usable(column, field, whole)
            if names:
                found = [columns[name] for name in names]
                batches.append(pa.RecordBatch.from_arrays(found, schema=schema))
            else:  # a batch of no columns still has a length
                batches.append(pa.record_batch({ROW: pa.nulls(count)}).select([]))
        return batches

    def _usable(self, column: pa.Array, field: Field, rows: NDArray[np.int64]) -> pa.Array:
        """Return footprints with NULL for those that would stop the functions of SQL."""
        if field.geometry is None:
            return column
        if self.checked:
            column = without(column, unreadable(column))
        bad = not_finite(column, field)
        if len(bad):
            named = join_names(map(str, rows[bad]), most=5)
            warn(
                f'the field "{field.name}" of idx {named} has a coordinate that is NaN or '
                "infinite; such a footprint is NULL",
                L2ViewWarning,
            )
        return without(column, bad)

    def _whole(self, condition: pc.Expression | None) -> pc.Expression | None:
        """Return a condition and the dataset's own as one."""
        if isinstance(condition, pa.Scalar):  # as DataFusion hands on what is always the same
            condition = pc.scalar(condition)
        if self.condition is None or condition is None:
            return self.condition if condition is None else condition
        return self.condition & condition

    def scan(
        self,
        runs: Sequence[range] | None,
        columns: list[str] | dict[str, pc.Expression] | None,
        condition: pc.Expression | None,
        batch_size: int | None,
    ) -> Scan:
        """Return a scan of runs of rows, of all rows where there are none."""
        condition = self._whole(condition)
        wanted = columns_read(columns, self._schema)
        columns = wanted if columns is None else columns
        schema = pa.schema([self._schema.field(name) for name in wanted])
        batches = self._batches(runs, wanted, condition, batch_size or BATCH_ROWS)
        return scan_of(schema, columns, batches)

    def _promising(self, runs: Sequence[range], condition: pc.Expression | None) -> list[range]:
        """Return the runs of rows in which a candidate may fulfil `condition`."""
        began = time.perf_counter()
        chunks = Chunks(self.store, self.snapshot, self.tally)
        known: Sequence[int] = range(len(runs))
        near = self.candidates.near
        by: dict[str, int] = {}
        for name in near:
            zones = self.zones(name, chunks)
            if zones is not None:
                left = [n for n in known if reaches(zones, runs[n], near[name])]
                by[f"zone map of {name}"] = len(known) - len(left)
                known = left
        kept = list(known)
        used = columns_of(condition, self._schema)
        if used and kept:
            may = prune(condition, self._known(runs, used, chunks))
            kept = [number for number in kept if number in may]
            by[f"zone maps of {', '.join(used)}"] = len(known) - len(kept)
        found = []
        for number in kept:
            inside = self.candidates.within(runs[number])
            if inside is None or len(inside):
                found.append(runs[number])
        if self.candidates.tail:
            by[" and ".join(self.candidates.said)] = len(kept) - len(found)
        self.tally.rule_out(len(runs), by)
        self.tally.add("prune", began)
        return found

    def _known(self, runs: Sequence[range], names: Sequence[str], chunks: Chunks) -> pads.Dataset:
        """Return what is known of runs of rows, by the zone maps of some fields."""
        stored = {name: self._stored(name) for name in names if name != ROW}
        whole = all(zones is not None and zones.rows >= self.rows for zones in stored.values())
        key = (runs[0].start, runs[-1].stop, len(runs), *names)
        kept = self.indexes.runs.get(key) if whole and self.indexes is not None else None
        if kept is not None:
            return kept
        known: dict[int, pc.Expression | None] = dict.fromkeys(range(len(runs)))
        for name in names:
            zones = None if name == ROW else self.zones(name, chunks)
            for number, run in enumerate(runs):
                said = known_of(self.fields.get(name), zones, run)
                other = known[number]
                if said is not None:
                    known[number] = said if other is None else other & said
        made = runs_of(self._schema, known)
        if whole and self.indexes is not None:
            if len(self.indexes.runs) >= RUNS_KEPT:
                self.indexes.runs.clear()
            self.indexes.runs[key] = made
        return made

    def _together(self, names: Sequence[str]) -> int:
        """Return how many runs to read together, so that a store is asked for much at once."""
        step = len(next(iter(self.ranges()), range(RANGE_ROWS)))
        fields = [self.fields[name] for name in names if name != ROW]
        chunks = sum(-(-step // field.chunk_length) for field in fields)
        return max(1, AT_ONCE // max(chunks, 1))

    def _batches(
        self,
        runs: Sequence[range] | None,
        columns: list[str],
        condition: pc.Expression | None,
        batch_size: int,
    ) -> Iterator[pa.RecordBatch]:
        try:
            if runs is None:
                self.refresh()
                runs = self._promising(list(self.ranges()), condition)
            chunks = Chunks(self.store, self.snapshot, self.tally)
            first = columns_of(condition, self._schema)
            test = None if condition is None else with_sql_nulls(condition)
            if {*first, *columns} <= {ROW, *self.candidates.columns}:
                runs = joined(runs, self.candidates.tail)
            most = self._together(first or columns)
            for some in grouped(runs, most, 1 if self.early else most):
                parts = [(part, self.candidates.within(part)) for part in some]
                parts = self._meeting(chunks, parts)
                if test is None:
                    batches = self._read(chunks, parts, columns)
                else:
                    batches = self._matches(chunks, parts, columns, test, first)
                for batch in batches:
                    for offset in range(0, batch.num_rows, batch_size):
                        yield batch.slice(offset, batch_size)
        except Exception as error:
            self.failure = error
            raise

    def _meeting(
        self, chunks: Chunks, parts: list[tuple[range, NDArray[np.int64] | None]]
    ) -> list[tuple[range, NDArray[np.int64] | None]]:
        """Return the runs and candidates whose footprints meet the rectangles asked for."""
        for name, near in self.candidates.near.items():
            field, found = self.fields[name], []
            # Where an index told the candidates, it did so by their rectangles.
            open_ends = [part for part in parts if part[1] is None]
            wanted = [(field, n) for part, _ in open_ends for n in chunks_of(field, part)]
            corners = dict(zip([n for _, n in wanted], chunks.bounds(wanted), strict=True))
            for part, rows in parts:
                if rows is None:
                    inside = np.concatenate(
                        [cut(field, n, corners[n], part) for n in chunks_of(field, part)]
                    )
                    hit = np.ones(len(inside), dtype=bool)
                    for boxes in near:
                        hit &= meets(inside, boxes)
                    rows = part.start + np.flatnonzero(hit)
                found.append((part, rows))
            parts = [(part, rows) for part, rows in found if rows is None or len(rows)]
        return parts

    def _matches(
        self,
        chunks: Chunks,
        parts: Sequence[tuple[range, NDArray[np.int64] | None]],
        columns: list[str],
        condition: pc.Expression,
        first: list[str],
    ) -> list[pa.RecordBatch]:
        """Return the rows of `parts` that pass `condition`, whose fields are read `first`."""
        if not parts:
            return []
        names = [ROW, *(name for name in first if name != ROW)]
        learn = [name for name in first if name != ROW and self._stored(name) is None]
        tested = pa.Table.from_batches(self._read(chunks, parts, names, learn))
        began = time.perf_counter()
        table = tested.filter(passing(tested, condition))
        self.tally.add("filter", began)
        if table.num_rows == 0:
            return []
        found = table.column(ROW).to_numpy()
        rest = [name for name in columns if name not in names]
        if rest:
            kept = []
            for part, _ in parts:
                start, stop = np.searchsorted(found, (part.start, part.stop))
                if start < stop:
                    kept.append((part, found[start:stop]))
            together = self._together(rest)
            others = pa.Table.from_batches(
                [
                    batch
                    for some in batched(kept, together)
                    for batch in self._read(chunks, some, rest)
                ]
            )
            for name in rest:
                table = table.append_column(self._schema.field(name), others.column(name))
        batches: list[pa.RecordBatch] = table.select(columns).to_batches()
        return batches


def _rebuild(
    store: Store, fields: Sequence[Field], rows: int, state: Mapping[str, Any]
) -> MetaDataset:
    return MetaDataset(store, fields, rows, **state)
