"""Footprints that are none: what keeps one bad geometry from spoiling a search.

The ``ST_*`` functions fail altogether on bytes that aren't WKB, and a coordinate that is NaN or
infinite ends the process, so neither gets there: such a footprint is NULL, and a warning names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from l2view.meta.schema import Field

HEAD = np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4")])
"""How the WKB of a little-endian polygon of one ring begins: with 1, 3, 1, and its points."""

RECTANGLE = 5  # the points of a rectangle's ring

EVERYWHERE = (-np.inf, -np.inf, np.inf, np.inf)
"""The bounds of a footprint that can't be read: they rule nothing out."""

BLOCK = 8_192  # footprints that are looked at together: their bytes stay in the processor's cache


def read_geometries(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """Parse WKB as binary or WKT as text, None where one is NULL or isn't a geometry."""
    read = shapely.from_wkb if pa.types.is_binary(column.type) else shapely.from_wkt
    values = np.array(column.to_pylist(), dtype=object)
    try:
        with np.errstate(invalid="ignore"):  # NaN is nothing that NumPy need warn of
            return np.asarray(read(values, on_invalid="ignore"))
    except NotImplementedError:  # of a curve, for all of them
        return np.array([_parse(read, value) for value in values], dtype=object)


def _parse(read: Callable[..., Any], value: Any) -> Any:
    try:
        return read(value, on_invalid="ignore")
    except NotImplementedError:
        return None


def unreadable_rows(column: pa.Array) -> NDArray[np.int64]:
    """Positions of values that are neither NULL nor geometries."""
    is_valid = column.is_valid().to_numpy(zero_copy_only=False)
    return np.flatnonzero(shapely.is_missing(read_geometries(column)) & is_valid)


def nonfinite_rows(column: pa.Array, field: Field) -> NDArray[np.int64]:
    """Positions of geometries with a NaN or infinite coordinate.

    Nearly all columns have none, and are not parsed to find that out: the exponent of such a
    double is all ones, which the bytes around it tell.
    """
    if field.geometry == "WKB":
        suspects = _suspects(column)
    else:
        matches = pc.match_substring_regex(column, "(?i)nan|inf|point[ a-z]*empty")
        suspects = np.flatnonzero(pc.fill_null(matches, False).to_numpy(zero_copy_only=False))
    if len(suspects) == 0:
        return suspects
    geometries = read_geometries(column.take(pa.array(suspects)))
    coordinates, owners = shapely.get_coordinates(geometries, include_z=True, return_index=True)
    # A geometry without a third dimension has NaN there, which is as it should be.
    flat = ~shapely.has_z(geometries)[owners]
    good = np.isfinite(coordinates[:, :2]).all(axis=1) & (flat | np.isfinite(coordinates[:, 2]))
    bad = set(owners[~good].tolist())
    # WKB has no empty point but one at NaN, NaN.
    bad |= set(np.flatnonzero(shapely.is_empty(geometries)).tolist())
    return suspects[sorted(bad)]


def _suspects(column: pa.Array) -> NDArray[np.int64]:
    """Positions of WKB in which a double's exponent may be all ones."""
    if not len(column):
        return np.empty(0, dtype=np.int64)
    bounds, raw = _bytes_of(column)
    raw = raw[bounds[0] : bounds[-1]]
    # Sign and the first seven bits of the exponent; the other four stand in the byte beside.
    ones = np.flatnonzero((raw & 0x7F) == 0x7F)
    hit = np.zeros(len(ones), dtype=bool)
    for positions in (ones - 1, ones + 1):  # little-endian, big-endian
        inside = (positions >= 0) & (positions < len(raw))
        hit[inside] |= (raw[positions[inside]] & 0xF0) == 0xF0
    owners = np.searchsorted(bounds - bounds[0], ones[hit], side="right") - 1
    return np.unique(owners).astype(np.int64)


def _bytes_of(column: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Where each value begins and the last ends, and the bytes of all."""
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    return bounds, np.frombuffer(data or b"", dtype=np.uint8)


def bounds(column: pa.Array, field: Field) -> NDArray[np.float64]:
    """Bounds of footprints: west, south, east and north in degrees, float64, of shape (n, 4).

    NaN where one is NULL; `EVERYWHERE` where one can't be read or isn't finite.
    """
    corners = np.full((len(column), 4), np.nan)
    unparsed = np.ones(len(column), dtype=bool)
    for block, xy in _polygons(column, field):
        # Point by point, each of all footprints: few points are many short rows otherwise.
        points = np.ascontiguousarray(xy.T)
        x, y = points[0::2], points[1::2]
        corners[block] = np.stack(
            [x.min(axis=0), y.min(axis=0), x.max(axis=0), y.max(axis=0)], axis=1
        )
        unparsed[block] = False
    remaining = np.flatnonzero(unparsed & column.is_valid().to_numpy(zero_copy_only=False))
    if len(remaining):
        corners[remaining] = shapely.bounds(read_geometries(column.take(pa.array(remaining))))
    with np.errstate(all="ignore"):
        finite = np.isfinite(corners[:, 0] + corners[:, 1] + corners[:, 2] + corners[:, 3])
    corners[~finite & column.is_valid().to_numpy(zero_copy_only=False)] = EVERYWHERE
    return corners


def are_rectangles(column: pa.Array, field: Field) -> NDArray[np.bool_]:
    """Mask of footprints that are axis-aligned rectangles; WKT is False."""
    result = np.zeros(len(column), dtype=bool)
    for block, xy in _polygons(column, field):
        if xy.shape[1] != 2 * RECTANGLE:
            continue
        x, y = xy[:, 0::2], xy[:, 1::2]
        closed = (x[:, 0] == x[:, 4]) & (y[:, 0] == y[:, 4])
        across = (x[:, 0] != x[:, 2]) & (y[:, 0] != y[:, 2])
        sides = [[axis[:, i] == axis[:, i + 1] for i in range(4)] for axis in (x, y)]
        up = sides[0][0] & sides[1][1] & sides[0][2] & sides[1][3]
        along = sides[1][0] & sides[0][1] & sides[1][2] & sides[0][3]
        result[block] = closed & across & (up | along)
    return result


def _polygons(
    column: pa.Array, field: Field
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield positions of little-endian polygons of one ring, as nearly all footprints are.

    With them come their coordinates, x and y in turn, of shape (n, 2 points). WKB of one length
    (OGC 06-103r4, 8.2) is a matrix.
    """
    if field.geometry != "WKB" or not len(column):
        return
    starts, raw = _bytes_of(column)
    sizes = np.diff(starts)
    for size in np.unique(sizes).tolist():
        points = (size - HEAD.itemsize) // 16
        if points < 4 or HEAD.itemsize + 16 * points != size:
            continue
        wkb = np.dtype([("head", HEAD), ("xy", "<f8", 2 * points)])
        rows = np.flatnonzero(sizes == size)
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            begin, end = int(starts[block[0]]), int(starts[block[-1] + 1])
            if end - begin == len(block) * size:
                values = raw[begin:end].view(wkb)
            else:
                values = raw[starts[block][:, None] + np.arange(size)].view(wkb)[:, 0]
            head = values["head"]
            fits = head["order"] == 1
            for name, value in (("type", 3), ("rings", 1), ("points", points)):
                fits &= head[name] == value
            yield (block, values["xy"]) if fits.all() else (block[fits], values["xy"][fits])


def mask_rows(column: pa.Array, positions: NDArray[np.int64]) -> pa.Array:
    """Return `column` with NULL at `positions`."""
    if len(positions) == 0:
        return column
    dropped = np.zeros(len(column), dtype=bool)
    dropped[positions] = True
    return pc.if_else(pa.array(dropped), pa.scalar(None, column.type), column)
