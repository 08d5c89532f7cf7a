"""Which part of a raster an output window needs, and which part of the window it covers.

The window's pixels are projected into the raster on a coarse mesh. Between the mesh's points a
projection bends by no more than its second differences, which are added as a margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from l2view.regrid.projection import (
    TURN,
    WGS84,
    Points,
    apply_transform,
    cell_extremes,
    grid_pixels,
    largest_difference,
    longitude_arc,
    longitudes_around,
    pixel_coordinates,
    project,
)

STEP = 64  # the pixels between two points of the mesh
MAX_STEPS = 32  # the most steps along an axis
MAX_BEND = 16.0  # the pixels by which a projection may bend between two points of a coarse mesh

HALF_TURN_MARGIN = 135.0
"""The degrees to each side of a meridian that are projected for the pixels within 90° of it."""

POLE_MARGIN = 2.0 * STEP  # the pixels from a window within which a pole bends its longitudes
POLAR_ROWS = 64  # the rows of a raster next to a pole that the pixels at the pole may take


@dataclass(frozen=True)
class Raster:
    """The grid of an image."""

    transform: Affine  # from (column, row) to coordinates of `crs`
    shape: tuple[int, int]  # rows and columns
    crs: CRS

    @property
    def goes_around(self) -> bool:
        """Whether its columns go around the globe, so that the first follows the last."""
        width = self.shape[1]
        step = abs(self.transform.a)
        aligned = self.transform.b == 0 and self.transform.d == 0
        return bool(self.crs.geographic and aligned and abs(width * step - TURN) < step / 2)

    @property
    def ends_at_pole(self) -> bool:
        """Whether the lower edge of its last row is a pole."""
        _, _, _, d, e, f = self.transform[:6]
        edge = abs(f + e * self.shape[0])
        return bool(self.crs.geographic and d == 0 and abs(edge - 90) < abs(e) / 1000)

    def turn(self, degrees: float) -> Raster:
        """Return the raster moved along the equator."""
        if not degrees:
            return self
        return replace(self, transform=Affine.translation(degrees, 0) @ self.transform)

    def turns_to(self, x: NDArray[np.float64]) -> list[float]:
        """Return the turns in degrees by which it is moved to lie at some longitudes."""
        finite = x[np.isfinite(x)]
        if not len(finite):
            return []
        height, width = self.shape
        corners = [self.transform @ (column, row) for column in (0, width) for row in (0, height)]
        west, east = min(corners)[0], max(corners)[0]
        first = math.ceil((finite.min() - east) / TURN)
        last = math.floor((finite.max() - west) / TURN)
        return [TURN * turn for turn in range(first, last + 1)]

    def clip(self, down: tuple[int, int], across: tuple[int, int]) -> tuple[range, range]:
        """Return the rows and columns within some limits; columns may go around the globe."""
        height, width = self.shape
        rows = range(max(down[0], 0), min(down[1], height))
        if not self.goes_around:
            return rows, range(max(across[0], 0), min(across[1], width))
        if across[1] - across[0] >= 2 * width:
            return rows, range(-width, 2 * width)
        return rows, range(*across)


@dataclass(frozen=True)
class Meridian:
    """How the longitudes of an overlap are counted."""

    turn: float = 0.0  # the degrees by which the raster moves to lie where the window does
    centre: float = 0.0  # the meridian from which they are counted, near which they don't jump
    half: bool = False  # for pixels within 90° of `centre` alone, of a window around a pole


@dataclass(frozen=True)
class Overlap:
    """What a raster and an output window have in common."""

    rows: range
    columns: range  # of a raster that goes around the globe also beyond both of its edges
    target: tuple[slice, slice]  # the rows and columns of the window
    meridian: Meridian = Meridian()
    # For the pixels at a pole, whose corners have no longitude: they take the raster's nearest
    # where there would be nothing else.
    singular: bool = False

    @property
    def pixels(self) -> int:
        """The number of the raster's pixels."""
        return len(self.rows) * len(self.columns)


def mesh(window: GeoBox, *, dense: bool = False) -> Points:
    """Return the columns and rows of an output window that are projected.

    With `dense` they are the centres of all of its pixels, and its edges.
    """
    axes = []
    for length in window.shape:
        steps = min(max(math.ceil(length / STEP), 2), MAX_STEPS)
        coarse = np.linspace(0, length, steps + 1)
        centres = np.concatenate([[0], np.arange(length) + 0.5, [length]])
        axes.append(centres if dense else coarse)
    columns, rows = np.meshgrid(axes[1], axes[0])
    return columns, rows


