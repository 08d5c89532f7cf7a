"""The images of a band, on grids or swaths: which touch an output window, and what they give it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.roi import roi_shape

from l2view.arrays.cf import MISSING, RELEVANT
from l2view.arrays.grid import Window
from l2view.arrays.stored import StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.cache import CELLS
from l2view.geolocation.bands import Levels, image_shapes
from l2view.geolocation.finder import value_decoders
from l2view.geolocation.masks import masks_of
from l2view.granules.reader import GranuleReader
from l2view.granules.table import ArrayTable, GranuleTable
from l2view.limits import limits
from l2view.mosaic.composite import PendingTile
from l2view.regrid.overlaps import Overlap, Raster, overlaps, wrap_columns
from l2view.regrid.projection import TURN
from l2view.regrid.swath import SwathCells, WindowPixels, resample_swath, window_boxes
from l2view.regrid.warp import Image, Kernel, Masked, Target, Tile, is_within_quarter_turn, warp
from l2view.stores.hierarchy import JSON


@dataclass(frozen=True, eq=False)
class WindowRequest:
    """A part of the output that images are asked for."""

    window: GeoBox
    resampling: str
    dtype: np.dtype[Any]  # in which resampled values are wanted

    @cached_property
    def pixels(self) -> WindowPixels:
        """The window's pixels on the globe, which swaths share."""
        return WindowPixels(self.window)


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """The arrays of a band, or of its coordinates, in one profile, and how they are read."""

    table: GranuleTable  # the granules, with these arrays alone
    array: ArrayTable
    decoders: tuple[ValueDecoder, ...]  # of each variant
    axes: tuple[int, ...]  # of rows and columns; of a track of rows alone
    picks: tuple[int, ...]  # the positions along the others
    # Arrays of which cells are valid, and of which granules they say so, of shape (n,).
    masks: tuple[tuple[ImageArrays, NDArray[np.bool_]], ...] = ()

    @classmethod
    def of_level(cls, levels: Levels, level: int, nodata: float | None) -> Self:
        """Return one level of a band, with its masks."""
        masks = tuple(
            (cls.of(levels.table, mask.array, mask.axes, mask.picks), mask.applies)
            for mask in masks_of(levels, level)
        )
        image = cls.of(levels.table, levels.arrays[level], levels.axes, levels.picks, nodata)
        return replace(image, masks=masks)

    @classmethod
    def of(
        cls,
        table: GranuleTable,
        array: ArrayTable,
        axes: tuple[int, ...],
        picks: tuple[int, ...],
        nodata: float | None = None,
    ) -> Self:
        """Return arrays of a profile, without the attributes that say where they lie.

        `nodata` is missing in those that don't say what is.
        """
        array = array.narrow(RELEVANT)
        variants = array.variants
        if nodata is not None and np.isfinite(nodata):
            variants = tuple(_with_missing(variant, nodata) for variant in variants)
        decoders = value_decoders(replace(array, variants=variants))
        table = replace(table, arrays={array.path: array}, groups={}, locations=())
        return cls(table, array, decoders, axes, picks)

    @property
    def is_track(self) -> bool:
        """Whether they have rows alone."""
        return len(self.axes) == 1

    @property
    def shapes(self) -> NDArray[np.int64]:
        """The rows and columns of each granule's array, of shape (granules, 2)."""
        return image_shapes(self.array.ends - self.array.begins, self.axes)

    def masks_of(self, member: int) -> list[ImageArrays]:
        """Return the masks of one granule's array."""
        return [arrays for arrays, applies in self.masks if applies[member]]

    def window(self, rows: range, columns: range) -> Window:
        """Return the positions along all axes."""
        axes = range(self.array.rank)
        others = [axis for axis in axes if axis not in self.axes]
        positions = dict(zip(self.axes, (rows, columns), strict=False))
        positions |= {axis: range(at, at + 1) for axis, at in zip(others, self.picks, strict=True)}
        return tuple(positions[axis] for axis in axes)

    def image(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return a window's values as rows and columns; a track has one column."""
        if self.is_track:
            return values.reshape(-1, 1)
        rows, columns = self.axes
        image = values.reshape([values.shape[axis] for axis in sorted(self.axes)])
        return image if rows < columns else image.T


def _with_missing(variant: JSON, nodata: float) -> JSON:
    attributes = variant["attributes"]
    if any(name in attributes for name in MISSING):
        return variant
    return {**variant, "attributes": {**attributes, "_FillValue": nodata}}


type ArrayRead = tuple[ImageArrays, range, list[range]]
"""What a window reads of arrays: rows, and columns, several if an image goes around the globe."""


class OutlineIndex:
    """An R-tree of n outlines; what has none may lie anywhere."""

    def __init__(self, outlines: NDArray[Any]) -> None:
        self.tree = shapely.STRtree(outlines)
        self.anywhere = np.flatnonzero(shapely.is_missing(outlines) | shapely.is_empty(outlines))

    def touching(self, areas: Sequence[shapely.Geometry]) -> NDArray[np.int64]:
        """Return the numbers of those that may touch some areas."""
        geometries = np.array(areas, dtype=object)
        return np.union1d(self.anywhere, self.tree.query(geometries, predicate="intersects")[1])


@dataclass(frozen=True, eq=False)
class StoredImages:
    """n images of a band in one profile, as they are stored, and how they are composed."""

    reader: GranuleReader
    token: str  # tells them from any others of this process
    arrays: tuple[ImageArrays, ...]  # level by level, the finest first
    levels: NDArray[np.int64]  # the level that is read, of shape (n,)
    rows: NDArray[np.int64]  # their granules in the view, of shape (n,)
    members: NDArray[np.int64]  # and among the profile's granules, of shape (n,)
    ranks: NDArray[np.int64]  # the order in which they are composed, of shape (n,)
    groups: NDArray[np.int64]  # the group of granules of each, of shape (n,)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_index"}

    def arrays_of(self, number: int) -> ImageArrays:
        """Return the arrays of the level of an image that is read."""
        return self.arrays[int(self.levels[number])]

    def open(self, number: int, arrays: ImageArrays) -> StoredArray:
        """Return that one of some arrays that is of an image's granule."""
        row, member = int(self.rows[number]), int(self.members[number])
        return self.reader.stored_array(row, arrays.array, member, arrays.decoders)

    def read(self, number: int, rows: range, columns: Sequence[range]) -> Masked:
        """Return some rows of an image, and ranges of columns one after another, decoded."""
        arrays = self.arrays_of(number)
        decoder = self.open(number, arrays).values
        values, valid = decoder.to_numpy(self._read_stored(number, arrays, rows, columns))
        for mask in arrays.masks_of(int(self.members[number])):
            opaque = self._read_stored(number, mask, rows, columns) != 0
            valid = opaque if valid is None else valid & opaque
        return values, None if valid is None or valid.all() else valid

    def _read_stored(
        self, number: int, arrays: ImageArrays, rows: range, columns: Sequence[range]
    ) -> NDArray[Any]:
        stored = self.open(number, arrays)
        key = (self.token, arrays.array.path, int(self.rows[number]))
        images = [
            arrays.image(stored.read_cached(key, arrays.window(rows, span))) for span in columns
        ]
        return images[0] if len(images) == 1 else np.concatenate(images, axis=1)


@dataclass(frozen=True, eq=False)
class RasterImages(StoredImages):
    """Images on grids."""

    target: CRS
    crs: NDArray[Any]  # of each image, of shape (n,)
    transforms: NDArray[np.float64]  # from (column, row) to coordinates, of shape (n, 6)
    shapes: NDArray[np.int64]  # rows and columns, of shape (n, 2)
    scales: NDArray[np.float64]  # the target's pixels in one, down and across, of shape (n, 2)
    bounds: NDArray[np.float64]  # on the target, of shape (n, 4); NaN where it may lie anywhere

    @cached_property
    def _index(self) -> OutlineIndex:
        return OutlineIndex(shapely.box(*self.bounds.T))

    def touching(self, window: GeoBox) -> NDArray[np.int64]:
        """Return the numbers of the images that may touch an output window."""
        # In degrees, an image lies again after a turn.
        turns = (-TURN, 0.0, TURN) if self.target.geographic else (0.0,)
        west, south, east, north = window.boundingbox
        return self._index.touching([shapely.box(west + t, south, east + t, north) for t in turns])

    def raster(self, number: int) -> Raster:
        """Return the grid of an image."""
        height, width = self.shapes[number].tolist()
        return Raster(Affine(*self.transforms[number].tolist()), (height, width), self.crs[number])

    def _kernel(self, number: int, resampling: str) -> Kernel:
        down, across = self.scales[number].tolist()
        return Kernel(resampling, (down, across))

    def _overlaps(self, number: int, request: WindowRequest) -> list[Overlap]:
        kernel = self._kernel(number, request.resampling)
        return overlaps(request.window, self.raster(number), kernel.reach)

    def reads(self, number: int, request: WindowRequest) -> Iterator[ArrayRead]:
        """Yield what a window reads of an image."""
        arrays = self.arrays_of(number)
        for overlap in self._overlaps(number, request):
            columns = list(wrap_columns(overlap.columns, int(self.shapes[number, 1])))
            masks = arrays.masks_of(int(self.members[number]))
            path = arrays.array.path  # of which alpha, mostly in the same chunks, is a band
            for read in (arrays, *(mask for mask in masks if mask.array.path != path)):
                yield read, overlap.rows, columns

    def pending_tiles(self, number: int, request: WindowRequest) -> list[PendingTile]:
        """Return what an image could give a window."""
        overlapping = self._overlaps(number, request)
        return [(part.target, partial(self._tiles, number, part, request)) for part in overlapping]

    def _tiles(
        self, number: int, overlap: Overlap, request: WindowRequest, target: Target
    ) -> Iterator[Tile]:
        """Yield what an image gives a part of a window, reading `Limits.image_pixels` at once."""
        too_large = overlap.pixels > limits().image_pixels and roi_shape(target) != (1, 1)
        if target == overlap.target and not too_large:
            yield self._tile(number, overlap, request)
            return
        for side in halve(target) if too_large else [target]:
            smaller = replace(request, window=request.window[side])
            for narrow in self._overlaps(number, smaller):
                for tile in self._tiles(number, narrow, smaller, narrow.target):
                    yield tile.shift(side[0].start, side[1].start)

    def _tile(self, number: int, overlap: Overlap, request: WindowRequest) -> Tile:
        raster, meridian = self.raster(number), overlap.meridian
        grid = request.window[overlap.target]
        columns = list(wrap_columns(overlap.columns, raster.shape[1]))
        values, valid = self.read(number, overlap.rows, columns)
        if raster.ends_at_pole and overlap.rows.stop == raster.shape[0]:
            # A pixel whose centre is the pole lies on the lower edge of the last row, which GDAL
            # counts as beyond: the row is there twice.
            values = np.concatenate([values, values[-1:]])
            valid = None if valid is None else np.concatenate([valid, valid[-1:]])
        origin = Affine.translation(overlap.columns.start, overlap.rows.start)
        transform = raster.turn(meridian.turn - meridian.centre).transform @ origin
        image = Image(values, valid, transform, raster.crs, meridian.centre)
        kernel = self._kernel(number, "nearest" if overlap.singular else request.resampling)
        warped, mask = warp(image, grid, kernel, request.dtype)
        if meridian.half:
            half = is_within_quarter_turn(grid, raster.crs, meridian.centre)
            mask = half if mask is None else mask & half
        return Tile(overlap.target, warped, mask)


@dataclass(frozen=True, eq=False)
class SwathImages(StoredImages):
    """Swaths."""

    mosaic: str  # tells the mosaic from any other of this process: its bands share swaths' cells
    latitudes: ImageArrays  # of the cells' centres, in degrees
    longitudes: ImageArrays
    footprints: NDArray[Any]  # in EPSG:4326, of shape (n,); None where one may lie anywhere

    @cached_property
    def _index(self) -> OutlineIndex:
        return OutlineIndex(self.footprints)

    def touching(self, window: GeoBox) -> NDArray[np.int64]:
        """Return the numbers of the swaths that may touch an output window."""
        return self._index.touching(window_boxes(window))

    def reads(self, number: int, request: WindowRequest) -> Iterator[ArrayRead]:
        """Yield what a window reads of a swath at most."""
        member = int(self.members[number])
        for arrays in (self.arrays_of(number), self.latitudes, self.longitudes):
            rows, columns = map(range, arrays.shapes[member].tolist())
            yield arrays, rows, [columns]

    def pending_tiles(self, number: int, request: WindowRequest) -> list[PendingTile]:
        """Return what a swath could give a window."""
        height, width = request.window.shape
        target = (slice(0, height), slice(0, width))
        return [(target, partial(self._tiles, number, request))]

    def _tiles(self, number: int, request: WindowRequest, target: Target) -> Iterator[Tile]:
        cells = self._cells(number)
        if cells is not None:
            read = partial(self._read_cells, number, cells)
            yield from resample_swath(cells, request.pixels, request.resampling, read, target)

    def _read_cells(self, number: int, cells: SwathCells, numbers: NDArray[np.int64]) -> Masked:
        """Return the values of some cells, reading the rows and columns that hold them."""
        if not len(numbers):
            stored = self.open(number, self.arrays_of(number))
            return np.zeros(0, stored.values.dtype), None
        index = np.divmod(numbers, cells.shape[1])
        rows, columns = (range(int(at.min()), int(at.max()) + 1) for at in index)
        values, valid = self.read(number, rows, [columns])
        inside = (index[0] - rows.start, index[1] - columns.start)
        return values[inside], None if valid is None else valid[inside]

    def _cells(self, number: int) -> SwathCells | None:
        """Return the cells of a swath, which the mosaic's bands share; None where it has none."""
        is_track = self.arrays_of(number).is_track

        def locate(_: Any) -> list[SwathCells | None]:
            lat, lon = (self._degrees(number, at) for at in (self.latitudes, self.longitudes))
            if lat.ndim == 1 and is_track:
                lat, lon = lat[:, None], lon[:, None]
            elif lat.ndim == 1:
                lat, lon = np.meshgrid(lat, lon, indexing="ij")
            flat = (degrees.reshape(degrees.shape[-2:]) for degrees in (lat, lon))
            return [SwathCells.of(*flat)]

        key = (self.mosaic, int(self.rows[number]), self.latitudes.array.path, is_track)
        cells: list[SwathCells | None] = CELLS.fetch([key], locate, lambda c: c.nbytes if c else 0)
        return cells[0]

    def _degrees(self, number: int, arrays: ImageArrays) -> NDArray[np.float64]:
        stored = self.open(number, arrays)
        values, valid = stored.values.to_numpy(stored.read_stored(tuple(map(range, stored.shape))))
        degrees = values.astype(np.float64)
        return degrees if valid is None else np.where(valid, degrees, np.nan)


def halve(target: Target) -> list[Target]:
    """Return both halves of a target, along its longer side."""
    height, width = roi_shape(target)
    rows, columns = target
    if height >= width:
        middle = rows.start + height // 2
        return [(slice(rows.start, middle), columns), (slice(middle, rows.stop), columns)]
    middle = columns.start + width // 2
    return [(rows, slice(columns.start, middle)), (rows, slice(middle, columns.stop))]


type Images = RasterImages | SwathImages  # images of a band in one profile, of one kind
