"""The images of a band, on grids or swaths: which touch an output window, and what they give it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox

from l2view.arrays import reading
from l2view.arrays.cf import RELEVANT
from l2view.arrays.grid import Window
from l2view.arrays.stored import StoredArray
from l2view.arrays.values import Values
from l2view.granules.inventory import ArrayInventory, Inventory
from l2view.mosaic.composite import PendingTile
from l2view.regrid.overlaps import Overlap, Raster, overlaps, wrap_columns
from l2view.regrid.projection import TURN
from l2view.regrid.swath import SwathCells, WindowPixels, resample_swath, window_boxes
from l2view.regrid.warp import Image, Kernel, Masked, Target, Tile, is_within_quarter_turn, warp
from l2view.virtual.opener import GranuleOpener

MAX_PIXELS = 1 << 25
"""The most pixels of an image that are read at once; for more a window is halved again and again.
"""


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """The arrays of a band, or of its coordinates, in one profile, and how they are read.

    Attributes
    ----------
    inventory
        The granules, with these arrays alone.
    array
        The arrays.
    values
        How the stored values of each of their variants are decoded.
    axes, picks
        The axes of rows and columns (of a track rows alone), and the positions along the others.
    """

    inventory: Inventory
    array: ArrayInventory
    values: tuple[Values, ...]
    axes: tuple[int, ...]
    picks: tuple[int, ...]

    @classmethod
    def of(
        cls,
        inventory: Inventory,
        array: ArrayInventory,
        values: tuple[Values, ...],
        axes: Sequence[int],
        picks: Sequence[int],
    ) -> ImageArrays:
        """Return arrays of a profile, without the attributes that say where they lie."""
        narrow = array.narrow(RELEVANT)
        inventory = Inventory(inventory.name, inventory.rows, {narrow.path: narrow}, {})
        return cls(inventory, narrow, values, tuple(axes), tuple(picks))

    @property
    def is_track(self) -> bool:
        """Whether they have rows alone."""
        return len(self.axes) == 1

    def window(self, rows: range, columns: range) -> Window:
        """Return the positions along all axes."""
        picks = iter(self.picks)
        image = dict(zip(self.axes, (rows, columns), strict=False))
        window = []
        for axis in range(self.array.rank):
            at = image[axis] if axis in image else next(picks)
            window.append(at if isinstance(at, range) else range(at, at + 1))
        return tuple(window)

    def image(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a window's values as rows and columns; a track has one column."""
        if self.is_track:
            return values.reshape(-1, 1)
        rows, columns = self.axes
        image = values.reshape([values.shape[axis] for axis in sorted(self.axes)])
        return image if rows < columns else image.T

    def shape(self, member: int) -> tuple[int, int]:
        """Return the rows and columns of a granule's array."""
        shape = (self.array.ends - self.array.begins)[member]
        rows, *columns = (int(shape[axis]) for axis in self.axes)
        return rows, columns[0] if columns else 1


@dataclass(frozen=True, eq=False)
class StoredImages:
    """The stored arrays of n images, and how these are composed.

    Attributes
    ----------
    opener
        Opens granules' arrays.
    token
        Tells the band from any other of this process.
    arrays
        The arrays of each profile and level.
    rows
        The images' granules, of shape (n,).
    sets
        The position of each image's in `arrays`, of shape (n,).
    members
        Which granule of those arrays it is, of shape (n,).
    ranks
        The order in which they are composed, of shape (n,).
    groups
        The group of granules of each, of shape (n,).
    """

    opener: GranuleOpener
    token: str
    arrays: tuple[ImageArrays, ...]
    rows: NDArray[np.int64]
    sets: NDArray[np.int64]
    members: NDArray[np.int64]
    ranks: NDArray[np.int64]
    groups: NDArray[np.int64]

    def arrays_of(self, number: int) -> ImageArrays:
        """Return the arrays of an image."""
        return self.arrays[int(self.sets[number])]

    def open(self, number: int, arrays: ImageArrays | None = None) -> StoredArray:
        """Return the array of an image, or that of `arrays` of its granule."""
        arrays = self.arrays_of(number) if arrays is None else arrays
        row, member = int(self.rows[number]), int(self.members[number])
        return self.opener.stored(row, arrays.array, member, arrays.values)

    def read(self, number: int, rows: range, columns: Iterable[range]) -> Masked:
        """Return some rows of an image and ranges of columns after another, decoded.

        Raises
        ------
        ChunkError
            Where a chunk can't be read.
        """
        arrays, stored = self.arrays_of(number), self.open(number)
        key = (self.token, int(self.sets[number]), int(self.rows[number]))
        images = [
            arrays.image(reading.read(stored, key, arrays.window(rows, part))) for part in columns
        ]
        image = images[0] if len(images) == 1 else np.concatenate(images, axis=1)
        return stored.values.to_numpy(image)


