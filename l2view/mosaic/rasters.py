"""The images of a band that lie on grids: which touch an output window, and what they give it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from l2view.arrays.cf import RELEVANT
from l2view.arrays.grid import Window
from l2view.arrays.stored import StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.geolocation.bands import Levels
from l2view.geolocation.finder import Placement
from l2view.granules.inventory import ArrayInventory, Inventory
from l2view.granules.reader import GranuleReader
from l2view.regrid.overlaps import (
    DEGREES,
    TURN,
    Overlap,
    Raster,
    apply,
    moved_by,
    overlaps,
    project,
    wrapped,
)
from l2view.regrid.target import hull_of, together
from l2view.regrid.warp import Piece, Target, is_within, reach, warp

POINTS = 9
"""The points of an image along each axis by which it is known where it lies on the target."""

WIDE_DEGREES = 20.0
WIDE_METRES = 2e6
"""How wide an image is at most that lies where those points say; a wider one may bend too much."""

COARSER = 1.02
"""By how much a level's pixels may be larger than the target's, whose CRS has another scale."""

MOST_PIXELS = 1 << 25
"""The most pixels of an image that are read at once; for more the window is gone through in parts.
"""


@dataclass(frozen=True, eq=False)
class Arrays:
    """The arrays that a band has in some profile, and how they are read.

    Attributes
    ----------
    inventory
        The granules, with these arrays alone.
    array
        The arrays.
    values
        What becomes of the stored values of each of their variants.
    axes, picks
        The axes of rows and columns, and the positions along the others.
    """

    inventory: Inventory
    array: ArrayInventory
    values: tuple[ValueDecoder, ...]
    axes: tuple[int, ...]
    picks: tuple[int, ...]

    @classmethod
    def of(
        cls,
        inventory: Inventory,
        array: ArrayInventory,
        axes: Sequence[int],
        picks: Sequence[int],
        decode: Callable[[ArrayInventory], tuple[ValueDecoder, ...]],
    ) -> Arrays:
        """Return arrays of a profile, without what says where they lie."""
        narrow = array.narrow(RELEVANT)
        own = Inventory(inventory.name, inventory.rows, {narrow.path: narrow}, {})
        return cls(own, narrow, decode(narrow), tuple(axes), tuple(picks))

    def window(self, rows: range, columns: range) -> Window:
        """Return the positions along all axes."""
        others = iter(self.picks)
        image = dict(zip(self.axes, (rows, columns), strict=False))
        found = []
        for axis in range(self.array.rank):
            if axis in image:
                found.append(image[axis])
            else:
                at = next(others)
                found.append(range(at, at + 1))
        return tuple(found)

    def image(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a window's values as rows and columns; a track has one column."""
        if len(self.axes) == 1:
            return values.reshape(-1, 1)
        rows, columns = self.axes
        found = values.reshape([values.shape[axis] for axis in sorted(self.axes)])
        return found if rows < columns else found.T


