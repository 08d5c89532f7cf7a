"""Swaths on a grid: which cell each pixel takes, and which cells lie in each pixel.

A pixel takes the cell whose centre is nearest on the sphere, if either lies in the other: a cell
reaches half-way to its neighbours' centres, but not across a gap. Statistics are those of the cells
whose centres lie in a pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pykdtree.kdtree import KDTree

from l2view.errors import QueryError
from l2view.regrid.overlaps import mesh
from l2view.regrid.projection import (
    FARTHEST_LONGITUDE,
    TURN,
    WGS84,
    apply_transform,
    largest_difference,
    longitude_arc,
    pixel_centres,
    pixel_coordinates,
    project,
    unit_vectors,
)
from l2view.regrid.statistics import STATISTICS, pixel_statistics
from l2view.regrid.warp import Masked, Target, Tile

MARGIN = 1.0  # by how many degrees a swath may reach beyond its footprint, which providers simplify
REACH = 1.005  # by how much further a cell reaches than its corners, against rounding
EDGE = 1e-6  # the pixels by which rounding may move a point

GAP = 2.0
"""By how many times the step to one neighbour is longer than to the opposite, across a gap."""

type Circle = tuple[NDArray[np.float64], float]
"""A circle on the unit sphere: its centre, of shape (3,), and its angle in radians."""

EVERYWHERE: Circle = (np.array([0.0, 0.0, 1.0]), np.pi)


def require_swath_resampling(resampling: str) -> None:
    """Raise a QueryError where swaths can't be resampled so."""
    if resampling != "nearest" and resampling not in STATISTICS:
        raise QueryError(
            f'swaths have no rows and columns to interpolate along, as resampling="{resampling}" '
            f'would: take "nearest", or a statistic of the cells in a pixel, of '
            f"{', '.join(sorted(STATISTICS))}"
        )


@dataclass(frozen=True, eq=False)
class SwathCells:
    """The n cells of a swath that have coordinates."""

    shape: tuple[int, int]  # rows and columns of the swath
    numbers: NDArray[np.int64]  # the cells' numbers in C order, of shape (n,)
    degrees: NDArray[np.float64]  # latitudes and longitudes of their centres, of shape (n, 2)
    points: NDArray[np.float64]  # the same on the unit sphere, of shape (n, 3)
    reaches: NDArray[np.float32]  # how far each reaches, as a chord of that sphere, of shape (n,)
    tree: KDTree  # of the points
    circle: Circle  # around them

    @classmethod
    def of(cls, lat: NDArray[np.float64], lon: NDArray[np.float64]) -> SwathCells | None:
        """Return the cells with centres in degrees, of shape (rows, columns); None for none."""
        with np.errstate(invalid="ignore"):
            on_globe = (np.abs(lat) <= 90) & (np.abs(lon) <= FARTHEST_LONGITUDE)
        points = unit_vectors(np.where(on_globe, lat, np.nan), np.where(on_globe, lon, np.nan))
        numbers = np.flatnonzero(on_globe)
        if not len(numbers):
            return None
        flat = np.ascontiguousarray(points.reshape(-1, 3)[numbers])
        reaches = cell_reaches(points).ravel()[numbers]
        degrees = np.stack([lat.ravel()[numbers], lon.ravel()[numbers]], axis=1)
        height, width = lat.shape
        circle = _bounding_circle(flat)
        return cls((height, width), numbers, degrees, flat, reaches, KDTree(flat), circle)

    @property
    def nbytes(self) -> int:
        """The bytes that they take; the tree has about as many as the points."""
        return 3 * self.points.nbytes + self.numbers.nbytes


