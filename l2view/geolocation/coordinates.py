"""Which arrays of granules are latitudes and longitudes, and how near they are to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from l2view.arrays.dtypes import native_dtype
from l2view.geolocation.transforms import axes_transform
from l2view.granules.table import ArrayTable, GranuleTable

LATITUDE = ("latitude", "lat", "north")
LONGITUDE = ("longitude", "lon", "east")
"""The standard name, a short one, and the side of the globe that units name."""


def is_coordinate(array: ArrayTable, words: tuple[str, ...]) -> bool:
    """Whether numbers are `LATITUDE` or `LONGITUDE`, by the CF conventions or their name."""
    attributes, (name, short, side) = array.variants[0]["attributes"], words
    if attributes.get("standard_name") == name:
        return True
    units = str(attributes.get("units", "")).lower().replace("_", "").replace(" ", "")
    degrees = units in (f"degrees{side}", f"degree{side}", "degrees", "degree", "")
    return degrees and basename(array.path).lower() in (name, short, f"{short}s", f"{name}s")


def coordinates_of(table: GranuleTable, words: tuple[str, ...]) -> Iterator[ArrayTable]:
    """Yield the arrays of a profile that are latitudes, or longitudes."""
    for array in table.arrays.values():
        dtype = native_dtype(array.variants[0]["data_type"])
        if dtype.kind in "iuf" and is_coordinate(array, words):
            yield array


def sort_by_distance(arrays: Iterable[ArrayTable], path: str) -> list[ArrayTable]:
    """Return arrays, those nearest to another first."""
    group = parent(path)
    return sorted(arrays, key=lambda array: distance(group, parent(array.path)))


def coordinate_pairs(table: GranuleTable) -> Iterator[tuple[ArrayTable, ArrayTable]]:
    """Yield the latitudes and longitudes of each group, the granule's own first.

    Several pairs of a group are told apart by their dimensions.
    """
    groups: dict[str, tuple[list[ArrayTable], list[ArrayTable]]] = {}
    for axis, words in enumerate((LATITUDE, LONGITUDE)):
        for array in sorted(coordinates_of(table, words), key=lambda array: array.path):
            if array.shapes.prod(axis=1).all():
                groups.setdefault(parent(array.path), ([], []))[axis].append(array)
    for group in sorted(groups, key=lambda path: (depth(path), path)):
        latitudes, longitudes = groups[group]
        pairs = []
        for latitude in latitudes:
            for longitude in longitudes:
                if latitude.dimensions == longitude.dimensions and np.array_equal(
                    latitude.shapes, longitude.shapes
                ):
                    pairs.append((latitude, longitude))
                    break
        yield from pairs or zip(latitudes[:1], longitudes[:1], strict=False)


def are_axes(
    latitude: ArrayTable,
    longitude: ArrayTable,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
) -> bool:
    """Whether two 1-D arrays are the axes of a grid, and not the points of a track.

    Where their dimensions have no names, even steps tell: the grid's rectangle then holds what
    would be the track.
    """
    names = latitude.dimensions[0], longitude.dimensions[0]
    if any(are_named([name]) for name in names):
        return names[0] != names[1]
    return lat.shape != lon.shape or axes_transform(lat, np.unwrap(lon, period=360)) is not None


def are_named(names: Sequence[str | None]) -> bool:
    """Whether all dimensions have names, and not ones that formats make up for want of some."""
    return all(name is not None and not name.startswith("phony_dim") for name in names)


def basename(path: str) -> str:
    """Return the name of an array or group, without the groups that hold it."""
    return path.rpartition("/")[2]


def parent(path: str) -> str:
    """Return the path of the group that holds an array."""
    return path.rpartition("/")[0]


def ancestors(path: str) -> list[str]:
    """Return the groups that hold an array, the nearest first.

    Examples
    --------
    >>> ancestors("a/b/c")
    ['a/b', 'a', '']
    """
    groups = []
    while path:
        path = parent(path)
        groups.append(path)
    return groups


def distance(group: str, holder: str) -> tuple[int, int]:
    """Return how far a group of coordinates is from an array's group: those above are near.

    Examples
    --------
    >>> distance("a/b", "a") < distance("a/b", "") < distance("a/b", "c")
    True
    """
    above = group == holder or group.startswith(f"{holder}/") or not holder
    return (0 if above else 1, abs(depth(group) - depth(holder)))


def depth(path: str) -> int:
    """Return the number of groups in a path."""
    return path.count("/") + bool(path)


def is_overview(shape: Sequence[int], full: Sequence[int]) -> bool:
    """Whether an image is as wide as high as another, but for what rounding leaves."""
    if tuple(shape) == tuple(full):
        return True
    factors = [large / small for large, small in zip(full, shape, strict=True) if small]
    if len(factors) < 2 or min(factors) <= 1:
        return False
    off = max(abs(large / max(factors) - small) for large, small in zip(full, shape, strict=True))
    return off <= 1 and max(factors) / min(factors) < 1.5
