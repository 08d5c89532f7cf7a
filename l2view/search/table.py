"""The table ``meta``: one row a granule, the row number ``idx`` and the fields.

A scan goes through the rows in runs of whole chunks. It leaves out the runs in which, by zone
maps and indexes, no row can pass; the fields of the filter are read first, the others only where
a row of the run passed.
"""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from numpy.typing import NDArray
from zarr.abc.store import Store

from l2view.errors import UnreadableGeometryError
from l2view.index.candidates import EVERY, Candidates
from l2view.index.indexes import Indexes
from l2view.index.rtree import Box, boxes_meet
from l2view.meta.chunks import Chunks, Tally
from l2view.meta.footprints import unreadable_rows
from l2view.meta.reader import (
    RowReader,
    Selection,
    growing_groups,
    part_in_run,
    row_runs,
    selections_of,
)
from l2view.meta.schema import ROW, Field, table_schema
from l2view.meta.zones import Zones, chunks_of, guarantee, prune, runs_of, zones_of
from l2view.scan.dataset import Partition
from l2view.scan.filter import Condition, passing

MAX_CACHED_RUNS = 64  # the sets of fields whose zone maps are kept as Arrow wants them


@dataclass(frozen=True, eq=False)
class MetaTable:
    """The rows of ``/meta``, of which a scan looks at some."""

    # The Zarr store, and its fields by name, all of one length.
    store: Store
    fields: Mapping[str, Field]
    # The Icechunk snapshot that the store shows, None where its chunks may change.
    snapshot: str | None = None
    indexes: Indexes | None = None  # the indexes that are stored beside the fields
    checked: bool = False  # whether footprints are parsed, and NULL where they can't be
    candidates: Candidates = EVERY  # the rows to look at; no other can be in the answer
    # Where the cost of reading is counted. A pickle counts anew.
    tally: Tally = field(default_factory=Tally)

    def __str__(self) -> str:
        return f"meta, {self.rows:,} rows"

    @property
    def rows(self) -> int:
        """The number of rows."""
        return next((field.length for field in self.fields.values()), 0)

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema: ``idx``, then the fields."""
        return table_schema(tuple(self.fields.values()))

    def refresh(self) -> None:
        """Forget what indexes said, where they may be others by now."""
        if self.indexes is not None:
            self.indexes.refresh()

    def with_candidates(self, candidates: Candidates) -> MetaTable:
        """Return the same table, of which only some rows are looked at."""
        return replace(self, candidates=candidates)

    def runs(self) -> Iterator[range]:
        """Yield the runs of rows that a scan decides about at a time."""
        return row_runs(self.fields)

    def chunks(self) -> Chunks:
        """Return the chunks of the store, which a scan reads."""
        return Chunks(self.store, self.snapshot, self.tally)

    def count(self) -> int | None:
        """Return the number of rows, None where that takes reading."""
        return self.rows if self.candidates.everything else None

    def take(self, rows: NDArray[np.int64], names: Sequence[str]) -> pa.Table:
        """Read columns of rows by their numbers, in the order given.

        An `IndexError` is raised where there is no such row.
        """
        if rows.size and (rows.min() < 0 or rows.max() >= self.rows):
            raise IndexError(f"row numbers go from 0 to {self.rows - 1}")
        runs = list(self.runs())
        if self._is_known(names):
            runs = _merge_runs(runs, self.candidates.tail)
        return self._reader(self.chunks()).take(rows, runs, names)

    def require_geometries(self) -> None:
        """Raise where footprints aren't what their field says.

        An `UnreadableGeometryError` names the field and the first of the rows.
        """
        reader = self._reader(self.chunks())
        for name, stored in self.fields.items():
            for run in self.runs() if stored.geometry is not None else ():
                column = reader.read([(run, None)], [name])[0].column(0)
                bad = unreadable_rows(column)
                if len(bad):
                    value = column[int(bad[0])].as_py()
                    text = value.hex() if isinstance(value, bytes) else value
                    raise UnreadableGeometryError(
                        f'the field "{name}" of idx {run.start + bad[0]} is not '
                        f"{stored.geometry}: {text[:60]}"
                    )

    def partitions(
        self, condition: Condition | None, *, early: bool = False, several: bool = False
    ) -> list[Partition]:
        """Return the partitions to read: about as many as there are processors if `several`.

        An engine that scans partitions side by side holds a few runs of each in memory. Where the
        reader may stop `early` there is one, of which little is read at first.
        """
        self.refresh()
        runs = list(self.runs())
        if early or not several:
            return [partial(self._scan, runs, early=early)]
        runs = self._prune_runs(runs, condition, self.chunks())
        share = -(-len(runs) // (os.cpu_count() or 1)) or 1
        starts = range(0, len(runs) or 1, share)
        return [partial(self._scan, runs[at : at + share], is_pruned=True) for at in starts]

    def zones(self, name: str, chunks: Chunks) -> Zones | None:
        """Return the zone map of a field, None where nothing is known of it.

        It is the one that is stored, or made of the zones of chunks that were read before.
        """
        field = self.fields[name]
        stored = self._stored_zones(name)
        if stored is not None and stored.rows >= self.rows:
            return stored
        numbers = chunks_of(field, range(self.rows))
        zones = chunks.zones([(field, number) for number in numbers])
        if not any(zones):
            return stored
        if stored is not None:
            for number in range(stored.rows // field.chunk_length):
                rows = range(number * field.chunk_length, (number + 1) * field.chunk_length)
                zones[number] = zones[number] or stored.zone(rows)
        return zones_of(field, zones, self.rows)

    def _prune_runs(
        self, runs: Sequence[range], condition: Condition | None, chunks: Chunks
    ) -> list[range]:
        """Return the runs in which a candidate may fulfil `condition`, and count the others."""
        start_time = time.perf_counter()
        remaining, pruned = list(runs), dict[str, int]()

        def keep(is_possible: Callable[[range], bool], index: str) -> None:
            nonlocal remaining
            count, remaining = len(remaining), [run for run in remaining if is_possible(run)]
            pruned[index] = count - len(remaining)

        for name, tests in self.candidates.bbox_tests.items():
            zones = self.zones(name, chunks)
            if zones is not None:
                keep(partial(_may_meet, zones, tests), f"zone map of {name}")
        names = self._columns_of(condition)
        if condition is not None and names and remaining:
            possible = prune(condition.expression, self._guarantees(runs, names, chunks))
            possible_runs = {runs[number] for number in possible}
            keep(possible_runs.__contains__, f"zone maps of {', '.join(names)}")
        if self.candidates.tail:
            within = self.candidates.within
            keep(
                lambda run: (rows := within(run)) is None or len(rows) > 0,
                " and ".join(self.candidates.pruned_by),
            )
        self.tally.rule_out(len(runs), pruned)
        self.tally.add("prune", start_time)
        return remaining

    def _scan(
        self,
        runs: Sequence[range],
        columns: Sequence[str],
        condition: Condition | None,
        *,
        early: bool = False,
        is_pruned: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows of runs that fulfil a condition (see `l2view.scan.dataset.Partition`).

        Of runs that are pruned, those in which no row can are left out already.
        """
        chunks = self.chunks()
        reader = self._reader(chunks)
        tested = self._columns_of(condition)
        remaining: Iterable[range] = runs
        if not is_pruned:
            blocks = growing_groups(runs, len(runs), 1) if early else iter([list(runs)])
            remaining = (r for block in blocks for r in self._prune_runs(block, condition, chunks))
        if not early and self._is_known([*tested, *columns]):
            remaining = _merge_runs(list(remaining), self.candidates.tail)
        run_limit = reader.runs_at_once(tested or columns)
        for group in growing_groups(remaining, run_limit, 1 if early else run_limit):
            selections = [(run, self.candidates.within(run)) for run in group]
            selections = self._pass_bbox_tests(chunks, selections)
            if condition is None:
                yield from reader.read(selections, columns)
            elif selections:
                yield from self._matches(reader, selections, columns, condition, tested)

    def _reader(self, chunks: Chunks) -> RowReader:
        return RowReader(chunks, self.fields, self.checked, self.candidates.values)

    def _columns_of(self, condition: Condition | None) -> list[str]:
        """Return the columns of a condition in the schema's order."""
        names = frozenset[str]() if condition is None else condition.columns
        return [name for name in self.schema.names if name in names]

    def _is_known(self, names: Iterable[str]) -> bool:
        """Tell if an index holds these columns of all candidates that it covers."""
        return {*names} <= {ROW, *self.candidates.columns}

    def null_count(self, name: str) -> int | None:
        """Return how many rows lack a field by its zone map, None where that doesn't tell."""
        zones = self._stored_zones(name)
        zone = None if zones is None else zones.zone(range(self.rows))
        return None if zone is None else zone.nulls

    def _stored_zones(self, name: str) -> Zones | None:
        return None if self.indexes is None else self.indexes.zones(self.fields[name])

    def _guarantees(
        self, runs: Sequence[range], names: Sequence[str], chunks: Chunks
    ) -> pads.Dataset:
        """Combine the zone maps of fields to what holds for each run."""
        fields = [self.fields[name] for name in names if name != ROW]
        stored = [self._stored_zones(field.name) for field in fields]
        is_fixed = all(zones is not None and zones.rows >= self.rows for zones in stored)
        cache = self.indexes.runs if is_fixed and self.indexes is not None else {}
        key = (runs[0].start, runs[-1].stop, len(runs), *names)
        # Other threads may clear it at any moment.
        if (combined := cache.get(key)) is None:
            zones = [(field, self.zones(field.name, chunks)) for field in fields]
            guarantees = {
                number: _guarantee(run, zones, with_row=ROW in names)
                for number, run in enumerate(runs)
            }
            if len(cache) >= MAX_CACHED_RUNS:
                cache.clear()
            cache[key] = combined = runs_of(self.schema, guarantees)
        return combined

    def _pass_bbox_tests(self, chunks: Chunks, selections: list[Selection]) -> list[Selection]:
        """Keep the rows whose bounding boxes pass every test."""
        for name, tests in self.candidates.bbox_tests.items():
            field, passed = self.fields[name], list[Selection]()
            # The rows of an index were tested by their rectangles already.
            untested = [run for run, rows in selections if rows is None]
            numbers = [number for run in untested for number in chunks_of(field, run)]
            bounds = chunks.bounds([(field, number) for number in numbers])
            corners = dict(zip(numbers, bounds, strict=True))
            for run, rows in selections:
                if rows is None:
                    inside = np.concatenate(
                        [part_in_run(field, n, corners[n], run) for n in chunks_of(field, run)]
                    )
                    hit = np.logical_and.reduce([boxes_meet(inside, boxes) for boxes in tests])
                    rows = run.start + np.flatnonzero(hit)
                if len(rows):
                    passed.append((run, rows))
            selections = passed
        return selections

    def _matches(
        self,
        reader: RowReader,
        selections: Sequence[Selection],
        columns: Sequence[str],
        condition: Condition,
        condition_columns: Sequence[str],
    ) -> list[pa.RecordBatch]:
        """Read rows that pass `condition`: its columns first, the others of matches alone."""
        fields = [name for name in condition_columns if name != ROW]
        names = [ROW, *fields]
        learn = [name for name in fields if self._stored_zones(name) is None]
        unfiltered = pa.Table.from_batches(reader.read(selections, names, learn))
        start_time = time.perf_counter()
        table = unfiltered.filter(passing(unfiltered, condition.expression))
        self.tally.add("filter", start_time)
        if not table.num_rows:
            return []
        unread = [name for name in columns if name not in names]
        if unread:
            rows = table.column(ROW).to_numpy()
            matches = selections_of(rows, [run for run, _ in selections])
            values = pa.Table.from_batches(reader.read_grouped(matches, unread))
            for name in unread:
                table = table.append_column(self.schema.field(name), values.column(name))
        batches: list[pa.RecordBatch] = table.select(list(columns)).to_batches()
        return batches


def _merge_runs(runs: Sequence[range], tail: int) -> list[range]:
    """Merge the runs before `tail`, for which nothing is read."""
    covered = [run for run in runs if run.stop <= tail]
    later = [run for run in runs if run.stop > tail]
    return [range(covered[0].start, covered[-1].stop), *later] if covered else later


def _may_meet(zones: Zones, tests: Sequence[Sequence[Box]], run: range) -> bool:
    """Tell if a footprint of a run may meet a rectangle of each test."""
    zone = zones.zone(run)
    corners = None if zone is None else np.array([zone.low])
    return corners is None or all(boxes_meet(corners, boxes)[0] for boxes in tests)


def _guarantee(
    run: range, zones: Sequence[tuple[Field, Zones | None]], *, with_row: bool
) -> pc.Expression | None:
    """Return a condition that all rows of a run fulfil, None where nothing is known."""
    row = pc.field(ROW)
    terms = [row >= run.start, row < run.stop] if with_row else []
    for stored, stored_zones in zones:
        zone = None if stored_zones is None else stored_zones.zone(run)
        term = None if zone is None else guarantee(stored, zone)
        terms += [] if term is None else [term]
    return reduce(operator.and_, terms) if terms else None
