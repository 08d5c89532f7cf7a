"""Where the images of granules lie, by what their attributes, axes and fields say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from pyproj.exceptions import CRSError

from l2view.arrays.cf import RELEVANT
from l2view.arrays.stored import StoredArray
from l2view.arrays.values import ValueDecoder
from l2view.errors import QueryError
from l2view.geolocation.bands import (
    Levels,
    ancestors,
    axes_of,
    coordinates_of,
    image_shapes,
    layout_of,
)
from l2view.geolocation.coordinates import LATITUDE, LONGITUDE, distance
from l2view.geolocation.geotiff import PARAMETERS, crs_said, transform_said
from l2view.geolocation.mappings import CF_MAPPING, crs_of_mapping, geotransform_of, metres_of
from l2view.granules.inventory import ArrayInventory
from l2view.granules.reader import GranuleReader
from l2view.stores.hierarchy import JSON, join

PLACING = (
    RELEVANT
    | CF_MAPPING
    | PARAMETERS.keys()
    | {
        "GeoTransform",
        "coordinates",
        "geog_inv_flattening",
        "geog_semi_major_axis",
        "geographic_type",
        "grid_mapping",
        "model_pixel_scale",
        "model_tiepoint",
        "model_transformation",
        "model_type",
        "multiscales",
        "new_subfile_type",
        "photometric_interpretation",
        "proj:epsg",
        "proj:projjson",
        "proj:shape",
        "proj:transform",
        "proj:wkt2",
        "proj_coord_trans",
        "proj_linear_units",
        "raster_type",
        "spatial:dimensions",
        "spatial:registration",
        "spatial:shape",
        "spatial:transform",
    }
)
"""The attributes that say where images lie, beside those by which values are read."""

FIELDS = (
    *(f"transform_{index}" for index in range(6)),
    "proj:transform",
    "shape_y",
    "shape_x",
    "proj:shape",
    "proj:code",
    "proj:epsg",
    "proj:wkt2",
    "proj:projjson",
)
"""Fields of ``/meta`` that say it, of STAC's Projection extension and as harvested from it."""

UNEVEN = 0.02
"""By how much of a cell the axes of a raster may be off, as those in single precision are."""

READERS = 8
"""How many granules' axes are read at once."""


@dataclass
class Systems:
    """The coordinate reference systems that are said, each once, and axes that were read.

    Attributes
    ----------
    known
        The CRSs, in the order in which they came.
    unknown
        What was said to be one, and can't be understood.
    axes
        The transforms of grids by their axes: by profile, their paths, and the granule.
    """

    known: list[CRS] = field(default_factory=list)
    unknown: dict[str, None] = field(default_factory=dict)
    axes: dict[tuple[str, str, str, int], Affine | None] = field(default_factory=dict)
    _numbers: dict[str, int] = field(default_factory=dict)

    def number(self, said: Any) -> int:
        """Return the number of a CRS, -1 where nothing that can be understood is said."""
        if said is None or said == "":
            return -1
        text = said if isinstance(said, str) else json.dumps(said, sort_keys=True, default=str)
        if text not in self._numbers:
            try:
                crs = CRS(text)
            except CRSError:
                self._numbers[text] = -1
                self.unknown[text] = None
                return -1
            if crs not in self.known:
                self.known.append(crs)
            self._numbers[text] = self.known.index(crs)
        return self._numbers[text]


