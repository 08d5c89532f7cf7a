"""The swaths of a band: which touch an output window, and what they give it.

A pixel takes the cell whose centre is nearest on the sphere, if either lies in the other: a cell
reaches half-way to its neighbours' centres, but not across a gap. Statistics are those of the cells
whose centres lie in a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pykdtree.kdtree import KDTree

from l2view.arrays.cache import CELLS
from l2view.arrays.stored import StoredArray
from l2view.errors import QueryError
from l2view.granules.reader import GranuleReader
from l2view.mosaic.rasters import Arrays
from l2view.regrid.overlaps import DEGREES, apply, mesh, project
from l2view.regrid.statistics import STATISTICS, by_pixel
from l2view.regrid.warp import Piece, Target

MARGIN = 1.0
"""By how many degrees a swath may reach beyond its footprint, which providers simplify."""

REACH = 1.005
"""By how much further a cell reaches than its corners, against what rounding leaves."""

EDGE = 1e-6
"""The pixels by which rounding may move a place."""

GAP = 2.0
"""By how many times a step to one neighbour is longer than that to the other, across a gap."""


@dataclass(frozen=True, eq=False)
class Swaths:
    """n swaths of a band.

    Attributes
    ----------
    reader
        Opens granules' arrays.
    token
        What tells this band from any other of this process.
    shared
        What tells its mosaic from any other.
    arrays, latitudes, longitudes
        The arrays of each profile, and those of their cells' centres in degrees.
    rows
        Their granules, of shape (n,).
    which
        The arrays of each, of shape (n,).
    members
        Which of those arrays it is, of shape (n,).
    footprints
        Their footprints in EPSG:4326, of shape (n,); None where nothing says where one lies.
    ranks
        The order in which they are composed, of shape (n,).
    groups
        The group of times of each, of shape (n,).
    """

    reader: GranuleReader
    token: str
    shared: str
    arrays: tuple[Arrays, ...]
    latitudes: tuple[Arrays, ...]
    longitudes: tuple[Arrays, ...]
    rows: NDArray[np.int64]
    which: NDArray[np.int64]
    members: NDArray[np.int64]
    footprints: NDArray[Any]
    ranks: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_index"}

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _index(self) -> tuple[shapely.STRtree, NDArray[np.int64], NDArray[np.int64]]:
        """The R-tree of the footprints, whose each is, and the swaths that have none."""
        known = np.array([one is not None and not one.is_empty for one in self.footprints], bool)
        return (
            shapely.STRtree(self.footprints[known]),
            np.flatnonzero(known),
            np.flatnonzero(~known),
        )

    def touching(self, window: GeoBox) -> NDArray[np.int64]:
        """Return which swaths may touch an output window."""
        tree, whose, anywhere = self._index
        boxes = boxes_of(window)
        found = [whose[tree.query(box, predicate="intersects")] for box in boxes]
        return np.unique(np.concatenate([anywhere, *found]))

    def pieces(
        self, number: int, pixels: Pixels, resampling: str, target: Target | None = None
    ) -> Iterator[Piece]:
        """Yield what a swath gives an output window, or no more than a part of it, the `target`.

        Raises
        ------
        ChunkError
            Where a chunk can't be read.
        """
        cells = self._cells(number)
        if cells is None:
            return
        wanted = np.zeros((pixels.window.shape[0], pixels.window.shape[1]), dtype=bool)
        wanted[(slice(None), slice(None)) if target is None else target] = True
        if resampling == "nearest":
            picked, there = nearest(pixels, cells)
            yield from self._picked(number, cells, picked, there & wanted)
            return
        inside, at = cells_in(pixels, cells)
        shown = wanted.ravel()[at]
        inside, at = inside[shown], at[shown]
        values, valid = self._values(number, cells, cells.numbers[inside])
        kept = valid if valid is not None else np.ones(len(inside), dtype=bool)
        shape = (pixels.window.shape[0], pixels.window.shape[1])
        found, full = by_pixel(values[kept], at[kept], shape, resampling)
        picked, near = nearest(pixels, cells)
        near &= wanted & ~full & (resampling != "sum")
        if near.any():
            for piece in self._picked(number, cells, picked, near):
                own = full[piece.target]
                if piece.valid is not None:
                    own = own | ~piece.valid
                yield Piece(piece.target, piece.values, ~own)
        if full.any():
            yield Piece((slice(0, full.shape[0]), slice(0, full.shape[1])), found, full)

    def _picked(
        self,
        number: int,
        cells: Cells,
        picked: NDArray[np.int64],
        there: NDArray[np.bool_],
    ) -> Iterator[Piece]:
        """Yield the values of the cells that pixels take."""
        if not there.any():
            return
        rows, columns = (np.flatnonzero(there.any(axis=axis)) for axis in (1, 0))
        target = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        wanted, own = picked[target], there[target]
        values, valid = self._values(number, cells, np.where(own, wanted, wanted[own][0]).ravel())
        values = values.reshape(own.shape)
        yield Piece(target, values, own if valid is None else own & valid.reshape(own.shape))

    def _values(
        self, number: int, cells: Cells, wanted: NDArray[np.int64]
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return the values of some cells, reading the rows and columns that hold them."""
        arrays, stored = self.arrays[self.which[number]], self.stored(number)
        if not len(wanted):
            return np.zeros(0, stored.values.dtype), None
        at = np.divmod(wanted, cells.shape[1])
        sides = [range(int(one.min()), int(one.max()) + 1) for one in at]
        key = (self.token, int(self.which[number]), int(self.rows[number]))
        window = arrays.window(sides[0], sides[1])
        values, valid = stored.values.to_numpy(arrays.image(stored.cached(key, window)))
        inside = tuple(one - side.start for one, side in zip(at, sides, strict=True))
        return values[inside], None if valid is None else valid[inside]

    def stored(self, number: int) -> StoredArray:
        """Return the array of a swath."""
        return self._stored(self.arrays, number)

    def _stored(self, arrays: Sequence[Arrays], number: int) -> StoredArray:
        one = arrays[self.which[number]]
        row, member = int(self.rows[number]), int(self.members[number])
        return self.reader.stored(row, one.array, member, one.values)

    def _cells(self, number: int) -> Cells | None:
        """Return where a swath's cells lie, which its bands have in common; None of no cells."""
        which = int(self.which[number])
        latitudes, track = self.latitudes[which], len(self.arrays[which].axes) == 1
        key = (self.shared, int(self.rows[number]), latitudes.array.path, track)
        return CELLS.fetch([key], lambda _: [self._located(number)], sizeof)[0]

    def _located(self, number: int) -> Cells | None:
        found = []
        for arrays in (self.latitudes, self.longitudes):
            stored = self._stored(arrays, number)
            window = tuple(map(range, stored.shape))
            values, valid = stored.values.to_numpy(stored.stored(window))
            degrees = values.astype(np.float64)
            found.append(degrees if valid is None else np.where(valid, degrees, np.nan))
        lat, lon = found
        if lat.ndim == 1:
            track = len(self.arrays[self.which[number]].axes) == 1
            lat, lon = (
                (lat[:, None], lon[:, None]) if track else np.meshgrid(lat, lon, indexing="ij")
            )
        return cells_at(*(one.reshape(one.shape[-2:]) for one in (lat, lon)))


