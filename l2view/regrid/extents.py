"""Where many images lie on a target, and how large their pixels are there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from l2view.regrid.projection import TURN, WGS84, Points, apply_transform, project
from l2view.regrid.target import point_bounds, union_bounds

POINTS = 9
"""The points of an image along each axis by which its bounds are known."""

DENSE_POINTS = 65
"""The same of a wide image."""

WIDE_DEGREES = 20.0
WIDE_METRES = 2e6
"""How wide an image is at most whose bounds those points tell; a wider one may bend too much."""


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

        Of each image, of shape (n, 4), NaN where it may lie anywhere; and of all, of shape (4,).
        """
        x, y = self._points(POINTS)
        sizes = [np.ptp(values, axis=(1, 2)) for values in (x, y)]
        wide = np.maximum(*sizes) > (WIDE_DEGREES if self.crs.geographic else WIDE_METRES)
        x, y = project(x, y, self.crs, target)
        wide |= ~(np.isfinite(x) & np.isfinite(y)).all(axis=(1, 2))
        if target.geographic:
            middle = x[:, POINTS // 2, POINTS // 2, None, None]
            with np.errstate(invalid="ignore"):
                x = (x - middle + 180) % TURN - 180 + middle
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
        union = point_bounds(x[~wide], y[~wide], target)
        if wide.any():
            grids = RasterGrids(self.transforms[wide], self.shapes[wide], self.crs)
            points = project(*grids._points(DENSE_POINTS), self.crs, target)
            union = union_bounds([union, point_bounds(*points, target)])
        bounds[wide] = np.nan
        return bounds, union

    def _hold_pole(self) -> NDArray[np.bool_]:
        """Mask of the images that have a pole in them."""
        holding = np.zeros(len(self.transforms), dtype=bool)
        if self.crs.geographic:
            return holding
        poles = project(np.zeros(2), np.array([90.0, -90.0]), WGS84, self.crs)
        a, b, c, d, e, f = self.transforms.T
        size = a * e - b * d
        for x, y in zip(*(values.tolist() for values in poles), strict=True):
            if math.isfinite(x) and math.isfinite(y):
                columns = (e * (x - c) - b * (y - f)) / size
                rows = (a * (y - f) - d * (x - c)) / size
                inside = (columns >= 0) & (columns <= self.shapes[:, 1])
                holding |= inside & (rows >= 0) & (rows <= self.shapes[:, 0])
        return holding

    def scales(self, window: GeoBox, bounds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the target's pixels in one of each image, down and across, of shape (n, 2).

        They are taken in the image's middle; of one whose `bounds` are unknown in the target's.
        """
        target = window.crs
        assert target is not None
        middle = self.shapes / 2.0
        anywhere = ~np.isfinite(bounds).all(axis=1)
        if anywhere.any():
            height, width = window.shape
            centre = apply_transform(
                window.transform, np.array([width / 2]), np.array([height / 2])
            )
            x, y = (float(values[0]) for values in project(*centre, target, self.crs))
            inverse = [~Affine(*transform) for transform in self.transforms[anywhere].tolist()]
            points = np.array([(transform @ (x, y))[::-1] for transform in inverse])
            inside = ((points >= 0) & (points <= self.shapes[anywhere])).all(axis=1)
            middle[anywhere] = np.where(inside[:, None], points, middle[anywhere])
        steps = np.maximum(self.shapes / 1000.0, 1.0)
        a, b, c, d, e, f = self.transforms.T

        def pixels(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
            points = a * columns + b * rows + c, d * columns + e * rows + f
            column, row = apply_transform(~window.transform, *project(*points, self.crs, target))
            return np.stack([row, column], axis=1)

        row, column = middle.T
        with np.errstate(invalid="ignore"):
            origin = pixels(row, column)
            down = pixels(row + steps[:, 0], column) - origin
            across = pixels(row, column + steps[:, 1]) - origin
            lengths = np.stack([np.hypot(*down.T), np.hypot(*across.T)], axis=1) / steps
        return np.where(np.isfinite(lengths) & (lengths > 0), lengths, 1.0)