@dataclass(frozen=True, eq=False)
class Placed:
    """Where the images of one band of a profile's n granules lie.

    Attributes
    ----------
    transforms
        From (column, row) of each level to coordinates, of shape (n, levels, 6); NaN where a
        level can't be used.
    systems
        The CRS of each, a number of `Systems`, of shape (n,).
    latitudes, longitudes
        The arrays of coordinates of those granules that have no transform, None where there are
        none.
    """

    transforms: NDArray[np.float64]
    systems: NDArray[np.int64]
    latitudes: ArrayInventory | None
    longitudes: ArrayInventory | None

    @property
    def is_raster(self) -> NDArray[np.bool_]:
        """Which granules have a transform and a CRS, of shape (n,)."""
        return self.usable.any(axis=1) & (self.systems >= 0)

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which levels have a transform, that can be inverted, of shape (n, levels)."""
        a, b, _, d, e, _ = np.moveaxis(self.transforms, 2, 0)
        return np.asarray(np.isfinite(self.transforms).all(axis=2) & (a * e - b * d != 0))


def placed(reader: GranuleReader, levels: Levels, systems: Systems) -> Placed:
    """Return where the images of a band lie.

    What an array says of itself is nearest, then come its groups, the levels that a group tells
    of, the fields of ``/meta``, a grid mapping, and the axes, which are read. A coarser level
    without a transform covers what the finest covers.

    Parameters
    ----------
    reader
        The granules.
    levels
        The band.
    systems
        Takes the CRSs that are said.
    """
    count, depth = len(levels.inventory.rows), len(levels.arrays)
    transforms = np.full((count, depth, 6), np.nan)
    number = np.full(count, -1, dtype=np.int64)
    if len(levels.axes) == 2:
        for level, array in enumerate(levels.arrays):
            for said, which, largest in _holders(levels, array):
                told = _Said.of(said, systems)
                own = image_shapes(array.shapes, levels.axes)
                fits = _fits(told.shapes[which], own, largest)
                _fill(transforms[:, level], told.transforms[which], fits)
                _fill(number, told.systems[which])
            _fill(transforms[:, level], *_of_layout(levels, level))
        _of_fields(reader, levels, transforms[:, 0], number, systems)
        _of_mapping(levels, transforms[:, 0], number, systems)
        _of_axes(reader, levels, transforms[:, 0], number, systems)
        _derive(levels, transforms)
        _crop(levels, transforms)
    latitudes, longitudes = _coordinates(levels) or (None, None)
    return Placed(transforms, number, latitudes, longitudes)


def _fill(
    target: NDArray[Any], found: NDArray[Any], where: NDArray[np.bool_] | None = None
) -> None:
    """Write what was found where nothing is known yet: NaN, or -1 among integers."""
    flat = target[:, 0] if target.ndim == 2 else target
    unknown = np.isnan(flat) if target.dtype.kind == "f" else flat < 0
    if where is not None:
        unknown = unknown & where
    target[unknown] = found[unknown]


@dataclass(frozen=True, eq=False)
class _Said:
    """What each of some attributes says: transform, shape (-1 for none) and CRS."""

    transforms: NDArray[np.float64]
    shapes: NDArray[np.int64]
    systems: NDArray[np.int64]

    @classmethod
    def of(cls, variants: Sequence[JSON], systems: Systems) -> _Said:
        transforms = np.full((len(variants), 6), np.nan)
        shapes = np.full((len(variants), 2), -1, dtype=np.int64)
        numbers = np.full(len(variants), -1, dtype=np.int64)
        for row, said in enumerate(variants):
            found = transform_said(said)
            if found is not None:
                transforms[row] = found[:6]
            shape = said.get("spatial:shape") or said.get("proj:shape")
            if isinstance(shape, list | tuple) and [type(one) for one in shape] == [int, int]:
                shapes[row] = shape
            numbers[row] = systems.number(crs_said(said))
        return cls(transforms, shapes, numbers)


def _holders(
    levels: Levels, array: ArrayInventory
) -> Iterator[tuple[Sequence[JSON], NDArray[np.int32], NDArray[np.int64] | None]]:
    """Yield the attributes of an array and its groups, and whose each granule's are.

    With those of a group comes the shape of the largest image below it, which it tells of where
    it doesn't say another.
    """
    yield [variant["attributes"] for variant in array.variants], array.variant_index, None
    for path in ancestors(array.path):
        group = levels.inventory.groups.get(path)
        if group is not None and any(group.variants):
            yield group.variants, group.variant_index, _largest(levels, path)


def _largest(levels: Levels, group: str) -> NDArray[np.int64]:
    """Return the shape of the largest image below a group, of shape (n, 2)."""
    found = np.zeros((len(levels.inventory.rows), 2), dtype=np.int64)
    for path, array in levels.inventory.arrays.items():
        if array.rank >= 2 and (not group or path.startswith(f"{group}/")):
            shapes = image_shapes(array.shapes, axes_of(array, levels.inventory))
            larger = shapes.prod(axis=1) > found.prod(axis=1)
            found[larger] = shapes[larger]
    return found


def _fits(
    said: NDArray[np.int64], own: NDArray[np.int64], largest: NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    """Return whether what is said of images of a shape is said of those of another."""
    meant = said if largest is None else np.where(said < 0, largest, said)
    return np.asarray(((meant < 0) | (meant == own)).all(axis=1))


def _of_layout(levels: Levels, level: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the transforms that the group of the levels says, and of which granules it does."""
    found = np.full((len(levels.inventory.rows), 6), np.nan)
    if levels.group is not None:
        group = levels.inventory.groups[levels.group]
        own = np.full((len(group.variants), 6), np.nan)
        for row, said in enumerate(group.variants):
            for one in layout_of(said):
                transform = transform_said(one) if one["asset"] == levels.assets[level] else None
                if transform is not None:
                    own[row] = transform[:6]
        found = own[group.variant_index]
    return found, np.isfinite(found).all(axis=1)


