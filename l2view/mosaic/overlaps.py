"""Which part of a raster an output window needs, and which part of the window it covers.

The window's pixels are projected into the raster on a coarse mesh. Between its points the
projection bends a little, by no more than the second differences tell, which is added.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox

STEP = 64
"""The pixels between two points of the mesh."""

MOST_STEPS = 32
"""The most steps along an axis."""

TURN = 360.0
"""A turn of longitude in degrees."""


@dataclass(frozen=True)
class Raster:
    """Where the pixels of an image lie.

    Attributes
    ----------
    transform
        From (column, row) to coordinates of `crs`.
    shape
        Its rows and columns.
    crs
        Its coordinate reference system.
    """

    transform: Affine
    shape: tuple[int, int]
    crs: CRS

    @property
    def goes_around(self) -> bool:
        """Whether its columns go around the globe, so that the first follows the last."""
        width = self.shape[1]
        step = abs(self.transform.a)
        even = self.transform.b == 0 and self.transform.d == 0
        return bool(self.crs.geographic and even and abs(width * step - TURN) < step / 2)


@dataclass(frozen=True)
class Overlap:
    """What a raster and an output window have in common.

    Attributes
    ----------
    rows, columns
        The part of the raster; of one that goes around the globe the columns may go beyond
        both of its edges.
    target
        The part of the window.
    turn
        By how many degrees the raster is moved to lie where the window does.
    side
        Whether it holds for pixels east (1) or west (-1) of Greenwich alone, of a window across
        the antimeridian; 0 for all.
    """

    rows: range
    columns: range
    target: tuple[slice, slice]
    turn: float = 0.0
    side: int = 0

    @property
    def pixels(self) -> int:
        """The number of pixels of the part of the raster."""
        return len(self.rows) * len(self.columns)


@lru_cache(maxsize=512)
def transformer(source: str, target: str) -> pyproj.Transformer:
    """Return what projects from one CRS, as WKT, to another; x comes before y."""
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def project(
    x: NDArray[np.float64], y: NDArray[np.float64], source: CRS, target: CRS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return coordinates in another CRS, infinite where it has none for them."""
    if source == target:
        return x, y
    found = transformer(source.to_wkt(), target.to_wkt()).transform(x, y)
    return np.asarray(found[0]), np.asarray(found[1])


def mesh(window: GeoBox) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the columns and rows of an output window that are projected."""
    height, width = window.shape
    steps = [min(max(math.ceil(n / STEP), 2), MOST_STEPS) for n in (height, width)]
    rows, columns = np.linspace(0, height, steps[0] + 1), np.linspace(0, width, steps[1] + 1)
    grid = np.meshgrid(columns, rows)
    return grid[0], grid[1]


def overlaps(window: GeoBox, raster: Raster, reach: tuple[float, float]) -> Iterator[Overlap]:
    """Yield the parts of a raster that an output window needs.

    There is more than one of a raster in degrees where the window lies across the antimeridian.

    Parameters
    ----------
    window
        The output window.
    raster
        The raster.
    reach
        How many pixels, along the rows' axis and the columns', a value is made of to each side.
    """
    crs = window.crs
    assert crs is not None
    columns, rows = mesh(window)
    x, y = apply(window.transform, columns, rows)
    x, y = project(x, y, crs, raster.crs)
    if not raster.crs.geographic:
        yield from _within(window, raster, x, y, columns, rows, reach)
    elif crs == raster.crs:
        for turn in _turns(x, raster):
            moved = moved_by(raster, turn)
            yield from _within(window, moved, x, y, columns, rows, reach, turn=turn)
    else:
        yield from _on_the_globe(window, raster, x, y, columns, rows, reach)


def apply(
    transform: Affine, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where a transform takes points."""
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + c, d * x + e * y + f


def moved_by(raster: Raster, turn: float) -> Raster:
    """Return a raster in degrees moved along the equator."""
    if not turn:
        return raster
    return Raster(Affine.translation(turn, 0) * raster.transform, raster.shape, raster.crs)


def _turns(x: NDArray[np.float64], raster: Raster) -> list[float]:
    """Return by how many degrees a raster is moved to lie where some longitudes do."""
    finite = x[np.isfinite(x)]
    if not len(finite):
        return []
    west, east = _span(raster)
    first = math.floor((finite.min() - east) / TURN)
    last = math.ceil((finite.max() - west) / TURN)
    return [
        TURN * turn
        for turn in range(first, last + 1)
        if west + TURN * turn <= finite.max() and east + TURN * turn >= finite.min()
    ]


def _span(raster: Raster) -> tuple[float, float]:
    """Return the least and greatest x of a raster."""
    height, width = raster.shape
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], dtype=float)
    x, _ = apply(raster.transform, corners[:, 0], corners[:, 1])
    return float(x.min()), float(x.max())


def _on_the_globe(
    window: GeoBox,
    raster: Raster,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    columns: NDArray[np.float64],
    rows: NDArray[np.float64],
    reach: tuple[float, float],
) -> Iterator[Overlap]:
    """Yield the overlaps with a raster in degrees of a window that was projected to it.

    Longitudes come within ±180° then. A window in which they jump from one to the other is taken
    twice, east and west of Greenwich.
    """
    jumps, crosses, pole = *_jumps(x), _pole(window)
    if not jumps and pole is None:
        for turn in _turns(x, raster):
            moved = moved_by(raster, turn)
            yield from _within(window, moved, x, y, columns, rows, reach, turn=turn)
        return
    middle = float(y[np.isfinite(y)].mean())
    for side in (1, -1):
        # Up to the antimeridian, and to Greenwich, which lie between points of the mesh.
        ends = [(180.0 * side, middle)]
        ends += [(0.0, middle)] if crosses else []
        ends += [] if pole is None else [(0.0, pole), (180.0 * side, pole)]
        with np.errstate(invalid="ignore"):
            own = np.where(x * side >= 0, x, np.nan)
        longitudes = np.concatenate([own.ravel(), [one for one, _ in ends]])
        latitudes = np.concatenate([y.ravel(), [one for _, one in ends]])
        for turn in _turns(longitudes, raster):
            moved = moved_by(raster, turn)
            yield from _within(
                window, moved, longitudes, latitudes, columns, rows, reach, turn=turn, side=side
            )


