"""One row a cell: how the cells of arrays are gone through.

A filter is asked again and again, each time with more columns known: of whole arrays by their
labels, of the chunks along each axis by positions and coordinates, of the cells of a few chunks by
the same, of cells with the columns that the filter reads. Only what may still pass is fetched, a
few chunks ahead of who reads.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import zarr.core.sync
from numpy.typing import NDArray

from l2view.arrays.grid import read_steps, size, tiles
from l2view.arrays.threads import thread_pool
from l2view.cells.columns import ArraySet
from l2view.cells.windows import CellWindow, LabelledArray, Mask
from l2view.errors import QueryError
from l2view.limits import limits
from l2view.scan.dataset import Partition
from l2view.scan.filter import Condition
from l2view.text import join_names

MAX_CELLS = 100_000_000_000  # the most cells that a query goes through, unless a caller allows more

MAX_CELLS_AHEAD = 1 << 22
"""The most cells of all partitions together that are read before they are asked for."""

MAX_READ_AHEAD = 16
"""The most windows, and the most arrays, that are read before they are asked for."""

WORKERS = os.cpu_count() or 1  # how many partitions a table has


def require_free_loop() -> None:
    """Raise where zarr's event loop is what asks: it would wait for threads that wait for it."""
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    if running is zarr.core.sync.loop[0]:
        raise QueryError(
            "a table can't be read within zarr's own event loop; read it in a thread: "
            "await asyncio.to_thread(…)"
        )


def _results[Result](tasks: Generator[tuple[int, Future[Result]]], room: int) -> Generator[Result]:
    """Yield the results of tasks, each with the cells that it reads, `room` of them ahead.

    A task begins when it is taken. The second is when the first is done with: a consumer of few
    rows has got them by then.
    """
    queue: deque[tuple[int, Future[Result]]] = deque()
    waiting, most_cells, most_tasks = 0, 0, 0
    try:
        for cells, task in tasks:
            queue.append((cells, task))
            waiting += cells
            while queue and (waiting - queue[0][0] >= most_cells or len(queue) > most_tasks):
                cells, task = queue.popleft()
                waiting -= cells
                yield task.result()
                most_cells, most_tasks = room, MAX_READ_AHEAD
        while queue:
            yield queue.popleft()[1].result()
    finally:
        tasks.close()
        for _, task in queue:
            task.cancel()


def _submit[*A, R](call: Callable[[*A], R], *arguments: *A) -> Future[R]:
    # More threads than processors, for stores that are far away.
    return thread_pool("cells", max(8, WORKERS)).submit(call, *arguments)


