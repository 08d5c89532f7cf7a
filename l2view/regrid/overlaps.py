"""Which part of a raster an output window needs, and which part of the window it covers.

The window's pixels are projected into the raster on a coarse mesh. Between its points the
projection bends a little, by no more than the second differences tell, which is added.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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

MOST_BENT = 16.0
"""The pixels by which a projection may bend between two points of a coarse mesh."""

FAR = 135.0
"""The degrees to each side of a meridian that are looked at for the pixels within 90° of it."""

NEAR = 2.0 * STEP
"""The pixels from a window in which a pole bends its longitudes."""

POLAR = 64
"""The rows of a raster next to a pole that the pixels at the pole may take."""

DEGREES = CRS("EPSG:4326")

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

    @property
    def ends_at_pole(self) -> bool:
        """Whether the lower edge of its last row is a pole."""
        _, _, _, d, e, f = self.transform[:6]
        edge = abs(f + e * self.shape[0])
        return bool(self.crs.geographic and d == 0 and abs(edge - 90) < abs(e) / 1000)


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
    centre
        The longitude from which longitudes are counted, in whose neighbourhood they don't jump.
    half
        Whether it holds for pixels within 90° of that longitude alone, of a window around a pole.
    singular
        Whether it is for the pixels at a pole, whose corners have no longitude, so that they
        take the nearest of the raster's where there would be nothing else.
    """

    rows: range
    columns: range
    target: tuple[slice, slice]
    turn: float = 0.0
    centre: float = 0.0
    half: bool = False
    singular: bool = False

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


def mesh(window: GeoBox, *, dense: bool = False) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return columns and rows of an output window that are projected.

    Parameters
    ----------
    window
        The window.
    dense
        Whether they are the centres of all of its pixels, and its edges.
    """
    sides = []
    for length in window.shape:
        steps = min(max(math.ceil(length / STEP), 2), MOST_STEPS)
        even = np.linspace(0, length, steps + 1)
        centres = np.concatenate([[0], np.arange(length) + 0.5, [length]])
        sides.append(centres if dense else even)
    grid = np.meshgrid(sides[1], sides[0])
    return grid[0], grid[1]


def overlaps(window: GeoBox, raster: Raster, reach: tuple[float, float]) -> list[Overlap]:
    """Return the parts of a raster that an output window needs.

    There is more than one of a raster in degrees where the window lies around a pole, or is wider
    than a turn.

    Parameters
    ----------
    window
        The output window.
    raster
        The raster.
    reach
        How many pixels, along the rows' axis and the columns', a value is made of to each side.
    """
    try:
        return list(_overlaps(window, raster, reach, dense=False))
    except _BentError:  # where the projection ends, or nearly, each pixel tells for itself
        return list(_overlaps(window, raster, reach, dense=True))


class _BentError(Exception):
    """A projection bends too much between the points of a coarse mesh."""


def _overlaps(
    window: GeoBox, raster: Raster, reach: tuple[float, float], *, dense: bool
) -> Iterator[Overlap]:
    crs = window.crs
    assert crs is not None
    columns, rows = mesh(window, dense=dense)
    x, y = apply(window.transform, columns, rows)
    x, y = project(x, y, crs, raster.crs)
    told = _Mesh(window, columns, rows, reach, dense)
    if not raster.crs.geographic:
        yield from told.within(raster, x, y)
    elif crs == raster.crs:
        for turn in _turns(x, raster):
            yield from told.within(moved_by(raster, turn), x, y, turn=turn)
    else:
        yield from _on_the_globe(told, raster, x, y)


def wrapped(columns: range, width: int) -> Iterator[range]:
    """Yield columns that go around the globe as those of the image."""
    start = columns.start
    while start < columns.stop:
        at = start % width
        count = min(width - at, columns.stop - start)
        yield range(at, at + count)
        start += count


def apply(
    transform: Affine, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where a transform takes points."""
    a, b, c, d, e, f = transform[:6]
    with np.errstate(invalid="ignore"):  # of places that a projection has not
        return a * x + b * y + c, d * x + e * y + f


def around(x: NDArray[np.float64], centre: float) -> NDArray[np.float64]:
    """Return longitudes within half a turn of a meridian."""
    with np.errstate(invalid="ignore"):  # of places that a projection has not
        return np.asarray((x - centre + TURN / 2) % TURN - TURN / 2 + centre)


