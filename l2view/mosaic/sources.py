"""The bands of a view's granules, located on a target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from zarr.core.sync import sync

from l2view.arrays.cf import common_dtype, in_native_order
from l2view.arrays.values import MISSING, Values
from l2view.errors import FieldError, L2ViewWarning, QueryError, warn
from l2view.geolocation.bands import Band, Levels, asked, found
from l2view.geolocation.placement import PLACING, Placed, Systems, decoding, placed
from l2view.granules.inventory import ArrayInventory
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
from l2view.virtual.opener import GranuleOpener
from l2view.virtual.tree import Tree

COARSER = 1.02
"""By how much a level's pixels may be larger than the target's, whose CRS has another scale."""

SHARED = ("units", "long_name", "standard_name", "flag_values", "flag_masks", "flag_meanings")
"""The attributes of a band that all of its arrays say."""

type Footprints = Callable[[], NDArray[Any]]
"""Returns the footprints of all granules, of shape (n,), None where there is none."""


@dataclass(frozen=True, eq=False)
class ProfileImages:
    """The n images of a band in one profile, all on grids or all swaths.

    Attributes
    ----------
    levels, placement
        The profile's arrays of the band, and where they lie.
    members
        Which of the profile's granules they are of, of shape (n,).
    bounds
        Where each lies on the target: west, south, east and north in its CRS, of shape (n, 4);
        NaN for swaths, and for images that may lie anywhere.
    union
        The bounds of all images on grids, of shape (4,); NaN for none.
    """

    levels: Levels
    placement: Placed
    members: NDArray[np.int64]
    bounds: NDArray[np.float64]
    union: NDArray[np.float64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """The images' granules, of shape (n,)."""
        return self.levels.inventory.rows[self.members]

    @property
    def shapes(self) -> NDArray[np.int64]:
        """Rows and columns of each level, of shape (n, levels, 2)."""
        levels = range(len(self.levels.arrays))
        return np.stack([self.levels.shapes(level)[self.members] for level in levels], axis=1)


