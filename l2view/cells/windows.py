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
from l2view.cells.columns import ArraySet, ArrayWithCoordinates, CellColumns
from l2view.meta.zones import prune, runs_of
from l2view.scan.filter import Condition

MAX_WINDOW = 1 << 20
"""The most cells that are read together, but for a chunk that has more."""

MAX_LABEL_BYTES = 1 << 25
"""The most bytes that the labels of rows take that are made together."""

type Mask = NDArray[np.bool_]

type Column = pa.Array | NDArray[np.generic]
"""Values of a column: of small windows as Arrow has them, of large ones as they are stored."""

type ReadWindow = tuple[CellWindow, Mapping[str, Column]]
"""A window with what was read of it, by column."""


@dataclass(frozen=True, eq=False)
class LabelledArray:
    """One array of a set, with the columns that all of its cells share.

    Attributes
    ----------
    arrays, index
        The set, and its number there.
    labels
        Its labels; NULL for those of other sets alone.
    """

    arrays: ArraySet
    index: int
    labels: Mapping[str, pa.Scalar]

    @property
    def columns(self) -> CellColumns:
        """The table's columns."""
        return self.arrays.columns

    @cached_property
    def handle(self) -> ArrayWithCoordinates:
        """The array, and its coordinates."""
        return self.arrays.open(self.index)

    @property
    def values(self) -> StoredArray:
        """The array."""
        return self.handle.values

    @cached_property
    def max_rows(self) -> int:
        """The most rows that are made together."""
        widths = [pa.array([label.as_py()], label.type).nbytes for label in self.labels.values()]
        return max(min(MAX_WINDOW, MAX_LABEL_BYTES // int(max(widths, default=8))), 1)

    def coordinate(self, name: str) -> StoredArray:
        """Return one of the coordinates."""
        return self.handle.coordinates[name]

    def axis_columns(self, positions: range, names: Sequence[str]) -> dict[str, pa.Array]:
        """Return columns at positions along their axis."""
        return {
            name: pa.array(np.arange(positions.start, positions.stop))
            if name in self.columns.positions
            else self.coordinate(name).read_next((positions,), cache_all=True)
            for name in names
        }

    def axis_mask(self, axis: int, positions: range, condition: Condition) -> Mask | None:
        """Return at which positions along an axis a condition may hold, None for all of them."""
        names = sorted(self.columns.along(axis) & condition.columns)
        if not names:
            return None
        labels = self.labels.keys() & condition.columns
        masks = [np.zeros(0, dtype=bool)]
        for at in range(positions.start, positions.stop, self.max_rows):
            span = range(at, min(at + self.max_rows, positions.stop))
            values = self.axis_columns(span, names)
            values |= {name: pa.repeat(self.labels[name], len(span)) for name in labels}
            masks.append(condition.may_hold(values, len(span)))
        return np.concatenate(masks)

    def chunk_masks(self, condition: Condition | None) -> list[Mask]:
        """Return in which chunks along each axis a condition may hold."""
        return [
            self._chunk_mask(axis, edges, condition) for axis, edges in enumerate(self.values.edges)
        ]

    def _chunk_mask(self, axis: int, edges: Edges, condition: Condition | None) -> Mask:
        if condition is None or not condition.looks_at(self.columns.along(axis)):
            return np.ones(len(edges) - 1, dtype=bool)
        alive = np.zeros(len(edges) - 1, dtype=bool)
        spans = list(self._spans(axis, int(edges[-1]), condition))
        if len(spans) > 1:  # Arrow then tells by the positions which of them are worth a look
            spans = [spans[number] for number in sorted(self._prune_spans(axis, spans, condition))]
        for span in spans:
            mask = self.axis_mask(axis, span, condition)
            if mask is None:
                return np.ones_like(alive)
            hits = np.flatnonzero(mask) + span.start
            alive[np.searchsorted(edges, hits, side="right") - 1] = True
        return alive

    def _spans(self, axis: int, length: int, condition: Condition) -> Iterator[range]:
        """Yield positions along an axis that are looked at together, by the coordinate's chunks."""
        step = MAX_WINDOW
        for name in sorted(self.columns.along(axis) & condition.columns):
            if name in self.columns.coordinates:
                chunk = int(np.diff(self.coordinate(name).edges[0]).max(initial=1))
                step = max(MAX_WINDOW // chunk, 1) * chunk if chunk < MAX_WINDOW else MAX_WINDOW
        for at in range(0, length, step):
            yield range(at, min(at + step, length))

    def _prune_spans(self, axis: int, spans: Sequence[range], condition: Condition) -> set[int]:
        """Return the numbers of the spans of positions in which a condition may hold."""
        names = [name for name, along in self.columns.positions.items() if along == axis]
        guarantees = {}
        for number, span in enumerate(spans):
            bounds = [(pc.field(n) >= span.start) & (pc.field(n) < span.stop) for n in names]
            guarantees[number] = reduce(lambda a, b: a & b, bounds)
        return prune(condition.expression, runs_of(self.columns.schema, guarantees))

    def windows(self, chunks: Window, condition: Condition | None) -> Iterator[CellWindow]:
        """Yield the windows of chunks, which are read together, in which a condition may hold."""
        extent = self.values.extent(chunks)
        if condition is None:
            yield CellWindow(self, extent)
            return
        cropped: list[range] = []
        masks: list[Mask | None] = []
        for axis, positions in enumerate(extent):
            mask = self.axis_mask(axis, positions, condition)
            hits = range(len(positions)) if mask is None else np.flatnonzero(mask)
            inside = slice(int(hits[0]), int(hits[-1]) + 1) if len(hits) else slice(0, 0)
            cropped.append(positions[inside])
            masks.append(None if mask is None or mask[inside].all() else mask[inside])
        window = CellWindow(self, tuple(cropped), tuple(masks))
        if not size(window.window):
            return
        if not window.is_joint(condition):
            yield window
        elif size(window.window) > MAX_WINDOW:  # of one chunk
            if any(mask.any() for mask in window.joint_masks(condition)):
                yield window
        else:
            mask = np.concatenate(list(window.joint_masks(condition)))
            yield from (subset for subset, _ in window.split_by_chunk(mask, exact=False))


@dataclass(frozen=True, eq=False)
class CellWindow:
    """A window of an array.

    Attributes
    ----------
    array
        The array.
    window
        The positions along each axis.
    axis_masks
        Where along each axis a cell may pass, None for everywhere; empty where nothing was asked.
    cell_mask
        Which cells may pass, in C order; None where that isn't known.
    exact
        Whether `cell_mask` is all that was asked.
    """

    array: LabelledArray
    window: Window
    axis_masks: tuple[Mask | None, ...] = ()
    cell_mask: Mask | None = None
    exact: bool = False

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(map(len, self.window))

    @property
    def cost(self) -> int:
        """How many cells are decoded for it."""
        values = self.array.values
        return size(values.extent(values.chunks(self.window)))

    def is_joint(self, condition: Condition) -> bool:
        """Return whether a condition combines columns along several axes."""
        columns = self.array.columns
        axes = [condition.looks_at(columns.along(axis)) for axis in range(len(self.window))]
        return sum(axes) > 1 and (condition.is_strict or not condition.looks_at(columns.by_cell))

    def read(self, columns: Sequence[str], condition: Condition | None) -> list[ReadWindow]:
        """Read the columns of rows, those of the condition first."""
        by_cell = self.array.columns.by_cell
        cell_columns = sorted({*columns} & by_cell)
        for name in {*columns} & self.array.columns.coordinates.keys() - by_cell:
            if name in self.array.handle.coordinates:
                self.array.coordinate(name).keep()
        condition_columns = (
            [] if condition is None or self.exact else sorted(condition.columns & by_cell)
        )
        deferred = [name for name in cell_columns if name not in condition_columns]
        values = self._read(condition_columns or deferred)
        if (
            condition is None
            or not condition_columns
            or not deferred
            or size(self.window) > MAX_WINDOW
        ):
            return [(self, values | (self._read(deferred) if condition_columns else {}))]
        passing = [self._slab_mask(condition, condition.columns, s, values) for s in self._slabs()]
        windows: list[ReadWindow] = []
        for chunk_window, inside in self.split_by_chunk(np.concatenate(passing), exact=True):
            chunk_values = {
                name: values[name] for name in condition_columns if name in cell_columns
            }
            if inside is not None:
                chunk_values = {
                    name: self._crop(name, column, inside) for name, column in chunk_values.items()
                }
            windows.append((chunk_window, chunk_values | chunk_window._read(deferred)))
        return windows

    def _slabs(self) -> Iterator[Window]:
        """Yield parts that are consecutive in C order, of no more rows than are made together."""
        return slabs(self.shape, self.array.max_rows)

    def _crop(self, name: str, values: pa.Array, inside: Window) -> pa.Array:
        """Return the values of a column in a part of the window."""
        axes = self._axes(name)
        numbers = np.arange(len(values)).reshape([self.shape[axis] for axis in axes])
        cropped = numbers[tuple(slice(inside[axis].start, inside[axis].stop) for axis in axes)]
        return values.take(pa.array(cropped.reshape(-1)))

    def _axes(self, name: str) -> tuple[int, ...]:
        """Return the axes along which a column lies."""
        return self.array.columns.coordinates.get(name, tuple(range(len(self.window))))

    def _read(self, names: Sequence[str]) -> dict[str, Column]:
        """Return columns that are read cell by cell, along their own axes in C order."""
        handle = self.array.handle
        columns: dict[str, Column] = {}
        for name in names:
            axes = self._axes(name)
            window = tuple(self.window[axis] for axis in axes)
            if name in handle.coordinates:
                is_shared = len(axes) < len(self.window)
                columns[name] = handle.coordinates[name].read_next(window, cache_all=is_shared)
            elif size(window) > MAX_WINDOW:
                columns[name] = np.ascontiguousarray(handle.values.read_stored(window)).reshape(-1)
            else:
                columns[name] = handle.values.read_arrow(window)
        return columns

    def joint_masks(self, condition: Condition) -> Iterator[Mask]:
        """Yield masks of the cells that may pass, slab by slab, before any is read."""
        unread = condition.columns - self.array.columns.by_cell
        for slab in self._slabs():
            yield self._slab_mask(condition, unread, slab, {})

    def _slab_mask(
        self,
        condition: Condition,
        names: frozenset[str],
        slab: Window,
        columns: Mapping[str, Column],
    ) -> Mask:
        """Return the mask of a slab's cells that may pass by some columns."""
        rows = self._rows(slab)
        values = {name: self._column(name, slab, rows, columns) for name in sorted(names)}
        mask = np.zeros(size(slab), dtype=bool)
        mask[slice(None) if rows.numbers is None else rows.numbers] = condition.may_hold(
            values, rows.count
        )
        return mask

    def split_by_chunk(
        self, mask: Mask, *, exact: bool
    ) -> Iterator[tuple[CellWindow, Window | None]]:
        """Yield the window, or the parts of it in the chunks of which a cell may pass.

        Parameters
        ----------
        mask
            Which cells may pass.
        exact
            Whether that is all that is asked of them.

        Yields
        ------
        CellWindow, Window or None
            The part, and where in this window it lies; None where it is the same.
        """
        values = self.array.values
        spans = zip(self.window, values.edges, values.chunks(self.window), strict=True)
        starts = [
            np.maximum(edges[chunks.start : chunks.stop], axis.start) - axis.start
            for axis, edges, chunks in spans
        ]
        mask = mask.reshape(self.shape)
        alive = mask
        for axis, cuts in enumerate(starts):
            alive = np.logical_or.reduceat(alive, cuts, axis=axis)
        if alive.all():
            yield CellWindow(self.array, self.window, cell_mask=mask.ravel(), exact=exact), None
            return
        stops = [np.append(cuts[1:], n) for cuts, n in zip(starts, self.shape, strict=True)]
        for index in np.argwhere(alive).tolist():
            bounds = zip(starts, stops, index, strict=True)
            inside = tuple(range(int(a[at]), int(b[at])) for a, b, at in bounds)
            selection = tuple(slice(axis.start, axis.stop) for axis in inside)
            window = tuple(axis[span] for axis, span in zip(self.window, selection, strict=True))
            cells = mask[selection].reshape(-1)
            yield CellWindow(self.array, window, cell_mask=cells, exact=exact), inside

    def _rows(self, slab: Window) -> SlabRows:
        """Return the cells of a slab that may pass."""
        shape = tuple(map(len, slab))
        if self.cell_mask is not None:
            start = self._offset(slab)
            passing = self.cell_mask[start : start + size(slab)]
            return SlabRows(shape, None if passing.all() else np.flatnonzero(passing))
        if all(mask is None for mask in self.axis_masks):
            return SlabRows(shape)
        cells = np.ones((1,) * len(shape), dtype=bool)
        for axis, mask in enumerate(self.axis_masks):
            if mask is not None:
                cropped = mask[slab[axis].start : slab[axis].stop]
                cells = cells & cropped.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return SlabRows(shape, np.flatnonzero(np.broadcast_to(cells, shape)))

    def _offset(self, slab: Window) -> int:
        """Return the number of cells before a slab, in C order."""
        start = tuple(axis.start for axis in slab)
        return int(np.ravel_multi_index(start, self.shape)) if start else 0

    def _column(
        self, name: str, slab: Window, rows: SlabRows, columns: Mapping[str, Column]
    ) -> pa.Array:
        """Return a column for some rows of a slab."""
        array = self.array
        if name in array.labels:
            return pa.repeat(array.labels[name], rows.count)
        if name in array.columns.positions:
            axis = array.columns.positions[name]
            return pa.array(rows.index((axis,)) + self.window[axis].start + slab[axis].start)
        axes = self._axes(name)
        if name in columns and axes == tuple(range(len(slab))):
            start = self._offset(slab)
            values = columns[name][start : start + size(slab)]
            if isinstance(values, np.ndarray):
                values = array.values.to_arrow(values)
            return values if rows.numbers is None else values.take(pa.array(rows.numbers))
        if name in columns:
            shape = tuple(len(self.window[axis]) for axis in axes)
            index = rows.index(axes, tuple(slab[axis].start for axis in axes), shape)
            return columns[name].take(pa.array(index))
        (axis,) = axes
        at = self.window[axis].start
        positions = range(at + slab[axis].start, at + slab[axis].stop)
        return array.axis_columns(positions, [name])[name].take(pa.array(rows.index(axes)))

    def batches(
        self, names: Sequence[str], condition: Condition | None, columns: Mapping[str, Column]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that pass, slab by slab.

        Parameters
        ----------
        names
            The columns to yield.
        condition
            What to look for.
        columns
            What was read of the columns that are read cell by cell.
        """
        schema = pa.schema([self.array.columns.schema.field(name) for name in names])
        for slab in self._slabs():
            rows = self._rows(slab)
            if condition is not None and not self._is_fulfilled(condition):
                mask = self._slab_mask(condition, condition.columns, slab, columns)
                rows = SlabRows(rows.shape, None if mask.all() else np.flatnonzero(mask))
            if not rows.count:
                continue
            if not names:  # a batch of no columns still has a length
                yield pa.record_batch({"_": pa.nulls(rows.count)}).select([])
                continue
            arrays = [self._column(name, slab, rows, columns) for name in names]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _is_fulfilled(self, condition: Condition) -> bool:
        """Return whether the masks decide all of a condition."""
        columns = self.array.columns
        if self.cell_mask is not None:
            return self.exact or not condition.looks_at(columns.by_cell)
        labels = frozenset(self.array.labels)
        axes = (columns.along(axis) for axis in range(len(self.window)))
        return any(condition.is_decided_by(a | labels) for a in axes if condition.looks_at(a))


@dataclass(frozen=True, eq=False)
class SlabRows:
    """Some cells of a slab.

    Attributes
    ----------
    shape
        The slab's shape.
    numbers
        Their numbers in C order, None for all of them.
    """

    shape: tuple[int, ...]
    numbers: NDArray[np.int64] | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return int(np.prod(self.shape)) if self.numbers is None else len(self.numbers)

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
        terms = []
        for axis, at, stride in zip(axes, start, strides.tolist(), strict=False):
            if self.numbers is None:
                along = (np.arange(self.shape[axis]) + at) * stride
                terms.append(
                    along.reshape([-1 if i == axis else 1 for i in range(len(self.shape))])
                )
            else:
                terms.append((self._coordinates[axis] + at) * stride)
        total = reduce(np.add, terms, np.zeros((), dtype=np.int64))
        target = self.shape if self.numbers is None else (len(self.numbers),)
        return np.broadcast_to(total, target).reshape(-1)

    @cached_property
    def _coordinates(self) -> tuple[NDArray[np.int64], ...]:
        """Their places along each axis."""
        assert self.numbers is not None
        return tuple(np.unravel_index(self.numbers, self.shape))
