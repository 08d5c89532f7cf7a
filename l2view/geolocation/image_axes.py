"""Which axes of an array are those of rows and columns, and which arrays lie along one."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from l2view.geolocation.coordinates import LATITUDE, ancestors, are_named, is_coordinate, parent
from l2view.granules.table import ArrayTable, GranuleTable
from l2view.stores.hierarchy import join

NORTH = frozenset({
    "y", "lat", "latitude", "northing", "yc", "projection_y_coordinate",
    "projection_y_angular_coordinate",
})  # fmt: skip
EAST = frozenset({
    "x", "lon", "longitude", "easting", "xc", "projection_x_coordinate",
    "projection_x_angular_coordinate",
})  # fmt: skip
"""Names of dimensions, and standard names of their coordinates, along which y and x grow."""

AXES = frozenset(name for name in NORTH | EAST if name.startswith("projection_"))
"""The standard names of axes in a projection (CF 1.12, section 5.6)."""

BANDS = frozenset({"band", "bands", "channel", "channels", "sample", "samples", "rgb", "rgba"})
"""Names of a last dimension that isn't one of the image."""


def image_axes(array: ArrayTable, table: GranuleTable) -> tuple[int, ...]:
    """Return the axes of an array's rows and columns; of a track that of its points.

    They are those that ``spatial:dimensions`` names (the convention spatial for Zarr), those whose
    coordinates or names say that they go north and east, those of latitudes, else the last two, but
    for one of bands.
    """
    names = array.variants[0]["attributes"].get("spatial:dimensions")
    if isinstance(names, list) and len(names) == 2 and set(names) <= set(array.dimensions):
        return array.dimensions.index(names[0]), array.dimensions.index(names[1])
    if array.rank < 2:
        return (0,)
    sides = [_side(axis, array, table) for axis in range(array.rank)]
    if sides.count(NORTH) == sides.count(EAST) == 1:
        return sides.index(NORTH), sides.index(EAST)
    if array.rank > 2 and (axes := _axes_of_latitudes(array, table)) is not None:
        return axes
    has_bands = array.rank >= 3 and str(array.dimensions[-1]).lower() in BANDS
    column_axis = array.rank - 1 - has_bands
    return column_axis - 1, column_axis


def _axes_of_latitudes(array: ArrayTable, table: GranuleTable) -> tuple[int, int] | None:
    """Return the axes of an array along which latitudes lie, in their order."""
    names = array.dimensions
    for other in table.arrays.values():
        rows_and_columns = other.dimensions[-2:]
        if other.rank < 2 or None in rows_and_columns or not set(rows_and_columns) <= set(names):
            continue
        rows, columns = map(names.index, rows_and_columns)
        lengths = other.shapes[:, -2:]
        same = np.array_equal(lengths, array.shapes[:, [rows, columns]])
        if same and not is_ambiguous(array, lengths) and is_coordinate(other, LATITUDE):
            return rows, columns
    return None


def is_ambiguous(array: ArrayTable, lengths: NDArray[np.int64]) -> bool:
    """Whether rows and columns of some lengths (n, 2) may be several of an array's axes.

    That is where no file names its axes; the first granule is looked at.
    """
    if are_named(array.dimensions) or not len(lengths):
        return False
    shape, rows_and_columns = array.shapes[0].tolist(), tuple(lengths[0].tolist())
    return [*combinations(shape, 2)].count(rows_and_columns) > 1


def _side(axis: int, array: ArrayTable, table: GranuleTable) -> frozenset[str] | None:
    """Return to which side an axis points, by its coordinate's standard name or its own."""
    coordinate = axis_along(axis, array, table)
    attributes = {} if coordinate is None else coordinate.variants[0]["attributes"]
    names = str(attributes.get("standard_name")), str(array.dimensions[axis]).lower()
    sides = (words for name in names for words in (NORTH, EAST) if name in words)
    return next(sides, None)


type ProjectionAxes = Mapping[tuple[str, str | None], ArrayTable]


def axis_along(
    axis: int, array: ArrayTable, table: GranuleTable, named: ProjectionAxes | None = None
) -> ArrayTable | None:
    """Return the nearest coordinate along an axis of an array, None where there is none.

    It is called as the dimension is, or is one of those `named` by an axis' standard name.
    """
    dimension = array.dimensions[axis]
    for group in ancestors(array.path) if dimension is not None else ():
        coordinate = table.arrays.get(join(group, str(dimension)))
        if coordinate is not None and coordinate.rank == 1:
            return coordinate
        if named is not None and (group, dimension) in named:
            return named[group, dimension]
    return None


def projection_axes(table: GranuleTable) -> ProjectionAxes:
    """Return the arrays along a dimension that have an axis' standard name, by group and that."""
    axes: dict[tuple[str, str | None], ArrayTable] = {}
    for path, array in table.arrays.items():
        name = array.variants[0]["attributes"].get("standard_name")
        if array.rank == 1 and isinstance(name, str) and name in AXES:
            axes.setdefault((parent(path), array.dimensions[0]), array)
    return axes