def moved_by(raster: Raster, turn: float) -> Raster:
    """Return a raster in degrees moved along the equator."""
    if not turn:
        return raster
    return Raster(Affine.translation(turn, 0) @ raster.transform, raster.shape, raster.crs)


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
    told: _Mesh, raster: Raster, x: NDArray[np.float64], y: NDArray[np.float64]
) -> Iterator[Overlap]:
    """Yield the overlaps with a raster in degrees of a window that was projected to it.

    Longitudes come within ±180° then. A window in which they jump from one to the other is taken
    from a meridian of its own; one around a pole, where they jump from whichever, in two halves.
    """
    pole = _pole(told.window)
    if pole is None and not told.dense and _pole(told.window, NEAR) is not None:
        raise _BentError  # longitudes bend around it, faster than a coarse mesh tells
    if pole is None and not _jumps(x):
        for turn in _turns(x, raster):
            yield from told.within(moved_by(raster, turn), x, y, turn=turn)
        return
    middle, spread = _middle(x)
    half = pole is not None or spread > TURN / 2
    for centre in (0.0, 180.0) if half else (middle,):
        own = around(x, centre)
        ends: list[tuple[float, float]] = []
        if half:
            with np.errstate(invalid="ignore"):
                own = np.where(np.abs(own - centre) <= FAR, own, np.nan)
            known = y[np.isfinite(own)]
            if not len(known):
                continue
            latitude = float(known.mean()) if pole is None else pole
            ends = [(centre - 90.0, latitude), (centre + 90.0, latitude)]
        for turn in _turns(own, raster):
            moved = moved_by(raster, turn)
            yield from told.within(moved, own, y, ends, turn=turn, centre=centre, half=half)
    if pole is not None:
        yield from _at_pole(told.window, raster, pole)


def _at_pole(window: GeoBox, raster: Raster, pole: float) -> Iterator[Overlap]:
    """Yield what the pixels around a pole take."""
    assert window.crs is not None
    x, y = project(np.zeros(1), np.array([pole]), DEGREES, window.crs)
    column, row = (float(one[0]) for one in apply(~window.transform, x, y))
    target = []
    for at, length in ((row, window.shape[0]), (column, window.shape[1])):
        target.append(slice(max(math.floor(at) - 1, 0), min(math.floor(at) + 2, length)))
    _, down = (~raster.transform) @ (0.0, pole)
    height, width = raster.shape
    if -1 <= down <= height + 1:
        near = min(max(round(down), 0), height)
        rows = range(max(near - POLAR, 0), min(near + POLAR, height))
        yield Overlap(rows, range(width), (target[0], target[1]), singular=True)


def _jumps(x: NDArray[np.float64]) -> bool:
    """Return whether longitudes jump between neighbours, as they do at the antimeridian."""
    with np.errstate(invalid="ignore"):
        steps = [np.abs(np.diff(x, axis=axis)) for axis in (0, 1)]
        return any(bool((step > TURN / 2).any()) for step in steps)


def _middle(x: NDArray[np.float64]) -> tuple[float, float]:
    """Return the longitude in the middle of some, in whole degrees, and how far they spread."""
    around = np.unique(x[np.isfinite(x)] % TURN)
    if not len(around):
        return 0.0, 0.0
    gaps = np.diff(np.append(around, around[0] + TURN))
    widest = int(gaps.argmax())
    first, spread = around[(widest + 1) % len(around)], TURN - gaps[widest]
    return float(round((first + spread / 2 + 180) % TURN - 180)), float(spread)


def _pole(window: GeoBox, near: float = 0.0) -> float | None:
    """Return the latitude of the pole that lies in a window, None where none does.

    Parameters
    ----------
    window
        The window.
    near
        The pixels beyond its edges in which one counts as well.
    """
    crs = window.crs
    assert crs is not None
    if crs.geographic:
        return None
    height, width = window.shape
    for latitude in (90.0, -90.0):
        x, y = project(np.array([0.0, 120.0]), np.full(2, latitude), DEGREES, crs)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            continue
        columns, rows = apply(~window.transform, x, y)
        # Some projections show a pole as a line.
        is_point = abs(columns[1] - columns[0]) < 1 and abs(rows[1] - rows[0]) < 1
        inside = -near <= columns[0] <= width + near and -near <= rows[0] <= height + near
        if is_point and inside:
            # And some have no place for it, and show another there.
            back = project(x[:1], y[:1], crs, DEGREES)[1]
            if abs(float(back[0]) - latitude) < 1e-6:
                return latitude
    return None


