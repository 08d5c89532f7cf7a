"""Windows of arrays whose cells are rows: what is known of them, read of them, made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from l2view.arrays.grid import Edges, Window, size, slabs
from l2view.arrays.stored import StoredArray
from l2view.cells.columns import Arrays, Columns, Opened
from l2view.meta.zones import prune, runs_of
from l2view.scan.filter import Condition

MOST = 1 << 20
"""The most cells that are read together, but for a chunk that has more."""

WIDTH = 1 << 25
"""The most bytes that the labels of rows take that are made together."""

type Alive = list[NDArray[np.bool_]]
"""In which chunks along each axis a condition may hold."""


type Fetched = list[tuple[Piece, Mapping[str, pa.Array | NDArray[np.generic]]]]
"""Windows with what was read of them."""


@dataclass(frozen=True, eq=False)
class Member:
    """One of the arrays, with what is known of all of its cells.

    Attributes
    ----------
    arrays
        The set that it is of.
    index
        Its number there.
    labels
        Its labels; NULL for what it doesn't have.
    """

    arrays: Arrays
    index: int
    labels: Mapping[str, pa.Scalar]

    @property
    def columns(self) -> Columns:
        """The table's columns."""
        return self.arrays.columns

    @cached_property
    def opened(self) -> Opened:
        """The array, and its coordinates."""
        return self.arrays.opened(self.index)

    @cached_property
    def most(self) -> int:
        """The most rows that are made together."""
        widths = [pa.array([one.as_py()], one.type).nbytes for one in self.labels.values()]
        return max(min(MOST, WIDTH // int(max(widths, default=8))), 1)

    def coordinate(self, name: str) -> StoredArray:
        """Return one of the coordinates."""
        return self.opened.coordinates[name]

    def along(self, positions: range, names: Sequence[str]) -> dict[str, pa.Array]:
        """Return the columns called `names` at positions along their axis."""
        return {
            name: pa.array(np.arange(positions.start, positions.stop))
            if name in self.columns.positions
            else self.coordinate(name).part((positions,), whole=True)
            for name in names
        }

    def told(self, axis: int, positions: range, condition: Condition) -> NDArray[np.bool_] | None:
        """Return at which positions along an axis a condition may hold, None for all of them."""
        names = sorted(self.columns.along(axis) & condition.columns)
        if not names:
            return None
        masks = [np.zeros(0, dtype=bool)]
        for at in range(positions.start, positions.stop, self.most):
            span = range(at, min(at + self.most, positions.stop))
            known = self.along(span, names) | self._constant(len(span), condition)
            masks.append(condition.may_hold(known, len(span)))
        return np.concatenate(masks)

    def _constant(self, rows: int, condition: Condition) -> dict[str, pa.Array]:
        """Return the labels that a condition looks at."""
        used = self.labels.keys() & condition.columns
        return {name: pa.repeat(self.labels[name], rows) for name in used}

    def alive(self, condition: Condition | None) -> Alive:
        """Return in which chunks along each axis a condition may hold."""
        return [
            self._alive(axis, edges, condition)
            for axis, edges in enumerate(self.opened.values.edges)
        ]

    def _alive(self, axis: int, edges: Edges, condition: Condition | None) -> NDArray[np.bool_]:
        count = len(edges) - 1
        if condition is None or not condition.looks_at(self.columns.along(axis)):
            return np.ones(count, dtype=bool)
        alive = np.zeros(count, dtype=bool)
        spans = list(self._spans(axis, int(edges[-1]), condition))
        if len(spans) > 1:  # Arrow then tells by the positions which of them are worth a look
            spans = [spans[number] for number in sorted(self._promising(axis, spans, condition))]
        for span in spans:
            mask = self.told(axis, span, condition)
            if mask is None:
                return np.ones(count, dtype=bool)
            hits = np.flatnonzero(mask) + span.start
            alive[np.searchsorted(edges, hits, side="right") - 1] = True
        return alive

    def _spans(self, axis: int, length: int, condition: Condition) -> Iterator[range]:
        """Yield positions along an axis that are looked at together, by the coordinate's chunks."""
        step = MOST
        for name in sorted(self.columns.along(axis) & condition.columns):
            if name in self.columns.coordinates:
                chunk = int(np.diff(self.coordinate(name).edges[0]).max(initial=1))
                step = max(MOST // chunk, 1) * chunk if chunk < MOST else MOST
        for at in range(0, length, step):
            yield range(at, min(at + step, length))

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
        window = self.opened.values.extent(chunks)
        if condition is None:
            yield Piece(self, window)
            return
        cropped: list[range] = []
        masks: list[NDArray[np.bool_] | None] = []
        for axis, positions in enumerate(window):
            told = self.told(axis, positions, condition)
            hits = range(len(positions)) if told is None else np.flatnonzero(told)
            inside = slice(int(hits[0]), int(hits[-1]) + 1) if len(hits) else slice(0, 0)
            cropped.append(positions[inside])
            masks.append(None if told is None or told[inside].all() else told[inside])
        piece = Piece(self, tuple(cropped), tuple(masks))
        if not size(piece.window):
            return
        if not piece.is_joint(condition):
            yield piece
        elif size(piece.window) > MOST:  # of one chunk
            if any(mask.any() for mask in piece.joint(condition)):
                yield piece
        else:
            mask = np.concatenate(list(piece.joint(condition)))
            yield from (one for one, _ in piece.apart(mask, told=False))


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
    told
        Whether `known` is all that was asked.
    """

    member: Member
    window: Window
    masks: tuple[NDArray[np.bool_] | None, ...] = ()
    known: NDArray[np.bool_] | None = None
    told: bool = False

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(map(len, self.window))

    @property
    def cost(self) -> int:
        """How many cells are decoded for it."""
        values = self.member.opened.values
        return size(values.extent(values.chunks(self.window)))

    def is_joint(self, condition: Condition) -> bool:
        """Return whether a condition tells more of cells than of the positions along each axis."""
        columns = self.member.columns
        used = [condition.looks_at(columns.along(axis)) for axis in range(len(self.window))]
        return sum(used) > 1 and (condition.is_strict or not condition.looks_at(columns.read))

    def fetched(self, columns: Sequence[str], condition: Condition | None) -> Fetched:
        """Read what it takes to make rows, first of it what the condition asks."""
        read = self.member.columns.read
        wanted = sorted({*columns} & read)
        for name in {*columns} & self.member.columns.coordinates.keys() - read:
            if name in self.member.opened.coordinates:
                self.member.coordinate(name).keep()
        first = [] if condition is None or self.told else sorted(condition.columns & read)
        rest = [name for name in wanted if name not in first]
        values = self._read(first or rest)
        if condition is None or not first or not rest or size(self.window) > MOST:
            return [(self, values | (self._read(rest) if first else {}))]
        mask = np.concatenate(list(self._passing(condition, values)))
        found: Fetched = []
        for piece, inside in self.apart(mask, told=True):
            own = {name: values[name] for name in first if name in wanted}
            if inside is not None:
                own = {name: self._part(name, own[name], inside) for name in own}
            found.append((piece, own | piece._read(rest)))
        return found

    def _part(self, name: str, values: pa.Array, inside: Window) -> pa.Array:
        """Return those values of a column that are of a part of the window."""
        axes = self._axes(name)
        shape = tuple(self.shape[axis] for axis in axes)
        numbers = np.arange(len(values)).reshape(shape)
        part = numbers[tuple(slice(inside[axis].start, inside[axis].stop) for axis in axes)]
        return values.take(pa.array(part.reshape(-1)))

    def _axes(self, name: str) -> tuple[int, ...]:
        """Return the axes along which a column lies."""
        return self.member.columns.coordinates.get(name, tuple(range(len(self.window))))

    def _read(self, names: Sequence[str]) -> dict[str, pa.Array | NDArray[np.generic]]:
        """Return columns that are read cell by cell, those of large windows as they are stored.

        Each is of the part of the window along its own axes, in C order.
        """
        opened = self.member.opened
        found: dict[str, pa.Array | NDArray[np.generic]] = {}
        for name in names:
            axes = self._axes(name)
            window = tuple(self.window[axis] for axis in axes)
            if name in opened.coordinates:
                whole = len(axes) < len(self.window)
                found[name] = opened.coordinates[name].part(window, whole=whole)
            elif size(window) > MOST:
                found[name] = np.ascontiguousarray(opened.values.stored(window)).reshape(-1)
            else:
                found[name] = opened.values.read(window)
        return found

    def joint(self, condition: Condition) -> Iterator[NDArray[np.bool_]]:
        """Yield which cells may pass by what is known before they are read, slab by slab."""
        unread = condition.columns - self.member.columns.read
        for slab in slabs(self.shape, self.member.most):
            yield self._asked(condition, sorted(unread), slab, {})

    def _passing(
        self, condition: Condition, read: Mapping[str, pa.Array | NDArray[np.generic]]
    ) -> Iterator[NDArray[np.bool_]]:
        """Yield which cells pass, slab by slab."""
        for slab in slabs(self.shape, self.member.most):
            yield self._asked(condition, sorted(condition.columns), slab, read)

    def _asked(
        self,
        condition: Condition,
        names: Sequence[str],
        slab: Window,
        read: Mapping[str, pa.Array | NDArray[np.generic]],
    ) -> NDArray[np.bool_]:
        """Return which cells of a slab may pass by some columns."""
        rows = self._rows(slab)
        mask = np.zeros(size(slab), dtype=bool)
        known = {name: self._column(name, slab, rows, read) for name in names}
        passing = condition.may_hold(known, rows.count)
        mask[slice(None) if rows.where is None else rows.where] = passing
        return mask

    def apart(
        self, mask: NDArray[np.bool_], *, told: bool
    ) -> Iterator[tuple[Piece, Window | None]]:
        """Yield the piece, or the parts of it in the chunks of which a cell may pass.

        Parameters
        ----------
        mask
            Which cells may pass.
        told
            Whether that is all that is asked of them.

        Yields
        ------
        Piece, Window or None
            The part, and where in this piece it lies; None where it is the same.
        """
        values = self.member.opened.values
        spans = zip(self.window, values.edges, values.chunks(self.window), strict=True)
        cuts = [
            np.maximum(edges[chunks.start : chunks.stop], axis.start) - axis.start
            for axis, edges, chunks in spans
        ]
        whole = mask.reshape(self.shape)
        alive = whole
        for axis, starts in enumerate(cuts):
            alive = np.logical_or.reduceat(alive, starts, axis=axis)
        if alive.all():
            yield Piece(self.member, self.window, known=mask, told=told), None
            return
        ends = [np.append(one[1:], n) for one, n in zip(cuts, self.shape, strict=True)]
        for index in np.argwhere(alive).tolist():
            places = zip(cuts, ends, index, strict=True)
            inside = tuple(range(int(a[at]), int(b[at])) for a, b, at in places)
            part = tuple(slice(axis.start, axis.stop) for axis in inside)
            window = tuple(axis[some] for axis, some in zip(self.window, part, strict=True))
            yield Piece(self.member, window, known=whole[part].reshape(-1), told=told), inside

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
        self,
        name: str,
        slab: Window,
        rows: Rows,
        read: Mapping[str, pa.Array | NDArray[np.generic]],
    ) -> pa.Array:
        """Return a column for some rows of a slab."""
        member = self.member
        columns = member.columns
        if name in member.labels:
            return pa.repeat(member.labels[name], rows.count)
        if name in columns.positions:
            axis = columns.positions[name]
            return pa.array(rows.index((axis,)) + self.window[axis].start + slab[axis].start)
        axes = self._axes(name)
        if name in read and axes == tuple(range(len(slab))):
            start = self._offset(slab)
            values = read[name][start : start + size(slab)]
            if isinstance(values, np.ndarray):
                values = member.opened.values.column(values)
            return values if rows.where is None else values.take(pa.array(rows.where))
        if name in read:
            shape = tuple(len(self.window[axis]) for axis in axes)
            index = rows.index(axes, tuple(slab[axis].start for axis in axes), shape)
            return read[name].take(pa.array(index))
        (axis,) = axes
        at = self.window[axis].start
        positions = range(at + slab[axis].start, at + slab[axis].stop)
        found = member.along(positions, [name])[name]
        return found.take(pa.array(rows.index(axes)))

    def made(
        self,
        columns: Sequence[str],
        condition: Condition | None,
        read: Mapping[str, pa.Array | NDArray[np.generic]],
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that pass, slab by slab.

        Parameters
        ----------
        columns
            The columns to yield.
        condition
            What to look for.
        read
            What was read of the columns that are read cell by cell.
        """
        schema = pa.schema([self.member.columns.schema.field(name) for name in columns])
        for slab in slabs(self.shape, self.member.most):
            rows = self._rows(slab)
            if condition is not None and not self._is_told(condition):
                mask = self._asked(condition, sorted(condition.columns), slab, read)
                rows = Rows(rows.shape, None if mask.all() else np.flatnonzero(mask))
            if not rows.count:
                continue
            if not columns:  # a batch of no columns still has a length
                yield pa.record_batch({"_": pa.nulls(rows.count)}).select([])
                continue
            made = [self._column(name, slab, rows, read) for name in columns]
            yield pa.RecordBatch.from_arrays(made, schema=schema)

    def _is_told(self, condition: Condition) -> bool:
        """Return whether what is known of the cells is all that a condition asks."""
        columns = self.member.columns
        if self.known is not None:
            return self.told or not condition.looks_at(columns.read)
        labels = frozenset(self.member.labels)
        own = (columns.along(axis) for axis in range(len(self.window)))
        return any(condition.is_told(one | labels) for one in own if condition.looks_at(one))


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