def _jumps(x: NDArray[np.float64]) -> tuple[bool, bool]:
    """Return whether longitudes jump at the antimeridian, and whether they cross Greenwich."""
    jumps = crosses = False
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):
            far = np.abs(np.diff(x, axis=axis)) > TURN / 2
            signs = np.abs(np.diff(np.sign(x), axis=axis)) > 0
            jumps |= bool(far.any())
            crosses |= bool((signs & ~far).any())
    return jumps, crosses


def _pole(window: GeoBox) -> float | None:
    """Return the latitude of the pole that lies in a window, None where none does."""
    crs = window.crs
    assert crs is not None
    if crs.geographic:
        return None
    height, width = window.shape
    for latitude in (90.0, -90.0):
        x, y = project(np.zeros(1), np.array([latitude]), CRS("EPSG:4326"), crs)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            continue
        column, row = apply(~window.transform, x, y)
        if 0 <= column[0] <= width and 0 <= row[0] <= height:
            # A CRS that shows a pole as a line has no place for it.
            back = project(x, y, crs, CRS("EPSG:4326"))[1]
            if abs(float(back[0]) - latitude) < 1e-6:
                return latitude
    return None


def _within(
    window: GeoBox,
    raster: Raster,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    columns: NDArray[np.float64],
    rows: NDArray[np.float64],
    reach: tuple[float, float],
    *,
    turn: float = 0.0,
    side: int = 0,
) -> Iterator[Overlap]:
    """Yield the overlap of a window whose mesh lies at some coordinates of the raster's CRS."""
    across, down = apply(~raster.transform, x, y)
    known = np.isfinite(across) & np.isfinite(down)
    if not known.any():
        return
    bend = (_bend(across, columns.shape), _bend(down, columns.shape))
    height, width = raster.shape
    first, last = _reached(down, bend[1], reach[0])
    left, right = _reached(across, bend[0], reach[1])
    first, last = max(first, 0), min(last, height)
    if not raster.goes_around:
        left, right = max(left, 0), min(right, width)
    elif right - left >= 2 * width:
        left, right = -width, 2 * width
    touched = _touched(across, down, bend, raster, columns.shape)
    if first >= last or left >= right or not touched.any():
        return
    target = _part(window, columns, rows, touched)
    yield Overlap(range(first, last), range(left, right), target, turn, side)


def _reached(at: NDArray[np.float64], bend: float, reach: float) -> tuple[int, int]:
    finite = at[np.isfinite(at)]
    return math.floor(finite.min() - bend - reach), math.ceil(finite.max() + bend + reach)


def _bend(at: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Return by how much a projection may be off between the points of a mesh, in pixels."""
    grid = at.ravel()[: shape[0] * shape[1]].reshape(shape)
    found = 0.5
    with np.errstate(invalid="ignore"):
        for axis in (0, 1):
            bent = np.abs(np.diff(grid, n=2, axis=axis))
            finite = bent[np.isfinite(bent)]
            found += float(finite.max(initial=0.0)) / 4
        if not np.isfinite(grid).all():  # where the projection ends, between two points
            steps = [np.abs(np.diff(grid, axis=axis)) for axis in (0, 1)]
            found += max(float(step[np.isfinite(step)].max(initial=0.0)) for step in steps)
    return found


def _touched(
    across: NDArray[np.float64],
    down: NDArray[np.float64],
    bend: tuple[float, float],
    raster: Raster,
    shape: tuple[int, ...],
) -> NDArray[np.bool_]:
    """Return which cells of the mesh touch the raster, of the mesh's shape less one."""
    height, width = raster.shape
    count = shape[0] * shape[1]
    found = np.ones((shape[0] - 1, shape[1] - 1), dtype=bool)
    for at, length, off in ((across, width, bend[0]), (down, height, bend[1])):
        if length == width and at is across and raster.goes_around:
            continue
        grid = at.ravel()[:count].reshape(shape)
        corners = (grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:])
        stacked = np.stack(corners)
        unknown = ~np.isfinite(stacked)
        low = np.where(unknown, np.inf, stacked).min(axis=0)
        high = np.where(unknown, -np.inf, stacked).max(axis=0)
        found &= (low - off <= length) & (high + off >= 0)
    return found


def _part(
    window: GeoBox,
    columns: NDArray[np.float64],
    rows: NDArray[np.float64],
    touched: NDArray[np.bool_],
) -> tuple[slice, slice]:
    """Return the rows and columns of a window that lie in some cells of its mesh."""
    found = []
    for along, edges, length in (
        (touched.any(axis=1), rows[:, 0], window.shape[0]),
        (touched.any(axis=0), columns[0], window.shape[1]),
    ):
        some = np.flatnonzero(along)
        first = math.floor(edges[some[0]])
        last = math.ceil(edges[some[-1] + 1])
        found.append(slice(max(first, 0), min(last, length)))
    return found[0], found[1]
