"""The bands of a view's granules, located on a target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any
from uuid import uuid4

import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from zarr.core.sync import sync

from l2view.arrays.dtypes import common_dtype, in_native_order
from l2view.arrays.values import ValueDecoder
from l2view.errors import FieldError, L2ViewWarning, QueryError, UndecodedArrayWarning, warn
from l2view.geolocation.bands import Band, Levels, match_band, resolve_bands
from l2view.geolocation.crs import CrsTable
from l2view.geolocation.declarations import ATTRIBUTES, UNDECODED
from l2view.geolocation.finder import Finder
from l2view.geolocation.placement import Placement
from l2view.granules.reader import GranuleReader
from l2view.granules.table import ArrayTable, GranuleTable, shared_attributes
from l2view.meta.footprints import read_geometries
from l2view.mosaic.groups import Layering
from l2view.mosaic.images import ImageArrays, Images, RasterImages, SwathImages
from l2view.mosaic.spec import MosaicSpec
from l2view.regrid.projection import WGS84, project
from l2view.regrid.swath import require_swath_resampling
from l2view.regrid.target import (
    METRES_PER_DEGREE,
    NO_BOUNDS,
    RasterGrids,
    metres_per_unit,
    run_bounds,
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

    arrays: tuple[ImageArrays, ...]  # level by level, the finest first
    placement: Placement
    systems: Sequence[CRS]  # to which the placement's numbers refer
    target: CRS
    members: NDArray[np.int64]  # their granules among the profile's, of shape (n,)
    footprints: NDArray[Any] | None = None  # of swaths, in EPSG:4326, of shape (n,)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The images' granules in the view, of shape (n,)."""
        return self.arrays[0].table.rows[self.members]

    @cached_property
    def shapes(self) -> NDArray[np.int64]:
        """Rows and columns of each level, of shape (n, levels, 2)."""
        return np.stack([array.shapes[self.members] for array in self.arrays], axis=1)

    @cached_property
    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """West, south, east and north on the target.

        Of each image on a grid, of shape (n, 4), NaN where it may lie anywhere; and what all images
        cover together, of shape (m, 4).
        """
        bounds = np.full((len(self.members), 4), np.nan)
        if self.footprints is not None:
            areas = shapely.get_parts(shapely.segmentize(self.footprints, 1.0))
            points, index = shapely.get_coordinates(areas, return_index=True)
            starts = np.flatnonzero(np.diff(index, prepend=-1))
            x, y = project(points[:, 0], points[:, 1], WGS84, self.target)
            return bounds, run_bounds(x, y, starts, self.target)
        covered = [NO_BOUNDS[None]]
        for subset, grids in self._finest_grids():
            bounds[subset], sides_of_grids = grids.bounds(self.target)
            covered.append(sides_of_grids)
        return bounds, np.concatenate(covered)

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
        index, levels = np.arange(len(usable)), usable.argmax(axis=1)
        a, b, _, d, e, _ = np.moveaxis(self.placement.transforms[self.members], 2, 0)
        sizes = np.stack([np.hypot(b, e), np.hypot(a, d)], axis=2)
        finest = sizes[index, levels]
        base = np.ones_like(finest)
        for subset, grids in self._finest_grids():
            base[subset] = grids.scales(grid, self.bounds[0][subset])
        ratios = sizes / finest[:, None]
        fits = usable & (base[:, None] * ratios <= COARSER).all(axis=2)
        areas = np.where(fits, ratios.prod(axis=2), 0.0)
        areas[index, levels] = 1.0  # the finest is read where none fits
        levels = areas.argmax(axis=1)
        return levels, base * ratios[index, levels]

    def on(
        self, grid: GeoBox, layers: Layering, reader: GranuleReader, mosaic: str
    ) -> Images | None:
        """Return the images that are in a group of granules, None for none."""
        levels, scales = np.zeros_like(self.members), np.ones((len(self.members), 2))
        if self.footprints is None:
            levels, scales = self.levels_read(grid)
        shapes = self.shapes[np.arange(len(levels)), levels]
        shown = np.flatnonzero((layers.groups[self.rows] >= 0) & (shapes > 0).all(axis=1))
        if not len(shown):
            return None
        rows, members, levels = self.rows[shown], self.members[shown], levels[shown]
        composed = rows, members, layers.ranks[rows], layers.groups[rows]
        stored = reader, uuid4().hex, self.arrays, levels, *composed
        if self.footprints is not None:
            assert self.placement.coordinates is not None
            latitudes, longitudes = (
                _coordinates(self.arrays[0].table, array) for array in self.placement.coordinates
            )
            return SwathImages(*stored, mosaic, latitudes, longitudes, self.footprints[shown])
        crs = np.array(self.systems, dtype=object)[self.placement.crs[members]]
        transforms = self.placement.transforms[members, levels]
        grids = crs, transforms, shapes[shown], scales[shown], self.bounds[0][shown]
        return RasterImages(*stored, self.target, *grids)