@dataclass(frozen=True, eq=False)
class ArrayRead:
    """What a window reads of a granule's array.

    Attributes
    ----------
    arrays, member
        The arrays, and which granule of them it is.
    level
        0 for the finest resolution.
    rows
        The rows that are read.
    columns
        The columns; there are several ranges of an image that goes around the globe.
    """

    arrays: ImageArrays
    member: int
    level: int
    rows: range
    columns: Sequence[range]


@dataclass(frozen=True, eq=False)
class _Index:
    """An R-tree of images by their outlines, and those that may lie anywhere."""

    tree: shapely.STRtree
    numbers: NDArray[np.int64]
    anywhere: NDArray[np.int64]

    def touching(self, areas: Sequence[shapely.Geometry]) -> NDArray[np.int64]:
        matches = [self.numbers[self.tree.query(area, predicate="intersects")] for area in areas]
        return np.unique(np.concatenate([self.anywhere, *matches]))


@dataclass(frozen=True, eq=False)
class RasterImages:
    """The n images of a band that lie on grids.

    Attributes
    ----------
    stored
        Their arrays, at the level that is read.
    target
        The CRS of the target.
    levels
        The level of each, 0 for the finest, of shape (n,).
    crs
        Those of each, of shape (n,).
    transforms
        From (column, row) to its coordinates, of shape (n, 6).
    shapes
        Its rows and columns, of shape (n, 2).
    scales
        The target's pixels in one of it, down and across, of shape (n, 2).
    bounds
        Where each lies on the target: west, south, east and north in its CRS, of shape (n, 4);
        NaN for those that may lie anywhere.
    """

    stored: StoredImages
    target: CRS
    levels: NDArray[np.int64]
    crs: NDArray[Any]
    transforms: NDArray[np.float64]
    shapes: NDArray[np.int64]
    scales: NDArray[np.float64]
    bounds: NDArray[np.float64]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_index"}

    @cached_property
    def _index(self) -> _Index:
        known = np.isfinite(self.bounds).all(axis=1)
        numbers, bounds = np.flatnonzero(known), self.bounds[known]
        if self.target.geographic:  # on which an image lies again after a turn
            turns = np.array([-TURN, 0.0, TURN])
            bounds = (bounds[:, None] + turns[:, None] * [1, 0, 1, 0]).reshape(-1, 4)
            numbers = np.repeat(numbers, len(turns))
        return _Index(shapely.STRtree(shapely.box(*bounds.T)), numbers, np.flatnonzero(~known))

    def touching(self, window: GeoBox) -> NDArray[np.int64]:
        """Return the numbers of the images that may touch an output window."""
        return self._index.touching([shapely.box(*window.boundingbox)])

    def raster(self, number: int) -> Raster:
        """Return the grid of an image."""
        height, width = self.shapes[number].tolist()
        return Raster(Affine(*self.transforms[number].tolist()), (height, width), self.crs[number])

    def _kernel(self, number: int, resampling: str) -> Kernel:
        down, across = self.scales[number].tolist()
        return Kernel(resampling, (down, across))

    def _overlaps(self, number: int, window: GeoBox, resampling: str) -> list[Overlap]:
        return overlaps(window, self.raster(number), self._kernel(number, resampling).reach)

    def reads(self, number: int, window: GeoBox, resampling: str) -> Iterator[ArrayRead]:
        """Yield what a window reads of an image."""
        width = int(self.shapes[number, 1])
        arrays, member = self.stored.arrays_of(number), int(self.stored.members[number])
        for overlap in self._overlaps(number, window, resampling):
            columns = list(wrap_columns(overlap.columns, width))
            yield ArrayRead(arrays, member, int(self.levels[number]), overlap.rows, columns)

    def pending_tiles(
        self, number: int, pixels: WindowPixels, resampling: str, dtype: np.dtype[Any]
    ) -> list[PendingTile]:
        """Return what an image could give a window, its values in `dtype` or their own."""
        window = pixels.window
        return [
            PendingTile(
                overlap.target, partial(self._tiles, number, overlap, window, resampling, dtype)
            )
            for overlap in self._overlaps(number, window, resampling)
        ]

    def _tiles(
        self,
        number: int,
        overlap: Overlap,
        window: GeoBox,
        resampling: str,
        dtype: np.dtype[Any],
        target: Target,
    ) -> Iterator[Tile]:
        """Yield what an image gives a part of a window, reading `MAX_PIXELS` at once."""
        height, width = (side.stop - side.start for side in target)
        if overlap.pixels > MAX_PIXELS and height * width > 1:
            rows = (height + 1) // 2 if height >= width else height
            columns = (width + 1) // 2 if width > height else width
            parts = [
                (
                    slice(top, min(top + rows, target[0].stop)),
                    slice(left, min(left + columns, target[1].stop)),
                )
                for top in range(target[0].start, target[0].stop, rows)
                for left in range(target[1].start, target[1].stop, columns)
            ]
        elif target != overlap.target:
            parts = [target]
        else:
            yield self._tile(number, overlap, window, resampling, dtype)
            return
        for part in parts:
            smaller = window[part]
            for narrow in self._overlaps(number, smaller, resampling):
                tiles = self._tiles(number, narrow, smaller, resampling, dtype, narrow.target)
                for tile in tiles:
                    yield _shift(tile, part)

    def _tile(
        self,
        number: int,
        overlap: Overlap,
        window: GeoBox,
        resampling: str,
        dtype: np.dtype[Any],
    ) -> Tile:
        raster, grid, meridian = self.raster(number), window[overlap.target], overlap.meridian
        columns = wrap_columns(overlap.columns, raster.shape[1])
        values, valid = self.stored.read(number, overlap.rows, columns)
        if raster.ends_at_pole and overlap.rows.stop == raster.shape[0]:
            # A pixel whose centre is the pole lies on the lower edge of the last row, which GDAL
            # counts as beyond: the row is there twice.
            values = np.concatenate([values, values[-1:]])
            valid = None if valid is None else np.concatenate([valid, valid[-1:]])
        origin = Affine.translation(overlap.columns.start, overlap.rows.start)
        transform = raster.turned(meridian.turn - meridian.centre).transform @ origin
        warped, mask = warp(
            Image(values, valid, transform, raster.crs, meridian.centre),
            grid,
            self._kernel(number, "nearest" if overlap.singular else resampling),
            dtype,
        )
        if meridian.half:
            half = is_within_quarter_turn(grid, raster.crs, meridian.centre)
            mask = half if mask is None else mask & half
        return Tile(overlap.target, warped, mask)


