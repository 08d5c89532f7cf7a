"""One row a cell: how the cells of arrays are gone through.

A filter is asked again and again, each time with more columns known: of whole arrays by their
labels, of the chunks along each axis by positions and coordinates, of the cells of a few chunks by
the same, of cells with the columns that the filter reads, such as the latitudes of a swath. Only
what may still pass is fetched, a few chunks ahead of who reads.
"""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pyarrow as pa
import zarr.core.sync
from numpy.typing import NDArray

from l2view.arrays.grid import first_and_rest, size, tiles
from l2view.cells.columns import Arrays
from l2view.cells.windows import MOST, Alive, Fetched, Member, Piece
from l2view.errors import QueryError
from l2view.scan.filter import Condition
from l2view.text import join_names

MAX_CELLS = 100_000_000_000
"""The most cells that a query goes through, unless a caller allows more."""

AHEAD = 4 * MOST
"""The most cells of all parts together that are read before they are asked for."""

PIECES = 16
"""The most windows, and the most arrays, that are read before they are asked for."""

WORKERS = os.cpu_count() or 1
"""How many parts a table has."""


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Return the threads of a process: those that it was forked from didn't come along.

    There are more than processors, for stores that are far away.
    """
    return ThreadPoolExecutor(max(8, WORKERS), thread_name_prefix="l2view-cells")


def require_free_loop() -> None:
    """Raise where zarr's event loop is what asks: it would wait for threads that wait for it.

    Raises
    ------
    QueryError
        Saying how to ask instead.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        return
    if running is zarr.core.sync.loop[0]:
        raise QueryError(
            "a table can't be read within zarr's own event loop; read it in a thread: "
            "await asyncio.to_thread(…)"
        )