def _derive(levels: Levels, transforms: NDArray[np.float64]) -> None:
    """Fill in the transforms of coarser levels, which cover what the finest covers.

    Not where the group of the levels says that they are moved against it.
    """
    full = levels.arrays[0].shapes[:, list(levels.axes)]
    for level in range(1, len(levels.arrays)):
        own = levels.arrays[level].shapes[:, list(levels.axes)]
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = full / own
        made = transforms[:, 0].copy()
        made[:, [0, 3]] *= scale[:, 1:]
        made[:, [1, 4]] *= scale[:, :1]
        _fill(transforms[:, level], made, ~_moved(levels, level))


def _moved(levels: Levels, level: int) -> NDArray[np.bool_]:
    """Return of which granules a level is moved against the finest."""
    if levels.group is None:
        return np.zeros(len(levels.inventory.rows), dtype=bool)
    group = levels.inventory.groups[levels.group]
    found = np.zeros(len(group.variants), dtype=bool)
    for row, said in enumerate(group.variants):
        for one in layout_of(said):
            if one["asset"] == levels.assets[level]:
                told = one.get("transform")
                by = told.get("translation") if isinstance(told, dict) else None
                found[row] = any(not isinstance(n, int | float) or abs(n) > 1e-6 for n in by or ())
    return found[group.variant_index]


def _crop(levels: Levels, transforms: NDArray[np.float64]) -> None:
    """Move transforms to where what is shown of the arrays begins."""
    for level, array in enumerate(levels.arrays):
        if array.starts is not None:
            rows, columns = array.starts[:, list(levels.axes)].T
            a, b, c, d, e, f = transforms[:, level].T
            transforms[:, level, 2] = a * columns + b * rows + c
            transforms[:, level, 5] = d * columns + e * rows + f


def _of_fields(
    reader: GranuleReader,
    levels: Levels,
    transforms: NDArray[np.float64],
    number: NDArray[np.int64],
    systems: Systems,
) -> None:
    """Fill in what the fields of the granules say."""
    if np.isfinite(transforms[:, 0]).all() and (number >= 0).all():
        return
    table = reader.granules.known(FIELDS).take(pa.array(levels.inventory.rows))
    columns = {name: table.column(name).to_pylist() for name in table.schema.names}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if not rows:
        return
    told = _Said.of([_told(row) for row in rows], systems)
    fits = _fits(told.shapes, levels.arrays[0].shapes[:, list(levels.axes)], None)
    _fill(transforms, told.transforms, fits)
    _fill(number, told.systems)


def _told(row: Mapping[str, Any]) -> JSON:
    """Return a granule's fields as attributes of the conventions that they are named after."""
    said: JSON = {}
    for name, value in row.items():
        if isinstance(value, str) and name in ("proj:transform", "proj:shape", "proj:projjson"):
            try:
                said[name] = json.loads(value)
            except json.JSONDecodeError:
                continue
        elif value is not None:
            said[name] = value
    parts = [said.get(f"transform_{index}") for index in range(6)]
    if None not in parts:
        said.setdefault("proj:transform", parts)
    if "shape_y" in said and "shape_x" in said:
        said.setdefault("proj:shape", [said["shape_y"], said["shape_x"]])
    return said