class WindowPixels:
    """The pixels of an output window on the globe, for all swaths that may touch it."""

    def __init__(self, window: GeoBox) -> None:
        self.window = window
        height, width = window.shape
        self.shape = (height, width)

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Their centres on the unit sphere, of shape (n, 3); NaN off the globe."""
        return unit_vectors(*_degrees(self.window, *pixel_centres(self.window))).reshape(-1, 3)

    @cached_property
    def radius(self) -> float:
        """Half of the longest diagonal of a pixel, as a chord of the unit sphere."""
        height, width = self.shape
        if self.has_limb:
            grid = self.points.reshape(height, width, 3)
            steps = [np.linalg.norm(np.diff(grid, axis=axis), axis=-1) for axis in (0, 1)]
            return max(float(step[np.isfinite(step)].max(initial=0.0)) for step in steps)
        mesh_points = np.meshgrid([0.0, width / 2, width], [0.0, height / 2, height])
        corners = (at.reshape(-1, 1) + np.array([-0.5, 0.5]) for at in mesh_points)
        ends = unit_vectors(*_degrees(self.window, *corners))
        lengths = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=-1)
        return float(lengths[np.isfinite(lengths)].max(initial=0.0)) / 2 * 1.1

    @cached_property
    def circle(self) -> Circle:
        """A circle around them."""
        # Beyond a limb lie cells of pixels whose centres are off the globe.
        return EVERYWHERE if self.has_limb else _bounding_circle(self.points)

    @cached_property
    def has_limb(self) -> bool:
        """Whether some of them lie off the globe."""
        return not bool(np.isfinite(self.points).all())

    @cached_property
    def turns(self) -> NDArray[np.float64]:
        """By how far along x the window lies from where its CRS has it, for each turn once."""
        assert self.window.crs is not None
        columns, rows = mesh(self.window, dense=max(self.window.shape) <= 64)
        x = apply_transform(self.window.transform, columns, rows)[0]
        lat, lon = _degrees(self.window, columns, rows)
        projected, _ = project(lon, lat, WGS84, self.window.crs)
        offsets = (x - projected)[np.isfinite(x) & np.isfinite(projected)]
        step = abs(self.window.transform.a)
        far = np.abs(offsets) > 1000 * step  # what is less is rounding, and datums
        return np.unique(np.where(far, np.round(offsets / step) * step, 0.0))

    def indices(
        self, degrees: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return the row and column of the pixel in which each point lies, and whether one does.

        Points are latitudes and longitudes, of shape (n, 2). Results are of shape (n, turns), for a
        window wider than a turn may have a point more than once.
        """
        window, lon = self.window, degrees[:, 1]
        assert window.crs is not None
        lon = np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon)
        x, y = project(lon, degrees[:, 0], WGS84, window.crs)
        column, row = apply_transform(~window.transform, x[:, None] + self.turns, y[:, None])
        height, width = self.shape
        # A point between two pixels is in the second, whichever way rounding goes in a window.
        column, row = column + EDGE, row + EDGE
        with np.errstate(invalid="ignore"):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        rows, columns = (np.where(inside, at, 0).astype(np.int64) for at in (row, column))
        return rows, columns, inside


def resample_swath(
    cells: SwathCells,
    pixels: WindowPixels,
    resampling: str,
    read: Callable[[NDArray[np.int64]], Masked],
    target: Target | None = None,
) -> Iterator[Tile]:
    """Yield the tiles of an output window that a swath fills, of the part that is wanted.

    `read` reads the values of cells by their numbers. For other statistics than ``"nearest"`` see
    `STATISTICS`.
    """
    in_target = np.zeros(pixels.shape, dtype=bool)
    in_target[(slice(None), slice(None)) if target is None else target] = True
    if resampling == "nearest":
        numbers, has_cell = nearest_cells(pixels, cells)
        yield from _take_cells(numbers, has_cell & in_target, read)
        return
    inside, at = cells_within(pixels, cells)
    selected = in_target.ravel()[at]
    inside, at = inside[selected], at[selected]
    values, valid = read(cells.numbers[inside])
    valid = valid if valid is not None else np.ones(len(inside), dtype=bool)
    image, filled = pixel_statistics(values[valid], at[valid], pixels.shape, resampling)
    numbers, has_cell = nearest_cells(pixels, cells)
    has_cell &= in_target & ~filled & (resampling != "sum")
    for tile in _take_cells(numbers, has_cell, read):
        empty = ~filled[tile.target]
        yield Tile(tile.target, tile.values, empty if tile.valid is None else empty & tile.valid)
    if filled.any():
        yield Tile((slice(0, pixels.shape[0]), slice(0, pixels.shape[1])), image, filled)


def _take_cells(
    numbers: NDArray[np.int64], mask: NDArray[np.bool_], read: Callable[[NDArray[np.int64]], Masked]
) -> Iterator[Tile]:
    if not mask.any():
        return
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    target = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    numbers, mask = numbers[target], mask[target]
    values, valid = read(np.where(mask, numbers, numbers[mask][0]).ravel())
    valid = mask if valid is None else mask & valid.reshape(mask.shape)
    yield Tile(target, values.reshape(mask.shape), valid)


