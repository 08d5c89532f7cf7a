"""The target, onto which images are brought: what it covers, and where images lie on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from odc.geo.types import resxy_

from l2view.errors import QueryError
from l2view.regrid.projection import (
    TURN,
    WGS84,
    Points,
    grid_pixels,
    longitudes_around,
    narrowest_span,
    pixel_coordinates,
    project,
)

POINTS = 65  # the points of a bounding box along each side that are projected
METRES_PER_DEGREE = 111_320.0  # metres in a degree of the equator
MAX_DEGREES = 10.0  # the size of a pixel from which degrees are taken for metres

MAX_METRES = 2.1e7
"""The metres from a projection's origin beyond which nothing of the globe need lie."""

IMAGE_POINTS = 9  # the points of an image along each axis by which its bounds are known
DENSE_IMAGE_POINTS = 65  # the same of a wide image

WIDE_DEGREES = 20.0
WIDE_METRES = 2e6
"""How wide an image is at most whose bounds those points tell; a wider one may bend too much."""

NO_BOUNDS = np.full(4, np.nan)  # bounds (west, south, east, north) of nothing


def metres_per_unit(crs: CRS) -> float:
    """Return the metres in a unit of a CRS, in degrees those at the equator."""
    if crs.geographic:
        return METRES_PER_DEGREE
    return float(crs.proj.axis_info[0].unit_conversion_factor)


def require_unit(crs: CRS, resolution: tuple[float, float], native: NDArray[np.float64]) -> None:
    """Raise a QueryError where a resolution in metres is of a CRS in degrees, or the reverse.

    `native` are the known sizes of the sources' pixels in metres.
    """
    finest, unit_metres = min(resolution), metres_per_unit(crs)
    factor = 1 / METRES_PER_DEGREE if crs.geographic else METRES_PER_DEGREE / unit_metres
    converted = finest * factor
    if len(native):
        size = float(np.median(native))
        ratio, converted_ratio = (value * unit_metres / size for value in (finest, converted))
        # A map may be in degrees of scenes in metres, but hardly in ten of them.
        far = (ratio > 1e3 and finest >= MAX_DEGREES) if crs.geographic else ratio < 1e-3
        wrong = far and 1e-2 <= converted_ratio <= 1e2
    else:
        wrong = finest >= 2 * MAX_DEGREES if crs.geographic else finest * unit_metres < 0.01
    if wrong:
        unit = "degrees" if crs.geographic else crs.proj.axis_info[0].unit_name
        likely = "metres" if crs.geographic else "degrees"
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

    It covers the `bbox` in degrees (EPSG:4326), or without one the `bounds` in its CRS. A
    QueryError is raised where it would cover nothing.
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
    sides = np.linspace(west, east, POINTS), np.linspace(south, north, POINTS)
    return point_bounds(*project(*np.meshgrid(*sides), WGS84, crs), crs)


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


def run_bounds(
    x: NDArray[np.float64], y: NDArray[np.float64], starts: NDArray[np.int64], crs: CRS
) -> NDArray[np.float64]:
    """Return the bounds of runs of points in degrees, of shape (n, 4); of all together else."""
    if not crs.geographic or not len(starts):
        return point_bounds(x, y, crs)[None]
    lows, highs = ([ufunc.reduceat(v, starts) for v in (x, y)] for ufunc in (np.fmin, np.fmax))
    bounds = np.stack([*lows, *highs], axis=1)
    bounds[:, [1, 3]] = np.clip(bounds[:, [1, 3]], -90, 90)
    return bounds


def union_bounds(bounds: Sequence[NDArray[np.float64]], crs: CRS) -> NDArray[np.float64]:
    """Return the bounds of several, of shape (n, 4), of which those that are NaN don't count.

    Longitudes have no seam: scenes on both sides of one lie beside each other.
    """
    stacked = np.concatenate([NO_BOUNDS[None], *bounds])
    union = np.concatenate([np.fmin.reduce(stacked[:, :2]), np.fmax.reduce(stacked[:, 2:])])
    if crs.geographic and union[2] - union[0] > TURN / 2:
        west, _, east, _ = stacked[np.isfinite(stacked).all(axis=1)].T
        start, width = narrowest_span(west, east)
        start = (start + TURN / 2) % TURN - TURN / 2
        if width <= TURN / 2 or union[2] - union[0] > TURN:
            union[[0, 2]] = start, start + width
    return union


