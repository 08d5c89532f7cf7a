"""Where the arrays of one granule lie, for whoever has it as a Zarr group.

The granule is asked about as an inventory of one (see `l2view.geolocation.finder`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
import shapely.affinity
import zarr
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS

from l2view.arrays.cf import read_floats
from l2view.geolocation.bands import Levels, all_levels, axes_of, levels_at
from l2view.geolocation.coordinates import are_axes, coordinate_pairs
from l2view.geolocation.crs import to_degrees
from l2view.geolocation.finder import KINDS, Finder, Placement
from l2view.granules.inventory import ArrayInventory, GroupInventory, Inventory
from l2view.stores.hierarchy import JSON

COORDINATES = "latitudes and longitudes"
"""The kind of georeference that gives no transform."""

UNEVEN_AXES = "uneven axes"

type Steps = tuple[int, int]
"""How many rows and columns there are from one that is taken to the next."""


@dataclass(frozen=True, eq=False)
class Georeference:
    """Where the cells of an image, or the points of a track, of one granule lie.

    Attributes
    ----------
    kind
        What says so: the name of one of `l2view.geolocation.finder.KINDS`, `UNEVEN_AXES` or
        `COORDINATES`.
    path
        The array that it was found for, or the latitudes.
    dimensions, shape
        The names and lengths of the rows and columns; of the points of a track alone.
    crs
        Of the transform or axes.
    transform
        From (column, row) to coordinates, None where it has none.
    axes
        Without a transform: the centres of rows and columns in its CRS.
    latitudes, longitudes
        Without both: the paths of the arrays; 1-D arrays of an image are its axes.
    """

    kind: str
    path: str
    dimensions: tuple[str, ...]
    shape: tuple[int, ...]
    crs: CRS | None = None
    transform: Affine | None = None
    axes: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    latitudes: str = ""
    longitudes: str = ""

    @property
    def is_grid(self) -> bool:
        """Whether it has rows and columns in a CRS."""
        return self.transform is not None or self.axes is not None

    def xy(
        self, columns: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return coordinates in a grid's CRS of pixels; (0, 0) is the first one's corner."""
        if self.transform is not None:
            a, b, c, d, e, f = self.transform[:6]
            return a * columns + b * rows + c, d * columns + e * rows + f
        assert self.axes is not None
        down, across = map(edges_of, self.axes)
        return (
            np.interp(columns, np.arange(len(across)), across),
            np.interp(rows, np.arange(len(down)), down),
        )

    def to_pixels(self, place: shapely.Geometry) -> shapely.Geometry:
        """Return that part of a place in a grid's CRS that lies within it, in pixels."""
        height, width = self.shape
        if self.transform is not None:
            a, b, c, d, e, f = (~self.transform)[:6]
            pixels = shapely.affinity.affine_transform(place, (a, b, d, e, c, f))
            return shapely.intersection(pixels, shapely.box(0, 0, width, height))
        assert self.axes is not None
        down, across = map(edges_of, self.axes)
        extent = shapely.box(across.min(), down.min(), across.max(), down.max())

        def to_pixel(xy: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack([_index(across, xy[:, 0]), _index(down, xy[:, 1])], axis=1)

        return shapely.transform(shapely.intersection(place, extent), to_pixel)


class GranuleArrays:
    """The arrays of one granule, and where they lie.

    Parameters
    ----------
    group
        The granule.
    fields
        Its fields in ``/meta`` that say where it lies.
    """

    def __init__(self, group: zarr.Group, fields: Mapping[str, Any] | None = None) -> None:
        members = dict(sorted(group.members(max_depth=None)))
        self.arrays: dict[str, zarr.Array[Any]] = {
            path: node for path, node in members.items() if isinstance(node, zarr.Array)
        }
        groups = {path: node for path, node in members.items() if isinstance(node, zarr.Group)}
        self.inventory = Inventory(
            name="",
            rows=np.zeros(1, dtype=np.int64),
            arrays={path: _array_inventory(path, array) for path, array in self.arrays.items()},
            groups={path: _group_inventory(node) for path, node in {"": group, **groups}.items()},
        )
        self._finder = Finder(
            read=lambda inventory, array, member: self.values(array.path),
            fields=lambda rows: [dict(fields or {})] * len(rows),
        )
        self._placements: dict[str, Placement] = {}

    def values(self, path: str) -> NDArray[np.float64]:
        """Return an array's values, NaN where one is missing."""
        return read_floats(self.arrays[path])

    def axes(self, path: str) -> tuple[int, ...]:
        """Return the axes of an array's rows and columns."""
        return axes_of(self.inventory.arrays[path], self.inventory)

    def thinned_image(self, path: str, steps: Steps) -> NDArray[np.float64]:
        """Return values of some rows and columns of an image, of shape (rows, columns).

        NaN stands for none. Of its other axes the first element is taken.
        """
        array, axes = self.arrays[path], self.axes(path)
        index: list[Any] = [0] * array.ndim
        for axis, step in zip(axes, steps, strict=True):
            index[axis] = slice(None, None, step)
        image = read_floats(array, tuple(index))
        return image if axes[0] < axes[1] else image.T

    @cached_property
    def _levels(self) -> dict[str, tuple[Levels, int]]:
        """The images by path: of which levels they are, and which of them."""
        return {
            array.path: (levels, level)
            for levels in all_levels(self.inventory)
            for level, array in enumerate(levels.arrays)
        }

    def georeference(self, path: str) -> Georeference | None:
        """Return where an array's cells lie, None where nothing says it."""
        levels, level = self._levels.get(path) or (
            levels_at(self.inventory, None, {"": path}),
            0,
        )
        finest = levels.arrays[0].path
        if finest not in self._placements:
            self._placements[finest] = self._finder.locate(levels)
        placement = self._placements[finest]
        array = self.arrays[path]
        names = dimension_names(array)
        dimensions = tuple(names[axis] for axis in levels.axes)
        shape = tuple(array.shape[axis] for axis in levels.axes)
        crs = int(placement.crs[0])
        if crs >= 0 and placement.usable[0, level]:
            return Georeference(
                KINDS[placement.kinds[0]].name,
                path,
                dimensions,
                shape,
                self._finder.crs.known[crs],
                Affine(*placement.transforms[0, level]),
            )
        if level == 0 and placement.latitudes is not None and placement.longitudes is not None:
            return Georeference(
                COORDINATES,
                path,
                dimensions,
                shape,
                latitudes=placement.latitudes.path,
                longitudes=placement.longitudes.path,
            )
        if level == 0 and len(levels.axes) == 2:
            axes = self._finder.axes(levels, 0, crs)
            if axes is not None:
                known = self._finder.crs.known[axes[0]]
                return Georeference(UNEVEN_AXES, path, dimensions, shape, known, axes=axes[1:])
        return None

    def images(self) -> Iterator[Georeference]:
        """Yield where the granule's images lie, of those of which anything says it."""
        for path in self._levels:
            georeference = self.georeference(path)
            if georeference is not None:
                yield georeference

    def pairs(self) -> Iterator[Georeference]:
        """Yield the granule's own latitudes and longitudes, the nearest to its root first."""
        for latitudes, longitudes in coordinate_pairs(self.inventory):
            georeference = self.pair(latitudes.path, longitudes.path)
            if georeference is not None:
                yield georeference

    def pair(self, latitudes: str, longitudes: str) -> Georeference | None:
        """Return what two arrays say of cells along their dimensions, None for nothing."""
        both = self.arrays[latitudes], self.arrays[longitudes]
        names, other_names = map(dimension_names, both)
        rank, shape = both[0].ndim, both[0].shape
        if rank == both[1].ndim == 1:
            lat, lon = self.values(latitudes), self.values(longitudes)
            if are_axes(
                self.inventory.arrays[latitudes], self.inventory.arrays[longitudes], lat, lon
            ):
                names, shape = [names[0], other_names[0]], (len(lat), len(lon))
            elif len(lat) != len(lon):
                return None
        elif shape != both[1].shape or rank == 0:
            return None
        return Georeference(
            COORDINATES,
            latitudes,
            tuple(names[-2:]),
            tuple(shape[-2:]),
            latitudes=latitudes,
            longitudes=longitudes,
        )

    def positions(
        self, path: str, steps: Steps = (1, 1)
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Return the latitudes and longitudes of an image's cells, None where nothing says them.

        Parameters
        ----------
        path
            The image.
        steps
            Which rows and columns are taken.

        Returns
        -------
        latitudes, longitudes
            In degrees, of shape (rows, columns), NaN where there is none.
        """
        georeference = self.georeference(path)
        if georeference is None or len(georeference.dimensions) != 2:
            return None
        if georeference.transform is not None:
            assert georeference.crs is not None
            rows, columns = (
                np.arange(0, length, step) + 0.5
                for length, step in zip(georeference.shape, steps, strict=True)
            )
            return to_degrees(*georeference.xy(*np.meshgrid(columns, rows)), georeference.crs)
        if georeference.axes is not None:
            assert georeference.crs is not None
            down, across = georeference.axes
            x, y = np.meshgrid(across[:: steps[1]], down[:: steps[0]])
            return to_degrees(x, y, georeference.crs)
        paths = (georeference.latitudes, georeference.longitudes)
        if self.arrays[paths[0]].ndim == 1:
            lat, lon = map(self.values, paths)
            lon, lat = np.meshgrid(lon[:: steps[1]], lat[:: steps[0]])
            return lat, lon
        return self.thinned_image(paths[0], steps), self.thinned_image(paths[1], steps)


def edges_of(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the edges of cells along an axis, half-way between centres, of shape (n + 1,)."""
    steps = np.diff(centres) / 2 if len(centres) > 1 else np.zeros(1)
    middle = centres[:-1] + np.diff(centres) / 2
    return np.concatenate([centres[:1] - steps[0], middle, centres[-1:] + steps[-1]])


def _index(edges: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return where values lie between edges, which grow or fall: 0 at the first."""
    order = slice(None) if edges[-1] >= edges[0] else slice(None, None, -1)
    return np.asarray(np.interp(values, edges[order], np.arange(len(edges), dtype=float)[order]))


def dimension_names(array: zarr.Array[Any]) -> list[str]:
    """Return the names of an array's dimensions, made up where it has none."""
    names = array.metadata.dimension_names or (None,) * array.ndim  # type: ignore[union-attr]
    return [f"axis {axis - array.ndim}" if n is None else n for axis, n in enumerate(names)]


def _array_inventory(path: str, array: zarr.Array[Any]) -> ArrayInventory:
    document: JSON = array.metadata.to_dict()
    document["attributes"] = dict(array.attrs)
    shapes = np.array([array.shape], dtype=np.int64)
    which = np.zeros(1, dtype=np.int32)
    return ArrayInventory(path, (document,), which, shapes, shapes, document["attributes"])


def _group_inventory(group: zarr.Group) -> GroupInventory:
    attributes = dict(group.attrs)
    return GroupInventory((attributes,), np.zeros(1, dtype=np.int32), attributes)
