"""Which rows and columns of a granule's cells touch a place.

A cell of a swath reaches half-way to its neighbours' centres. Its corners are means of points on
the sphere, so that neither the antimeridian nor a pole is a seam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import shapely
import shapely.affinity
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geom import Geometry

from l2view.arrays.quiet import QUIET

type Window = tuple[int, int]
"""The first index along an axis, and the one after the last; (0, 0) for none."""

NOTHING: Window = (0, 0)

WHOLE_TURN = 180.0
"""Cells that seem wider, in degrees, hold a pole or lie on the far side of the globe."""

PIECES = 64
"""How often the edges of a place are cut, where it is brought to another CRS."""


def swath_windows(
    lat: NDArray[Any], lon: NDArray[Any], place: shapely.Geometry
) -> tuple[Window, Window]:
    """Return the rows and columns of a swath that touch a place.

    Parameters
    ----------
    lat, lon
        Of the cells' centres in degrees, of shape (rows, columns), NaN where there is none.
    place
        In EPSG:4326, within ±180° of longitude.
    """
    touching = np.zeros(lat.shape, dtype=bool)
    corners = corners_of(lat, lon)
    for part in shapely.get_parts(place):
        touching |= _touching(*corners, part)
    return _window(touching.any(axis=1)), _window(touching.any(axis=0))


def _window(touching: NDArray[np.bool_]) -> Window:
    found = np.flatnonzero(touching)
    return (int(found[0]), int(found[-1]) + 1) if len(found) else NOTHING


def corners_of(lat: NDArray[Any], lon: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return latitudes and longitudes of cells' corners, of shape (rows + 1, columns + 1).

    Parameters
    ----------
    lat, lon
        Of the cells' centres in degrees, of shape (rows, columns), NaN where there is none.
    """
    y, x = np.radians(lat), np.radians(lon)
    points = np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)
    for axis in (0, 1):
        points = _between(points, axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        flat = np.hypot(points[..., 0], points[..., 1])
        return (
            np.degrees(np.arctan2(points[..., 2], flat)),
            np.degrees(np.arctan2(points[..., 1], points[..., 0])),
        )


def _between(points: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return what lies half-way between neighbours, and half a step beyond the first and last.

    Where one of two neighbours isn't there, the other's own half step is taken.
    """
    count = points.shape[axis]
    if count == 1:
        return np.repeat(points, 2, axis=axis)
    first = np.take(points, range(count - 1), axis=axis)
    second = np.take(points, range(1, count), axis=axis)
    half = (second - first) / 2
    nothing = np.full_like(np.take(points, [0], axis=axis), np.nan)
    forward = points + np.concatenate([nothing, half], axis=axis)  # by the step before
    backward = points - np.concatenate([half, nothing], axis=axis)  # by the step behind
    middle = first + half
    inner = np.where(np.isnan(middle), np.take(forward, range(count - 1), axis=axis), middle)
    inner = np.where(np.isnan(inner), np.take(backward, range(1, count), axis=axis), inner)
    before = np.take(backward, [0], axis=axis)
    behind = np.take(forward, [count - 1], axis=axis)
    return np.concatenate([before, inner, behind], axis=axis)


def _touching(lat: NDArray[Any], lon: NDArray[Any], part: shapely.Geometry) -> NDArray[np.bool_]:
    """Return which cells, given by their corners, touch a geometry in one piece."""
    west, south, east, north = part.bounds
    middle = (west + east) / 2
    near = (lon - middle + 180) % 360 - 180 + middle
    low, high = extremes(lat)
    left, right = extremes(near)
    with np.errstate(invalid="ignore"):
        found = (high >= south) & (low <= north) & (right >= west) & (left <= east)
        # Such a cell holds a pole, or lies opposite the place.
        wide = right - left > WHOLE_TURN
        polar = np.maximum(np.abs(low), np.abs(high)) > 80
        beside = (high >= south) & (low <= north) & (polar | (east - west > WHOLE_TURN))
    found = np.asarray(np.where(wide, beside, found))
    if part.equals(shapely.box(west, south, east, north)):
        return found
    shapely.prepare(part)
    rows, columns = np.nonzero(found & ~wide)
    rings = [
        np.stack([near[rows + i, columns + j], lat[rows + i, columns + j]], axis=-1)
        for i, j in ((0, 0), (0, 1), (1, 1), (1, 0), (0, 0))
    ]
    whole = np.stack(rings, axis=1)
    known = np.isfinite(whole).all(axis=(1, 2))
    touches = np.ones(len(rows), dtype=bool)
    if known.any():
        touches[known] = shapely.intersects(part, shapely.polygons(whole[known]))
    found[rows, columns] = touches
    return found


def extremes(corners: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and greatest value at the corners of each cell, of those that there are."""
    four = (corners[:-1, :-1], corners[:-1, 1:], corners[1:, :-1], corners[1:, 1:])
    low, high = four[0], four[0]
    for other in four[1:]:
        low, high = np.fmin(low, other), np.fmax(high, other)
    return low, high


def axis_window(centres: NDArray[Any], intervals: Sequence[tuple[float, float]]) -> Window:
    """Return which cells along an axis, given by their centres, touch one of some intervals."""
    if len(centres) == 0:
        return NOTHING
    steps = np.diff(centres) / 2
    ends = (steps[:1], steps[-1:]) if len(steps) else (np.zeros(1), np.zeros(1))
    edges = np.concatenate([centres[:1] - ends[0], centres[:-1] + steps, centres[-1:] + ends[1]])
    low, high = np.fmin(edges[:-1], edges[1:]), np.fmax(edges[:-1], edges[1:])
    touching = np.zeros(len(centres), dtype=bool)
    for first, last in intervals:
        touching |= (high >= first) & (low <= last)
    return _window(touching)


def grid_windows(
    lat: NDArray[Any], lon: NDArray[Any], place: shapely.Geometry
) -> tuple[Window, Window]:
    """Return the rows and columns of a grid, given by its axes in degrees, that touch a place."""
    bounds = [part.bounds for part in shapely.get_parts(place)]
    rows = axis_window(lat, [(south, north) for _, south, _, north in bounds])
    # Longitudes may go from 0 to 360.
    turns = [(west + turn, east + turn) for west, _, east, _ in bounds for turn in (-360, 0, 360)]
    columns = axis_window(np.unwrap(lon, period=360), turns)
    return (rows, columns) if rows != NOTHING and columns != NOTHING else (NOTHING, NOTHING)


def projected(place: shapely.Geometry, crs: Any) -> shapely.Geometry:
    """Return a place in another CRS, its edges cut so that they bend."""
    pieces = max(max(place.bounds[2] - place.bounds[0], place.bounds[3] - place.bounds[1]), 1e-6)
    with QUIET:  # of odc-geo, on shapely's older functions
        found = Geometry(place, "EPSG:4326").to_crs(crs, resolution=pieces / PIECES)
    return found.geom


def raster_windows(
    shape: tuple[int, int], transform: Affine, crs: Any, place: shapely.Geometry
) -> tuple[Window, Window]:
    """Return the rows and columns of a raster that touch a place.

    Parameters
    ----------
    shape
        Its rows and columns.
    transform
        From (column, row) to coordinates of `crs`.
    crs
        Whatever odc-geo takes for one.
    place
        In EPSG:4326.
    """
    inverse = ~transform
    matrix = (inverse.a, inverse.b, inverse.d, inverse.e, inverse.c, inverse.f)
    pixels = shapely.affinity.affine_transform(projected(place, crs), matrix)
    inside = shapely.intersection(pixels, shapely.box(0, 0, shape[1], shape[0]))
    if inside.is_empty:
        return NOTHING, NOTHING
    left, top, right, bottom = inside.bounds
    return _pixels(top, bottom, shape[0]), _pixels(left, right, shape[1])


def _pixels(first: float, last: float, count: int) -> Window:
    start = min(max(int(np.floor(first)), 0), count - 1)
    return start, min(max(int(np.ceil(last)), start + 1), count)