def _degrees(
    window: GeoBox, columns: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return latitudes and longitudes of a window's pixels, NaN off the globe."""
    lon, lat = pixel_coordinates(window, columns, rows, WGS84)
    with np.errstate(invalid="ignore"):
        on_globe = np.isfinite(lon) & (np.abs(lat) <= 90 + 1e-9)
    return np.where(on_globe, lat, np.nan), np.where(on_globe, lon, np.nan)


def _bounding_circle(points: NDArray[np.float64]) -> Circle:
    centre = points.mean(axis=0)
    length = float(np.linalg.norm(centre))
    if length < 0.1:  # about as many on one side of the globe as on the opposite
        return EVERYWHERE
    centre = centre / length
    return centre, float(np.arccos(np.clip((points @ centre).min(), -1, 1)))


def window_boxes(window: GeoBox) -> list[shapely.Geometry]:
    """Return boxes in degrees, within ±180°, that hold an output window and `MARGIN` around it."""
    lat, lon = _degrees(window, *mesh(window))
    if not np.isfinite(lat).all():  # the globe ends between two points of the mesh
        lat, lon = _degrees(window, *mesh(window, dense=True))
    on_globe = np.isfinite(lat)
    if not on_globe.any():
        return []
    bend = max(largest_difference(lat, axis) for axis in (0, 1)) / 2
    south, north = lat[on_globe].min() - bend - MARGIN, lat[on_globe].max() + bend + MARGIN
    if north > 89 or south < -89:
        return [shapely.box(-180, max(south, -90), 180, min(north, 90))]
    margin = MARGIN / np.cos(np.radians(min(max(abs(south), abs(north)), 89.0)))
    west, width = longitude_arc(lon)
    if width + 2 * margin >= TURN or width > TURN - 90:
        return [shapely.box(-180, south, 180, north)]
    west = (west - margin + 180) % TURN - 180
    east = west + width + 2 * margin
    if east <= 180:
        return [shapely.box(west, south, east, north)]
    return [shapely.box(west, south, 180, north), shapely.box(-180, south, east - 360, north)]


def cell_reaches(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the reach of each cell from its centre, as a chord of the unit sphere.

    It reaches as far as its corners, half-way to the neighbours along rows and columns. Across a
    gap it reaches as far as on the opposite side. Centres are of shape (rows, columns, 3), NaN
    where there is none.
    """
    down, across = (_neighbour_steps(points, axis) for axis in (0, 1))
    # The longer diagonal of the parallelogram of both steps: |a ± b|² = a² + b² ± 2ab.
    squares = sum(step * step for step in (*down, *across))
    products = sum(a * b for a, b in zip(down, across, strict=True))
    return np.asarray(np.sqrt(squares + 2 * np.abs(products)) * np.float32(REACH / 2))


def _neighbour_steps(points: NDArray[np.float64], axis: int) -> list[NDArray[np.float32]]:
    """Return the step from each cell to a neighbour along an axis, as planes of x, y and z.

    It is the longer of both, but not that across a gap; 0 where there is no neighbour.
    """
    planes = [np.diff(points[..., at], axis=axis).astype(np.float32) for at in range(3)]
    lengths: Any = sum(plane * plane for plane in planes)
    before, after = _sides(lengths, axis)
    with np.errstate(invalid="ignore"):
        longer = after > before
        gap = np.fmax(before, after) > GAP**2 * np.fmin(before, after)
    forward = (np.isnan(before) | (longer != gap)) & ~np.isnan(after)
    sides = [_sides(plane, axis) for plane in planes]
    return [np.nan_to_num(np.where(forward, after, before)) for before, after in sides]


def _sides(
    steps: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the steps between cells as those before and after each cell, NaN at the edges."""
    edge = np.full_like(steps, np.nan, shape=(*steps.shape[:axis], 1, *steps.shape[axis + 1 :]))
    return np.concatenate([edge, steps], axis=axis), np.concatenate([steps, edge], axis=axis)


def nearest_cells(
    pixels: WindowPixels, cells: SwathCells
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the number of the nearest cell of each pixel, and whether one lies in the other.

    Both are of the window's shape; cells are numbered in C order.
    """
    image, mask = np.zeros(pixels.shape, dtype=np.int64), np.zeros(pixels.shape, dtype=bool)
    numbers, has_cell = image.ravel(), mask.ravel()
    limit = max(float(cells.reaches.max()), pixels.radius)
    centre, angle = cells.circle
    angle = angle + 2 * np.arcsin(min(limit / 2, 1.0)) + 1e-6
    with np.errstate(invalid="ignore"):
        around = np.flatnonzero(pixels.points @ centre >= np.cos(min(angle, np.pi)))
    if not len(around):
        return image, mask
    distances, index = cells.tree.query(pixels.points[around], k=1, distance_upper_bound=limit)
    hit = np.isfinite(distances) & (index < len(cells.numbers))
    around, distances, index = around[hit], distances[hit], index[hit].astype(np.int64)
    reached = distances <= cells.reaches[index]
    numbers[around[reached]] = cells.numbers[index[reached]]
    has_cell[around[reached]] = True
    if pixels.radius > cells.reaches.min():  # cells that are smaller than a pixel may lie in it
        _fill_from_cells_within(pixels, cells, numbers, has_cell)
    return image, mask


def _fill_from_cells_within(
    pixels: WindowPixels, cells: SwathCells, numbers: NDArray[np.int64], has_cell: NDArray[np.bool_]
) -> None:
    """Let pixels without a cell take the nearest of those whose centres lie in them."""
    index, at = cells_within(pixels, cells)
    missing = ~has_cell[at]
    index, at = index[missing], at[missing]
    distances = np.linalg.norm(pixels.points[at] - cells.points[index], axis=1)
    order = np.lexsort((distances, at))
    closest = order[np.flatnonzero(np.diff(at[order], prepend=-1))]
    numbers[at[closest]] = cells.numbers[index[closest]]
    has_cell[at[closest]] = True


def cells_within(
    pixels: WindowPixels, cells: SwathCells
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the cells whose centres lie in a window, and the pixel of each."""
    centre, angle = pixels.circle
    limit = np.cos(min(angle + 2 * np.arcsin(min(pixels.radius, 1.0)), np.pi))
    candidates = np.flatnonzero(cells.points @ centre >= limit)
    row, column, inside = pixels.indices(cells.degrees[candidates])
    number, turn = np.nonzero(inside)
    return candidates[number], (row * pixels.shape[1] + column)[number, turn]