@dataclass(frozen=True, eq=False)
class Cells:
    """Where the cells of a swath lie.

    Attributes
    ----------
    shape
        The rows and columns of the swath.
    numbers
        The cells that have a place, in C order, of shape (n,).
    places
        Their centres, as latitudes and longitudes in degrees, of shape (n, 2).
    points
        The same on the unit sphere, of shape (n, 3).
    reaches
        How far each reaches, as a chord of that sphere, of shape (n,).
    tree
        A tree of the centres.
    centre, angle
        A circle around all of them: its centre on the sphere, and its angle in radians.
    """

    shape: tuple[int, int]
    numbers: NDArray[np.int64]
    places: NDArray[np.float64]
    points: NDArray[np.float64]
    reaches: NDArray[np.float32]
    tree: KDTree
    centre: NDArray[np.float64]
    angle: float


def sizeof(cells: Cells | None) -> int:
    """Return the bytes of cells, the tree's about as many as the points'."""
    return 0 if cells is None else 3 * cells.points.nbytes + cells.numbers.nbytes


def cells_at(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> Cells | None:
    """Return the cells with some centres in degrees, of shape (rows, columns); None for none."""
    with np.errstate(invalid="ignore"):
        known = (np.abs(lat) <= 90) & (np.abs(lon) <= 360)
    points = vectors(np.where(known, lat, np.nan), np.where(known, lon, np.nan))
    numbers = np.flatnonzero(known)
    if not len(numbers):
        return None
    flat = np.ascontiguousarray(points.reshape(-1, 3)[numbers])
    reaches = reaches_of(points).ravel()[numbers]
    centre, angle = _circle(flat)
    height, width = lat.shape
    places = np.stack([lat.ravel()[numbers], lon.ravel()[numbers]], axis=1)
    return Cells((height, width), numbers, places, flat, reaches, KDTree(flat), centre, angle)


class Pixels:
    """The pixels of an output window on the globe, for all swaths that may touch it.

    Parameters
    ----------
    window
        The output window.
    """

    def __init__(self, window: GeoBox) -> None:
        self.window = window

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """Their centres on the unit sphere, of shape (n, 3); NaN where there is no globe."""
        height, width = self.window.shape
        columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        return vectors(*_on_the_globe(self.window, columns, rows)).reshape(-1, 3)

    @cached_property
    def half(self) -> float:
        """Half of the longest diagonal of a pixel, as a chord of the unit sphere."""
        height, width = self.window.shape
        if self.has_limb:
            grid = self.points.reshape(height, width, 3)
            steps = [np.linalg.norm(np.diff(grid, axis=axis), axis=-1) for axis in (0, 1)]
            return max(float(one[np.isfinite(one)].max(initial=0.0)) for one in steps)
        edges = np.meshgrid([0.0, width / 2, width], [0.0, height / 2, height])
        found = 0.0
        for column, row in zip(edges[0].ravel(), edges[1].ravel(), strict=True):
            at = np.array([[column - 0.5, column + 0.5]]), np.array([[row - 0.5, row + 0.5]])
            ends = vectors(*_on_the_globe(self.window, *at))[0]
            length = float(np.linalg.norm(ends[1] - ends[0]))
            found = max(found, length if length == length else 0.0)
        return found / 2 * 1.1

    @cached_property
    def circle(self) -> tuple[NDArray[np.float64], float]:
        """A circle around them: its centre on the sphere, and its angle in radians."""
        if self.has_limb:  # beyond which cells may lie whose pixels' centres are off the globe
            return np.array([0.0, 0.0, 1.0]), np.pi
        return _circle(self.points)

    @cached_property
    def has_limb(self) -> bool:
        """Whether some of them lie off the globe."""
        return not bool(np.isfinite(self.points).all())

    @cached_property
    def turns(self) -> NDArray[np.float64]:
        """By how far along x the window lies from where its CRS has it, once for each turn."""
        assert self.window.crs is not None
        columns, rows = mesh(self.window, dense=max(self.window.shape) <= 64)
        x = apply(self.window.transform, columns, rows)[0]
        lat, lon = _on_the_globe(self.window, columns, rows)
        home, _ = project(lon, lat, DEGREES, self.window.crs)
        off = (x - home)[np.isfinite(x) & np.isfinite(home)]
        step = abs(self.window.transform.a)
        far = np.abs(off) > 1000 * step  # what is less is rounding, and datums
        return np.unique(np.where(far, np.round(off / step) * step, 0.0))


def vectors(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points of the unit sphere, of shape (…, 3), for latitudes and longitudes."""
    y, x = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(y) * np.cos(x), np.cos(y) * np.sin(x), np.sin(y)], axis=-1)


def _on_the_globe(
    window: GeoBox, columns: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return latitudes and longitudes of a window's pixels, NaN where it shows none."""
    assert window.crs is not None
    x, y = apply(window.transform, columns, rows)
    lon, lat = project(x, y, window.crs, DEGREES)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(lon) & (np.abs(lat) <= 90 + 1e-9)
    return np.where(known, lat, np.nan), np.where(known, lon, np.nan)


def _circle(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return a circle around points of the unit sphere: its centre, and its angle in radians."""
    centre = points.mean(axis=0)
    length = float(np.linalg.norm(centre))
    if length < 0.1:  # about as many on one side of the globe as on the other
        return np.array([0.0, 0.0, 1.0]), np.pi
    centre = centre / length
    return centre, float(np.arccos(np.clip((points @ centre).min(), -1, 1)))


def boxes_of(window: GeoBox) -> list[shapely.Geometry]:
    """Return boxes in degrees, within ±180°, that hold an output window and `MARGIN` around it."""
    lat, lon = _on_the_globe(window, *mesh(window))
    if not np.isfinite(lat).all():  # the globe ends between two points of the mesh
        lat, lon = _on_the_globe(window, *mesh(window, dense=True))
    known = np.isfinite(lat)
    if not known.any():
        return []
    steps = [np.abs(np.diff(lat, axis=axis)) for axis in (0, 1)]
    bend = max(float(one[np.isfinite(one)].max(initial=0.0)) for one in steps) / 2
    south, north = lat[known].min() - bend - MARGIN, lat[known].max() + bend + MARGIN
    if north > 89 or south < -89:
        return [shapely.box(-180, max(south, -90), 180, min(north, 90))]
    wide = MARGIN / np.cos(np.radians(min(max(abs(south), abs(north)), 89.0)))
    around = np.unique((lon[known] + 180) % 360 - 180)
    gaps = np.diff(np.append(around, around[0] + 360))
    widest = int(gaps.argmax())
    west, east = around[(widest + 1) % len(around)], around[widest]
    width = (east - west) % 360 + 2 * wide
    if width >= 360 or gaps[widest] < 90:
        return [shapely.box(-180, south, 180, north)]
    west = (west - wide + 180) % 360 - 180
    east = west + width
    if east <= 180:
        return [shapely.box(west, south, east, north)]
    return [shapely.box(west, south, 180, north), shapely.box(-180, south, east - 360, north)]


def reaches_of(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return how far each cell reaches from its centre, as chords of the unit sphere.

    It is as far as its corners are, half-way to the neighbours along rows and columns. Across a
    gap it reaches as far as on the other side.

    Parameters
    ----------
    points
        The centres, of shape (rows, columns, 3), NaN where there is none.
    """
    down, across = (_steps(points, axis) for axis in (0, 1))
    # The longer diagonal of the parallelogram of both steps: |a ± b|² = a² + b² ± 2ab.
    squares = sum(one * one for one in (*down, *across))
    products = sum(one * other for one, other in zip(down, across, strict=True))
    return np.asarray(np.sqrt(squares + 2 * np.abs(products)) * np.float32(REACH / 2))


def _steps(points: NDArray[np.float64], axis: int) -> list[NDArray[np.float32]]:
    """Return the step from each cell to a neighbour along an axis, a plane for x, y and z.

    It is the longer one of both, but for that across a gap; 0 where there is no neighbour.
    """
    planes = [np.diff(points[..., at], axis=axis).astype(np.float32) for at in range(3)]
    lengths: Any = sum(plane * plane for plane in planes)
    behind, before = _beside(lengths, axis)
    with np.errstate(invalid="ignore"):
        longer = before > behind
        gap = np.fmax(behind, before) > GAP**2 * np.fmin(behind, before)
    forward = (np.isnan(behind) | (longer != gap)) & ~np.isnan(before)
    found = []
    for plane in planes:
        one, other = _beside(plane, axis)
        found.append(np.nan_to_num(np.where(forward, other, one)))
    return found


def _beside(
    steps: NDArray[np.float32], axis: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return, of what lies between cells, what is before and after each; NaN where nothing is."""
    edge = np.full_like(np.take(steps, [0], axis=axis), np.nan) if steps.size else None
    if edge is None:
        shape = [n + 1 if at == axis else n for at, n in enumerate(steps.shape)]
        nothing = np.full(shape, np.nan, np.float32)
        return nothing, nothing
    return np.concatenate([edge, steps], axis=axis), np.concatenate([steps, edge], axis=axis)


def nearest(pixels: Pixels, cells: Cells) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the nearest cell of each pixel, and whether one of both lies in the other.

    Returns
    -------
    cells
        Numbers of cells in C order, of the window's shape.
    near
        Of the same shape.
    """
    height, width = pixels.window.shape
    found = np.zeros(height * width, dtype=np.int64)
    near = np.zeros(height * width, dtype=bool)
    most = max(float(cells.reaches.max()), pixels.half)
    angle = cells.angle + 2 * np.arcsin(min(most / 2, 1.0)) + 1e-6
    with np.errstate(invalid="ignore"):
        asked = np.flatnonzero(pixels.points @ cells.centre >= np.cos(min(angle, np.pi)))
    if not len(asked):
        return found.reshape(height, width), near.reshape(height, width)
    far, which = cells.tree.query(pixels.points[asked], k=1, distance_upper_bound=most)
    there = np.isfinite(far) & (which < len(cells.numbers))
    asked, far, which = asked[there], far[there], which[there].astype(np.int64)
    own = far <= cells.reaches[which]
    found[asked[own]] = cells.numbers[which[own]]
    near[asked[own]] = True
    if pixels.half > cells.reaches.min():  # cells that are smaller than a pixel may lie in it
        _fill_with_held(pixels, cells, found, near)
    return found.reshape(height, width), near.reshape(height, width)


def _fill_with_held(
    pixels: Pixels, cells: Cells, found: NDArray[np.int64], near: NDArray[np.bool_]
) -> None:
    """Let pixels without a cell take the nearest of those whose centres lie in them."""
    which, at = cells_in(pixels, cells)
    left = ~near[at]
    which, at = which[left], at[left]
    far = np.linalg.norm(pixels.points[at] - cells.points[which], axis=1)
    order = np.lexsort((far, at))
    first = order[np.flatnonzero(np.diff(at[order], prepend=-1))]
    found[at[first]] = cells.numbers[which[first]]
    near[at[first]] = True


def _places(
    pixels: Pixels, places: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the column and row of the pixel that each place lies in, and whether there is one.

    Parameters
    ----------
    pixels
        The pixels.
    places
        Latitudes and longitudes in degrees, of shape (n, 2).

    Returns
    -------
    columns, rows, inside
        Of shape (n, turns): a window beyond a turn of the globe may have a point more than once.
    """
    window = pixels.window
    assert window.crs is not None
    lon = places[:, 1]
    lon = np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon)
    x, y = project(lon, places[:, 0], DEGREES, window.crs)
    column, row = apply(~window.transform, x[:, None] + pixels.turns, y[:, None])
    height, width = window.shape
    # Who lies between two pixels is in the second, whichever way rounding goes in a window.
    column, row = column + EDGE, row + EDGE
    with np.errstate(invalid="ignore"):
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    found = [np.where(inside, one, 0).astype(np.int64) for one in (column, row)]
    return found[0], found[1], inside


def cells_in(pixels: Pixels, cells: Cells) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the cells whose centres lie in a window, and in which pixel each."""
    centre, angle = pixels.circle
    around = np.cos(min(angle + 2 * np.arcsin(min(pixels.half, 1.0)), np.pi))
    some = np.flatnonzero(cells.points @ centre >= around)
    column, row, inside = _places(pixels, cells.places[some])
    at, turn = np.nonzero(inside)
    return some[at], (row * pixels.window.shape[1] + column)[at, turn]


def require_statistic(resampling: str) -> None:
    """Raise where swaths can't be resampled so.

    Raises
    ------
    QueryError
        Saying how they can.
    """
    if resampling != "nearest" and resampling not in STATISTICS:
        raise QueryError(
            f'swaths have no rows and columns to interpolate along, as resampling="{resampling}" '
            f'would: take "nearest", or a statistic of the cells in a pixel, of '
            f"{', '.join(sorted(STATISTICS))}"
        )
