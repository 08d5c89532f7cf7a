"""The bands of a view's granules, ready to be put together on a target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

from l2view.arrays.cf import MISSING
from l2view.arrays.dtypes import common_dtype, in_native_order
from l2view.arrays.values import ValueDecoder
from l2view.errors import FieldError, L2ViewWarning, QueryError, warn
from l2view.geolocation.bands import Band, Bands, Levels, match_band, resolve_bands
from l2view.geolocation.crs import CrsTable
from l2view.geolocation.finder import ATTRIBUTES, Finder, Placement, value_decoders
from l2view.granules.inventory import ArrayInventory
from l2view.mosaic.rasters import Arrays, Located, Rasters, levels_read, located
from l2view.mosaic.swaths import Swaths, require_statistic
from l2view.regrid.overlaps import DEGREES, project
from l2view.regrid.target import DEGREE, hull_of, metres, together
from l2view.search.place import geometry_field
from l2view.virtual.tree import Tree

type Footprints = Callable[[], NDArray[Any]]
"""Returns the footprints of all granules, of shape (n,), None where there is none."""


@dataclass(frozen=True, eq=False)
class Sources:
    """One band of a view's granules.

    Attributes
    ----------
    band
        The band.
    tree
        The granules.
    located
        Its images that lie on grids, profile by profile.
    swaths
        Its swaths, profile by profile: the arrays, and which of their granules they are.
    systems
        The CRSs.
    dtype
        The data type that all of its values have in common, decoded.
    fills
        The values that stand for what is missing in arrays of integers, as their attributes say.
    attributes
        What all arrays say.
    footprints
        Returns the granules' footprints.
    """

    band: Band
    tree: Tree
    located: tuple[Located, ...]
    swaths: tuple[tuple[Levels, Placement, NDArray[np.int64]], ...]
    systems: tuple[CRS, ...]
    dtype: np.dtype[Any]
    fills: tuple[int, ...]
    attributes: dict[str, Any]
    footprints: Footprints

    @property
    def rows(self) -> NDArray[np.int64]:
        """The granules that have the band, of shape (n,)."""
        found = [one.levels.inventory.rows[one.members] for one in self.located]
        found += [levels.inventory.rows[members] for levels, _, members in self.swaths]
        return np.concatenate([np.zeros(0, dtype=np.int64), *found])

    @property
    def hull(self) -> NDArray[np.float64]:
        """West, south, east and north of all images on grids in the target's CRS; NaN for none."""
        return together([one.hull for one in self.located])

    @property
    def native(self) -> NDArray[np.float64]:
        """The sizes of pixels in metres; of swaths as their footprints and shapes tell."""
        sizes = [np.zeros(0)]
        for one in self.located:
            transforms = one.placed.transforms[one.members, 0]
            units = np.array([metres(crs) for crs in self.systems])
            across = np.hypot(transforms[:, 0], transforms[:, 3])
            sizes.append(across * units[one.placed.crs[one.members]])
        for levels, _, members in self.swaths:
            outlines = self.footprints()[levels.inventory.rows[members]]
            bounds = shapely.bounds(outlines)
            narrowed = np.cos(np.radians((bounds[:, 1] + bounds[:, 3]) / 2))
            cells = levels.shapes(0)[members].prod(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                sizes.append(DEGREE * np.sqrt(shapely.area(outlines) * narrowed / cells))
        found = np.concatenate(sizes)
        return found[np.isfinite(found) & (found > 0)]


def sources(tree: Tree, bands: Bands, crs: CRS, nodata: Any, resampling: str) -> list[Sources]:
    """Return the bands of a tree's granules.

    Parameters
    ----------
    tree
        The granules.
    bands
        Which bands, all by default.
    crs
        The CRS of the target.
    nodata
        What stands for nothing in arrays that don't say it.
    resampling
        How they are to be resampled.

    Raises
    ------
    QueryError
        Where a band isn't there, doesn't say where it lies, or can't be resampled so.
    """
    inventories = [one for one, _ in sync(tree.inventories(ATTRIBUTES))]
    finder, footprints = Finder.of(tree.reader), cache(partial(footprints_of, tree))
    systems = finder.crs
    made, lost = [], []
    for band in resolve_bands(bands, inventories, tree.shows):
        parts = match_band(band, inventories, tree.shows)
        lost.append((band, _without(tree, parts)))
        places = [finder.locate(levels) for levels in parts]
        own = _sources(tree, band, parts, places, systems, footprints, crs, nodata, resampling)
        if own is not None:
            made.append(own)
        elif bands is not None:
            raise QueryError(_nowhere(tree, band, parts, places, systems))
    if not made:
        raise QueryError("no band of the view says where it lies; name one with bands=")
    _warn_of(tree, lost)
    return made


def _without(tree: Tree, parts: Sequence[Levels]) -> NDArray[np.int64]:
    """Return the granules that don't have a band."""
    having = np.concatenate([part.inventory.rows for part in parts])
    return np.setdiff1d(np.arange(len(tree.granules)), having)


def _warn_of(tree: Tree, lost: Sequence[tuple[Band, NDArray[np.int64]]]) -> None:
    """Warn of bands that some granules don't have."""
    told = [
        f'{len(rows):,} of {len(tree.granules):,} granules have no band "{band.path}": '
        f"{tree.granules.some(rows.tolist())}"
        for band, rows in lost
        if len(rows)
    ]
    if told:
        warn(f"{'; '.join(told)}. They are no part of it", L2ViewWarning)


def _lost(parts: Sequence[Levels], places: Sequence[Placement]) -> list[int]:
    """Return the granules that don't say where their band lies."""
    found = []
    for levels, place in zip(parts, places, strict=True):
        if place.latitudes is None:
            found += levels.inventory.rows[~place.is_raster].tolist()
    return sorted(found)


def _nowhere(
    tree: Tree,
    band: Band,
    parts: Sequence[Levels],
    places: Sequence[Placement],
    systems: CrsTable,
) -> str:
    """Say which granules don't say where a band lies."""
    lost = _lost(parts, places)
    told = (
        f"{len(lost):,} of {len(tree.granules):,} granules don't say where the cells of "
        f'"{band.path}" lie, by a transform and a CRS, axes, or latitudes and longitudes of its '
        f"shape: {tree.granules.some(lost)}"
    )
    if systems.unknown:
        said = next(iter(systems.unknown))
        told += f". What is said to be a CRS isn't understood: {said[:60]}"
    return told


def _sources(
    tree: Tree,
    band: Band,
    parts: Sequence[Levels],
    places: Sequence[Placement],
    systems: CrsTable,
    footprints: Footprints,
    crs: CRS,
    nodata: Any,
    resampling: str,
) -> Sources | None:
    """Return one band of a tree's granules, None where none of them says where it lies."""
    images, swaths = [], []
    for levels, place in zip(parts, places, strict=True):
        rest = np.flatnonzero(~place.is_raster)
        if place.is_raster.any():
            images.append((levels, place))
        if len(rest) and place.latitudes is not None:
            swaths.append((levels, place, rest))
    if _lost(parts, places):
        said = _nowhere(tree, band, parts, places, systems)
        if not images and not swaths:
            return None
        warn(f"{said}; they are no part of it", L2ViewWarning)
    if swaths:
        require_statistic(resampling)
    used = [array for levels in parts for array in levels.arrays]
    values = [one for array in used for one in filled(array, nodata)]
    return Sources(
        band,
        tree,
        tuple(located(levels, place, systems.known, crs) for levels, place in images),
        tuple(swaths),
        tuple(systems.known),
        _dtype(band, values),
        _fills(values),
        _shared(used),
        footprints,
    )


def filled(array: ArrayInventory, nodata: Any) -> tuple[ValueDecoder, ...]:
    """Return the decoders of an array's variants.

    Where attributes don't say what is missing, it is `nodata`.
    """
    if nodata is None or not np.isfinite(nodata):
        return value_decoders(array)
    variants = tuple(
        variant
        if any(name in variant["attributes"] for name in MISSING)
        else {**variant, "attributes": {**variant["attributes"], "_FillValue": nodata}}
        for variant in array.variants
    )
    return value_decoders(replace(array, variants=variants))


def _dtype(band: Band, values: Sequence[ValueDecoder]) -> np.dtype[Any]:
    """Return the data type that values have in common.

    Raises
    ------
    QueryError
        Where they have none.
    """
    dtypes = sorted({in_native_order(one.dtype) for one in values}, key=str)
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


def _fills(values: Sequence[ValueDecoder]) -> tuple[int, ...]:
    """Return the integers that stand for what is missing, in the order in which they are said."""
    found: dict[int, None] = {}
    for one in values:
        if one.packing is not None and one.dtype.kind in "iu":
            found |= dict.fromkeys(one.packing.missing.tolist())
    return tuple(found)


def _shared(arrays: Sequence[ArrayInventory]) -> dict[str, Any]:
    """Return the attributes that say what all values mean."""
    names = ("units", "long_name", "standard_name", "flag_values", "flag_masks", "flag_meanings")
    first = arrays[0].attributes
    return {
        name: first[name]
        for name in names
        if name in first and all(one.attributes.get(name) == first[name] for one in arrays)
    }


def rasters(
    one: Sources, grid: GeoBox, ranks: NDArray[np.int64], groups: NDArray[np.int64], nodata: Any
) -> Rasters | None:
    """Return the images of a band that lie on grids, each at the level that is read.

    Parameters
    ----------
    one
        The band.
    grid
        The target.
    ranks, groups
        The place of each granule in the order, and its group of times, -1 for none; of shape (n,).
    nodata
        What stands for nothing in arrays that don't say it.
    """
    assert grid.crs is not None
    decode = partial(filled, nodata=nodata)
    arrays: list[Arrays] = []
    columns: dict[str, list[NDArray[Any]]] = {}
    for part in one.located:
        chosen, scales = levels_read(part, one.systems, grid)
        levels, members = part.levels, part.members
        first = len(arrays)
        where = (levels.axes, levels.picks)
        arrays += [Arrays.of(levels.inventory, one, *where, decode) for one in levels.arrays]
        shapes = np.stack([levels.shapes(level) for level in range(len(levels.arrays))], axis=1)
        rows = levels.inventory.rows[members]
        made = {
            "rows": rows,
            "which": first + chosen,
            "members": members,
            "levels": chosen,
            "system": part.placed.crs[members],
            "transforms": part.placed.transforms[members, chosen],
            "shapes": shapes[members, chosen],
            "scales": scales,
            "boxes": part.boxes,
            "ranks": ranks[rows],
            "groups": groups[rows],
        }
        kept = (groups[rows] >= 0) & (made["shapes"] > 0).all(axis=1)
        for name, column in made.items():
            columns.setdefault(name, []).append(column[kept])
    if not columns:
        return None
    table: Any = {name: np.concatenate(some) for name, some in columns.items()}
    reader = one.tree.reader
    return Rasters(reader, uuid4().hex, tuple(arrays), one.systems, grid.crs, **table)


def swaths(
    one: Sources, ranks: NDArray[np.int64], groups: NDArray[np.int64], nodata: Any, token: str
) -> Swaths | None:
    """Return the swaths of a band (see `rasters`); a `token` tells the mosaic from others."""
    if not one.swaths:
        return None
    decode = partial(filled, nodata=nodata)
    footprints = one.footprints()
    arrays: list[Arrays] = []
    centres: tuple[list[Arrays], list[Arrays]] = ([], [])
    columns: dict[str, list[NDArray[Any]]] = {}
    for number, (levels, place, members) in enumerate(one.swaths):
        first = levels.arrays[0]
        arrays.append(Arrays.of(levels.inventory, first, levels.axes, levels.picks, decode))
        for some, array in zip(centres, (place.latitudes, place.longitudes), strict=True):
            assert array is not None
            axes = (array.rank - 2, array.rank - 1) if array.rank >= 2 else (0,)
            others = (0,) * (array.rank - len(axes))
            some.append(Arrays.of(levels.inventory, array, axes, others, value_decoders))
        rows = levels.inventory.rows[members]
        made = {
            "rows": rows,
            "which": np.full(len(rows), number),
            "members": members,
            "footprints": footprints[rows],
            "ranks": ranks[rows],
            "groups": groups[rows],
        }
        shapes = levels.shapes(0)[members]
        kept = (groups[rows] >= 0) & (shapes > 0).all(axis=1)
        for name, column in made.items():
            columns.setdefault(name, []).append(column[kept])
    table: Any = {name: np.concatenate(parts) for name, parts in columns.items()}
    reader = one.tree.reader
    where = (tuple(centres[0]), tuple(centres[1]))
    return Swaths(reader, uuid4().hex, token, tuple(arrays), *where, **table)


def footprints_of(tree: Tree) -> NDArray[Any]:
    """Return the footprints of a tree's granules, of shape (n,); None where there is none."""
    found = np.full(len(tree.granules), None, dtype=object)
    try:
        name = geometry_field(tree.granules.everything)
    except FieldError:
        return found
    said = tree.granules.known([name]).column(0)
    texts = pa.types.is_string(said.type) or pa.types.is_large_string(said.type)
    values = np.array(said.to_pylist(), dtype=object)
    return np.asarray((shapely.from_wkt if texts else shapely.from_wkb)(values))


def hull_of_footprints(footprints: NDArray[Any], crs: CRS) -> NDArray[np.float64]:
    """Return what footprints cover in a CRS, NaN where nothing is known."""
    some = [one for one in footprints if one is not None and not one.is_empty]
    if not some:
        return np.full(4, np.nan)
    points = shapely.get_coordinates(shapely.segmentize(np.array(some, dtype=object), 1.0))
    return hull_of(*project(points[:, 0], points[:, 1], DEGREES, crs), crs)
