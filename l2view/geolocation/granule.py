"""Where the arrays of one granule lie, for whoever has it as a Zarr group.

The granule is asked about as a table of one (see `l2view.geolocation.finder`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS

from l2view.arrays.cf import read_floats
from l2view.geolocation.bands import Levels, images_of, levels_at
from l2view.geolocation.coordinates import are_axes, coordinate_pairs
from l2view.geolocation.crs import has_other_meridian, to_degrees
from l2view.geolocation.dimensions import dimension_names
from l2view.geolocation.finder import Finder
from l2view.geolocation.image_axes import image_axes
from l2view.geolocation.placement import Placement
from l2view.granules.table import ArrayTable, GranuleTable, GroupTable
from l2view.regrid.projection import apply_transform
from l2view.stores.hierarchy import JSON

type Positions = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Latitudes and longitudes, of one shape; NaN where there is none."""

type Part = tuple[Any, Any]  # which rows and columns of an image, slices or positions

EVERYTHING: Part = (slice(None), slice(None))


@dataclass(frozen=True, eq=False)
class Georeference:
    """Where the cells of an image, or the points of a track, of one granule lie.

    By a transform and its CRS; or by arrays of latitudes and longitudes, of which 1-D ones of an
    image are its axes; or by the centres of its rows and columns in its CRS.
    """

    path: str  # of the array that it was found for, or the latitudes
    dimensions: tuple[str, ...]  # the names of rows and columns; of the points of a track alone
    shape: tuple[int, ...]  # their lengths
    crs: CRS | None = None
    transform: Affine | None = None  # from (column, row) to coordinates
    coordinates: tuple[str, str] | None = None  # the paths of the arrays
    centres: Positions | None = None  # y and x of uneven rows and columns

    def to_degrees(self, columns: NDArray[np.float64], rows: NDArray[np.float64]) -> Positions:
        """Return latitudes and longitudes by the transform; (0, 0) is the first pixel's corner."""
        assert self.transform is not None
        assert self.crs is not None
        return to_degrees(*apply_transform(self.transform, columns, rows), self.crs)