@dataclass(frozen=True, eq=False)
class BandSources:
    """One band of a tree's granules.

    Attributes
    ----------
    band
        The band.
    tree
        The granules.
    rasters, swaths
        Its images on grids, and its swaths, profile by profile.
    systems
        The CRSs.
    dtype
        The data type that all of its values have in common, decoded.
    fill_values
        The values that stand for what is missing in arrays of integers, as their attributes say.
    attributes
        Those that all arrays have in common.
    footprints
        Returns the granules' footprints.
    """

    band: Band
    tree: Tree
    rasters: tuple[ProfileImages, ...]
    swaths: tuple[ProfileImages, ...]
    systems: tuple[CRS, ...]
    dtype: np.dtype[Any]
    fill_values: tuple[int, ...]
    attributes: dict[str, Any]
    footprints: Footprints

    @property
    def rows(self) -> NDArray[np.int64]:
        """The granules that have the band, of shape (n,)."""
        rows = [images.rows for images in (*self.rasters, *self.swaths)]
        return np.concatenate([np.zeros(0, dtype=np.int64), *rows])

    @property
    def pixel_metres(self) -> NDArray[np.float64]:
        """The sizes of pixels in metres; of swaths by their footprints and shapes."""
        sizes = [np.zeros(0)]
        units = np.array([metres_per_unit(crs) for crs in self.systems])
        for images in self.rasters:
            transforms = images.placement.transforms[images.members, 0]
            across = np.hypot(transforms[:, 0], transforms[:, 3])
            sizes.append(across * units[images.placement.systems[images.members]])
        for images in self.swaths:
            outlines = self.footprints()[images.rows]
            bounds = shapely.bounds(outlines)
            narrowed = np.cos(np.radians((bounds[:, 1] + bounds[:, 3]) / 2))
            cells = images.shapes[:, 0].prod(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                areas = shapely.area(outlines) * narrowed / cells
                sizes.append(METRES_PER_DEGREE * np.sqrt(areas))
        metres = np.concatenate(sizes)
        return metres[np.isfinite(metres) & (metres > 0)]

    def bounds(self, target: CRS) -> NDArray[np.float64]:
        """Return what the band covers in the target's CRS, swaths by their footprints."""
        rasters = [images.union for images in self.rasters]
        swaths = [footprint_bounds(self.footprints()[part.rows], target) for part in self.swaths]
        return union_bounds([*rasters, *swaths])


def band_sources(tree: Tree, spec: MosaicSpec) -> list[BandSources]:
    """Return the bands of a tree's granules of which a mosaic is made.

    Raises
    ------
    QueryError
        Where a band isn't there, doesn't say where it lies, or can't be resampled so.
    """
    inventories = [inventory for inventory, _ in sync(tree.inventories(PLACING))]
    systems, footprints = Systems(), cache(partial(granule_footprints, tree))
    sources: list[BandSources] = []
    lacking: list[str] = []
    for band in asked(spec.bands, inventories, tree.shows):
        profiles = found(band, inventories, tree.shows)
        placements = [placed(tree, levels, systems) for levels in profiles]
        lacking += _describe_lacking(tree, band, profiles)
        rasters, swaths = _by_kind(profiles, placements, systems, spec.target_crs)
        unplaced = _describe_unplaced(tree, band, profiles, placements, systems)
        if unplaced is not None:
            if not rasters and not swaths:
                if spec.bands is not None:
                    raise QueryError(unplaced)
                continue
            warn(f"{unplaced}; they are no part of it", L2ViewWarning)
        if swaths:
            require_swath_resampling(spec.resampling)
        arrays = [array for levels in profiles for array in levels.arrays]
        values = [value for array in arrays for value in decoders(array, spec.nodata)]
        sources.append(
            BandSources(
                band,
                tree,
                rasters,
                swaths,
                tuple(systems.known),
                _common_dtype(band, values),
                _fill_values(values),
                _shared_attributes(arrays),
                footprints,
            )
        )
    if not sources:
        raise QueryError("no band of the view says where it lies; name one with bands=")
    if lacking:
        warn(f"{'; '.join(lacking)}. They are no part of it", L2ViewWarning)
    return sources


def _by_kind(
    profiles: Sequence[Levels], placements: Sequence[Placed], systems: Systems, target: CRS
) -> tuple[tuple[ProfileImages, ...], tuple[ProfileImages, ...]]:
    """Return a band's images on grids, located on the target, and its swaths."""
    rasters, swaths = [], []
    for levels, placement in zip(profiles, placements, strict=True):
        members = np.flatnonzero(placement.is_raster)
        if len(members):
            rasters.append(_locate_rasters(levels, placement, members, systems, target))
        members = np.flatnonzero(~placement.is_raster)
        if len(members) and placement.latitudes is not None:
            unknown = np.full((len(members), 4), np.nan)
            swaths.append(ProfileImages(levels, placement, members, unknown, NO_BOUNDS))
    return tuple(rasters), tuple(swaths)


def _locate_rasters(
    levels: Levels, placement: Placed, members: NDArray[np.int64], systems: Systems, target: CRS
) -> ProfileImages:
    """Return a profile's images on grids with their bounds on the target."""
    images = ProfileImages(
        levels, placement, members, np.full((len(members), 4), np.nan), NO_BOUNDS
    )
    unions = []
    for own, grids in _finest_grids(images, systems.known):
        images.bounds[own], union = grids.bounds(target)
        unions.append(union)
    return replace(images, union=union_bounds(unions))


def _finest_grids(
    images: ProfileImages, systems: Sequence[CRS]
) -> Iterator[tuple[NDArray[np.int64], RasterGrids]]:
    """Yield the positions of the images in each CRS, and their grids at the finest usable level."""
    placement, members = images.placement, images.members
    finest = placement.usable[members].argmax(axis=1)
    transforms = placement.transforms[members, finest]
    shapes = images.shapes[np.arange(len(members)), finest]
    numbers = placement.systems[members]
    for number in np.unique(numbers).tolist():
        own = np.flatnonzero(numbers == number)
        yield own, RasterGrids(transforms[own], shapes[own], systems[number])


def _describe_lacking(tree: Tree, band: Band, profiles: Sequence[Levels]) -> Iterator[str]:
    """Yield a message of the granules that don't have a band, if there are some."""
    having = np.concatenate([levels.inventory.rows for levels in profiles])
    rows = np.setdiff1d(np.arange(len(tree.granules)), having)
    if len(rows):
        yield (
            f'{len(rows):,} of {len(tree.granules):,} granules have no band "{band.path}": '
            f"{tree.granules.some(rows.tolist())}"
        )


def _describe_unplaced(
    tree: Tree,
    band: Band,
    profiles: Sequence[Levels],
    placements: Sequence[Placed],
    systems: Systems,
) -> str | None:
    """Return a message of the granules that don't say where a band lies, None for none."""
    rows = sorted(
        row
        for levels, placement in zip(profiles, placements, strict=True)
        if placement.latitudes is None
        for row in levels.inventory.rows[~placement.is_raster].tolist()
    )
    if not rows:
        return None
    message = (
        f"{len(rows):,} of {len(tree.granules):,} granules don't say where the cells of "
        f'"{band.path}" lie, by a transform and a CRS, axes, or latitudes and longitudes of its '
        f"shape: {tree.granules.some(rows)}"
    )
    if systems.unknown:
        text = next(iter(systems.unknown))
        message += f". What is said to be a CRS isn't understood: {text[:60]}"
    return message


def decoders(array: ArrayInventory, nodata: float | None) -> tuple[Values, ...]:
    """Return how the stored values of each variant of an array are decoded.

    Where attributes don't name a missing value, it is the array's own fill value, unless that is
    0, which formats put there for want of another; else `nodata`.
    """
    variants = []
    for variant in array.variants:
        attributes = dict(variant["attributes"])
        if not any(name in attributes for name in MISSING):
            fill = variant.get("fill_value")
            if isinstance(fill, int | float) and not isinstance(fill, bool) and fill != 0:
                attributes["_FillValue"] = fill
            elif nodata is not None and np.isfinite(nodata):
                attributes["_FillValue"] = nodata
        variants.append({**variant, "attributes": attributes})
    return decoding(replace(array, variants=tuple(variants)))


def _common_dtype(band: Band, values: Sequence[Values]) -> np.dtype[Any]:
    """Return the data type that decoded values have in common.

    Raises
    ------
    QueryError
        Where they have none.
    """
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


def _fill_values(values: Sequence[Values]) -> tuple[int, ...]:
    """Return the integers that stand for what is missing, in the order in which they come."""
    fills: dict[int, None] = {}
    for value in values:
        attributes = value.attributes or {}
        if value.dtype.kind in "iu":
            for fill in (fill for name in MISSING for fill in np.ravel(attributes.get(name, []))):
                if np.isfinite(fill) and int(fill) == fill:
                    fills[int(fill)] = None
    return tuple(fills)


def _shared_attributes(arrays: Sequence[ArrayInventory]) -> dict[str, Any]:
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
        name = geometry_field(tree.granules.everything)
    except FieldError:
        return np.full(len(tree.granules), None, dtype=object)
    column = tree.granules.known([name]).column(0)
    texts = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    values = np.array(column.to_pylist(), dtype=object)
    return np.asarray((shapely.from_wkt if texts else shapely.from_wkb)(values))


def footprint_bounds(footprints: NDArray[Any], crs: CRS) -> NDArray[np.float64]:
    """Return what footprints cover in a CRS, NaN where nothing is known."""
    shapes = [shape for shape in footprints if shape is not None and not shape.is_empty]
    if not shapes:
        return NO_BOUNDS
    points = shapely.get_coordinates(shapely.segmentize(np.array(shapes, dtype=object), 1.0))
    return point_bounds(*project(points[:, 0], points[:, 1], WGS84, crs), crs)


def band_images(
    source: BandSources, grid: GeoBox, layers: Layering, nodata: float | None, mosaic: str
) -> tuple[Images, ...]:
    """Return the images of a band, those on grids before the swaths.

    Parameters
    ----------
    source
        The band.
    grid
        The target.
    layers
        How granules are composed.
    nodata
        What stands for nothing in arrays that don't say it.
    mosaic
        Tells the mosaic from any other of this process.
    """
    rasters = _raster_images(source, grid, layers, nodata) if source.rasters else None
    swaths = _swath_images(source, layers, nodata, mosaic) if source.swaths else None
    return tuple(
        images for images in (rasters, swaths) if images is not None and len(images.stored.rows)
    )


def _raster_images(
    source: BandSources, grid: GeoBox, layers: Layering, nodata: float | None
) -> RasterImages:
    """Return the images on grids, each at the level that is read."""
    arrays: list[ImageArrays] = []
    profiles: list[tuple[NDArray[Any], ...]] = []
    for images in source.rasters:
        placement, members = images.placement, images.members
        levels, scales = _levels_read(images, source.systems, grid)
        profiles.append(
            (
                images.rows,
                len(arrays) + levels,
                members,
                levels,
                placement.systems[members],
                placement.transforms[members, levels],
                images.shapes[np.arange(len(members)), levels],
                scales,
                images.bounds,
            )
        )
        arrays += [_image_arrays(images, array, nodata) for array in images.levels.arrays]
    table = [np.concatenate(columns) for columns in zip(*profiles, strict=True)]
    shown = (layers.groups[table[0]] >= 0) & (table[6] > 0).all(axis=1)
    rows, sets, members, *columns = (column[shown] for column in table)
    levels, systems, transforms, shapes, scales, bounds = columns
    stored = _stored_images(source, arrays, layers, rows, sets, members)
    assert grid.crs is not None
    crs = np.empty(len(source.systems), dtype=object)
    crs[:] = source.systems
    return RasterImages(stored, grid.crs, levels, crs[systems], transforms, shapes, scales, bounds)


def _swath_images(
    source: BandSources, layers: Layering, nodata: float | None, mosaic: str
) -> SwathImages:
    footprints = source.footprints()
    arrays: list[ImageArrays] = []
    centres = []
    profiles: list[tuple[NDArray[Any], ...]] = []
    for images in source.swaths:
        placement, shapes = images.placement, images.shapes[:, 0]
        sets = np.full(len(images.members), len(arrays))
        profiles.append((images.rows, sets, images.members, shapes))
        arrays.append(_image_arrays(images, images.levels.arrays[0], nodata))
        centres.append(
            [_coordinates(images, array) for array in (placement.latitudes, placement.longitudes)]
        )
    rows, sets, members, shapes = map(np.concatenate, zip(*profiles, strict=True))
    shown = (layers.groups[rows] >= 0) & (shapes > 0).all(axis=1)
    rows = rows[shown]
    stored = _stored_images(source, arrays, layers, rows, sets[shown], members[shown])
    latitudes, longitudes = zip(*centres, strict=True)
    return SwathImages(stored, mosaic, latitudes, longitudes, footprints[rows])


def _stored_images(
    source: BandSources,
    arrays: Sequence[ImageArrays],
    layers: Layering,
    rows: NDArray[np.int64],
    sets: NDArray[np.int64],
    members: NDArray[np.int64],
) -> StoredImages:
    opener, token = GranuleOpener(source.tree), uuid4().hex
    ranks, groups = layers.ranks[rows], layers.groups[rows]
    return StoredImages(opener, token, tuple(arrays), rows, sets, members, ranks, groups)


def _image_arrays(
    images: ProfileImages, array: ArrayInventory, nodata: float | None
) -> ImageArrays:
    levels = images.levels
    values = decoders(array, nodata)
    return ImageArrays.of(levels.inventory, array, values, levels.axes, levels.picks)


def _coordinates(images: ProfileImages, array: ArrayInventory | None) -> ImageArrays:
    """Return latitudes or longitudes, along two axes or one."""
    assert array is not None
    axes = (array.rank - 2, array.rank - 1) if array.rank >= 2 else (0,)
    picks = (0,) * (array.rank - len(axes))
    return ImageArrays.of(images.levels.inventory, array, decoding(array), axes, picks)


def _levels_read(
    images: ProfileImages, systems: Sequence[CRS], grid: GeoBox
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the level of each image that is read, and the target's pixels in one of its.

    It is the coarsest whose pixels aren't larger than the target's (see `COARSER`), where the
    image lies on the target.

    Returns
    -------
    levels
        Of shape (n,).
    scales
        Down and across, of shape (n, 2).
    """
    usable = images.placement.usable[images.members]
    levels = usable.argmax(axis=1)
    sizes = _pixel_sizes(images.placement.transforms[images.members])
    finest = sizes[np.arange(len(levels)), levels]
    base = np.ones_like(finest)
    for own, grids in _finest_grids(images, systems):
        base[own] = grids.scales(grid, images.bounds[own])
    scales = base.copy()
    for level in range(usable.shape[1]):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = sizes[:, level] / finest
        fits = usable[:, level] & (base * ratio <= COARSER).all(axis=1)
        coarser = fits & (ratio.prod(axis=1) > (scales / base).prod(axis=1))
        levels[coarser] = level
        scales[coarser] = (base * ratio)[coarser]
    return levels, scales


def _pixel_sizes(transforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how large pixels are, down and across, of shape (n, levels, 2)."""
    a, b, _, d, e, _ = np.moveaxis(transforms, 2, 0)
    return np.stack([np.hypot(b, e), np.hypot(a, d)], axis=2)