@dataclass(frozen=True, eq=False)
class BandSources:
    """One band of a tree's granules."""

    band: Band
    profiles: list[ProfileImages]
    dtype: np.dtype[Any]  # that all decoded values have in common
    fill_values: tuple[int, ...]  # that attributes of arrays of integers name
    attributes: dict[str, Any]  # that all arrays have in common


def band_sources(tree: Tree, spec: MosaicSpec) -> list[BandSources]:
    """Return the bands of a tree's granules of which a mosaic is made.

    A QueryError says which isn't there, doesn't say where it lies, or can't be resampled so.
    """
    tables = sync(tree.tables(ATTRIBUTES))
    finder, footprints = Finder.of(tree.reader), cache(partial(granule_footprints, tree))
    sources: list[BandSources] = []
    lacking: list[str] = []
    for band in resolve_bands(spec.bands, tables, tree.shows):
        profiles = match_band(band, tables, tree.shows)
        having = np.concatenate([profile.table.rows for profile in profiles])
        undecoded = np.concatenate([_undecoded_rows(profile) for profile in profiles])
        if len(undecoded):
            problem = f'have a "{band.path}" whose bands differ in scale: values are as stored'
            warn(tree.granules.describe(undecoded, problem), UndecodedArrayWarning)
        missing = np.setdiff1d(np.arange(len(tree.granules)), having)
        if len(missing):
            problem = f'have no band "{band.path}"'
            lacking.append(tree.granules.describe(missing, problem))
        images: list[ProfileImages] = []
        values: list[ValueDecoder] = []
        unplaced: list[int] = []
        for profile in profiles:
            placement, rows = finder.locate(profile), profile.table.rows
            arrays = tuple(
                ImageArrays.of_level(profile, level, spec.nodata)
                for level in range(len(profile.arrays))
            )
            values += [decoder for array in arrays for decoder in array.decoders]
            make = partial(ProfileImages, arrays, placement, finder.crs.entries, spec.target_crs)
            if placement.is_raster.any():
                images.append(make(np.flatnonzero(placement.is_raster)))
            others = np.flatnonzero(~placement.is_raster)
            if placement.coordinates is None:
                unplaced += rows[others].tolist()
            elif len(others):
                images.append(make(others, footprints()[rows[others]]))
        if unplaced:
            message = _describe_unplaced(tree, band, unplaced, finder.crs)
            if not images and spec.bands is not None:
                raise QueryError(message)
            if images:
                warn(f"{message}; they are no part of it", L2ViewWarning)
        if not images:
            continue
        if any(profile.footprints is not None for profile in images):
            require_swath_resampling(spec.resampling)
        shared = shared_attributes([a.attributes for p in profiles for a in p.arrays])
        attributes = {name: shared[name] for name in SHARED if name in shared}
        integers = (v.packing for v in values if v.packing and v.dtype.kind in "iu")
        fills = dict.fromkeys(fill for packing in integers for fill in packing.missing.tolist())
        dtype = _common_dtype(band, values)
        sources.append(BandSources(band, images, dtype, tuple(fills), attributes))
    if not sources:
        raise QueryError("no band of the view says where it lies; name one with bands=")
    if lacking:
        warn(f"{'; '.join(lacking)}. They are no part of it", L2ViewWarning)
    return sources


def _undecoded_rows(levels: Levels) -> NDArray[np.int64]:
    """Return the granules whose image has scales that ingest set aside."""
    image = levels.arrays[0]
    undecoded = [not v["attributes"].keys().isdisjoint(UNDECODED) for v in image.variants]
    return np.asarray(levels.table.rows[np.array(undecoded)[image.variant_index]])


def _coordinates(table: GranuleTable, array: ArrayTable) -> ImageArrays:
    """Return latitudes or longitudes, along two axes or one."""
    axes = (array.rank - 2, array.rank - 1) if array.rank >= 2 else (0,)
    return ImageArrays.of(table, array, axes, (0,) * (array.rank - len(axes)))


def _describe_unplaced(tree: Tree, band: Band, rows: Sequence[int], systems: CrsTable) -> str:
    """Say which granules don't say where a band lies."""
    problem = (
        f'don\'t say where the cells of "{band.path}" lie, by a transform and a CRS, axes, or '
        "latitudes and longitudes of its shape"
    )
    message = tree.granules.describe(sorted(rows), problem)
    if systems.unknown:
        text = next(iter(systems.unknown))
        message += f". What is said to be a CRS isn't understood: {text[:60]}"
    return message


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


def granule_footprints(tree: Tree) -> NDArray[Any]:
    """Return the footprints of a tree's granules, of shape (n,); None where there is none."""
    try:
        name = geometry_field(tree.granules.all_fields)
    except FieldError:
        return np.full(len(tree.granules), None, dtype=object)
    return read_geometries(tree.granules.available([name]).column(0))
