"""The packed Hilbert R-tree of a field of footprints, in the format of geo-index.

Eight bytes say what it is; the boxes of all levels follow, the leaves first and the root last,
then the row of each leaf (geo-index, ``rtree/index.rs``; flatbush's format, version 3). A search
goes down from the root, and of each level reads the boxes below those it met.
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

HEADER = struct.Struct("<BBHI")  # magic number, version and type, boxes in a node, items

MAGIC, VERSION = 0xFB, 3

DTYPES = ("i1", "u1", "u1", "<i2", "<u2", "<i4", "<u4", "<f4", "<f8")
"""The types of coordinates, by their number in the format."""

MAX_UPPER_BOXES = 16_384  # the most boxes of upper levels that are read together
MIN_LEAVES_READ = 65_536  # the fewest leaves that a search may read before it gives up
MIN_WIDE_BOXES = 16_384  # from so many boxes on, rows are stored in 32 bits instead of 16
type Box = tuple[float, float, float, float]  # west, south, east, north in degrees

type Records = tuple[int, int, NDArray[np.int64]]
"""The offset of the first of consecutive records, the bytes of one, and the ascending numbers of
those to read. The last may reach beyond the end, where anything may come."""

type ReadRecords = Callable[[Sequence[Records]], list[NDArray[np.void]]]
"""Reads records of several kinds together."""


def boxes_meet(corners: NDArray[Any], boxes: Iterable[Box]) -> NDArray[np.bool_]:
    """Mask of the rectangles, of shape (n, 4), that meet one of `boxes`; NaN never does."""
    west, south, east, north = corners.T
    return _in_boxes((east, north), (west, south), boxes)


def within(corners: NDArray[Any], boxes: Iterable[Box]) -> NDArray[np.bool_]:
    """Mask of the rectangles, of shape (n, 4), that lie in one of `boxes`."""
    west, south, east, north = corners.T
    return _in_boxes((west, south), (east, north), boxes)


type Axes = tuple[NDArray[Any], NDArray[Any]]  # x and y


def _in_boxes(low: Axes, high: Axes, boxes: Iterable[Box]) -> NDArray[np.bool_]:
    is_inside = np.zeros(len(low[0]), dtype=bool)
    for west, south, east, north in boxes:
        along = (low[0] >= west) & (high[0] <= east)
        is_inside |= along & (low[1] >= south) & (high[1] <= north)
    return is_inside


@dataclass(frozen=True)
class Layout:
    """Where levels and rows of a tree lie, by its leaves, boxes in a node and coordinates."""

    items: int
    node: int
    dtype: np.dtype[Any]

    @cached_property
    def levels(self) -> list[tuple[int, int]]:
        """The first box of each level and the one after its last, the leaves first."""
        levels = [(0, self.items)]
        while levels[-1][1] - levels[-1][0] > 1 or len(levels) == 1:
            start, stop = levels[-1]
            levels.append((stop, stop + -(-(stop - start) // self.node)))
        return levels

    @property
    def boxes(self) -> int:
        """The number of boxes of all levels."""
        return self.levels[-1][1]

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """The type of the rows."""
        return np.dtype("<u2" if self.boxes < MIN_WIDE_BOXES else "<u4")

    @property
    def width(self) -> int:
        """The bytes of a box."""
        return 4 * self.dtype.itemsize

    @property
    def rows_offset(self) -> int:
        """The byte at which the rows begin."""
        return HEADER.size + self.boxes * self.width

    @property
    def nbytes(self) -> int:
        """The bytes of all of the tree."""
        return self.rows_offset + self.boxes * self.row_dtype.itemsize


def layout(head: bytes) -> Layout:
    """Parse the layout from a tree's header of eight bytes.

    A `ValueError` is raised where they aren't those of a tree.
    """
    magic, version, node, items = HEADER.unpack(head)
    if magic != MAGIC or version >> 4 != VERSION or version & 15 >= len(DTYPES) or node < 2:
        raise ValueError("it is no R-tree of geo-index's format, version 3")
    return Layout(items, node, np.dtype(DTYPES[version & 15]))


@dataclass(frozen=True)
class Leaves:
    """Leaves of a tree: positions among all of them, rows, and boxes of shape (n, 4)."""

    positions: NDArray[np.int64]
    rows: NDArray[np.int64]
    corners: NDArray[Any]

    def __getitem__(self, selection: NDArray[Any]) -> Leaves:
        return Leaves(self.positions[selection], self.rows[selection], self.corners[selection])


def search_tree(
    tree: Layout, read: ReadRecords, boxes: Sequence[Box], max_leaves: int
) -> Leaves | None:
    """Find the leaves whose boxes meet one of `boxes`; None for more than `max_leaves`.

    Far more aren't even read.
    """
    empty = np.empty(0, dtype=np.int64)
    nothing = Leaves(empty, empty, np.empty((0, 4), dtype=tree.dtype))
    if not tree.items:
        return nothing
    # The levels above come together in one request, and the rows with the leaves' boxes.
    upper_start = next(start for start, _ in tree.levels if tree.boxes - start <= MAX_UPPER_BOXES)
    begin, upper_bytes = upper_start * tree.width, (tree.boxes - upper_start) * tree.width
    (upper,) = read([(HEADER.size + begin, upper_bytes, np.zeros(1, dtype=np.int64))])
    upper = upper.view(f"V{tree.width}")
    positions, rows = np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.void)
    row_size = tree.row_dtype.itemsize
    for level, (start, stop) in reversed([*enumerate(tree.levels[:-1])]):
        below = (positions[:, None] * tree.node + np.arange(tree.node)).ravel()
        below = below[below < stop - start]
        if start >= upper_start:
            records = upper[start - upper_start + below]
        else:
            nodes = [(HEADER.size + start * tree.width, tree.node * tree.width, positions)]
            if not start:
                nodes.append((tree.rows_offset, tree.node * row_size, positions))
            records, *row_records = read(nodes)
            records = records.view(f"V{tree.width}")[: len(below)]
            if row_records:
                rows = row_records[0].view(f"V{row_size}")[: len(below)]
        corners = records.view(tree.dtype).reshape(-1, 4)
        meets = boxes_meet(corners, boxes)
        positions, corners = below[meets], corners[meets]
        if not len(positions):
            return nothing
        # Of the nodes right above the leaves some are met at their rims alone.
        if level == 1 and len(positions) * tree.node > 4 * max_leaves + MIN_LEAVES_READ:
            return None
    if len(positions) > max_leaves:
        return None
    if upper_start:
        rows = rows[meets]
    else:
        (rows,) = read([(tree.rows_offset, row_size, positions)])
    return Leaves(positions, rows.view(tree.row_dtype).astype(np.int64), corners)


def round_outward(corners: NDArray[np.float64]) -> NDArray[np.float32]:
    """Round rectangles, of shape (n, 4), outward to single precision.

    Those of NaN become empty rectangles, which no search meets.
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
    """Widen boxes to meet, in a tree of this precision, all that `boxes` meet.

    However the tree's own were rounded: a step further out is no less than was lost.
    """
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4).astype(dtype)
    for _ in range(2):  # what rounding to the precision took, here and there
        corners[:, :2] = np.nextafter(corners[:, :2], dtype.type(-np.inf))
        corners[:, 2:] = np.nextafter(corners[:, 2:], dtype.type(np.inf))
    return [(west, south, east, north) for west, south, east, north in corners.tolist()]


def build(blocks: Iterable[NDArray[np.float32]], items: int) -> NDArray[np.uint8]:
    """Build a tree of `items` rectangles, from blocks of shape (n, 4), and return its bytes."""
    from geoindex_rs import rtree  # type: ignore[attr-defined]

    builder = rtree.RTreeBuilder(items, limits().tree_node_boxes, "float32")
    for block in blocks:
        builder.add(*(np.ascontiguousarray(block[:, axis]) for axis in range(4)))
    return np.frombuffer(memoryview(builder.finish()), dtype=np.uint8)


def leaf_rows(tree: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Read the row of each leaf from the bytes of a tree."""
    head = layout(tree[: HEADER.size].tobytes())
    stop = head.rows_offset + head.items * head.row_dtype.itemsize
    return tree[head.rows_offset : stop].view(head.row_dtype).astype(np.int64)