@dataclass(frozen=True, eq=False)
class RasterGrids:
    """The grids of n images in one CRS."""

    transforms: NDArray[np.float64]  # from (column, row) to coordinates, of shape (n, 6)
    shapes: NDArray[np.int64]  # rows and columns, of shape (n, 2)
    crs: CRS

    def _points(self, count: int) -> Points:
        """Return evenly spread points of each image, of shape (n, count, count)."""
        fractions = np.linspace(0, 1, count)
        rows = self.shapes[:, 0, None, None] * fractions[None, :, None]
        columns = self.shapes[:, 1, None, None] * fractions[None, None, :]
        a, b, c, d, e, f = (self.transforms[:, index, None, None] for index in range(6))
        return a * columns + b * rows + c, d * columns + e * rows + f

    def bounds(self, target: CRS) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the bounds of the images in another CRS: west, south, east and north.

        Of each image, of shape (n, 4), NaN where it may lie anywhere; and what they cover
        together, of shape (m, 4).
        """
        x, y = self._points(IMAGE_POINTS)
        sizes = [np.ptp(values, axis=(1, 2)) for values in (x, y)]
        wide = np.maximum(*sizes) > (WIDE_DEGREES if self.crs.geographic else WIDE_METRES)
        x, y = project(x, y, self.crs, target)
        wide |= ~(np.isfinite(x) & np.isfinite(y)).all(axis=(1, 2))
        if target.geographic:
            x = longitudes_around(x, x[:, IMAGE_POINTS // 2, IMAGE_POINTS // 2, None, None])
            wide |= self._hold_pole()
        lows, highs = [], []
        for values in (x, y):
            with np.errstate(invalid="ignore"):
                bend = sum(
                    np.abs(np.diff(values, n=2, axis=axis)).max(axis=(1, 2)) for axis in (1, 2)
                )
            lows.append(values.min(axis=(1, 2)) - bend / 4)
            highs.append(values.max(axis=(1, 2)) + bend / 4)
        bounds = np.stack([*lows, *highs], axis=1)
        points = x[~wide].ravel(), y[~wide].ravel()
        covered = run_bounds(*points, np.arange(0, len(points[0]), IMAGE_POINTS**2), target)
        if wide.any():
            grids = RasterGrids(self.transforms[wide], self.shapes[wide], self.crs)
            points = project(*grids._points(DENSE_IMAGE_POINTS), self.crs, target)
            covered = np.concatenate([covered, point_bounds(*points, target)[None]])
        bounds[wide] = np.nan
        return bounds, covered

    def _hold_pole(self) -> NDArray[np.bool_]:
        """Mask of the images that have a pole in them."""
        holding = np.zeros(len(self.transforms), dtype=bool)
        if not self.crs.geographic:
            poles = project(np.zeros(2), np.array([90.0, -90.0]), WGS84, self.crs)
            for x, y in zip(*poles, strict=True):
                holding |= self._positions_of(x, y)[1]
        return holding

    def _positions_of(self, x: float, y: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the row and column of a point in each image, and the mask of those it lies in."""
        a, b, c, d, e, f = self.transforms.T
        with np.errstate(invalid="ignore"):  # of a point that a projection doesn't have
            a, b, d, e = np.stack([e, -b, -d, a]) * (1.0 / (a * e - b * d))
            columns = x * a + y * b + (-c * a - f * b)
            rows = x * d + y * e + (-c * d - f * e)
        positions = np.stack([rows, columns], axis=1)
        return positions, ((positions >= 0) & (positions <= self.shapes)).all(axis=1)

    def scales(self, window: GeoBox, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the target's pixels in one of each image, down and across, of shape (n, 2).

        They are taken in the image's middle; of one whose `bounds` are unknown in the target's.
        """
        middle = self.shapes / 2.0
        anywhere = ~np.isfinite(bounds).all(axis=1)
        if anywhere.any():
            height, width = window.shape
            centre = np.array([width / 2]), np.array([height / 2])
            (x,), (y,) = pixel_coordinates(window, *centre, self.crs)
            positions, inside = self._positions_of(x, y)
            middle[anywhere & inside] = positions[anywhere & inside]
        steps = np.maximum(self.shapes / 1000.0, 1.0)
        a, b, c, d, e, f = self.transforms.T

        def pixels(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
            points = a * columns + b * rows + c, d * columns + e * rows + f
            column, row = grid_pixels(window, *points, self.crs)
            return np.stack([row, column], axis=1)

        row, column = middle.T
        with np.errstate(invalid="ignore"):
            origin = pixels(row, column)
            down = pixels(row + steps[:, 0], column) - origin
            across = pixels(row, column + steps[:, 1]) - origin
            lengths = np.stack([np.hypot(*down.T), np.hypot(*across.T)], axis=1) / steps
        return np.where(np.isfinite(lengths) & (lengths > 0), lengths, 1.0)
