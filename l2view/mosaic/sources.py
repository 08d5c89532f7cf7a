"""The bands of a view's granules, located on a target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any
from uuid import uuid4

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from zarr.core.sync import sync

from l2view.arrays.cf import MISSING
from l2view.arrays.dtypes import common_dtype, in_native_order
from l2view.arrays.values import ValueDecoder
from l2view.errors import FieldError, L2ViewWarning, QueryError, warn
from l2view.geolocation.bands import Band, Levels, match_band, resolve_bands
from l2view.geolocation.crs import CrsTable
from l2view.geolocation.finder import ATTRIBUTES, Finder, Placement, value_decoders
from l2view.granules.reader import GranuleReader
from l2view.granules.table import ArrayTable, GranuleTable
from l2view.meta.footprints import read_geometries
from l2view.mosaic.groups import Layering
from l2view.mosaic.images import ImageArrays, Images, RasterImages, StoredImages, SwathImages
from l2view.mosaic.spec import MosaicSpec
from l2view.regrid.extents import RasterGrids
from l2view.regrid.projection import WGS84, project
from l2view.regrid.swath import require_swath_resampling
from l2view.regrid.target import (
    METRES_PER_DEGREE,
    NO_BOUNDS,
    metres_per_unit,
    point_bounds,
    union_bounds,
)
from l2view.search.place import geometry_field
from l2view.virtual.tree import Tree

COARSER = 1.02
"""By how much a level's pixels may be larger than the target's, whose CRS has another scale."""

SHARED = ("units", "long_name", "standard_name", "flag_values", "flag_masks", "flag_meanings")
"""The attributes of a band that all of its arrays say."""


@dataclass(frozen=True, eq=False)
class ProfileImages:
    """n images of a band in one profile, all on grids or all swaths, before the grid is known."""

    levels: Levels
    arrays: tuple[ImageArrays, ...]  # level by level, the finest first
    placement: Placement
    systems: Sequence[CRS]  # to which the placement's numbers refer
    members: NDArray[np.int64]  # their granules among the profile's, of shape (n,)
    target: CRS
    footprints: NDArray[Any] | None = None  # of swaths, in EPSG:4326, of shape (n,)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The images' granules in the view, of shape (n,)."""
        return self.levels.table.rows[self.members]

    @cached_property
    def shapes(self) -> NDArray[np.int64]:
        """Rows and columns of each level, of shape (n, levels, 2)."""
        levels = range(len(self.arrays))
        return np.stack([self.levels.shapes(level)[self.members] for level in levels], axis=1)

    @cached_property
    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """West, south, east and north on the target.

        Of each image on a grid, of shape (n, 4), NaN where it may lie anywhere; and of all images,
        of shape (4,).
        """
        bounds = np.full((len(self.members), 4), np.nan)
        if self.footprints is not None:
            return bounds, footprint_bounds(self.footprints, self.target)
        unions = []
        for subset, grids in self._finest_grids():
            bounds[subset], union = grids.bounds(self.target)
            unions.append(union)
        return bounds, union_bounds(unions)

    def _finest_grids(self) -> Iterator[tuple[NDArray[np.int64], RasterGrids]]:
        """Yield the images of each CRS, and their grids at the finest level that is usable."""
        finest = self.placement.usable[self.members].argmax(axis=1)
        transforms = self.placement.transforms[self.members, finest]
        shapes = self.shapes[np.arange(len(self.members)), finest]
        numbers = self.placement.crs[self.members]
        for number in np.unique(numbers).tolist():
            subset = np.flatnonzero(numbers == number)
            yield subset, RasterGrids(transforms[subset], shapes[subset], self.systems[number])

    def pixel_metres(self) -> NDArray[np.float64]:
        """Return the sizes of pixels in metres, where they are known."""
        with np.errstate(invalid="ignore", divide="ignore"):
            if self.footprints is None:
                transforms = self.placement.transforms[self.members, 0]
                units = np.array([metres_per_unit(crs) for crs in self.systems])
                across = np.hypot(transforms[:, 0], transforms[:, 3])
                metres = across * units[self.placement.crs[self.members]]
            else:
                limits = shapely.bounds(self.footprints)
                narrowed = np.cos(np.radians((limits[:, 1] + limits[:, 3]) / 2))
                cells = self.shapes[:, 0].prod(axis=1)
                areas = shapely.area(self.footprints) * narrowed / cells
                metres = METRES_PER_DEGREE * np.sqrt(areas)
        return np.asarray(metres[np.isfinite(metres) & (metres > 0)])

    def levels_read(self, grid: GeoBox) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the level of each image that is read, and the target's pixels in one of its.

        It is the coarsest whose pixels aren't larger than the target's (see `COARSER`), where the
        image lies on the target. Of shape (n,), and down and across, of shape (n, 2).
        """
        usable = self.placement.usable[self.members]
        levels = usable.argmax(axis=1)
        a, b, _, d, e, _ = np.moveaxis(self.placement.transforms[self.members], 2, 0)
        sizes = np.stack([np.hypot(b, e), np.hypot(a, d)], axis=2)
        finest = sizes[np.arange(len(levels)), levels]
        base = np.ones_like(finest)
        for subset, grids in self._finest_grids():
            base[subset] = grids.scales(grid, self.bounds[0][subset])
        scales = base.copy()
        for level in range(usable.shape[1]):
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = sizes[:, level] / finest
                fits = usable[:, level] & (base * ratio <= COARSER).all(axis=1)
            coarser = fits & (ratio.prod(axis=1) > (scales / base).prod(axis=1))
            levels[coarser] = level
            scales[coarser] = (base * ratio)[coarser]
        return levels, scales

    def on(
        self, grid: GeoBox, layers: Layering, reader: GranuleReader, mosaic: str
    ) -> Images | None:
        """Return the images that are in a group of granules, None for none."""
        index, rows, members = np.arange(len(self.members)), self.rows, self.members
        levels, scales = np.zeros_like(index), np.ones((len(index), 2))
        if self.footprints is None:
            levels, scales = self.levels_read(grid)
        shapes = self.shapes[index, levels]
        shown = np.flatnonzero((layers.groups[rows] >= 0) & (shapes > 0).all(axis=1))
        if not len(shown):
            return None
        rows, members, levels = rows[shown], members[shown], levels[shown]
        composed = layers.ranks[rows], layers.groups[rows]
        token = uuid4().hex
        stored = StoredImages(reader, token, self.arrays, levels, rows, members, *composed)
        if self.footprints is not None:
            latitudes, longitudes = (
                _coordinates(self.levels.table, array)
                for array in (self.placement.latitudes, self.placement.longitudes)
            )
            return SwathImages(stored, mosaic, latitudes, longitudes, self.footprints[shown])
        systems = np.array(self.systems, dtype=object)
        return RasterImages(
            stored,
            self.target,
            systems[self.placement.crs[members]],
            self.placement.transforms[members, levels],
            shapes[shown],
            scales[shown],
            self.bounds[0][shown],
        )


@dataclass(frozen=True, eq=False)
class BandSources:
    """One band of a tree's granules."""

    band: Band
    profiles: tuple[ProfileImages, ...]
    dtype: np.dtype[Any]  # that all decoded values have in common
    fill_values: tuple[int, ...]  # that attributes of arrays of integers name
    attributes: dict[str, Any]  # that all arrays have in common


