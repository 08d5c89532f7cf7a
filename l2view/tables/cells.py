"""One row a cell: how the cells of arrays are gone through.

A filter is asked four times, each time with more columns known: of whole arrays by their labels,
of the chunks along each axis by positions and coordinates, of the cells of a few chunks by the
same, and of cells with their values. Only what may pass is fetched, a few chunks ahead of who
reads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from l2view.errors import QueryError, listed
from l2view.meta.zones import prune, runs_of
from l2view.tables.arrays import Arrays, Columns, Opened, StoredArray
from l2view.tables.condition import Condition
from l2view.tables.grid import Edges, Window, size, slabs, tiles

MAX_CELLS = 100_000_000_000
"""The most cells that a query goes through, unless a caller allows more."""

MOST = 1 << 20
"""The most cells that are read together, but for a chunk that has more."""

AHEAD = 4 * MOST
"""The most cells that are read before they are asked for, beside those of one window."""

KEPT = 1 << 22
"""The most values of a coordinate that are kept in memory whole."""

WORKERS = os.cpu_count() or 1
"""How many windows are decoded at once, and how many parts a table has."""

POOL = ThreadPoolExecutor(max(8, WORKERS), thread_name_prefix="l2view-cells")
"""Threads that read windows: more than there are processors, for stores that are far away."""


type Members = Sequence[tuple[Arrays, NDArray[np.int64]]]
"""Some of the arrays of each set."""


@dataclass(frozen=True)
class Cells:
    """The cells of arrays as a table.

    Attributes
    ----------
    name
        What messages call the arrays.
    arrays
        Sets of arrays that have the same columns.
    max_cells
        The most cells that are gone through.
    """

    name: str
    arrays: tuple[Arrays, ...]
    max_cells: int = MAX_CELLS

    def __str__(self) -> str:
        return f"{self.count():,} cells of {self.name}"

    @property
    def schema(self) -> pa.Schema:
        """The columns (see `Columns`)."""
        return self.arrays[0].columns.schema

    def count(self) -> int:
        """Return the number of cells."""
        return sum(_total(one.shapes) for one in self.arrays)

    def parts(
        self, condition: Condition | None, *, early: bool = False, several: bool = False
    ) -> list[CellsPart]:
        """Return the parts in which a condition may hold (see `l2view.tables.dataset.Table`).

        Raises
        ------
        QueryError
            Where there are more than `max_cells` cells, and nothing says which are wanted.
        """
        members = [(one, _members(one, condition)) for one in self.arrays]
        total = sum(_total(one.shapes[some]) for one, some in members)
        if total > self.max_cells and not early and not self._is_narrowed(condition):
            raise self.too_many(total)
        if early or not several or total <= MOST:
            return [CellsPart(self, members)]
        if sum(len(some) for _, some in members) < 4 * WORKERS:
            return [CellsPart(self, members, number, WORKERS) for number in range(WORKERS)]
        shares = [(one, np.array_split(some, WORKERS)) for one, some in members]
        return [
            CellsPart(self, [(one, share[number]) for one, share in shares])
            for number in range(WORKERS)
        ]

    def _is_narrowed(self, condition: Condition | None) -> bool:
        """Return whether a condition may leave chunks out."""
        if condition is None:
            return False
        inside = [
            one.columns.along(axis) for one in self.arrays for axis in range(one.shapes.shape[1])
        ]
        return condition.tells({name: None for names in inside for name in names})

    def too_many(self, total: int) -> QueryError:
        """Return what to say where more than `max_cells` cells would be gone through."""
        read = self.arrays[0].columns.read
        names = [name for name in self.schema.names if name not in read]
        return QueryError(
            f"{self.name} has {total:,} cells to go through, more than max_cells="
            f"{self.max_cells:,}: filter by {listed(names)}, or pass a larger max_cells"
        )


def _members(arrays: Arrays, condition: Condition | None) -> NDArray[np.int64]:
    """Return the arrays in which a condition may hold."""
    alive = arrays.shapes.all(axis=1)
    columns = arrays.columns
    names = [*columns.labels.names, *columns.absent]
    if condition is not None and condition.tells(dict.fromkeys(names)):
        used = [name for name in columns.labels.names if name in condition.columns]
        table = arrays.labels(used)
        known = {name: table.column(name).combine_chunks() for name in used}
        for name in columns.absent.keys() & condition.columns:
            known[name] = pa.nulls(len(alive), columns.absent[name])
        alive = alive & condition.may_hold(known, len(alive))
    return np.flatnonzero(alive)


def _total(shapes: NDArray[np.int64]) -> int:
    return sum(np.prod(shapes.astype(object), axis=1).tolist())


@dataclass(frozen=True)
class CellsPart:
    """The cells of some arrays, or every so many-th window of them.

    Attributes
    ----------
    cells
        The table.
    members
        The arrays.
    first, step
        Which of their windows: the `first`, and every `step`-th after it.
    """

    cells: Cells
    members: Members
    first: int = 0
    step: int = 1

    def batches(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows (see `l2view.tables.dataset.Part`)."""
        wanted = {*columns, *(condition.columns if condition is not None else ())}
        ahead: deque[tuple[Piece, Future[dict[str, pa.Array]] | None]] = deque()
        waiting, room = 0, 0
        try:
            for piece in self._pieces(wanted, condition):
                read = sorted(wanted & piece.member.columns.read)
                task = POOL.submit(piece.read, read) if read else None
                ahead.append((piece, task))
                waiting += size(piece.window)
                while waiting - size(ahead[0][0].window) >= room:
                    piece, task = ahead.popleft()
                    waiting -= size(piece.window)
                    yield from piece.made(columns, condition, task.result() if task else {})
                    # Who wants few rows has got them by now.
                    room = AHEAD
                    if not ahead:
                        break
            while ahead:
                piece, task = ahead.popleft()
                yield from piece.made(columns, condition, task.result() if task else {})
        finally:
            for _, task in ahead:
                if task is not None:
                    task.cancel()

    def _pieces(self, wanted: set[str], condition: Condition | None) -> Iterator[Piece]:
        """Yield the windows in which a condition may hold, with what is known of their cells."""
        number, total = 0, 0
        for arrays, members in self.members:
            names = [name for name in arrays.columns.labels.names if name in wanted]
            labels = arrays.labels(names)
            kinds = arrays.columns.absent
            absent = {name: pa.scalar(None, kinds[name]) for name in kinds if name in wanted}
            for index in members.tolist():
                row = {name: labels.column(name)[index] for name in names} | absent
                member = Member(arrays.columns, arrays.opened(index), row)
                alive = member.alive(condition)
                values = member.opened.values
                for chunks in tiles(values.edges, alive, values.shards, MOST):
                    number += 1
                    if (number - 1) % self.step != self.first:
                        continue
                    for piece in member.pieces(chunks, condition):
                        total += size(piece.window)
                        if condition is not None and total > self.cells.max_cells:
                            raise self.cells.too_many(total)
                        yield piece