def _submit[*A, R](call: Callable[[*A], R], *arguments: *A) -> Future[R]:
    return _pool(os.getpid()).submit(call, *arguments)


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
        """Return the parts in which a condition may hold (see `l2view.scan.dataset.Table`).

        Raises
        ------
        QueryError
            Where there are more than `max_cells` cells, and nothing says which are wanted.
        """
        members = [(one, _members(one, condition)) for one in self.arrays]
        total = sum(_total(one.shapes[some]) for one, some in members)
        if total > self.max_cells and not early and not self._is_narrowed(condition):
            raise self.too_many(f"{total:,}")
        shared = Shared(self, early)
        if early or not several or total <= MOST:
            return [CellsPart(shared, members)]
        ahead = max(AHEAD // WORKERS, MOST)
        if sum(len(some) for _, some in members) < 4 * WORKERS:
            return [CellsPart(shared, members, number, WORKERS, ahead) for number in range(WORKERS)]
        shares = [(one, np.array_split(some, WORKERS)) for one, some in members]
        return [
            CellsPart(shared, [(one, share[number]) for one, share in shares], ahead=ahead)
            for number in range(WORKERS)
        ]

    def _is_narrowed(self, condition: Condition | None) -> bool:
        """Return whether a condition may leave chunks out."""
        return condition is not None and any(
            condition.looks_at(one.columns.along(axis))
            for one in self.arrays
            for axis in range(one.shapes.shape[1])
        )

    def too_many(self, total: str) -> QueryError:
        """Return what to say where more than `max_cells` cells would be gone through."""
        read = self.arrays[0].columns.read
        names = [name for name in self.schema.names if name not in read]
        return QueryError(
            f"{self.name} has {total} cells to go through, more than max_cells="
            f"{self.max_cells:,}: filter by {join_names(names)}, or allow more with max_cells"
        )


def _members(arrays: Arrays, condition: Condition | None) -> NDArray[np.int64]:
    """Return the arrays in which a condition may hold."""
    alive = arrays.shapes.all(axis=1)
    columns = arrays.columns
    if condition is not None and condition.looks_at([*columns.labels.names, *columns.absent]):
        used = [name for name in columns.labels.names if name in condition.columns]
        table = arrays.labels(used)
        known = {name: table.column(name).combine_chunks() for name in used}
        for name in columns.absent.keys() & condition.columns:
            known[name] = pa.nulls(len(alive), columns.absent[name])
        alive = alive & condition.may_hold(known, len(alive))
    return np.flatnonzero(alive)


def _total(shapes: NDArray[np.int64]) -> int:
    """Return the number of cells of arrays, also where 64 bits can't tell it."""
    if shapes.astype(np.float64).prod(axis=1).sum() < 2**62:
        return int(shapes.prod(axis=1).sum())
    return sum(math.prod(shape) for shape in shapes.tolist())


@dataclass
class Shared:
    """What the parts of one scan share.

    Attributes
    ----------
    cells
        The table.
    early
        Whether who reads may stop early; one window more than is allowed may then be read.
    gone
        How many cells were gone through.
    """

    cells: Cells
    early: bool = False
    gone: int = 0
    _alive: dict[tuple[int, int], Alive] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def go(self, cells: int) -> None:
        """Count cells that are gone through.

        Raises
        ------
        QueryError
            Where they are too many.
        """
        with self._lock:
            self.gone += cells
        if self.gone > self.cells.max_cells + (MOST if self.early else 0):
            raise self.cells.too_many(f"more than {self.gone - cells:,}")

    def alive(self, member: Member, condition: Condition | None, number: tuple[int, int]) -> Alive:
        """Return what `Member.alive` does, which all parts of an array ask."""
        with self._lock:
            if number not in self._alive:
                self._alive[number] = member.alive(condition)
            return self._alive[number]


@dataclass(frozen=True)
class CellsPart:
    """The cells of some arrays, or every so many-th window of them.

    Attributes
    ----------
    shared
        What it shares with other parts.
    members
        The arrays.
    first, step
        Which of their windows: the `first`, and every `step`-th after it.
    ahead
        The most cells that are read before they are asked for.
    """

    shared: Shared
    members: Members
    first: int = 0
    step: int = 1
    ahead: int = AHEAD

    def batches(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield rows (see `l2view.scan.dataset.Part`)."""
        require_free_loop()
        queue: deque[tuple[int, Future[Fetched]]] = deque()
        waiting, room, most = 0, 0, 0
        pieces = self._pieces(columns, condition)
        try:
            for piece in pieces:
                cost = piece.cost
                queue.append((cost, _submit(piece.fetched, columns, condition)))
                waiting += cost
                while queue and (waiting - queue[0][0] >= room or len(queue) > most):
                    cost, task = queue.popleft()
                    waiting -= cost
                    yield from _made(task, columns, condition)
                    # Who wants few rows has got them by now.
                    room, most = self.ahead, PIECES
            while queue:
                yield from _made(queue.popleft()[1], columns, condition)
        finally:
            pieces.close()
            for _, task in queue:
                task.cancel()

    def _pieces(self, columns: Sequence[str], condition: Condition | None) -> Generator[Piece]:
        """Yield the windows in which a condition may hold, with what is known of their cells."""
        number = 0
        for member, alive in self._opened(columns, condition):
            values = member.opened.values
            parts = first_and_rest(alive) if number == 0 else [(MOST, alive)]
            for most, some in parts:
                for chunks in tiles(values.edges, some, values.decoder.shards, min(most, MOST)):
                    number += 1
                    if (number - 1) % self.step != self.first:
                        continue
                    for piece in member.pieces(chunks, condition):
                        self.shared.go(size(piece.window))
                        yield piece

    def _opened(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[tuple[Member, Alive]]:
        """Yield the arrays, some of them opened before they are asked for."""
        queue: deque[Future[tuple[Member, Alive]]] = deque()
        most = 0
        try:
            for number, member in self._members(columns, condition):
                queue.append(_submit(self._open, number, member, condition))
                if len(queue) > most:
                    yield queue.popleft().result()
                    most = PIECES
            while queue:
                yield queue.popleft().result()
        finally:
            for task in queue:
                task.cancel()

    def _open(
        self, number: tuple[int, int], member: Member, condition: Condition | None
    ) -> tuple[Member, Alive]:
        if self.step > 1:
            return member, self.shared.alive(member, condition, number)
        return member, member.alive(condition)

    def _members(
        self, columns: Sequence[str], condition: Condition | None
    ) -> Iterator[tuple[tuple[int, int], Member]]:
        """Yield the arrays and their labels, nothing of them read yet."""
        wanted = {*columns, *(condition.columns if condition is not None else ())}
        for kind, (arrays, members) in enumerate(self.members):
            names = [name for name in arrays.columns.labels.names if name in wanted]
            labels = arrays.labels(names)
            kinds = arrays.columns.absent
            absent = {name: pa.scalar(None, kinds[name]) for name in kinds if name in wanted}
            for index in members.tolist():
                row = {name: labels.column(name)[index] for name in names} | absent
                yield (kind, index), Member(arrays, index, row)


def _made(
    task: Future[Fetched], columns: Sequence[str], condition: Condition | None
) -> Iterator[pa.RecordBatch]:
    for piece, read in task.result():
        yield from piece.made(columns, condition, read)
