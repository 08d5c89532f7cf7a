"""Windows of arrays whose cells are rows: what is known of them, read of them, made of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from l2view.arrays.grid import Edges, Window, overlap, size, slabs
from l2view.arrays.stored import StoredArray
from l2view.cells.columns import VALUE, ArraySet, CellColumns
from l2view.limits import limits
from l2view.meta.zones import prune, runs_of
from l2view.scan.filter import Condition

MAX_LABEL_BYTES = 1 << 25  # the most bytes that the labels of rows take that are made together

type Mask = NDArray[np.bool_]

type Column = pa.Array | NDArray[np.generic]
"""Values of a column: of small windows as Arrow has them, of large ones as they are stored."""


@dataclass(frozen=True, eq=False)
class LabelledArray:
    """One array of a set, by its number, with the columns that all of its cells share.

    `labels` of other sets alone are NULL.
    """

    arrays: ArraySet
    index: int
    labels: Mapping[str, pa.Scalar]
    _opened: dict[str, StoredArray] = field(default_factory=dict)

    @property
    def columns(self) -> CellColumns:
        """The table's columns."""
        return self.arrays.columns

    def stored(self, name: str) -> StoredArray:
        """Return the array's values (`VALUE`) or one of its coordinates."""
        if name not in self._opened:
            self._opened[name] = self.arrays.open(self.index, name)
        return self._opened[name]

    @property
    def values(self) -> StoredArray:
        """The array's values."""
        return self.stored(VALUE)

    @cached_property
    def max_rows(self) -> int:
        """The most rows that are made together."""
        widths = [pa.array([label.as_py()], label.type).nbytes for label in self.labels.values()]
        return max(min(limits().window_cells, MAX_LABEL_BYTES // int(max(widths, default=8))), 1)

    def axis_column(self, name: str, positions: range) -> pa.Array:
        """Return a column at positions along its axis."""
        if name in self.columns.positions:
            return pa.array(np.arange(positions.start, positions.stop))
        return self.stored(name).read_next((positions,), cache_all=True)

    def axis_mask(self, axis: int, positions: range, condition: Condition) -> Mask | None:
        """Return at which positions along an axis a condition may hold, None for all of them."""
        names = sorted(self.columns.along(axis) & condition.columns)
        if not names:
            return None
        labels = self.labels.keys() & condition.columns
        masks = [np.zeros(0, dtype=bool)]
        for at in range(positions.start, positions.stop, self.max_rows):
            span = range(at, min(at + self.max_rows, positions.stop))
            values = {name: self.axis_column(name, span) for name in names}
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
        for span in self._spans(axis, int(edges[-1]), condition):
            mask = self.axis_mask(axis, span, condition)
            if mask is None:
                return np.ones_like(alive)
            hits = np.flatnonzero(mask) + span.start
            alive[np.searchsorted(edges, hits, side="right") - 1] = True
        return alive

    def _spans(self, axis: int, length: int, condition: Condition) -> list[range]:
        """Return positions along an axis to look at together, by the coordinate's chunks."""
        step = most = limits().window_cells
        for name in sorted(self.columns.along(axis) & condition.columns):
            if name in self.columns.coordinates:
                chunk = int(np.diff(self.stored(name).edges[0]).max(initial=1))
                step = max(most // chunk, 1) * chunk if chunk < most else most
        spans = [range(at, min(at + step, length)) for at in range(0, length, step)]
        if len(spans) < 2:
            return spans
        # Arrow tells by the positions which of them are worth a look.
        names = [name for name, along in self.columns.positions.items() if along == axis]
        guarantees = {}
        for number, span in enumerate(spans):
            bounds = [(pc.field(n) >= span.start) & (pc.field(n) < span.stop) for n in names]
            guarantees[number] = reduce(lambda a, b: a & b, bounds)
        possible = prune(condition.expression, runs_of(self.columns.schema, guarantees))
        return [spans[number] for number in sorted(possible)]

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
        elif size(window.window) > limits().window_cells:  # of one chunk
            if any(mask.any() for mask in window.joint_masks(condition)):
                yield window
        else:
            mask = np.concatenate(list(window.joint_masks(condition)))
            yield from window.split_by_chunk(mask, exact=False)


@dataclass(frozen=True, eq=False)
class CellWindow:
    """A window of an array: the positions along each axis, and what is known of its cells.

    `axis_masks` tell where along each axis a cell may pass, None for everywhere, and are empty
    where nothing was asked. `cell_mask` tells it of each cell, in C order, where that is known; it
    is `exact` where it is all that was asked.
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

    def read(
        self, columns: Sequence[str], condition: Condition | None
    ) -> list[tuple[CellWindow, Mapping[str, Column]]]:
        """Read the columns of rows, those of the condition first, of windows that may have some."""
        by_cell, coordinates = self.array.columns.by_cell, self.array.columns.coordinates
        for name in {*columns} & coordinates.keys() - by_cell:
            self.array.stored(name).keep()
        requested = by_cell & {*columns}
        if condition is None or self.exact or not condition.looks_at(by_cell):
            return [(self, self._read(requested))]
        tested = by_cell & condition.columns
        deferred = requested - tested
        values = self._read(tested)
        if not deferred or size(self.window) > limits().window_cells:
            return [(self, values | self._read(deferred))]
        masks = [self._slab_mask(condition, condition.columns, s, values) for s in self._slabs()]
        return [
            (window, self._crop(tested & requested, values, window) | window._read(deferred))
            for window in self.split_by_chunk(np.concatenate(masks), exact=True)
        ]

    def _slabs(self) -> Iterator[Window]:
        """Yield parts that are consecutive in C order, of no more rows than are made together."""
        return slabs(self.shape, self.array.max_rows)

    def _crop(
        self, names: Iterable[str], columns: Mapping[str, Column], inner: CellWindow
    ) -> dict[str, Column]:
        """Return columns of a window within this one."""
        cropped = {name: columns[name] for name in names}
        if inner.shape == self.shape:
            return cropped
        inside = overlap(inner.window, self.window)
        for name, column in cropped.items():
            axes = self._axes(name)
            numbers = np.arange(len(column)).reshape([self.shape[axis] for axis in axes])
            selected = numbers[tuple(inside[axis] for axis in axes)]
            cropped[name] = column.take(pa.array(selected.reshape(-1)))
        return cropped

    def _axes(self, name: str) -> tuple[int, ...]:
        """Return the axes along which a column lies."""
        return self.array.columns.coordinates.get(name, tuple(range(len(self.window))))

    def _read(self, names: Iterable[str]) -> dict[str, Column]:
        """Return columns that are read cell by cell, along their own axes in C order."""
        columns: dict[str, Column] = {}
        for name in sorted(names):
            axes, stored = self._axes(name), self.array.stored(name)
            window = tuple(self.window[axis] for axis in axes)
            if name != VALUE:
                is_shared = len(axes) < len(self.window)
                columns[name] = stored.read_next(window, cache_all=is_shared)
            elif size(window) > limits().window_cells:
                columns[name] = np.ascontiguousarray(stored.read_stored(window)).reshape(-1)
            else:
                columns[name] = stored.read_arrow(window)
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
        values = {name: self._column(name, rows, columns) for name in sorted(names)}
        mask = np.zeros(size(slab), dtype=bool)
        mask[slice(None) if rows.numbers is None else rows.numbers] = condition.may_hold(
            values, rows.count
        )
        return mask

    def split_by_chunk(self, mask: Mask, *, exact: bool) -> Iterator[CellWindow]:
        """Yield the window, or windows in it of the chunks of which a cell may pass.

        For `exact`, see `CellWindow`.
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
            yield CellWindow(self.array, self.window, cell_mask=mask.ravel(), exact=exact)
            return
        stops = [np.append(cuts[1:], n) for cuts, n in zip(starts, self.shape, strict=True)]
        for index in np.argwhere(alive).tolist():
            bounds = zip(starts, stops, index, strict=True)
            selection = tuple(slice(int(a[at]), int(b[at])) for a, b, at in bounds)
            window = tuple(axis[span] for axis, span in zip(self.window, selection, strict=True))
            cells = mask[selection].reshape(-1)
            yield CellWindow(self.array, window, cell_mask=cells, exact=exact)

    def _rows(self, slab: Window) -> SlabRows:
        """Return the cells of a slab that may pass."""
        rows = SlabRows(slab)
        if self.cell_mask is not None:
            start = self._offset(slab)
            return rows.narrow(self.cell_mask[start : start + size(slab)])
        if all(mask is None for mask in self.axis_masks):
            return rows
        cells = np.ones((1,) * len(slab), dtype=bool)
        for axis, mask in enumerate(self.axis_masks):
            if mask is not None:
                spread = [-1 if at == axis else 1 for at in range(len(slab))]
                cells = cells & mask[slab[axis].start : slab[axis].stop].reshape(spread)
        return rows.narrow(np.broadcast_to(cells, tuple(map(len, slab))))

    def _offset(self, slab: Window) -> int:
        """Return the number of cells before a slab, in C order."""
        start = tuple(axis.start for axis in slab)
        return int(np.ravel_multi_index(start, self.shape)) if start else 0

    def _column(self, name: str, rows: SlabRows, columns: Mapping[str, Column]) -> pa.Array:
        """Return a column for some rows of a slab."""
        array, slab = self.array, rows.slab
        if name in array.labels:
            return pa.repeat(array.labels[name], rows.count)
        if name in array.columns.positions:
            axis = array.columns.positions[name]
            return pa.array(rows.index((axis,)) + self.window[axis].start)
        axes = self._axes(name)
        if name not in columns:
            (axis,) = axes
            start = self.window[axis].start
            positions = range(start + slab[axis].start, start + slab[axis].stop)
            index = rows.index(axes) - slab[axis].start
            return array.axis_column(name, positions).take(pa.array(index))
        if len(axes) < len(slab):
            index = rows.index(axes, tuple(self.shape[axis] for axis in axes))
            return columns[name].take(pa.array(index))
        start = self._offset(slab)
        values = columns[name][start : start + size(slab)]
        if isinstance(values, np.ndarray):
            values = array.values.to_arrow(values)
        return values if rows.numbers is None else values.take(pa.array(rows.numbers))

    def batches(
        self, names: Sequence[str], condition: Condition | None, columns: Mapping[str, Column]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the rows that pass, slab by slab, of what was `read`."""
        schema = pa.schema([self.array.columns.schema.field(name) for name in names])
        for slab in self._slabs():
            rows = self._rows(slab)
            if condition is not None and not self._is_fulfilled(condition):
                mask = self._slab_mask(condition, condition.columns, slab, columns)
                rows = SlabRows(slab).narrow(mask)
            if not rows.count:
                continue
            if not names:  # a batch of no columns still has a length
                yield pa.record_batch({"_": pa.nulls(rows.count)}).select([])
                continue
            arrays = [self._column(name, rows, columns) for name in names]
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
    """Some cells of a slab of a window, by their numbers in C order; None for all of them."""

    slab: Window
    numbers: NDArray[np.int64] | None = None

    @property
    def count(self) -> int:
        """How many there are."""
        return size(self.slab) if self.numbers is None else len(self.numbers)

    def narrow(self, mask: Mask) -> SlabRows:
        """Return those of the slab's cells that pass."""
        return SlabRows(self.slab, None if mask.all() else np.flatnonzero(mask))

    def index(self, axes: tuple[int, ...], shape: tuple[int, ...] = (0,)) -> NDArray[np.int64]:
        """Return the numbers, in C order, of the cells' places along some axes of the window.

        `shape` is that of the window along these axes, where they are several.
        """
        index, stride = np.zeros((), dtype=np.int64), 1
        for axis, length in zip(reversed(axes), reversed(shape), strict=True):
            index = index + (self._places[axis] + self.slab[axis].start) * stride
            stride *= length
        if self.numbers is not None:
            return index
        return np.broadcast_to(index, tuple(map(len, self.slab))).reshape(-1)

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], ...]:
        """Their places along each axis; of all cells in shapes that together spread over them."""
        shape = tuple(map(len, self.slab))
        if self.numbers is None:
            return np.indices(shape, np.int64, sparse=True)
        return np.unravel_index(self.numbers, shape)