@dataclass(frozen=True, eq=False)
class Member:
    """One of the arrays, with what is known of all of its cells.

    Attributes
    ----------
    columns
        The table's columns.
    opened
        The array.
    labels
        Its labels; NULL for what it doesn't have.
    """

    columns: Columns
    opened: Opened
    labels: Mapping[str, pa.Scalar]

    def along(self, axis: int, positions: range, names: Sequence[str]) -> dict[str, pa.Array]:
        """Return the columns called `names` at positions along an axis."""
        found = {}
        for name in names:
            if name in self.columns.positions:
                found[name] = pa.array(np.arange(positions.start, positions.stop))
            else:
                found[name] = self._coordinate(self.opened.coordinates[name], positions)
        return found

    def _coordinate(self, stored: StoredArray, positions: range) -> pa.Array:
        if stored.shape[0] > KEPT:
            return stored.read((positions,))
        return stored.all[positions.start : positions.stop]

    def told(self, axis: int, positions: range, condition: Condition) -> NDArray[np.bool_] | None:
        """Return at which positions along an axis a condition may hold, None for all of them."""
        names = sorted(self.columns.along(axis) & condition.columns)
        if not names or not condition.tells(dict.fromkeys([*names, *self.labels])):
            return None
        known = self.along(axis, positions, names) | self.constant(len(positions), condition)
        return condition.may_hold(known, len(positions))

    def constant(self, rows: int, condition: Condition) -> dict[str, pa.Array]:
        """Return the labels that a condition looks at."""
        used = self.labels.keys() & condition.columns
        return {name: pa.repeat(self.labels[name], rows) for name in used}

    def alive(self, condition: Condition | None) -> list[NDArray[np.bool_]]:
        """Return in which chunks along each axis a condition may hold."""
        return [
            self._alive(axis, edges, condition)
            for axis, edges in enumerate(self.opened.values.edges)
        ]

    def _alive(self, axis: int, edges: Edges, condition: Condition | None) -> NDArray[np.bool_]:
        count = len(edges) - 1
        if condition is None or not self.columns.along(axis) & condition.columns:
            return np.ones(count, dtype=bool)
        length = int(edges[-1])
        alive = np.zeros(count, dtype=bool)
        spans = [range(at, min(at + MOST, length)) for at in range(0, length, MOST)]
        if len(spans) > 1:  # Arrow then tells by the positions which of them are worth a look
            spans = [spans[number] for number in sorted(self._promising(axis, spans, condition))]
        for span in spans:
            mask = self.told(axis, span, condition)
            if mask is None:
                return np.ones(count, dtype=bool)
            hits = np.flatnonzero(mask) + span.start
            alive[np.searchsorted(edges, hits, side="right") - 1] = True
        return alive

    def _promising(self, axis: int, spans: Sequence[range], condition: Condition) -> set[int]:
        """Return the numbers of the spans of positions in which a condition may hold."""
        names = [name for name, other in self.columns.positions.items() if other == axis]
        known = {}
        for number, span in enumerate(spans):
            said = [(pc.field(n) >= span.start) & (pc.field(n) < span.stop) for n in names]
            known[number] = reduce(lambda one, other: one & other, said)
        return prune(condition.expression, runs_of(self.columns.schema, known))

    def pieces(self, chunks: Window, condition: Condition | None) -> Iterator[Piece]:
        """Yield what may hold a condition of some chunks, which are read together."""
        edges = self.opened.values.edges
        window = tuple(
            range(int(axis[span.start]), int(axis[span.stop]))
            for axis, span in zip(edges, chunks, strict=True)
        )
        if condition is None:
            yield Piece(self, window)
            return
        window, masks = self._cropped(window, condition)
        if not size(window):
            return
        piece = Piece(self, window, masks)
        if not piece.is_joint(condition):
            yield piece
        elif size(window) > MOST:  # of one chunk
            if any(mask.any() for mask in piece.joint(condition)):
                yield piece
        else:
            (mask,) = piece.joint(condition)
            yield from self._apart(piece, mask, chunks)

    def _cropped(
        self, window: Window, condition: Condition
    ) -> tuple[Window, tuple[NDArray[np.bool_] | None, ...]]:
        """Return the part of a window in which a condition may hold, and where along each axis."""
        cropped: list[range] = []
        masks: list[NDArray[np.bool_] | None] = []
        for axis, positions in enumerate(window):
            told = self.told(axis, positions, condition)
            hits = range(len(positions)) if told is None else np.flatnonzero(told)
            inside = slice(int(hits[0]), int(hits[-1]) + 1) if len(hits) else slice(0, 0)
            cropped.append(positions[inside])
            masks.append(None if told is None or told[inside].all() else told[inside])
        return tuple(cropped), tuple(masks)

    def _apart(self, piece: Piece, mask: NDArray[np.bool_], chunks: Window) -> Iterator[Piece]:
        """Yield a piece, or those of its chunks in which one of the cells may pass."""
        grid = self.opened.values.edges
        cuts = []
        for positions, edges, span in zip(piece.window, grid, chunks, strict=True):
            inner = edges[span.start : span.stop]
            starts = np.unique(np.clip(inner, positions.start, None))
            cuts.append(starts[starts < positions.stop] - positions.start)
        alive = mask.reshape([len(axis) for axis in piece.window])
        for axis, starts in enumerate(cuts):
            alive = np.logical_or.reduceat(alive, starts, axis=axis)
        if alive.all():
            yield Piece(self, piece.window, known=mask)
            return
        whole = mask.reshape([len(axis) for axis in piece.window])
        for index in np.argwhere(alive).tolist():
            part = []
            for axis, (starts, at) in enumerate(zip(cuts, index, strict=True)):
                stop = starts[at + 1] if at + 1 < len(starts) else len(piece.window[axis])
                part.append(slice(int(starts[at]), int(stop)))
            window = tuple(axis[some] for axis, some in zip(piece.window, part, strict=True))
            yield Piece(self, window, known=whole[tuple(part)].reshape(-1))