def overlaps(window: GeoBox, raster: Raster, reach: tuple[float, float]) -> list[Overlap]:
    """Return the parts of a raster that an output window needs.

    There are several of a raster in degrees where the window lies around a pole, or is wider than
    a turn. A value is made of `reach` pixels to each side, down and across.
    """
    try:
        return list(_overlaps(window, raster, reach, dense=False))
    except _MeshTooCoarseError:  # where the projection ends, or nearly, each pixel is projected
        return list(_overlaps(window, raster, reach, dense=True))


class _MeshTooCoarseError(Exception):
    """A projection bends too much between the points of a coarse mesh."""


def _overlaps(
    window: GeoBox, raster: Raster, reach: tuple[float, float], *, dense: bool
) -> Iterator[Overlap]:
    columns, rows = mesh(window, dense=dense)
    x, y = pixel_coordinates(window, columns, rows, raster.crs)
    points = _Mesh(window, columns, rows, reach, dense)
    if raster.crs.geographic:
        yield from _geographic_overlaps(points, raster, x, y)
    else:
        yield from points.overlap(raster, x, y)


def wrap_columns(columns: range, width: int) -> Iterator[range]:
    """Yield columns that go around the globe as columns of the image."""
    start = columns.start
    while start < columns.stop:
        column = start % width
        count = min(width - column, columns.stop - start)
        yield range(column, column + count)
        start += count


def _geographic_overlaps(
    points: _Mesh, raster: Raster, x: NDArray[np.float64], y: NDArray[np.float64]
) -> Iterator[Overlap]:
    """Yield the overlaps with a raster in degrees.

    Longitudes of a window in another CRS lie within ±180°. Where they jump from one end to the
    other, they are counted from a meridian of the window's own; around a pole, where they jump
    anywhere, in two halves.
    """
    window = points.window
    pole = _pole_within(window)
    if pole is None and not points.dense and _pole_within(window, POLE_MARGIN) is not None:
        raise _MeshTooCoarseError  # longitudes bend around it, faster than a coarse mesh shows
    if window.crs == raster.crs or (pole is None and not _crosses_antimeridian(x)):
        for turn in raster.turns_to(x):
            yield from points.overlap(raster, x, y, Meridian(turn))
        return
    west, spread = longitude_arc(x)
    middle = float(round((west + spread / 2 + 180) % TURN - 180))
    half = pole is not None or spread > TURN / 2
    for centre in (0.0, 180.0) if half else (middle,):
        counted = longitudes_around(x, centre)
        corners: list[tuple[float, float]] = []
        if half:
            with np.errstate(invalid="ignore"):
                within = np.abs(counted - centre) <= HALF_TURN_MARGIN
            counted = np.where(within, counted, np.nan)
            latitudes = y[np.isfinite(counted)]
            if not len(latitudes):
                continue
            latitude = float(latitudes.mean()) if pole is None else pole
            corners = [(centre - 90.0, latitude), (centre + 90.0, latitude)]
        for turn in raster.turns_to(counted):
            yield from points.overlap(raster, counted, y, Meridian(turn, centre, half), corners)
    if pole is not None:
        yield from _polar_overlap(window, raster, pole)


def _polar_overlap(window: GeoBox, raster: Raster, pole: float) -> Iterator[Overlap]:
    pixels = grid_pixels(window, np.zeros(1), np.array([pole]), WGS84)
    column, row = (float(values[0]) for values in pixels)
    rows, columns = (
        slice(max(math.floor(at) - 1, 0), min(math.floor(at) + 2, length))
        for at, length in ((row, window.shape[0]), (column, window.shape[1]))
    )
    _, down = (~raster.transform) @ (0.0, pole)
    height, width = raster.shape
    if -1 <= down <= height + 1:
        edge = min(max(round(down), 0), height)
        polar = range(max(edge - POLAR_ROWS, 0), min(edge + POLAR_ROWS, height))
        yield Overlap(polar, range(width), (rows, columns), singular=True)


def _crosses_antimeridian(x: NDArray[np.float64]) -> bool:
    """Whether longitudes jump between neighbours, as they do at the antimeridian."""
    with np.errstate(invalid="ignore"):
        return any(bool((np.abs(np.diff(x, axis=axis)) > TURN / 2).any()) for axis in (0, 1))