def band_sources(tree: Tree, spec: MosaicSpec) -> list[BandSources]:
    """Return the bands of a tree's granules of which a mosaic is made.

    Raises
    ------
    QueryError
        Where a band isn't there, doesn't say where it lies, or can't be resampled so.
    """
    tables = [table for table, _ in sync(tree.tables(ATTRIBUTES))]
    finder, footprints = Finder.of(tree.reader), cache(partial(granule_footprints, tree))
    sources: list[BandSources] = []
    lacking: list[str] = []
    for band in resolve_bands(spec.bands, tables, tree.shows):
        levels = match_band(band, tables, tree.shows)
        placements = [finder.locate(profile) for profile in levels]
        lacking += _describe_lacking(tree, band, levels)
        images: list[ProfileImages] = []
        values: list[ValueDecoder] = []
        for profile, placement in zip(levels, placements, strict=True):
            arrays = _image_arrays(profile, spec.nodata)
            values += [decoder for array in arrays for decoder in array.decoders]
            locate = partial(ProfileImages, profile, arrays, placement, finder.crs.entries)
            rasters, others = (
                np.flatnonzero(placement.is_raster == kind) for kind in (True, False)
            )
            if len(rasters):
                images.append(locate(rasters, spec.target_crs))
            if len(others) and placement.latitudes is not None:
                outlines = footprints()[profile.table.rows[others]]
                images.append(locate(others, spec.target_crs, outlines))
        unplaced = _describe_unplaced(tree, band, levels, placements, finder.crs)
        if unplaced is not None:
            if not images and spec.bands is not None:
                raise QueryError(unplaced)
            if not images:
                continue
            warn(f"{unplaced}; they are no part of it", L2ViewWarning)
        if any(part.footprints is not None for part in images):
            require_swath_resampling(spec.resampling)
        shared = _shared_attributes([array for profile in levels for array in profile.arrays])
        dtype, fills = _common_dtype(band, values), _fill_values(values)
        sources.append(BandSources(band, tuple(images), dtype, fills, shared))
    if not sources:
        raise QueryError("no band of the view says where it lies; name one with bands=")
    if lacking:
        warn(f"{'; '.join(lacking)}. They are no part of it", L2ViewWarning)
    return sources


