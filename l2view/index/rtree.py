"""The packed Hilbert R-tree of a field of footprints, in the format of geo-index.

Eight bytes say what it is; the boxes of all levels follow, the leaves first and the root last,
then the row of each leaf (geo-index, ``rtree/index.rs``; flatbush's format, version 3). A search
goes down from the root, and of each level reads the boxes below those it met: of a large tree
little more than the leaves that it finds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2view.limits import limits

HEADER = struct.Struct("<BBHI")
"""Magic number, version and type, boxes in a node, items."""

MAGIC, VERSION = 0xFB, 3

DTYPES = ("i1", "u1", "u1", "<i2", "<u2", "<i4", "<u4", "<f4", "<f8")
"""The types of coordinates, by their number in the format."""

UPPER = 16_384
"""The most boxes of upper levels that are read together."""

ENOUGH = 65_536
"""So many leaves are looked at in any case."""

WIDE = 16_384
"""From so many boxes on, their rows are numbers of 32 bits."""

type Box = tuple[float, float, float, float]
"""West, south, east, north in degrees."""

type ReadBytes = Callable[[Sequence[tuple[int, int]]], list[NDArray[np.uint8]]]
"""Called with starts and stops, it returns the bytes between them."""


def boxes_meet(corners: NDArray[Any], boxes: Iterable[Box]) -> NDArray[np.bool_]:
    """Return which rectangles, of shape (n, 4), meet one of `boxes`; those of NaN never do."""
    found = np.zeros(len(corners), dtype=bool)
    for west, south, east, north in boxes:
        found |= (
            (corners[:, 0] <= east)
            & (corners[:, 2] >= west)
            & (corners[:, 1] <= north)
            & (corners[:, 3] >= south)
        )
    return found


def within(corners: NDArray[Any], boxes: Iterable[Box]) -> NDArray[np.bool_]:
    """Return which rectangles, of shape (n, 4), lie in one of `boxes`."""
    found = np.zeros(len(corners), dtype=bool)
    for west, south, east, north in boxes:
        found |= (
            (corners[:, 0] >= west)
            & (corners[:, 2] <= east)
            & (corners[:, 1] >= south)
            & (corners[:, 3] <= north)
        )
    return found


@dataclass(frozen=True)
class Layout:
    """Where the parts of a tree lie.

    Attributes
    ----------
    items
        The number of leaves.
    node
        The boxes in a node.
    dtype
        The type of the coordinates.
    """

    items: int
    node: int
    dtype: np.dtype[Any]

    @cached_property
    def levels(self) -> list[tuple[int, int]]:
        """The first box of each level and the one after its last, the leaves first."""
        found = [(0, self.items)]
        while found[-1][1] - found[-1][0] > 1 or len(found) == 1:
            start, stop = found[-1]
            found.append((stop, stop + -(-(stop - start) // self.node)))
        return found

    @property
    def boxes(self) -> int:
        """The number of boxes of all levels."""
        return self.levels[-1][1]

    @property
    def width(self) -> int:
        """The bytes of a box."""
        return 4 * self.dtype.itemsize

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """The type of the rows."""
        return np.dtype("<u2" if self.boxes < WIDE else "<u4")

    @property
    def nbytes(self) -> int:
        """The bytes of the whole tree."""
        return HEADER.size + self.boxes * (self.width + self.row_dtype.itemsize)


def layout(head: bytes) -> Layout:
    """Return the layout that a tree's first eight bytes tell.

    Raises
    ------
    ValueError
        Where they aren't those of a tree.
    """
    magic, version, node, items = HEADER.unpack(head)
    if magic != MAGIC or version >> 4 != VERSION or version & 15 >= len(DTYPES) or node < 2:
        raise ValueError("it is no R-tree of geo-index's format, version 3")
    return Layout(items, node, np.dtype(DTYPES[version & 15]))


@dataclass(frozen=True)
class Leaves:
    """Leaves of a tree.

    Attributes
    ----------
    places
        Their positions among all leaves, ascending, int64, of shape (n,).
    rows
        Their rows, int64, of shape (n,).
    corners
        Their boxes, of shape (n, 4).
    """

    places: NDArray[np.int64]
    rows: NDArray[np.int64]
    corners: NDArray[Any]

    def __getitem__(self, which: NDArray[Any]) -> Leaves:
        return Leaves(self.places[which], self.rows[which], self.corners[which])


def search_tree(tree: Layout, read: ReadBytes, boxes: Sequence[Box], most: int) -> Leaves | None:
    """Return the leaves whose boxes meet one of `boxes`, None where they are more than `most`.

    Parameters
    ----------
    tree
        What the tree's head says.
    read
        Reads bytes of the tree.
    boxes
        Rectangles.
    most
        The most leaves that are of use. Far more aren't even read.
    """
    empty = np.empty(0, dtype=np.int64)
    nothing = Leaves(empty, empty, np.empty((0, 4), dtype=tree.dtype))
    if not tree.items:
        return nothing
    # The levels above come together in one request, and the rows with the leaves' boxes.
    first = next(start for start, _ in tree.levels if tree.boxes - start <= UPPER)
    upper = _gather(read, HEADER.size, tree.width, np.arange(first, tree.boxes))
    begin = HEADER.size + tree.boxes * tree.width
    found = np.zeros(1, dtype=np.int64)
    rows = np.empty((0, 1), dtype=np.uint8)
    for level, (start, stop) in reversed([*enumerate(tree.levels[:-1])]):
        below = (found[:, None] * tree.node + np.arange(tree.node)).ravel()
        below = below[below < stop - start]
        if start >= first:
            corners = upper[start - first + below]
        elif start:
            corners = _gather(read, HEADER.size, tree.width, start + below)
        else:
            corners, rows = _leaves(tree, read, below)
        corners = corners.view(tree.dtype).reshape(-1, 4)
        hit = boxes_meet(corners, boxes)
        found, corners = below[hit], corners[hit]
        if not len(found):
            return nothing
        # Of the nodes right above the leaves some are met at their rims alone.
        if level == 1 and len(found) * tree.node > 4 * most + ENOUGH:
            return None
    if len(found) > most:
        return None
    if not first:
        rows = _gather(read, begin, tree.row_dtype.itemsize, found)
        hit = np.ones(len(found), dtype=bool)
    return Leaves(found, rows[hit].view(tree.row_dtype).ravel().astype(np.int64), corners)


def _leaves(
    tree: Layout, read: ReadBytes, numbers: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the boxes and the rows of leaves, both as bytes, asked for together."""
    begin = HEADER.size + tree.boxes * tree.width
    size = tree.row_dtype.itemsize
    boxes, rows = _spans(HEADER.size, tree.width, numbers), _spans(begin, size, numbers)
    parts = read([*boxes, *rows])
    return _records(parts[: len(boxes)], tree.width), _records(parts[len(boxes) :], size)


