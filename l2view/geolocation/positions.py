"""The latitude and longitude of each cell of an array, whatever says them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyproj
import zarr
from numpy.typing import NDArray

from l2view.arrays.cf import read_floats
from l2view.geolocation.coordinates import are_axes, distance, image_axes, pairs
from l2view.geolocation.geotiff import placement

type Steps = tuple[int, int]
"""How many rows and columns there are from one that is taken to the next."""


def thinned(array: zarr.Array[Any], steps: Steps) -> NDArray[np.float64]:
    """Return some rows and columns of an image as values, NaN for none.

    Of its other axes the first element is taken.

    Parameters
    ----------
    array
        Of at least two axes.
    steps
        Which rows and columns are taken.
    """
    index: list[Any] = [0] * array.ndim
    for axis, step in zip(image_axes(array), steps, strict=True):
        index[axis] = slice(None, None, step)
    return read_floats(array, tuple(index))


def positions(
    group: zarr.Group, array: zarr.Array[Any], steps: Steps
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the latitudes and longitudes of an array's cells, None where nothing says them.

    Parameters
    ----------
    group
        The granule.
    array
        An array of it, of at least two axes.
    steps
        Which rows and columns are taken.

    Returns
    -------
    latitudes, longitudes
        In degrees, of shape (rows, columns), NaN where there is none.
    """
    shape = tuple(array.shape[axis] for axis in image_axes(array))
    prefix = len(group.path) + 1
    own = array.path[prefix:].rpartition("/")[0]
    known = sorted(
        pairs(group), key=lambda pair: distance(own, pair[0].path[prefix:].rpartition("/")[0])
    )
    for latitude, longitude in known:
        if latitude.shape[-2:] == longitude.shape[-2:] == shape and latitude.ndim >= 2:
            return thinned(latitude, steps), thinned(longitude, steps)
        if latitude.ndim == longitude.ndim == 1 and (latitude.size, longitude.size) == shape:
            lat, lon = read_floats(latitude), read_floats(longitude)
            if are_axes(latitude, longitude, lat, lon):
                grid = np.meshgrid(lat[:: steps[0]], lon[:: steps[1]], indexing="ij")
                return grid[0], grid[1]
    return _of_raster(group, array, shape, steps)


def _of_raster(
    group: zarr.Group, array: zarr.Array[Any], shape: Sequence[int], steps: Steps
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    for said in (array.attrs.asdict(), group.attrs.asdict()):
        placed = placement(said)
        if placed is None:
            continue
        transform, crs = placed
        columns, rows = np.meshgrid(
            np.arange(0, shape[1], steps[1]) + 0.5, np.arange(0, shape[0], steps[0]) + 0.5
        )
        x = transform.a * columns + transform.b * rows + transform.c
        y = transform.d * columns + transform.e * rows + transform.f
        transformer = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        lon, lat = transformer.transform(x, y)
        return np.asarray(lat), np.asarray(lon)
    return None