def _pole_within(window: GeoBox, margin: float = 0.0) -> float | None:
    """Return the latitude of the pole within a window and `margin` pixels, None for none."""
    crs = window.crs
    assert crs is not None
    if crs.geographic:
        return None
    height, width = window.shape
    for latitude in (90.0, -90.0):
        x, y = project(np.array([0.0, 120.0]), np.full(2, latitude), WGS84, crs)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            continue
        columns, rows = apply_transform(~window.transform, x, y)
        # Some projections show a pole as a line.
        is_point = abs(columns[1] - columns[0]) < 1 and abs(rows[1] - rows[0]) < 1
        inside = -margin <= columns[0] <= width + margin and -margin <= rows[0] <= height + margin
        if is_point and inside:
            # And some have no coordinates for it, and show another point there.
            back = project(x[:1], y[:1], crs, WGS84)[1]
            if abs(float(back[0]) - latitude) < 1e-6:
                return latitude
    return None


@dataclass(frozen=True, eq=False)
class _Mesh:
    """The projected points of an output window: their columns and rows, of the mesh's shape.

    With `dense` they are all pixels; for `reach` see `overlaps`.
    """

    window: GeoBox
    columns: NDArray[np.float64]
    rows: NDArray[np.float64]
    reach: tuple[float, float]
    dense: bool

    def overlap(
        self,
        raster: Raster,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        meridian: Meridian = Meridian(),
        corners: Sequence[tuple[float, float]] = (),
    ) -> Iterator[Overlap]:
        """Yield the overlap where the points, and more `corners`, lie at some coordinates."""
        inverse = ~raster.turn(meridian.turn).transform
        across, down = apply_transform(inverse, x, y)
        finite = np.isfinite(across) & np.isfinite(down)
        if not (self.dense or (np.isfinite(y) if meridian.half else finite).all()):
            raise _MeshTooCoarseError
        if not finite.any():
            return
        across, down = np.where(finite, across, np.nan), np.where(finite, down, np.nan)
        limits, bends = [], []
        for axis, positions in enumerate((down, across)):
            # A projection may be off by so many pixels between the points of the mesh.
            bend = 0.5 + sum(largest_difference(positions, side, 2) / 4 for side in (0, 1))
            low, high = float(np.nanmin(positions)), float(np.nanmax(positions))
            if not self.dense and bend > max(MAX_BEND, (high - low) / 4):
                raise _MeshTooCoarseError
            for corner in corners:
                position = (inverse @ corner)[1 - axis]
                low, high = min(low, position), max(high, position)
            margin = bend + self.reach[axis]
            limits.append((math.floor(low - margin), math.ceil(high + margin)))
            bends.append(bend)
        touching = _touching_cells(down, across, bends, raster)
        rows, columns = raster.clip(*limits)
        if rows and columns and touching.any():
            yield Overlap(rows, columns, self._target(touching), meridian)

    def _target(self, cells: NDArray[np.bool_]) -> tuple[slice, slice]:
        """Return the rows and columns of the window that lie in some cells of the mesh."""
        sides = []
        for along, edges, length in (
            (cells.any(axis=1), self.rows[:, 0], self.window.shape[0]),
            (cells.any(axis=0), self.columns[0], self.window.shape[1]),
        ):
            numbers = np.flatnonzero(along)
            start, stop = math.floor(edges[numbers[0]]), math.ceil(edges[numbers[-1] + 1])
            sides.append(slice(max(start, 0), min(stop, length)))
        return sides[0], sides[1]


def _touching_cells(
    down: NDArray[np.float64], across: NDArray[np.float64], bends: Sequence[float], raster: Raster
) -> NDArray[np.bool_]:
    """Mask of the cells of the mesh that touch the raster."""
    touching = np.ones((down.shape[0] - 1, down.shape[1] - 1), dtype=bool)
    for axis, positions in enumerate((down, across)):
        if axis == 1 and raster.goes_around:
            continue
        low, high = cell_extremes(positions)
        touching &= (low - bends[axis] <= raster.shape[axis]) & (high + bends[axis] >= 0)
    # A cell of which only some corners are known may reach anywhere.
    all_known, any_known = cell_extremes(np.isfinite(down))
    return np.asarray(touching | (all_known != any_known))