@dataclass(frozen=True, eq=False)
class _Mesh:
    """The points of an output window that were projected.

    Attributes
    ----------
    window
        The window.
    columns, rows
        Where in it they are, of the mesh's shape.
    reach
        See `overlaps`.
    dense
        Whether they are all pixels.
    """

    window: GeoBox
    columns: NDArray[np.float64]
    rows: NDArray[np.float64]
    reach: tuple[float, float]
    dense: bool

    def within(
        self,
        raster: Raster,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        ends: Sequence[tuple[float, float]] = (),
        *,
        turn: float = 0.0,
        centre: float = 0.0,
        half: bool = False,
    ) -> Iterator[Overlap]:
        """Yield the overlap where the points, and more `ends`, lie at some coordinates.

        Raises
        ------
        _BentError
            Where a coarse mesh doesn't tell.
        """
        across, down = apply(~raster.transform, x, y)
        known = np.isfinite(across) & np.isfinite(down)
        if not (self.dense or (np.isfinite(y) if half else known).all()):
            raise _BentError
        if not known.any():
            return
        across, down = np.where(known, across, np.nan), np.where(known, down, np.nan)
        sides, bends = [], []
        for axis, at in enumerate((down, across)):
            bend = _bend(at)
            low, high = float(np.nanmin(at)), float(np.nanmax(at))
            if not self.dense and bend > max(MOST_BENT, (high - low) / 4):
                raise _BentError
            for point in ends:
                own = (~raster.transform) @ point
                low, high = min(low, own[1 - axis]), max(high, own[1 - axis])
            off = bend + self.reach[axis]
            sides.append((math.floor(low - off), math.ceil(high + off)))
            bends.append(bend)
        touched = _touched(down, across, bends, raster)
        rows, columns = _part_of(raster, *sides)
        if rows and columns and touched.any():
            target = _part(self.window, self.columns, self.rows, touched)
            yield Overlap(rows, columns, target, turn, centre, half)


def _part_of(raster: Raster, down: tuple[int, int], across: tuple[int, int]) -> tuple[range, range]:
    """Return what there is of some rows and columns of a raster."""
    height, width = raster.shape
    rows = range(max(down[0], 0), min(down[1], height))
    if not raster.goes_around:
        return rows, range(max(across[0], 0), min(across[1], width))
    if across[1] - across[0] >= 2 * width:
        return rows, range(-width, 2 * width)
    return rows, range(*across)


def _bend(at: NDArray[np.float64]) -> float:
    """Return by how much a projection may be off between the points of a mesh, in pixels."""
    found = 0.5
    for axis in (0, 1):
        bent = np.abs(np.diff(at, n=2, axis=axis))
        found += float(bent[np.isfinite(bent)].max(initial=0.0)) / 4
    return found


def _touched(
    down: NDArray[np.float64],
    across: NDArray[np.float64],
    bends: Sequence[float],
    raster: Raster,
) -> NDArray[np.bool_]:
    """Return which cells of the mesh touch the raster, of the mesh's shape less one."""
    found = np.ones((down.shape[0] - 1, down.shape[1] - 1), dtype=bool)
    for axis, at in enumerate((down, across)):
        if axis == 1 and raster.goes_around:
            continue
        stacked = np.stack([at[:-1, :-1], at[:-1, 1:], at[1:, :-1], at[1:, 1:]])
        unknown = ~np.isfinite(stacked)
        low = np.where(unknown, np.inf, stacked).min(axis=0)
        high = np.where(unknown, -np.inf, stacked).max(axis=0)
        found &= (low - bends[axis] <= raster.shape[axis]) & (high + bends[axis] >= 0)
    # A cell with a corner that isn't known may reach anywhere.
    gone = ~np.isfinite(down)
    edge = gone[:-1, :-1] | gone[:-1, 1:] | gone[1:, :-1] | gone[1:, 1:]
    whole = gone[:-1, :-1] & gone[:-1, 1:] & gone[1:, :-1] & gone[1:, 1:]
    return found | (edge & ~whole)


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