def _of_mapping(
    levels: Levels,
    transforms: NDArray[np.float64],
    number: NDArray[np.int64],
    systems: Systems,
) -> None:
    """Fill in what a grid mapping says (CF 1.12, section 5.6)."""
    mapping = _mapping(levels)
    if mapping is None:
        return
    own = np.full((len(mapping.variants), 6), np.nan)
    numbers = np.full(len(mapping.variants), -1, dtype=np.int64)
    for row, variant in enumerate(mapping.variants):
        said = variant["attributes"]
        transform = geotransform_of(said.get("GeoTransform"))
        if transform is not None:
            own[row] = transform[:6]
        numbers[row] = systems.number(crs_of_mapping(said))
    _fill(transforms, own[mapping.variant_index])
    _fill(number, numbers[mapping.variant_index])


def _mapping(levels: Levels) -> ArrayInventory | None:
    """Return the grid mapping of a band's arrays: that which it names, or the only one near it."""
    array = levels.arrays[0]
    named = str(array.variants[0]["attributes"].get("grid_mapping", ""))
    name = re.split(r"[\s:]", named.strip(), maxsplit=1)[0]
    arrays = levels.inventory.arrays
    for group in ancestors(array.path):
        if name and join(group, name) in arrays:
            return arrays[join(group, name)]
        own = [
            other
            for path, other in arrays.items()
            if path.rpartition("/")[0] == group
            and crs_of_mapping(other.variants[0]["attributes"]) is not None
        ]
        if not name and len(own) == 1 and other_than_image(own[0]):
            return own[0]
    return None


def other_than_image(array: ArrayInventory) -> bool:
    """Return whether an array has no values that could be an image's."""
    return array.rank == 0 or bool((array.shapes.prod(axis=1) <= 1).all())


def _of_axes(
    reader: GranuleReader,
    levels: Levels,
    transforms: NDArray[np.float64],
    number: NDArray[np.int64],
    systems: Systems,
) -> None:
    """Fill in what the axes of grids say, which are read where nothing else says it."""
    axes = _axes(levels)
    members = np.flatnonzero(np.isnan(transforms[:, 0]))
    if axes is None or not len(members):
        return
    y, x, degrees = axes
    mapping = _mapping(levels)
    said = {} if mapping is None else mapping.variants[0]["attributes"]
    down, beside = (
        1.0 if degrees else metres_of(one.variants[0]["attributes"].get("units"), said)
        for one in (y, x)
    )
    if down is None or beside is None:
        return
    known = number if not degrees else np.where(number < 0, systems.number("EPSG:4326"), number)
    members = members[known[members] >= 0]

    y, x = (replace(one, starts=None, stops=None) for one in (y, x))
    decode = decoding(y), decoding(x)

    def read(member: int) -> Affine | None:
        key = (levels.inventory.name, y.path, x.path, member)
        if key not in systems.axes:
            systems.axes[key] = placed_by(member)
        return systems.axes[key]

    def placed_by(member: int) -> Affine | None:
        row = int(levels.inventory.rows[member])
        rows = axis_values(reader.stored(row, y, member, decode[0])) * down
        columns = axis_values(reader.stored(row, x, member, decode[1])) * beside
        return transform_of_axes(rows, np.unwrap(columns, period=360) if degrees else columns)

    for member, transform in zip(members.tolist(), in_threads(read, members.tolist()), strict=True):
        if transform is not None:
            transforms[member] = transform[:6]
            number[member] = known[member]


def in_threads[Item, Result](
    function: Callable[[Item], Result], items: Sequence[Item]
) -> list[Result]:
    """Return what a function gives for each of some items, of which several run at once."""
    if len(items) <= 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(READERS, len(items)), "l2view-axes") as threads:
        return list(threads.map(function, items))


def axis_values(stored: StoredArray) -> NDArray[np.float64]:
    """Return a whole axis, as its values are meant."""
    values, valid = stored.values.to_numpy(stored.stored((range(stored.shape[0]),)))
    return values.astype(float) if valid is None else np.where(valid, values, np.nan).astype(float)