def _image_arrays(levels: Levels, nodata: float | None) -> tuple[ImageArrays, ...]:
    return tuple(
        ImageArrays.of(levels.table, array, decoders(array, nodata), levels.axes, levels.picks)
        for array in levels.arrays
    )


def _coordinates(table: GranuleTable, array: ArrayTable | None) -> ImageArrays:
    """Return latitudes or longitudes, along two axes or one."""
    assert array is not None
    axes = (array.rank - 2, array.rank - 1) if array.rank >= 2 else (0,)
    picks = (0,) * (array.rank - len(axes))
    return ImageArrays.of(table, array, value_decoders(array), axes, picks)


def _describe_lacking(tree: Tree, band: Band, profiles: Sequence[Levels]) -> Iterator[str]:
    """Yield a message of the granules that don't have a band, if there are some."""
    having = np.concatenate([levels.table.rows for levels in profiles])
    rows = np.setdiff1d(np.arange(len(tree.granules)), having)
    if len(rows):
        yield (
            f'{len(rows):,} of {len(tree.granules):,} granules have no band "{band.path}": '
            f"{tree.granules.sample_names(rows.tolist())}"
        )


def _describe_unplaced(
    tree: Tree,
    band: Band,
    profiles: Sequence[Levels],
    placements: Sequence[Placement],
    systems: CrsTable,
) -> str | None:
    """Return a message of the granules that don't say where a band lies, None for none."""
    rows = sorted(
        row
        for levels, placement in zip(profiles, placements, strict=True)
        if placement.latitudes is None
        for row in levels.table.rows[~placement.is_raster].tolist()
    )
    if not rows:
        return None
    message = (
        f"{len(rows):,} of {len(tree.granules):,} granules don't say where the cells of "
        f'"{band.path}" lie, by a transform and a CRS, axes, or latitudes and longitudes of its '
        f"shape: {tree.granules.sample_names(rows)}"
    )
    if systems.unknown:
        text = next(iter(systems.unknown))
        message += f". What is said to be a CRS isn't understood: {text[:60]}"
    return message


def decoders(array: ArrayTable, nodata: float | None) -> tuple[ValueDecoder, ...]:
    """Return the decoders of an array's variants: `nodata` is missing where none says what is."""
    if nodata is None or not np.isfinite(nodata):
        return value_decoders(array)
    variants = tuple(
        variant
        if any(name in variant["attributes"] for name in MISSING)
        else {**variant, "attributes": {**variant["attributes"], "_FillValue": nodata}}
        for variant in array.variants
    )
    return value_decoders(replace(array, variants=variants))


def _common_dtype(band: Band, values: Sequence[ValueDecoder]) -> np.dtype[Any]:
    """Return the data type that decoded values have in common."""
    dtypes = sorted({in_native_order(value.dtype) for value in values}, key=str)
    for dtype in dtypes:
        if dtype.kind not in "iufb":
            raise QueryError(f'"{band.path}" has values of {dtype}, and a mosaic is of numbers')
    try:
        return common_dtype(dtypes)
    except ValueError as error:
        raise QueryError(
            f'"{band.path}" differs between granules: {error}; narrow the search to granules that '
            "are alike"
        ) from error


def _fill_values(values: Sequence[ValueDecoder]) -> tuple[int, ...]:
    """Return the integers that stand for what is missing, in the order in which they come."""
    fills: dict[int, None] = {}
    for value in values:
        if value.packing is not None and value.dtype.kind in "iu":
            fills |= dict.fromkeys(value.packing.missing.tolist())
    return tuple(fills)


def _shared_attributes(arrays: Sequence[ArrayTable]) -> dict[str, Any]:
    attributes = arrays[0].attributes
    return {
        name: attributes[name]
        for name in SHARED
        if name in attributes
        and all(array.attributes.get(name) == attributes[name] for array in arrays)
    }


def granule_footprints(tree: Tree) -> NDArray[Any]:
    """Return the footprints of a tree's granules, of shape (n,); None where there is none."""
    try:
        name = geometry_field(tree.granules.all_fields)
    except FieldError:
        return np.full(len(tree.granules), None, dtype=object)
    return read_geometries(tree.granules.available([name]).column(0))


def footprint_bounds(footprints: NDArray[Any], crs: CRS) -> NDArray[np.float64]:
    """Return what footprints cover in a CRS, NaN where nothing is known."""
    shapes = [shape for shape in footprints if shape is not None and not shape.is_empty]
    if not shapes:
        return NO_BOUNDS
    points = shapely.get_coordinates(shapely.segmentize(np.array(shapes, dtype=object), 1.0))
    return point_bounds(*project(points[:, 0], points[:, 1], WGS84, crs), crs)