class LocatedGranule:
    """The arrays of one granule, and where they lie, also by its `fields` in ``/meta``.

    The `members` are all of its group's, for who has read them already.
    """

    def __init__(
        self,
        group: zarr.Group,
        fields: Mapping[str, Any] | None = None,
        members: Mapping[str, zarr.Group | zarr.Array[Any]] | None = None,
    ) -> None:
        members = dict(sorted(members.items() if members else group.members(max_depth=None)))
        self.arrays: dict[str, zarr.Array[Any]] = {
            path: node for path, node in members.items() if isinstance(node, zarr.Array)
        }
        groups = {path: node for path, node in members.items() if isinstance(node, zarr.Group)}
        self.table = GranuleTable(
            name="",
            rows=np.zeros(1, dtype=np.int64),
            arrays={path: _array_table(path, array) for path, array in self.arrays.items()},
            groups={path: _group_table(node) for path, node in {"": group, **groups}.items()},
        )
        self._finder = Finder(
            read=lambda table, array, member: self.values(array.path),
            fields=lambda rows: [dict(fields or {})] * len(rows),
        )
        self._placements: dict[str, Placement] = {}
        self._centres: dict[tuple[str, str, int], tuple[int, Positions] | None] = {}

    def values(self, path: str) -> NDArray[np.float64]:
        """Return an array's values, NaN where one is missing."""
        return read_floats(self.arrays[path])

    def axes(self, path: str) -> tuple[int, ...]:
        """Return the axes of an array's rows and columns."""
        return image_axes(self.table.arrays[path], self.table)

    def image_values(self, path: str, part: Part = EVERYTHING) -> NDArray[np.float64]:
        """Return a part of an image, NaN where a value is missing, the first along other axes."""
        array, axes = self.arrays[path], self.axes(path)
        index: list[Any] = [0] * array.ndim
        for axis, selection in zip(axes, part, strict=True):
            index[axis] = selection
        image = read_floats(array, tuple(index))
        return image if axes[0] < axes[1] else image.T

    @cached_property
    def _levels(self) -> dict[str, tuple[Levels, int]]:
        """The images by path: of which levels they are, and which of them."""
        return {
            array.path: (levels, level)
            for levels in images_of(self.table).values()
            for level, array in enumerate(levels.arrays)
        }

    @property
    def image_paths(self) -> list[str]:
        """The granule's images, with their levels."""
        return list(self._levels)

    def georeference(self, path: str) -> Georeference | None:
        """Return the georeference of an array, None where nothing declares it."""
        levels, level = self._levels.get(path) or (levels_at(self.table, {"": path}), 0)
        finest = levels.arrays[0].path
        if finest not in self._placements:
            self._placements[finest] = self._finder.locate(levels)
        placement = self._placements[finest]
        names, lengths = dimension_names(self.arrays[path]), self.arrays[path].shape
        dimensions = tuple(names[axis] for axis in levels.axes)
        shape = tuple(lengths[axis] for axis in levels.axes)
        crs, systems = int(placement.crs[0]), self._finder.crs.entries
        if crs >= 0 and placement.usable[0, level]:
            transform = Affine(*placement.transforms[0, level])
            return Georeference(path, dimensions, shape, systems[crs], transform)
        if level > 0:
            return None
        is_shifted = crs >= 0 and has_other_meridian(systems[crs])
        if placement.coordinates is not None:
            latitudes, longitudes = placement.coordinates
            if latitudes.rank > 1 or not is_shifted:
                paths = latitudes.path, longitudes.path
                return Georeference(path, dimensions, shape, coordinates=paths)
        axes = self._finder.axes(levels) if len(levels.axes) == 2 else None
        if axes is None:
            return None
        key = axes.y.path, axes.x.path, crs  # which many images of a granule share
        if key not in self._centres:
            self._centres[key] = self._finder.centres(levels, axes, 0, crs)
        number, centres = self._centres[key] or (-1, None)
        if centres is None:
            return None
        return Georeference(path, dimensions, shape, systems[number], centres=centres)

    def images(self) -> Iterator[Georeference]:
        """Yield the georeferences of the granule's images, of those that have one."""
        yield from filter(None, map(self.georeference, self._levels))

    def pairs(self) -> Iterator[Georeference]:
        """Yield the granule's own latitudes and longitudes, the nearest to its root first.

        But for the axes of grids whose longitudes are counted from another meridian.
        """
        for latitudes, longitudes in coordinate_pairs(self.table):
            georeference = self.pair(latitudes.path, longitudes.path)
            if georeference is not None and georeference.dimensions not in self._shifted_axes:
                yield georeference

    def points(self) -> Iterator[Positions]:
        """Yield latitudes and longitudes that are scalars, as those of a buoy."""
        for latitude, longitude in coordinate_pairs(self.table, rank=0):
            yield self.values(latitude.path).reshape(1), self.values(longitude.path).reshape(1)

    @cached_property
    def _shifted_axes(self) -> set[tuple[str, ...]]:
        """The dimensions of grids whose longitudes aren't counted from Greenwich."""
        if not self._finder.profile(self.table).mappings:
            return set()
        return {
            image.dimensions
            for image in self.images()
            if image.crs is not None and has_other_meridian(image.crs)
        }

    def pair(self, latitudes: str, longitudes: str) -> Georeference | None:
        """Return the georeference of latitudes and longitudes, None where they don't fit."""
        if not {latitudes, longitudes} <= self.arrays.keys():
            return None
        lat, lon = self.arrays[latitudes], self.arrays[longitudes]
        dimensions, shape = dimension_names(lat)[-2:], lat.shape[-2:]
        coordinates = self.table.arrays[latitudes], self.table.arrays[longitudes]
        if lat.ndim == lon.ndim == 1 and are_axes(
            *coordinates, self.values(latitudes), self.values(longitudes)
        ):
            dimensions, shape = dimensions + dimension_names(lon), lat.shape + lon.shape
        elif lat.shape != lon.shape or lat.ndim == 0:
            return None
        paths = latitudes, longitudes
        return Georeference(latitudes, tuple(dimensions), shape, coordinates=paths)

    def cells(self, georeference: Georeference, part: Part = EVERYTHING) -> Positions:
        """Return the latitudes and longitudes of what has no transform; of a grid its axes.

        Of uneven rows and columns those of a part are returned.
        """
        if georeference.coordinates is None:
            assert georeference.centres is not None
            assert georeference.crs is not None
            y, x = georeference.centres
            columns, rows = np.meshgrid(x[part[1]], y[part[0]])
            return to_degrees(columns, rows, georeference.crs)
        latitudes, longitudes = georeference.coordinates
        return self.values(latitudes), self.values(longitudes)

    def positions(self, path: str, part: Part = EVERYTHING) -> Positions | None:
        """Return the latitudes and longitudes of a part of an image's cells.

        They are of shape (rows, columns), NaN where there is none. None where nothing says them.
        """
        georeference = self.georeference(path)
        if georeference is None or len(georeference.dimensions) != 2:
            return None
        rows, columns = part
        if georeference.transform is not None:
            y, x = (np.arange(length, dtype=float) + 0.5 for length in georeference.shape)
            return georeference.to_degrees(*np.meshgrid(x[columns], y[rows]))
        paths = georeference.coordinates
        if paths is not None and self.arrays[paths[0]].ndim > 1:
            return self.image_values(paths[0], part), self.image_values(paths[1], part)
        if paths is None:
            return self.cells(georeference, part)
        lat, lon = self.cells(georeference)
        lat, lon = np.meshgrid(lat[rows], lon[columns], indexing="ij")
        return lat, lon


def _array_table(path: str, array: zarr.Array[Any]) -> ArrayTable:
    document: JSON = array.metadata.to_dict()
    document["attributes"] = dict(array.attrs)
    shapes = np.array([array.shape], dtype=np.int64)
    variant_index = np.zeros(1, dtype=np.int32)
    return ArrayTable(path, (document,), variant_index, shapes, shapes, document["attributes"])


def _group_table(group: zarr.Group) -> GroupTable:
    attributes = dict(group.attrs)
    return GroupTable((attributes,), np.zeros(1, dtype=np.int32), attributes)