@dataclass(frozen=True, eq=False)
class Rasters:
    """n images of a band that lie on grids.

    Attributes
    ----------
    reader
        Opens granules' arrays.
    token
        What tells this band from any other of this process.
    arrays
        The arrays of each profile and level.
    systems
        Their CRSs.
    target
        The CRS of the target.
    rows
        Their granules, of shape (n,).
    which
        The arrays of each at the level that is read, of shape (n,).
    members
        Which of those arrays it is, of shape (n,).
    levels
        The level of each, 0 for the finest, of shape (n,).
    system
        The CRS of each, of shape (n,).
    transforms
        From (column, row) to its coordinates, of shape (n, 6).
    shapes
        Its rows and columns, of shape (n, 2).
    scales
        The target's pixels in one of it, down and across, of shape (n, 2).
    boxes
        Where each lies on the target: west, south, east and north in its CRS, of shape (n, 4);
        NaN for those that may lie anywhere.
    ranks
        The order in which they are composed, of shape (n,).
    groups
        The group of times of each, of shape (n,).
    """

    reader: GranuleReader
    token: str
    arrays: tuple[Arrays, ...]
    systems: tuple[CRS, ...]
    target: CRS
    rows: NDArray[np.int64]
    which: NDArray[np.int64]
    members: NDArray[np.int64]
    levels: NDArray[np.int64]
    system: NDArray[np.int64]
    transforms: NDArray[np.float64]
    shapes: NDArray[np.int64]
    scales: NDArray[np.float64]
    boxes: NDArray[np.float64]
    ranks: NDArray[np.int64]
    groups: NDArray[np.int64]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_index"}

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _index(self) -> tuple[shapely.STRtree, NDArray[np.int64], NDArray[np.int64]]:
        """The R-tree of the boxes, whose each is, and the images that have none."""
        known = np.isfinite(self.boxes).all(axis=1)
        whose, boxes = np.flatnonzero(known), self.boxes[known]
        if self.target.geographic:  # which an image lies on again after a turn
            turns = np.array([-TURN, 0.0, TURN])
            boxes = (boxes[:, None] + turns[:, None] * [1, 0, 1, 0]).reshape(-1, 4)
            whose = np.repeat(whose, len(turns))
        return shapely.STRtree(shapely.box(*boxes.T)), whose, np.flatnonzero(~known)

    def touching(self, window: GeoBox) -> NDArray[np.int64]:
        """Return which images may touch an output window."""
        tree, whose, anywhere = self._index
        bounds = window.boundingbox
        found = whose[tree.query(shapely.box(*bounds))]
        return np.unique(np.concatenate([found, anywhere]))

    def raster(self, number: int) -> Raster:
        """Return where an image lies."""
        height, width = self.shapes[number].tolist()
        transform = Affine(*self.transforms[number].tolist())
        return Raster(transform, (height, width), self.systems[self.system[number]])

    def scale(self, number: int) -> tuple[float, float]:
        """Return the target's pixels in one of an image, down and across."""
        down, across = self.scales[number].tolist()
        return down, across

    def overlaps(self, number: int, window: GeoBox, resampling: str) -> list[Overlap]:
        """Return the parts of an image that an output window needs."""
        return overlaps(window, self.raster(number), reach(resampling, self.scale(number)))

    def stored(self, number: int) -> StoredArray:
        """Return the array of an image."""
        arrays = self.arrays[self.which[number]]
        member = int(self.members[number])
        return self.reader.stored(int(self.rows[number]), arrays.array, member, arrays.values)

    def pieces(
        self,
        number: int,
        overlap: Overlap,
        window: GeoBox,
        resampling: str,
        dtype: np.dtype[Any],
        target: Target | None = None,
    ) -> Iterator[Piece]:
        """Yield what an image gives an output window, reading no more than `MOST_PIXELS` at once.

        Parameters
        ----------
        number
            The image.
        overlap
            What it and the window have in common.
        window
            The output window.
        resampling, dtype
            See `warp`.
        target
            The part of the window that is wanted, all of the overlap's by default.

        Raises
        ------
        ChunkError
            Where a chunk can't be read.
        """
        target = overlap.target if target is None else target
        height, width = (side.stop - side.start for side in target)
        if overlap.pixels > MOST_PIXELS and height * width > 1:
            rows = (height + 1) // 2 if height >= width else height
            columns = (width + 1) // 2 if width > height else width
            parts = [
                (slice(top, min(top + rows, target[0].stop)), slice(left, right))
                for top in range(target[0].start, target[0].stop, rows)
                for left in range(target[1].start, target[1].stop, columns)
                for right in [min(left + columns, target[1].stop)]
            ]
        elif target != overlap.target:
            parts = [target]
        else:
            yield self._piece(number, overlap, window, resampling, dtype)
            return
        for part in parts:
            within = window[part]
            for one in self.overlaps(number, within, resampling):
                for piece in self.pieces(number, one, within, resampling, dtype):
                    yield _moved(piece, part)

    def _piece(
        self,
        number: int,
        overlap: Overlap,
        window: GeoBox,
        resampling: str,
        dtype: np.dtype[Any],
    ) -> Piece:
        raster, grid = self.raster(number), window[overlap.target]
        values, valid = self._read(number, overlap.rows, overlap.columns, raster.shape[1])
        if raster.ends_at_pole and overlap.rows.stop == raster.shape[0]:
            values = _with_pole(values)
            valid = None if valid is None else _with_pole(valid)
        begin = Affine.translation(overlap.columns.start, overlap.rows.start)
        found, there = warp(
            values,
            valid,
            moved_by(raster, overlap.turn - overlap.centre).transform @ begin,
            raster.crs,
            grid,
            "nearest" if overlap.singular else resampling,
            self.scale(number),
            dtype,
            overlap.centre,
        )
        if overlap.half:
            own = is_within(grid, raster.crs, overlap.centre)
            there = own if there is None else there & own
        return Piece(overlap.target, found, there)

    def _read(
        self, number: int, rows: range, columns: range, width: int
    ) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return a part of an image, decoded; its columns may go around the globe."""
        arrays, stored = self.arrays[self.which[number]], self.stored(number)
        key = (self.token, int(self.which[number]), int(self.rows[number]))
        parts = [
            arrays.image(stored.cached(key, arrays.window(rows, some)))
            for some in wrapped(columns, width)
        ]
        image = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return stored.values.to_numpy(image)


def _moved(piece: Piece, part: Target) -> Piece:
    """Return a piece of a part of a window as one of the window."""
    rows, columns = (
        slice(own.start + side.start, own.stop + side.start)
        for own, side in zip(piece.target, part, strict=True)
    )
    return Piece((rows, columns), piece.values, piece.valid)


def _with_pole(values: NDArray[Any]) -> NDArray[Any]:
    """Return a part of an image in degrees with its last row again.

    A pixel whose centre is the pole lies on the edge of that row, which GDAL counts as beyond.
    """
    return np.concatenate([values, values[-1:]])


@dataclass(frozen=True, eq=False)
class Located:
    """Where some images lie on a target, before it is known which of their levels are read.

    Attributes
    ----------
    levels, placed
        The band's arrays, and where they lie.
    members
        Which of the granules they are of, of shape (n,).
    boxes
        See `Rasters`.
    hull
        West, south, east and north of all of them in the target's CRS; NaN where nothing is known.
    """

    levels: Levels
    placed: Placement
    members: NDArray[np.int64]
    boxes: NDArray[np.float64]
    hull: NDArray[np.float64]


def located(levels: Levels, placed: Placement, systems: Sequence[CRS], target: CRS) -> Located:
    """Return where the images of a band lie on a target.

    Parameters
    ----------
    levels, placed
        The band's arrays, and where they lie.
    systems
        The CRSs.
    target
        That of the target.
    """
    members = np.flatnonzero(placed.is_raster)
    boxes = np.full((len(members), 4), np.nan)
    hulls = []
    for number in np.unique(placed.crs[members]).tolist():
        own = np.flatnonzero(placed.crs[members] == number)
        transforms, shapes = _finest(levels, placed, members[own])
        found, hull = _boxes(transforms, shapes, systems[number], target)
        boxes[own] = found
        hulls.append(hull)
    return Located(levels, placed, members, boxes, together(hulls))


def _finest(
    levels: Levels, placed: Placement, members: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the transforms and shapes of the finest levels that can be used."""
    usable = placed.usable[members]
    first = usable.argmax(axis=1)
    shapes = np.stack([levels.shapes(level) for level in range(len(levels.arrays))], axis=1)
    return placed.transforms[members, first], shapes[members, first]