@dataclass(frozen=True, eq=False)
class Piece:
    """A window of an array.

    Attributes
    ----------
    member
        The array.
    window
        The window.
    masks
        Where along each axis a cell may pass, None for everywhere; empty where nothing was asked.
    known
        Which cells may pass, None where that isn't told.
    """

    member: Member
    window: Window
    masks: tuple[NDArray[np.bool_] | None, ...] = ()
    known: NDArray[np.bool_] | None = None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(map(len, self.window))

    def is_joint(self, condition: Condition) -> bool:
        """Return whether a condition looks at several axes."""
        columns = self.member.columns
        used = [bool(columns.along(axis) & condition.columns) for axis in range(len(self.window))]
        return sum(used) > 1 and condition.tells(self._unread(condition))

    def _unread(self, condition: Condition) -> dict[str, None]:
        """Return the columns a condition looks at that are known before anything is read."""
        return dict.fromkeys(condition.columns - self.member.columns.read)

    def read(self, names: Sequence[str]) -> dict[str, pa.Array]:
        """Return the values of columns that are read cell by cell.

        Each is of the part of the window along its own axes, in C order.
        """
        opened = self.member.opened
        found = {}
        for name in names:
            if name in opened.coordinates:
                axes = self.member.columns.coordinates[name]
                window = tuple(self.window[axis] for axis in axes)
                found[name] = opened.coordinates[name].read(window)
            else:
                found[name] = opened.values.read(self.window)
        return found

    def joint(self, condition: Condition) -> Iterator[NDArray[np.bool_]]:
        """Yield which cells may pass by what is known before they are read, slab by slab."""
        names = sorted(self._unread(condition))
        for slab in slabs(self.shape, MOST):
            rows = self._rows(slab)
            mask = np.zeros(size(slab), dtype=bool)
            known = {name: self._column(name, slab, rows, {}) for name in names}
            passing = condition.may_hold(known, rows.count)
            mask[slice(None) if rows.where is None else rows.where] = passing
            yield mask

    def _rows(self, slab: Window) -> Rows:
        """Return the cells of a slab that may pass."""
        shape = tuple(map(len, slab))
        if self.known is not None:
            start = self._offset(slab)
            known = self.known[start : start + size(slab)]
            return Rows(shape, None if known.all() else np.flatnonzero(known))
        if all(mask is None for mask in self.masks):
            return Rows(shape)
        whole = np.ones((1,) * len(shape), dtype=bool)
        for axis, mask in enumerate(self.masks):
            if mask is not None:
                part = mask[slab[axis].start : slab[axis].stop]
                whole = whole & part.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return Rows(shape, np.flatnonzero(np.broadcast_to(whole, shape)))

    def _offset(self, slab: Window) -> int:
        """Return the number of cells before a slab, in C order."""
        first = tuple(axis.start for axis in slab)
        return int(np.ravel_multi_index(first, self.shape)) if first else 0

    def _column(
        self, name: str, slab: Window, rows: Rows, read: Mapping[str, pa.Array]
    ) -> pa.Array:
        """Return a column for some rows of a slab."""
        columns = self.member.columns
        if name in self.member.labels:
            return pa.repeat(self.member.labels[name], rows.count)
        if name in columns.positions:
            axis = columns.positions[name]
            start = self.window[axis].start + slab[axis].start
            return pa.array(rows.index((axis,)) + start)
        if name in read and columns.coordinates.get(name) in (None, tuple(range(len(slab)))):
            start = self._offset(slab)
            values = read[name][start : start + size(slab)]
            return values if rows.where is None else values.take(pa.array(rows.where))
        axes = columns.coordinates[name]
        if name in read:
            shape = tuple(len(self.window[axis]) for axis in axes)
            index = rows.index(axes, tuple(slab[axis].start for axis in axes), shape)
            return read[name].take(pa.array(index))
        (axis,) = axes
        at = self.window[axis].start
        positions = range(at + slab[axis].start, at + slab[axis].stop)
        found = self.member.along(axis, positions, [name])[name]
        return found.take(pa.array(rows.index(axes)))

    def made(
        self, columns: Sequence[str], condition: Condition | None, read: Mapping[str, pa.Array]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that pass, slab by slab.

        Parameters
        ----------
        columns
            The columns to yield.
        condition
            What to look for.
        read
            What `read` returned.
        """
        schema = pa.schema([self.member.columns.schema.field(name) for name in columns])
        for slab in slabs(self.shape, MOST):
            rows = self._rows(slab)
            if condition is not None and not self._is_told(condition):
                known = {n: self._column(n, slab, rows, read) for n in sorted(condition.columns)}
                rows = rows.among(condition.may_hold(known, rows.count))
            if not rows.count:
                continue
            if not columns:  # a batch of no columns still has a length
                yield pa.record_batch({"_": pa.nulls(rows.count)}).select([])
                continue
            made = [self._column(name, slab, rows, read) for name in columns]
            yield pa.RecordBatch.from_arrays(made, schema=schema)

    def _is_told(self, condition: Condition) -> bool:
        """Return whether what is known of the cells is all that a condition asks."""
        if self.known is not None:
            return not condition.columns & self.member.columns.read
        own = (self.member.columns.along(axis) for axis in range(len(self.window)))
        labels = frozenset(self.member.labels)
        return any(condition.columns <= one | labels for one in own if one & condition.columns)


@dataclass(frozen=True, eq=False)
class Rows:
    """Some cells of a slab.

    Attributes
    ----------
    shape
        The slab's shape.
    where
        Their numbers in C order, None for all of them.
    """

    shape: tuple[int, ...]
    where: NDArray[np.int64] | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return int(np.prod(self.shape)) if self.where is None else len(self.where)

    def among(self, mask: NDArray[np.bool_]) -> Rows:
        """Return those of the cells that `mask` tells."""
        if mask.all():
            return self
        hits = np.flatnonzero(mask)
        return Rows(self.shape, hits if self.where is None else self.where[hits])

    def index(
        self,
        axes: tuple[int, ...],
        start: tuple[int, ...] | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> NDArray[np.int64]:
        """Return the numbers, in C order, of the cells' places along some axes.

        Parameters
        ----------
        axes
            The axes.
        start, shape
            Where the slab begins in what is counted, and its shape; those of the slab by default.
        """
        shape = tuple(self.shape[axis] for axis in axes) if shape is None else shape
        start = (0,) * len(axes) if start is None else start
        strides = np.append(np.cumprod(shape[:0:-1])[::-1], 1).astype(np.int64)
        parts = []
        for axis, at, stride in zip(axes, start, strides.tolist(), strict=False):
            if self.where is None:
                along = (np.arange(self.shape[axis]) + at) * stride
                parts.append(
                    along.reshape([-1 if i == axis else 1 for i in range(len(self.shape))])
                )
            else:
                parts.append((self._coordinates[axis] + at) * stride)
        whole = reduce(np.add, parts, np.zeros((), dtype=np.int64))
        target = self.shape if self.where is None else (len(self.where),)
        return np.broadcast_to(whole, target).reshape(-1)

    @cached_property
    def _coordinates(self) -> tuple[NDArray[np.int64], ...]:
        """Their places along each axis."""
        assert self.where is not None
        return tuple(np.unravel_index(self.where, self.shape))