def _gather(
    read: ReadBytes, begin: int, size: int, numbers: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Return records of `size` bytes by their ascending numbers, of shape (n, size)."""
    return _records(read(_spans(begin, size, numbers)), size)


def _spans(begin: int, size: int, numbers: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the starts and stops of the bytes of records, those side by side as one."""
    cuts = np.flatnonzero(np.diff(numbers) > 1) + 1
    firsts = numbers[np.concatenate([[0], cuts])]
    lasts = numbers[np.concatenate([cuts - 1, [len(numbers) - 1]])]
    starts, stops = begin + firsts * size, begin + (lasts + 1) * size
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def _records(parts: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return np.ascontiguousarray(whole).reshape(-1, size)


def round_outward(corners: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return rectangles in single precision that hold those of shape (n, 4).

    Those of NaN become empty ones, which no search meets.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        singles = corners.astype(np.float32)
        low, high = singles[:, :2], singles[:, 2:]
        down, up = np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))
        singles[:, :2] = np.where(low > corners[:, :2], down, low)
        singles[:, 2:] = np.where(high < corners[:, 2:], up, high)
    singles[np.isnan(singles).any(axis=1)] = (np.inf, np.inf, -np.inf, -np.inf)
    return singles


def widen_boxes(boxes: Sequence[Box], dtype: np.dtype[Any]) -> list[Box]:
    """Return boxes that meet, in a tree of this precision, all that `boxes` meet.

    However the tree's own were rounded: a step further out is no less than was lost.
    """
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4).astype(dtype)
    for _ in range(2):  # what rounding to the precision took, here and there
        corners[:, :2] = np.nextafter(corners[:, :2], dtype.type(-np.inf))
        corners[:, 2:] = np.nextafter(corners[:, 2:], dtype.type(np.inf))
    return [(west, south, east, north) for west, south, east, north in corners.tolist()]


def build(blocks: Iterable[NDArray[np.float32]], items: int) -> NDArray[np.uint8]:
    """Return the bytes of a tree.

    Parameters
    ----------
    blocks
        Rectangles of consecutive rows, each of shape (n, 4).
    items
        The number of rows.
    """
    from geoindex_rs import rtree  # type: ignore[attr-defined]

    builder = rtree.RTreeBuilder(items, limits().tree_node_boxes, "float32")
    for block in blocks:
        builder.add(*(np.ascontiguousarray(block[:, axis]) for axis in range(4)))
    return np.frombuffer(memoryview(builder.finish()), dtype=np.uint8)