def decoding(array: ArrayInventory) -> tuple[ValueDecoder, ...]:
    """Return what becomes of the stored values of each variant of an array.

    Raises
    ------
    QueryError
        Where they can't be decoded.
    """
    try:
        return tuple(map(ValueDecoder.of_document, array.variants))
    except ValueError as error:
        raise QueryError(f"{array.path} can't be decoded: {error}") from error


def transform_of_axes(y: NDArray[np.float64], x: NDArray[np.float64]) -> Affine | None:
    """Return the transform of a grid by the centres of its cells, None where they are uneven."""
    if not (_is_even(y) and _is_even(x)):
        return None
    dy, dx = (y[-1] - y[0]) / (len(y) - 1), (x[-1] - x[0]) / (len(x) - 1)
    return Affine(dx, 0.0, x[0] - dx / 2, 0.0, dy, y[0] - dy / 2)


def _is_even(values: NDArray[np.float64]) -> bool:
    if len(values) < 2 or values[0] == values[-1]:
        return False
    line = np.linspace(values[0], values[-1], len(values))
    step = abs(values[-1] - values[0]) / (len(values) - 1)
    return bool((np.abs(values - line) <= UNEVEN * step).all())


def _axes(levels: Levels) -> tuple[ArrayInventory, ArrayInventory, bool] | None:
    """Return the axes of a band's rows and columns, and whether they are in degrees."""
    array, arrays = levels.arrays[0], levels.inventory.arrays
    found = []
    for axis in levels.axes:
        name = array.dimensions[axis]
        if name is None:
            return None
        for group in ancestors(array.path):
            other = arrays.get(join(group, name))
            if other is not None and other.rank == 1:
                if not (other.shapes[:, 0] == array.shapes[:, axis]).all():
                    return None
                found.append(other)
                break
        else:
            return None
    y, x = found
    degrees = all(
        any(one.path == path for path, _ in coordinates_of(levels.inventory, words))
        for one, words in ((y, LATITUDE), (x, LONGITUDE))
    )
    return y, x, degrees


def _coordinates(levels: Levels) -> tuple[ArrayInventory, ArrayInventory] | None:
    """Return the latitudes and longitudes of a band's cells, None where there are none.

    They are as long as the band along its rows and columns, or its axes.
    """
    array = levels.arrays[0]
    shape = image_shapes(array.ends - array.begins, levels.axes)
    own = array.path.rpartition("/")[0]
    found = []
    for words in (LATITUDE, LONGITUDE):
        some = sorted(
            coordinates_of(levels.inventory, words),
            key=lambda one: distance(own, one[0].rpartition("/")[0]),
        )
        found.append([other for _, other in some])
    for latitude in found[0]:
        for longitude in found[1]:
            if _along(latitude, shape, levels, 0) and _along(longitude, shape, levels, 1):
                same = latitude.path.rpartition("/")[0] == longitude.path.rpartition("/")[0]
                if same and (latitude.rank == 1) == (longitude.rank == 1):
                    return latitude, longitude
    return None


def _along(other: ArrayInventory, shape: NDArray[np.int64], levels: Levels, axis: int) -> bool:
    """Return whether coordinates lie along a band's rows and columns, or along one of them."""
    lengths = other.ends - other.begins
    if other.rank == 0:
        return False
    names = [levels.arrays[0].dimensions[one] for one in levels.axes]
    own = other.dimensions[-len(names) :] if other.rank > 1 else other.dimensions
    if len(levels.axes) == 1:
        return other.rank == 1 and bool((lengths[:, 0] == shape[:, 0]).all())
    if other.rank == 1:
        told = _are_named([names[axis], own[0]]) and names[axis] != own[0]
        return not told and bool((lengths[:, 0] == shape[:, axis]).all())
    told = _are_named([*names, *own]) and names != list(own)
    return (
        not told and bool((lengths[:, -2:] == shape).all()) and bool((lengths[:, :-2] == 1).all())
    )


def _are_named(names: Sequence[str | None]) -> bool:
    """Return whether dimensions have names, and not ones that formats make up for want of some."""
    return all(name is not None and not name.startswith("phony_dim") for name in names)
