"""Coordinates in other reference systems, and longitudes, which repeat after a turn."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox

WGS84 = CRS("EPSG:4326")
"""The CRS of longitudes and latitudes that say no other."""

TURN = 360.0
"""A turn of longitude in degrees."""

type Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""The x and the y of points, or their columns and rows, in arrays of one shape."""


@lru_cache(maxsize=512)
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


def pixel_centres(grid: GeoBox) -> Points:
    """Return the columns and rows of the centres of a grid's pixels, each of its shape."""
    height, width = grid.shape
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return columns, rows


def longitudes_around(x: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
    """Return longitudes moved by whole turns to within half a turn of a meridian."""
    with np.errstate(invalid="ignore"):  # of points that a projection doesn't have
        return np.asarray((x - centre + TURN / 2) % TURN - TURN / 2 + centre)
