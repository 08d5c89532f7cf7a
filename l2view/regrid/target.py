"""The grid that images are brought onto: what it covers, and the unit of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from odc.geo.types import resxy_

from l2view.errors import QueryError
from l2view.regrid.projection import WGS84, project

POINTS = 65
"""The points of a bounding box along each side that are projected."""

METRES_PER_DEGREE = 111_320.0
"""Metres in a degree of the equator."""

MAX_DEGREES = 10.0
"""The size of a pixel from which degrees are taken for metres."""

MAX_METRES = 2.1e7
"""The metres from a projection's origin beyond which nothing of the globe need lie."""

NO_BOUNDS = np.full(4, np.nan)
"""Bounds (west, south, east, north) of nothing."""


def metres_per_unit(crs: CRS) -> float:
    """Return the metres in a unit of a CRS, in degrees those at the equator."""
    if crs.geographic:
        return METRES_PER_DEGREE
    return float(crs.proj.axis_info[0].unit_conversion_factor)


def require_unit(crs: CRS, resolution: tuple[float, float], native: NDArray[np.float64]) -> None:
    """Raise a QueryError where a resolution in metres is of a CRS in degrees, or the reverse.

    `native` are the known sizes of the sources' pixels in metres, of shape (n,).
    """
    finest, unit_metres = min(resolution), metres_per_unit(crs)
    converted = (
        finest / METRES_PER_DEGREE if crs.geographic else (finest * METRES_PER_DEGREE / unit_metres)
    )
    if len(native):
        size = float(np.median(native))
        ratio, converted_ratio = (value * unit_metres / size for value in (finest, converted))
        # A map may be in degrees of scenes in metres, but hardly in ten of them.
        far = (ratio > 1e3 and finest >= MAX_DEGREES) if crs.geographic else ratio < 1e-3
        wrong = far and 1e-2 <= converted_ratio <= 1e2
    else:
        wrong = finest >= 2 * MAX_DEGREES if crs.geographic else finest * unit_metres < 0.01
    if wrong:
        unit, likely = ("degrees", "metres") if crs.geographic else ("metres", "degrees")
        if not crs.geographic:
            unit = str(crs.proj.axis_info[0].unit_name)
        raise QueryError(
            f"resolution={finest:g} is in {unit}, the unit of {crs_name(crs)}, and looks like "
            f"{likely}: that is resolution={converted:.6g}"
        )


def crs_name(crs: CRS) -> str:
    """Return a short name of a CRS."""
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs.proj.name)


def geobox_within(
    crs: CRS, resolution: tuple[float, float], bbox: Sequence[float] | None, bounds: NDArray[Any]
) -> GeoBox:
    """Return a grid whose pixels lie at multiples of their size, along x and y.

    It covers the `bbox` in degrees (EPSG:4326), or without one the `bounds` in its CRS.

    Raises
    ------
    QueryError
        Where it would cover nothing.
    """
    limits = bounds if bbox is None else _project_bbox(bbox, crs)
    if not np.isfinite(limits).all():
        area = "what the granules cover" if bbox is None else f"bbox={tuple(bbox)}"
        raise QueryError(
            f"{crs_name(crs)} has no place for {area}; pass "
            + ("bbox= or like=" if bbox is None else "another bbox=, or like=")
        )
    x, y = resolution
    west, south, east, north = limits.tolist()
    return GeoBox.from_bbox(BoundingBox(west, south, east, north, crs), resolution=resxy_(x, -y))


def _project_bbox(bbox: Sequence[float], crs: CRS) -> NDArray[np.float64]:
    west, south, east, north = map(float, bbox)
    if west > east:
        east += 360
    if crs.geographic:
        return np.array([west, south, east, north])
    longitudes, latitudes = np.meshgrid(
        np.linspace(west, east, POINTS), np.linspace(south, north, POINTS)
    )
    return point_bounds(*project(longitudes, latitudes, WGS84, crs), crs)


def point_bounds(x: NDArray[np.float64], y: NDArray[np.float64], crs: CRS) -> NDArray[np.float64]:
    """Return west, south, east and north of points in a CRS, NaN where it has none of them.

    Points farther away than the globe is large, such as the opposite pole, are left out.
    """
    valid = np.isfinite(x) & np.isfinite(y)
    if crs.geographic:
        y = np.clip(y, -90, 90)
    else:
        valid &= np.maximum(np.abs(x), np.abs(y)) * metres_per_unit(crs) <= MAX_METRES
    if not valid.any():
        return NO_BOUNDS
    return np.array([x[valid].min(), y[valid].min(), x[valid].max(), y[valid].max()])


def union_bounds(bounds: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the bounds of several, of which those that are NaN don't count."""
    stacked = np.stack([NO_BOUNDS, *bounds])
    return np.concatenate([np.fmin.reduce(stacked[:, :2]), np.fmax.reduce(stacked[:, 2:])])
