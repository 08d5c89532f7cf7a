"""Which rows and columns of a granule's cells touch a place.

A cell of a swath reaches half-way to its neighbours' centres. Its corners are means of points on
the sphere, so that neither the antimeridian nor a pole is a seam.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import shapely
import shapely.affinity
from numpy.typing import NDArray
from odc.geo import CRS

from l2view.geolocation.cell_outlines import clean_positions, of_grid
from l2view.geolocation.granule import Georeference, LocatedGranule
from l2view.regrid.projection import WGS84, cell_extremes, longitudes_around, project, unit_vectors

type Window = tuple[int, int]
"""The first index along an axis, and the one after the last; (0, 0) for none."""

NOTHING: Window = (0, 0)

WHOLE_TURN = 180.0
"""Cells that seem wider, in degrees, hold a pole or lie on the far side of the globe."""

PIECES = 64  # how often the edges of a place are cut, where it is brought to another CRS
MARGIN = 0.01  # how far around a grid a place is looked at, in parts of the grid's outline


def union(window: Window, other: Window) -> Window:
    """Return the smallest window that holds two."""
    if NOTHING in (window, other):
        return max(window, other)
    return min(window[0], other[0]), max(window[1], other[1])


def swath_windows(
    lat: NDArray[Any], lon: NDArray[Any], place: shapely.Geometry
) -> tuple[Window, Window]:
    """Return the rows and columns of a swath that touch a place.

    Parameters
    ----------
    lat, lon
        Of the cells' centres in degrees, of shape (…, rows, columns), NaN where there is none.
        Several swaths lie on top of one another, as those that begin with a time. What is no
        position is none (see `clean_positions`).
    place
        In EPSG:4326, within ±180° of longitude.
    """
    touching = np.zeros(lat.shape[-2:], dtype=bool)
    lat, lon = clean_positions(lat, lon)
    for layer in np.ndindex(lat.shape[:-2]):
        corners = corners_of(lat[layer], lon[layer])
        for geometry in shapely.get_parts(place):
            touching |= _touching(*corners, geometry) | _within(lat[layer], lon[layer], geometry)
    return _window(touching.any(axis=1)), _window(touching.any(axis=0))


def _window(touching: NDArray[np.bool_]) -> Window:
    indices = np.flatnonzero(touching)
    return (int(indices[0]), int(indices[-1]) + 1) if len(indices) else NOTHING


def corners_of(lat: NDArray[Any], lon: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return latitudes and longitudes of cells' corners, of shape (rows + 1, columns + 1).

    Those of the centres are in degrees, of shape (rows, columns), NaN where there is none.
    """
    points = unit_vectors(lat, lon)
    for axis in (0, 1):
        points = _between(points, axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        flat = np.hypot(points[..., 0], points[..., 1])
        return (
            np.degrees(np.arctan2(points[..., 2], flat)),
            np.degrees(np.arctan2(points[..., 1], points[..., 0])),
        )


def _between(points: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the midpoints of neighbours, and points half a step beyond the ends of an axis.

    Where one of two neighbours is missing, the other's own half step is taken.
    """
    if points.shape[axis] == 1:
        return np.repeat(points, 2, axis=axis)
    points = np.moveaxis(points, axis, 0)
    half = np.diff(points, axis=0) / 2
    missing = np.full_like(points[:1], np.nan)
    forward = points + np.concatenate([missing, half])  # by the step before
    backward = points - np.concatenate([half, missing])  # by the step behind
    middle = points[:-1] + half
    inner = np.where(np.isnan(middle), forward[:-1], middle)
    inner = np.where(np.isnan(inner), backward[1:], inner)
    return np.moveaxis(np.concatenate([backward[:1], inner, forward[-1:]]), 0, axis)


def _touching(
    lat: NDArray[Any], lon: NDArray[Any], geometry: shapely.Geometry
) -> NDArray[np.bool_]:
    """Return the mask of cells, given by their corners, that touch a geometry in one piece."""
    west, south, east, north = geometry.bounds
    lon = longitudes_around(lon, (west + east) / 2)
    low, high = cell_extremes(lat)
    cell_west, cell_east = cell_extremes(lon)
    with np.errstate(invalid="ignore"):
        # Such a cell holds a pole, or lies opposite the place.
        wide = cell_east - cell_west > WHOLE_TURN
        polar = np.maximum(np.abs(low), np.abs(high)) > 80
        # One that holds a pole reaches it, beyond its corners.
        around_pole = _wind_around_pole(lon)
        high = np.where(around_pole & (high > 0), 90.0, high)
        low = np.where(around_pole & (low < 0), -90.0, low)
        in_latitude = (high >= south) & (low <= north)
        touching = in_latitude & (cell_east >= west) & (cell_west <= east)
        touching = np.asarray(
            np.where(wide, in_latitude & (polar | (east - west > WHOLE_TURN)), touching)
        )
    if geometry.equals(shapely.box(west, south, east, north)):
        return touching
    shapely.prepare(geometry)
    rows, columns = np.nonzero(touching & ~wide)
    index = rows[:, None] + [0, 0, 1, 1, 0], columns[:, None] + [0, 1, 1, 0, 0]
    rings = np.stack([lon[index], lat[index]], axis=-1)
    valid = np.isfinite(rings).all(axis=(1, 2))
    touching[rows[valid], columns[valid]] = shapely.intersects(
        geometry, shapely.polygons(rings[valid])
    )
    return touching


def _within(lat: NDArray[Any], lon: NDArray[Any], geometry: shapely.Geometry) -> NDArray[np.bool_]:
    """Return the mask of centres in a geometry in one piece.

    The cell of a centre without neighbours isn't known, and where a scan turns back a cell, which
    is half-way to its neighbours, doesn't hold its centre.
    """
    west, south, east, north = geometry.bounds
    lon = longitudes_around(lon, (west + east) / 2)
    with np.errstate(invalid="ignore"):
        within = (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)
    if not geometry.equals(shapely.box(west, south, east, north)):
        within[within] = shapely.intersects_xy(geometry, lon[within], lat[within])
    return np.asarray(within)


def _wind_around_pole(lon: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which cells hold a pole: going along their corners is going around the globe."""
    ring = lon[:-1, :-1], lon[:-1, 1:], lon[1:, 1:], lon[1:, :-1], lon[:-1, :-1]
    turns = ((after - before + 180) % 360 - 180 for before, after in pairwise(ring))
    return np.asarray(np.abs(functools.reduce(np.add, turns)) > WHOLE_TURN)


def axis_window(centres: NDArray[Any], intervals: Sequence[tuple[float, float]]) -> Window:
    """Return the cells along an axis, given by their centres, that touch any interval."""
    if len(centres) == 0:
        return NOTHING
    steps = np.diff(centres) / 2
    first, last = (steps[0], steps[-1]) if len(steps) else (0.0, 0.0)
    edges = np.concatenate([centres[:1] - first, centres[:-1] + steps, centres[-1:] + last])
    low, high = np.fmin(edges[:-1], edges[1:]), np.fmax(edges[:-1], edges[1:])
    touching = np.zeros(len(centres), dtype=bool)
    for start, stop in intervals:
        touching |= (high >= start) & (low <= stop)
    return _window(touching)


def axes_windows(
    lat: NDArray[Any], lon: NDArray[Any], place: shapely.Geometry
) -> tuple[Window, Window]:
    """Return the rows and columns of a grid, given by its axes in degrees, that touch a place."""
    bounds = [geometry.bounds for geometry in shapely.get_parts(place)]
    rows = axis_window(lat, [(south, north) for _, south, _, north in bounds])
    # Longitudes may go from 0 to 360.
    turns = [(west + turn, east + turn) for west, _, east, _ in bounds for turn in (-360, 0, 360)]
    columns = axis_window(np.unwrap(lon, period=360), turns)
    return (rows, columns) if rows != NOTHING and columns != NOTHING else (NOTHING, NOTHING)


def grid_windows(grid: Georeference, place: shapely.Geometry) -> tuple[Window, Window]:
    """Return the rows and columns of a grid that touch a place in EPSG:4326, within ±180°."""
    assert grid.transform is not None
    height, width = grid.shape
    a, b, c, d, e, f = (~grid.transform)[:6]
    pixels = [
        shapely.affinity.affine_transform(shape, (a, b, d, e, c, f))
        for shape in _in_crs_of(grid, place)
    ]
    inside = shapely.union_all(shapely.intersection(pixels, shapely.box(0, 0, width, height)))
    if inside.is_empty:
        return NOTHING, NOTHING
    left, top, right, bottom = inside.bounds
    return _pixels(top, bottom, height), _pixels(left, right, width)


def _pixels(low: float, high: float, count: int) -> Window:
    start = min(max(int(np.floor(low)), 0), count - 1)
    return start, min(max(int(np.ceil(high)), start + 1), count)


def _in_crs_of(grid: Georeference, place: shapely.Geometry) -> Iterator[shapely.Geometry]:
    """Yield a place in the CRS of a grid, where it can touch that."""
    assert grid.crs is not None
    if grid.crs.geographic:  # longitudes may go from 0 to 360
        shape = _project(place, grid.crs)
        for turn in (-360, 0, 360):
            yield shapely.affinity.translate(shape, xoff=turn)
        return
    # Far away from a grid, its projection may have no coordinates, or wrong ones.
    outline = of_grid(grid)
    if outline is None:
        return
    west, south, east, north = outline.bounds
    for area in (outline, outline.buffer(MARGIN * max(east - west, north - south))):
        clipped = shapely.intersection(place, area)
        if not clipped.is_empty:
            yield _project(clipped, grid.crs)


def _project(place: shapely.Geometry, crs: CRS) -> shapely.Geometry:
    """Return a place in another CRS, its edges cut so that they bend; without what that lacks."""
    west, south, east, north = place.bounds
    dense = shapely.segmentize(place, max(east - west, north - south, 1e-6) / PIECES)

    def ring(line: shapely.Geometry) -> NDArray[np.float64]:
        lon, lat = shapely.get_coordinates(line).T
        points = np.column_stack(project(lon, lat, WGS84, crs))
        return points[np.isfinite(points).all(axis=1)]

    geometries = []
    for geometry in shapely.get_parts(dense):
        if geometry.geom_type != "Polygon":
            points = ring(geometry)
            geometries.append(
                shapely.MultiPoint(points) if len(points) < 2 else shapely.LineString(points)
            )
            continue
        shell, *holes = map(ring, (geometry.exterior, *geometry.interiors))
        if len(shell) > 2:
            geometries.append(shapely.Polygon(shell, [hole for hole in holes if len(hole) > 2]))
    return shapely.union_all([shapely.make_valid(geometry) for geometry in geometries])


def georeference_windows(
    granule: LocatedGranule, georeference: Georeference, place: shapely.Geometry
) -> tuple[Window, ...]:
    """Return the windows of a georeference's dimensions that touch a place."""
    if georeference.transform is not None:
        return grid_windows(georeference, place)
    lat, lon = granule.cells(georeference)
    if len(georeference.dimensions) == 1:
        return swath_windows(lat[:, None], lon[:, None], place)[:1]
    if lat.ndim == 1:
        return axes_windows(lat, lon, place)
    return swath_windows(lat, lon, place)
