"""Coordinates in other reference systems, and longitudes, which repeat after a turn."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox

WGS84 = CRS("EPSG:4326")  # the CRS of longitudes and latitudes that say no other
FARTHEST_LONGITUDE = 450.0
"""The largest that is one, in degrees: those of models of the ocean go on from 74° to 434°."""

TURN = 360.0  # a turn of longitude in degrees

type Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The x and the y of points, or their columns and rows, in arrays of one shape."""


@functools.lru_cache(maxsize=512)
def transformer(source: str, target: str) -> pyproj.Transformer:
    """Return the transformer between two CRSs in WKT; x comes before y."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def project(x: NDArray[np.float64], y: NDArray[np.float64], source: CRS, target: CRS) -> Points:
    """Return points in another CRS, infinite where it has no coordinates for them."""
    if source == target:
        return x, y
    projected = transformer(source.to_wkt(), target.to_wkt()).transform(x, y)
    return np.asarray(projected[0]), np.asarray(projected[1])


def apply_transform(transform: Affine, x: NDArray[np.float64], y: NDArray[np.float64]) -> Points:
    """Return the points to which an affine transform moves `x` and `y`."""
    a, b, c, d, e, f = transform[:6]
    with np.errstate(invalid="ignore"):  # of points that a projection doesn't have
        return a * x + b * y + c, d * x + e * y + f


def pixel_coordinates(
    grid: GeoBox, columns: NDArray[np.float64], rows: NDArray[np.float64], crs: CRS
) -> Points:
    """Return the points of a CRS at which columns and rows of a grid lie."""
    assert grid.crs is not None
    return project(*apply_transform(grid.transform, columns, rows), grid.crs, crs)


def grid_pixels(grid: GeoBox, x: NDArray[np.float64], y: NDArray[np.float64], crs: CRS) -> Points:
    """Return the columns and rows of a grid at which points of a CRS lie."""
    assert grid.crs is not None
    return apply_transform(~grid.transform, *project(x, y, crs, grid.crs))


def unit_vectors(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points of the unit sphere, of shape (…, 3), at latitudes and longitudes."""
    y, x = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)


def longitude_arc(x: NDArray[np.float64]) -> tuple[float, float]:
    """Return where the shortest arc of longitudes begins, and its width; (0, 0) for none.

    It begins between 0 and 360. What isn't finite doesn't count.
    """
    longitudes = np.unique(x[np.isfinite(x)] % TURN)
    return narrowest_span(longitudes, longitudes) if len(longitudes) else (0.0, 0.0)


def narrowest_span(west: NDArray[np.float64], east: NDArray[np.float64]) -> tuple[float, float]:
    """Return where the narrowest span of longitudes begins that holds some spans, and its width.

    It begins between 0 and 360, or at -180 where it is all.
    """
    order = np.argsort(west % TURN)
    begins, widths = (west % TURN)[order], (east - west)[order]
    ends = np.maximum.accumulate(begins + widths)
    ends = np.maximum(ends, ends[-1] - TURN)
    gaps = np.append(begins[1:], begins[0] + TURN) - ends
    widest = int(gaps.argmax())
    if gaps[widest] <= 0:
        return -TURN / 2, TURN
    return float(begins[(widest + 1) % len(begins)]), float(TURN - gaps[widest])


def cell_extremes(corners: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and greatest value at the four corners of each cell, NaN ignored."""
    four = corners[:-1, :-1], corners[:-1, 1:], corners[1:, :-1], corners[1:, 1:]
    return functools.reduce(np.fmin, four), functools.reduce(np.fmax, four)


def largest_difference(values: NDArray[np.float64], axis: int, order: int = 1) -> float:
    """Return the largest finite difference between neighbours along an axis, 0 for none."""
    differences = np.abs(np.diff(values, n=order, axis=axis))
    return float(differences[np.isfinite(differences)].max(initial=0.0))


def pixel_centres(grid: GeoBox) -> Points:
    """Return the columns and rows of the centres of a grid's pixels, each of its shape."""
    height, width = grid.shape
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return columns, rows


def longitudes_around(
    x: NDArray[np.float64], centre: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return longitudes moved by whole turns to within half a turn of a meridian."""
    with np.errstate(invalid="ignore"):  # of points that a projection doesn't have
        return np.asarray((x - centre + TURN / 2) % TURN - TURN / 2 + centre)