@dataclass(frozen=True)
class CellTable:
    """The cells of sets of arrays that have the same columns; messages call them `name`."""

    name: str
    arrays: tuple[ArraySet, ...]
    max_cells: int = MAX_CELLS

    def __str__(self) -> str:
        return f"{self.count():,} cells of {self.name}"

    @property
    def schema(self) -> pa.Schema:
        """The columns (see `CellColumns`)."""
        return self.arrays[0].columns.schema

    def count(self) -> int:
        """Return the number of cells."""
        return sum(_total(arrays.shapes) for arrays in self.arrays)

    def partitions(
        self, condition: Condition | None, *, early: bool = False, several: bool = False
    ) -> list[Partition]:
        """Return the partitions in which a condition may hold (see `l2view.scan.dataset.Table`).

        A `QueryError` says that there are more than `max_cells` cells, and nothing says which.
        """
        numbers = [(arrays, _prune(arrays, condition)) for arrays in self.arrays]
        total = sum(_total(arrays.shapes[selected]) for arrays, selected in numbers)
        is_narrowed = condition is not None and any(
            condition.looks_at(arrays.columns.along(axis))
            for arrays in self.arrays
            for axis in range(arrays.shapes.shape[1])
        )
        if total > self.max_cells and not early and not is_narrowed:
            raise self.too_many(f"{total:,}")
        scan, is_small = ScanState(self, early), total <= limits().window_cells
        workers = 1 if early or not several or is_small else WORKERS
        ahead = max(MAX_CELLS_AHEAD // workers, limits().window_cells)
        # Many arrays are shared out, of few the windows.
        count = workers if sum(len(selected) for _, selected in numbers) >= 4 * WORKERS else 1
        shares = [(arrays, np.array_split(selected, count)) for arrays, selected in numbers]
        return [
            CellsPartition(
                scan, [(a, s[at % count]) for a, s in shares], at // count, workers // count, ahead
            ).batches
            for at in range(workers)
        ]

    def too_many(self, total: str) -> QueryError:
        """Return the error of scanning more than `max_cells` cells."""
        by_cell = self.arrays[0].columns.by_cell
        names = [name for name in self.schema.names if name not in by_cell]
        return QueryError(
            f"{self.name} has {total} cells to go through, more than max_cells="
            f"{self.max_cells:,}: filter by {join_names(names)}, or allow more with max_cells"
        )


def _prune(arrays: ArraySet, condition: Condition | None) -> NDArray[np.int64]:
    """Return the arrays in which a condition may hold."""
    alive = arrays.shapes.all(axis=1)
    columns = arrays.columns
    if condition is not None and condition.looks_at([*columns.labels, *columns.absent]):
        names = [name for name in columns.labels if name in condition.columns]
        table = arrays.labels(names)
        values = {name: table.column(name).combine_chunks() for name in names}
        for name in columns.absent.keys() & condition.columns:
            values[name] = pa.nulls(len(alive), columns.absent[name])
        alive = alive & condition.may_hold(values, len(alive))
    return np.flatnonzero(alive)


def _total(shapes: NDArray[np.int64]) -> int:
    """Return the number of cells of arrays, also where 64 bits don't hold it."""
    if shapes.astype(np.float64).prod(axis=1).sum() < 2**62:
        return int(shapes.prod(axis=1).sum())
    return sum(math.prod(shape) for shape in shapes.tolist())


@dataclass
class ScanState:
    """What the partitions of one scan share.

    Where the consumer may stop `early`, one window more than is allowed may be read.
    """

    table: CellTable
    early: bool = False
    scanned: int = 0
    _masks: dict[tuple[int, int], list[Mask]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, cells: int) -> None:
        """Count cells that are scanned; a `QueryError` where they are too many."""
        with self._lock:
            self.scanned += cells
        if self.scanned > self.table.max_cells + (limits().window_cells if self.early else 0):
            raise self.table.too_many(f"more than {self.scanned - cells:,}")

    def chunk_masks(
        self, array: LabelledArray, condition: Condition | None, number: tuple[int, int]
    ) -> list[Mask]:
        """Return `LabelledArray.chunk_masks`, computed once for all partitions of an array."""
        with self._lock:
            if number not in self._masks:
                self._masks[number] = array.chunk_masks(condition)
            return self._masks[number]


@dataclass(frozen=True)
class CellsPartition:
    """The cells of some arrays: of their window at `offset`, and every `step`-th after it.

    The `arrays` are those of sets by their numbers, `ahead` is the most cells that are read before
    they are asked for.
    """

    scan: ScanState
    arrays: Sequence[tuple[ArraySet, NDArray[np.int64]]]
    offset: int
    step: int
    ahead: int

    def batches(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows (see `l2view.scan.dataset.Partition`)."""
        require_free_loop()
        tasks = (
            (window.cost, _submit(window.read, columns, condition))
            for window in self._windows(columns, condition)
        )
        with closing(_results(tasks, self.ahead)) as results:
            for windows in results:
                for window, values in windows:
                    yield from window.batches(columns, condition, values)

    def _windows(self, columns: Sequence[str], condition: Condition | None) -> Iterator[CellWindow]:
        """Yield the windows in which a condition may hold, with what is known of their cells."""
        tasks = (
            (0, _submit(self._open, number, array, condition))
            for number, array in self._label_arrays(columns, condition)
        )
        count = 0
        with closing(_results(tasks, self.ahead)) as results:
            for array, masks in results:
                steps = read_steps(masks) if count == 0 else [(limits().window_cells, masks)]
                edges, shards = array.values.edges, array.values.decoder.shards
                for most, tile_masks in steps:
                    cells = min(most, limits().window_cells)
                    for chunks in tiles(edges, tile_masks, shards, cells):
                        count += 1
                        if (count - 1) % self.step != self.offset:
                            continue
                        for window in array.windows(chunks, condition):
                            self.scan.add(size(window.window))
                            yield window

    def _open(
        self, number: tuple[int, int], array: LabelledArray, condition: Condition | None
    ) -> tuple[LabelledArray, list[Mask]]:
        if self.step > 1:
            return array, self.scan.chunk_masks(array, condition, number)
        return array, array.chunk_masks(condition)

    def _label_arrays(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[tuple[tuple[int, int], LabelledArray]]:
        """Yield the arrays with their labels, nothing of them read yet."""
        requested = {*columns, *(condition.columns if condition is not None else ())}
        for kind, (arrays, numbers) in enumerate(self.arrays):
            names = [name for name in arrays.columns.labels if name in requested]
            table = arrays.labels(names)
            types = arrays.columns.absent
            absent = {name: pa.scalar(None, types[name]) for name in types if name in requested}
            for index in numbers.tolist():
                labels = {name: table.column(name)[index] for name in names} | absent
                yield (kind, index), LabelledArray(arrays, index, labels)