def _shift(tile: Tile, part: Target) -> Tile:
    """Return a tile of a part of a window as one of the window."""
    rows, columns = (
        slice(side.start + offset.start, side.stop + offset.start)
        for side, offset in zip(tile.target, part, strict=True)
    )
    return Tile((rows, columns), tile.values, tile.valid)


@dataclass(frozen=True, eq=False)
class SwathImages:
    """The n swaths of a band.

    Attributes
    ----------
    stored
        Their arrays.
    mosaic
        Tells the mosaic from any other of this process: its bands share swaths' cells.
    latitudes, longitudes
        The arrays of the cells' centres in degrees, one for each of the stored arrays.
    footprints
        In EPSG:4326, of shape (n,); None where nothing says where a swath lies.
    """

    stored: StoredImages
    mosaic: str
    latitudes: tuple[ImageArrays, ...]
    longitudes: tuple[ImageArrays, ...]
    footprints: NDArray[Any]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_index"}

    @cached_property
    def _index(self) -> _Index:
        known = np.array([shape is not None and not shape.is_empty for shape in self.footprints])
        known = known.astype(bool)
        tree = shapely.STRtree(self.footprints[known])
        return _Index(tree, np.flatnonzero(known), np.flatnonzero(~known))

    def touching(self, window: GeoBox) -> NDArray[np.int64]:
        """Return the numbers of the swaths that may touch an output window."""
        return self._index.touching(window_boxes(window))

    def reads(self, number: int, window: GeoBox, resampling: str) -> Iterator[ArrayRead]:
        """Yield what a window reads of a swath at most."""
        member, at = int(self.stored.members[number]), self.stored.sets[number]
        for arrays in (self.stored.arrays_of(number), self.latitudes[at], self.longitudes[at]):
            rows, columns = map(range, arrays.shape(member))
            yield ArrayRead(arrays, member, 0, rows, [columns])

    def pending_tiles(
        self, number: int, pixels: WindowPixels, resampling: str, dtype: np.dtype[Any]
    ) -> list[PendingTile]:
        """Return what a swath could give a window; `dtype` is for images on grids alone."""
        everything = (slice(0, pixels.shape[0]), slice(0, pixels.shape[1]))
        return [PendingTile(everything, partial(self._tiles, number, pixels, resampling))]

    def _tiles(
        self, number: int, pixels: WindowPixels, resampling: str, target: Target
    ) -> Iterator[Tile]:
        cells = self._cells(number)
        if cells is not None:
            read = partial(self._read_cells, number, cells)
            yield from resample_swath(cells, pixels, resampling, read, target)

    def _read_cells(self, number: int, cells: SwathCells, numbers: NDArray[np.int64]) -> Masked:
        """Return the values of some cells, reading the rows and columns that hold them."""
        if not len(numbers):
            return np.zeros(0, self.stored.open(number).values.dtype), None
        index = np.divmod(numbers, cells.shape[1])
        rows, columns = (range(int(at.min()), int(at.max()) + 1) for at in index)
        values, valid = self.stored.read(number, rows, [columns])
        inside = (index[0] - rows.start, index[1] - columns.start)
        return values[inside], None if valid is None else valid[inside]

    def _cells(self, number: int) -> SwathCells | None:
        """Return the cells of a swath, which the mosaic's bands share; None where it has none."""
        arrays, latitudes = self.stored.arrays_of(number), self.latitudes[self.stored.sets[number]]
        key = (
            self.mosaic,
            int(self.stored.rows[number]),
            latitudes.array.path,
            arrays.is_track,
        )
        cells: SwathCells | None = reading.once(
            key, lambda: self._locate_cells(number), lambda cells: cells.nbytes if cells else 0
        )
        return cells

    def _locate_cells(self, number: int) -> SwathCells | None:
        degrees = []
        for arrays in (self.latitudes, self.longitudes):
            stored = self.stored.open(number, arrays[self.stored.sets[number]])
            window = tuple(map(range, stored.shape))
            values, valid = stored.values.to_numpy(stored.stored(window))
            centres = values.astype(np.float64)
            degrees.append(centres if valid is None else np.where(valid, centres, np.nan))
        lat, lon = degrees
        if lat.ndim == 1:
            lat, lon = (
                (lat[:, None], lon[:, None])
                if self.stored.arrays_of(number).is_track
                else np.meshgrid(lat, lon, indexing="ij")
            )
        return SwathCells.of(*(centres.reshape(centres.shape[-2:]) for centres in (lat, lon)))


type Images = RasterImages | SwathImages
"""The images of a band of one kind."""