def _boxes(
    transforms: NDArray[np.float64], shapes: NDArray[np.int64], source: CRS, target: CRS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where images of one CRS lie on a target, of shape (n, 4), and the hull of all."""
    x, y = _points(transforms, shapes, POINTS)
    wide = _spread(x, y) > (WIDE_DEGREES if source.geographic else WIDE_METRES)
    x, y = project(x, y, source, target)
    wide |= ~(np.isfinite(x) & np.isfinite(y)).all(axis=(1, 2))
    if target.geographic:
        middle = x[:, POINTS // 2, POINTS // 2, None, None]
        with np.errstate(invalid="ignore"):
            x = (x - middle + 180) % TURN - 180 + middle
        wide |= _holds_pole(transforms, shapes, source)
    sides = []
    for values in (x, y):
        with np.errstate(invalid="ignore"):
            bent = sum(np.abs(np.diff(values, n=2, axis=axis)).max(axis=(1, 2)) for axis in (1, 2))
        sides.append((values.min(axis=(1, 2)) - bent / 4, values.max(axis=(1, 2)) + bent / 4))
    boxes = np.stack([sides[0][0], sides[1][0], sides[0][1], sides[1][1]], axis=1)
    hull = hull_of(x[~wide], y[~wide], target)
    if wide.any():
        far = project(*_points(transforms[wide], shapes[wide], 65), source, target)
        hull = together([hull, hull_of(*far, target)])
    boxes[wide] = np.nan
    return boxes, hull


def _points(
    transforms: NDArray[np.float64], shapes: NDArray[np.int64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coordinates of evenly spread points of images, of shape (n, count, count)."""
    along = np.linspace(0, 1, count)
    rows = shapes[:, 0, None, None] * along[None, :, None]
    columns = shapes[:, 1, None, None] * along[None, None, :]
    a, b, c, d, e, f = (transforms[:, index, None, None] for index in range(6))
    return a * columns + b * rows + c, d * columns + e * rows + f


def _spread(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = [values.max(axis=(1, 2)) - values.min(axis=(1, 2)) for values in (x, y)]
    return np.asarray(np.maximum(*sides))


def _holds_pole(
    transforms: NDArray[np.float64], shapes: NDArray[np.int64], source: CRS
) -> NDArray[np.bool_]:
    """Return which images of one CRS have a pole in them."""
    found = np.zeros(len(transforms), dtype=bool)
    x, y = project(np.zeros(2), np.array([90.0, -90.0]), DEGREES, source)
    for one, other in zip(x.tolist(), y.tolist(), strict=True):
        if source.geographic or not (math.isfinite(one) and math.isfinite(other)):
            continue
        a, b, c, d, e, f = transforms.T
        size = a * e - b * d
        columns = (e * (one - c) - b * (other - f)) / size
        rows = (a * (other - f) - d * (one - c)) / size
        inside = (columns >= 0) & (columns <= shapes[:, 1]) & (rows >= 0) & (rows <= shapes[:, 0])
        found |= inside
    return found


def levels_read(
    one: Located, systems: Sequence[CRS], window: GeoBox
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return which level of each image is read, and the target's pixels in one of its.

    It is the coarsest whose pixels aren't larger than the target's (see `COARSER`), where the
    image lies on the target.

    Returns
    -------
    levels
        Of shape (n,).
    scales
        Down and across, of shape (n, 2).
    """
    placed, members = one.placed, one.members
    transforms = placed.transforms[members]
    usable = placed.usable[members]
    chosen = usable.argmax(axis=1)
    base, shapes = _finest(one.levels, placed, members)
    scales = np.ones((len(members), 2))
    for number in np.unique(placed.crs[members]).tolist():
        own = np.flatnonzero(placed.crs[members] == number)
        scales[own] = _scales(base[own], shapes[own], systems[number], window, one.boxes[own])
    found = scales.copy()
    for level in range(transforms.shape[1]):
        with np.errstate(invalid="ignore", divide="ignore"):
            down = np.hypot(transforms[:, level, 1], transforms[:, level, 4])
            across = np.hypot(transforms[:, level, 0], transforms[:, level, 3])
            ratio = np.stack([down, across], axis=1) / np.stack(
                [np.hypot(base[:, 1], base[:, 4]), np.hypot(base[:, 0], base[:, 3])], axis=1
            )
        fits = usable[:, level] & (scales * ratio <= COARSER).all(axis=1)
        better = fits & (ratio.prod(axis=1) > _ratio(found, scales))
        chosen[better] = level
        found[better] = (scales * ratio)[better]
    return chosen, found


def _ratio(found: NDArray[np.float64], scales: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((found / scales).prod(axis=1))


def _scales(
    transforms: NDArray[np.float64],
    shapes: NDArray[np.int64],
    source: CRS,
    window: GeoBox,
    boxes: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the target's pixels in one of images' of one CRS, down and across, of shape (n, 2).

    They are taken in an image's middle; of those that may lie anywhere in the target's.
    """
    target = window.crs
    assert target is not None
    middle = shapes / 2.0
    anywhere = ~np.isfinite(boxes).all(axis=1)
    if anywhere.any():
        height, width = window.shape
        x, y = apply(window.transform, np.array([width / 2]), np.array([height / 2]))
        x, y = project(x, y, target, source)
        inverse = [~Affine(*transform) for transform in transforms[anywhere].tolist()]
        points = np.array([(one @ (x[0], y[0]))[::-1] for one in inverse])
        inside = ((points >= 0) & (points <= shapes[anywhere])).all(axis=1)
        middle[anywhere] = np.where(inside[:, None], points, middle[anywhere])
    steps = np.maximum(shapes / 1000.0, 1.0)
    a, b, c, d, e, f = transforms.T

    def at(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = project(a * columns + b * rows + c, d * columns + e * rows + f, source, target)
        column, row = apply(~window.transform, x, y)
        return np.stack([row, column], axis=1)

    with np.errstate(invalid="ignore"):
        origin = at(middle[:, 0], middle[:, 1])
        down = at(middle[:, 0] + steps[:, 0], middle[:, 1]) - origin
        across = at(middle[:, 0], middle[:, 1] + steps[:, 1]) - origin
        found = np.stack(
            [np.hypot(*down.T) / steps[:, 0], np.hypot(*across.T) / steps[:, 1]], axis=1
        )
    return np.where(np.isfinite(found) & (found > 0), found, 1.0)
