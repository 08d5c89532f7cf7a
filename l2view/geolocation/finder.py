"""Where the cells of arrays lie: the one answer that everybody asks for.

`Finder.locate` asks the kinds of georeference in `KINDS`, one after the other, of one band of n
granules at once. `l2view.geolocation.granule` asks it of one granule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from affine import Affine
from numpy.typing import NDArray

from l2view.arrays.dtypes import native_dtype
from l2view.arrays.values import ValueDecoder
from l2view.errors import QueryError
from l2view.geolocation.bands import Levels, images_of
from l2view.geolocation.coordinates import (
    LATITUDE,
    LONGITUDE,
    ancestors,
    are_axes,
    are_named,
    basename,
    coordinates_of,
    is_coordinate,
    is_overview,
    named_coordinates,
    parent,
    sort_by_distance,
)
from l2view.geolocation.crs import CrsTable, axis_factor, mapping_crs
from l2view.geolocation.declarations import (
    FIELDS,
    GDAL,
    GEOTIFF,
    PROJ_PARAMETERS,
    SPATIAL,
    AttributeVariants,
    Convention,
    DeclaredGeoreference,
    field_attributes,
    layout_entries,
)
from l2view.geolocation.image_axes import axis_along, is_ambiguous, projection_axes
from l2view.geolocation.placement import (
    Coordinates,
    Placement,
    crop_transforms,
    derive_coarser_levels,
    scale_transforms,
)
from l2view.geolocation.transforms import axes_transform
from l2view.granules.reader import GranuleReader
from l2view.granules.table import ArrayTable, GranuleTable
from l2view.stores.hierarchy import JSON, join

WESTWARD = frozenset({"mtg_geos_projection"})
"""Grid mappings whose x grows to the west (EUMETSAT's MTG FCI, "Level 1c Reference Grid")."""

THREADS = 8  # how many granules' axes are read at once

type AxisReader = Callable[[GranuleTable, ArrayTable, int], NDArray[np.float64]]
"""Reads the whole of a granule's 1-D array, decoded, NaN where a value is missing."""

type FieldReader = Callable[[NDArray[np.int64]], Sequence[JSON]]
"""Returns those of `FIELDS` that there are, of some granules."""


class ProfileArrays:
    """The arrays of a profile by what they are to others; looked for once."""

    def __init__(self, table: GranuleTable) -> None:
        self.table = table
        self.axes = projection_axes(table)  # by group, and dimension or standard name

    @cached_property
    def coordinates(self) -> list[list[ArrayTable]]:
        """Arrays of latitudes, and those of longitudes."""
        return [list(coordinates_of(self.table, words)) for words in (LATITUDE, LONGITUDE)]

    @cached_property
    def images(self) -> list[Levels]:
        """Images, with their levels."""
        return list(images_of(self.table).values())

    @cached_property
    def mappings(self) -> list[ArrayTable]:
        """Grid mappings: arrays without values that have a CRS."""
        return [
            array
            for array in self.table.arrays.values()
            if (array.shapes.prod(axis=1) <= 1).all()
            and mapping_crs(array.variants[0]["attributes"]) is not None
        ]


class Axes(NamedTuple):
    """The arrays of the centres of a band's rows and columns."""

    y: ArrayTable
    x: ArrayTable
    degrees: bool  # whether they are latitudes and longitudes


@dataclass(frozen=True, eq=False)
class Finder:
    """Finds where the arrays of granules lie, and remembers the CRSs and axes that it met."""

    read: AxisReader
    fields: FieldReader = lambda rows: [{}] * len(rows)
    crs: CrsTable = field(default_factory=CrsTable)
    transforms: dict[tuple[str, str, str, int], tuple[int, Affine] | None] = field(
        default_factory=dict
    )
    _profiles: dict[int, ProfileArrays] = field(default_factory=dict)

    @classmethod
    def of(cls, reader: GranuleReader) -> Finder:
        """Return a finder of what a reader reads."""

        def read(table: GranuleTable, array: ArrayTable, member: int) -> NDArray[np.float64]:
            axis = replace(array, starts=None, stops=None)
            row = int(table.rows[member])
            stored = reader.stored_array(row, axis, member, value_decoders(axis))
            values, valid = stored.values.to_numpy(stored.read_stored((range(stored.shape[0]),)))
            return np.where(True if valid is None else valid, values, np.nan).astype(float)

        return cls(read, partial(georeference_fields, reader))

    def profile(self, table: GranuleTable) -> ProfileArrays:
        """Return the arrays of a profile, which is held so that no other takes its id."""
        return self._profiles.setdefault(id(table), ProfileArrays(table))

    def locate(self, levels: Levels) -> Placement:
        """Return the placement of a band's images.

        A coarser level without a transform of its own covers what the finest covers.
        """
        placement = self.ask(levels, KINDS if len(levels.axes) == 2 else ())
        derive_coarser_levels(levels, placement.transforms)
        crop_transforms(levels, placement.transforms)
        return replace(placement, coordinates=self.coordinates(levels))

    def ask(self, levels: Levels, kinds: Sequence[Kind]) -> Placement:
        """Return what kinds of georeference declare of a band, whole arrays at their own levels."""
        count = len(levels.table.rows)
        transforms = np.full((count, len(levels.arrays), 6), np.nan)
        placement = Placement(transforms, np.full(count, -1))
        for declare in kinds:
            for declared in declare(self, levels, placement):
                placement.fill(declared)
        return placement

    def coordinates(self, levels: Levels) -> Coordinates | None:
        """Return the latitudes and longitudes of a band's cells, None where there are none.

        They are as long as the band along its rows and columns, or its axes.
        """
        profile, array = self.profile(levels.table), levels.arrays[0]
        named = named_coordinates(array, levels.table)
        latitudes, longitudes = (
            sorted(
                sort_by_distance([a for a in arrays if _is_along(a, levels, axis)], array.path),
                key=lambda a: a.path not in named,
            )
            for axis, arrays in enumerate(profile.coordinates)
        )
        for latitude in latitudes:
            for longitude in longitudes:
                if (
                    parent(latitude.path) == parent(longitude.path)
                    and (latitude.rank == 1) == (longitude.rank == 1)
                    and not self._is_track(levels, latitude, longitude)
                ):
                    return latitude, longitude
        return None

    def _is_track(self, levels: Levels, latitude: ArrayTable, longitude: ArrayTable) -> bool:
        """Whether the rows and columns of an image, without names, are as many as its points."""
        names = (*latitude.dimensions, *longitude.dimensions)
        if latitude.rank > 1 or len(levels.axes) < 2 or any(are_named([name]) for name in names):
            return False
        centres = (self.read(levels.table, array, 0) for array in (latitude, longitude))
        return not are_axes(latitude, longitude, *centres)

    def axes(self, levels: Levels) -> Axes | None:
        """Return the nearest arrays along a band's dimensions, None where it lacks them."""
        array, axes, profile = levels.arrays[0], [], self.profile(levels.table)
        for axis in levels.axes:
            coordinate = axis_along(axis, array, levels.table, profile.axes)
            if (
                coordinate is None
                or any(native_dtype(v["data_type"]).kind not in "iuf" for v in coordinate.variants)
                or (coordinate.shapes[:, 0] != array.shapes[:, axis]).any()
            ):
                return None
            axes.append(coordinate)
        degrees = all(map(is_coordinate, axes, (LATITUDE, LONGITUDE)))
        return Axes(axes[0], axes[1], degrees)

    def centres(
        self, levels: Levels, axes: Axes, member: int, crs: int
    ) -> tuple[int, tuple[NDArray[np.float64], NDArray[np.float64]]] | None:
        """Return the CRS of a granule's axes and the centres of its rows and columns in it.

        None where their units are unknown, or none of their CRS. A `crs` of -1 is none.
        """
        if axes.degrees and (crs < 0 or not self.crs.entries[crs].geographic):
            crs = self.crs.number("EPSG:4326")
        if crs < 0:
            return None
        centres = []
        for array in (axes.y, axes.x):
            units = array.variants[array.variant_index[member]]["attributes"].get("units")
            factor = 1.0 if axes.degrees else axis_factor(units, self.crs.entries[crs])
            if factor is None:
                return None
            centres.append(self.read(levels.table, array, member) * factor)
        y, x = centres
        mapping = None if axes.degrees else _mapping(self, levels)
        if mapping is not None and basename(mapping.path) in WESTWARD:
            x = -x
        return crs, (y, np.unwrap(x, period=360) if axes.degrees else x)


def value_decoders(array: ArrayTable) -> tuple[ValueDecoder, ...]:
    """Return the decoder of each variant of an array; a QueryError where it can't be decoded."""
    try:
        return tuple(map(ValueDecoder.of_document, array.variants))
    except ValueError as error:
        raise QueryError(f"{array.path} can't be decoded: {error}") from error


def georeference_fields(
    reader: GranuleReader, rows: Sequence[int] | NDArray[np.int64]
) -> list[JSON]:
    """Return those of `FIELDS` that there are, of some granules."""
    table = reader.granules.available(FIELDS)
    if not table.num_columns:
        return [{}] * len(rows)
    return list(table.take(pa.array(rows)).to_pylist())


type Kind = Callable[[Finder, Levels, Placement], Iterator[DeclaredGeoreference]]
"""A kind of georeference: it declares something of a band, given what is known already."""


def _attributes(
    convention: Convention, finder: Finder, levels: Levels, placement: Placement
) -> Iterator[DeclaredGeoreference]:
    """Yield the georeference by attributes of arrays, then of their groups, the nearest first."""
    groups = levels.table.groups
    for level, array in enumerate(levels.arrays):
        attributes = [variant["attributes"] for variant in array.variants]
        holders = [AttributeVariants(attributes, array.variant_index, level)]
        for path in filter(groups.__contains__, ancestors(array.path)):
            own = groups[path]
            holders.append(AttributeVariants(own.variants, own.variant_index, level, path))
        for holder in holders:
            yield holder.declare(convention, finder.crs, levels)


def _multiscales(
    finder: Finder, levels: Levels, placement: Placement
) -> Iterator[DeclaredGeoreference]:
    """Yield each level's georeference by their group (Zarr's convention multiscales)."""
    for level, (entries, index) in enumerate(layout_entries(levels)):
        yield AttributeVariants(entries, index, level).declare(SPATIAL, finder.crs, levels)


def _fields(finder: Finder, levels: Levels, placement: Placement) -> Iterator[DeclaredGeoreference]:
    """Yield the finest level's georeference by the granules' fields."""
    if np.isfinite(placement.transforms[:, 0]).all() and (placement.crs >= 0).all():
        return
    rows = [field_attributes(row) for row in finder.fields(levels.table.rows)]
    if any(rows):
        holder = AttributeVariants(rows, np.arange(len(rows)), group="")
        yield holder.declare(SPATIAL, finder.crs, levels)


def _grid_mapping(
    finder: Finder, levels: Levels, placement: Placement
) -> Iterator[DeclaredGeoreference]:
    """Yield the georeference of a grid mapping (CF 1.12, section 5.6), and GDAL's in it."""
    mapping = _mapping(finder, levels)
    if mapping is not None:
        variants = [variant["attributes"] for variant in mapping.variants]
        holder = AttributeVariants(variants, mapping.variant_index, group=parent(mapping.path))
        yield holder.declare(GDAL, finder.crs, levels)


def _mapping(finder: Finder, levels: Levels) -> ArrayTable | None:
    """Return the grid mapping of a band's arrays: that which it names, or the only one near it."""
    array = levels.arrays[0]
    named = str(array.variants[0]["attributes"].get("grid_mapping", ""))
    name = re.split(r"[\s:]", named.strip(), maxsplit=1)[0]
    arrays, mappings = levels.table.arrays, finder.profile(levels.table).mappings
    for group in ancestors(array.path):
        near = [mapping for mapping in mappings if parent(mapping.path) == group]
        if name and join(group, name) in arrays:
            return arrays[join(group, name)]
        if not name and len(near) == 1:
            return near[0]
    return None


def _even_axes(
    finder: Finder, levels: Levels, placement: Placement
) -> Iterator[DeclaredGeoreference]:
    """Yield the georeference of even axes, which are read only for grids without another."""
    members = np.flatnonzero(np.isnan(placement.transforms[:, 0, 0])).tolist()
    axes = finder.axes(levels) if members else None
    if axes is None:
        return
    transforms = np.full((len(levels.table.rows), 6), np.nan)
    crs = np.full(len(levels.table.rows), -1)

    def read(member: int) -> None:
        key = (levels.table.name, axes.y.path, axes.x.path, member)
        if key not in finder.transforms:
            centres = finder.centres(levels, axes, member, int(placement.crs[member]))
            transform = axes_transform(*centres[1]) if centres else None
            finder.transforms[key] = (centres[0], transform) if centres and transform else None
        if (located := finder.transforms[key]) is not None:
            crs[member], transforms[member] = located[0], located[1][:6]

    with ThreadPoolExecutor(min(THREADS, len(members)), "l2view-axes") as threads:
        list(threads.map(read, members))
    yield DeclaredGeoreference(transforms, crs)


def _overview(
    finder: Finder, levels: Levels, placement: Placement
) -> Iterator[DeclaredGeoreference]:
    """Yield the georeference of a larger image of the same dimensions, scaled to this one."""
    names = [levels.arrays[0].dimensions[axis] for axis in levels.axes]
    is_known = np.isfinite(placement.transforms[:, 0]).any() or not are_named(names)
    if is_known or finder.coordinates(levels) is not None:
        return
    shapes = levels.stored_shapes(0)
    for full in finder.profile(levels.table).images:
        larger = full.stored_shapes(0)
        is_same = [full.arrays[0].dimensions[axis] for axis in full.axes] == names
        if is_same and (larger > shapes).all() and all(map(is_overview, shapes, larger)):
            finest = replace(full, arrays=full.arrays[:1], assets=full.assets[:1])
            declared = finder.ask(finest, KINDS[:-1])
            scaled = scale_transforms(declared.transforms[:, 0], larger / shapes)
            yield DeclaredGeoreference(scaled, declared.crs)


KINDS: tuple[Kind, ...] = (
    partial(_attributes, SPATIAL),  # conventions spatial and proj
    partial(_attributes, GEOTIFF),
    partial(_attributes, PROJ_PARAMETERS),
    _multiscales,
    _fields,
    _grid_mapping,
    _even_axes,
    _overview,
)
"""The kinds of georeference that give a transform, in the order in which they are asked.

Another kind is another row. Where none of them says it, latitudes and longitudes do.
"""


def _is_along(coordinate: ArrayTable, levels: Levels, axis: int) -> bool:
    """Whether coordinates lie along a band's rows and columns, or along one of them."""
    array, names = levels.arrays[0], list(coordinate.dimensions[-2:])
    axes = levels.axes if coordinate.rank > 1 else levels.axes[axis : axis + 1] or levels.axes
    if not 0 < len(names) <= len(axes) or is_ambiguous(array, coordinate.shapes[:, -2:]):
        return False
    image_names = [array.dimensions[image_axis] for image_axis in axes]
    differs = are_named([*image_names, *names]) and image_names != names
    alone = (coordinate.lengths[:, :-2] == 1).all()
    same = (coordinate.lengths[:, -2:] == array.lengths[:, list(axes)]).all()
    return not differs and bool(alone and same)
