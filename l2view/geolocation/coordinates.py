"""Which arrays of a granule are its latitudes and longitudes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

LATITUDE = ("latitude", "lat", "north")
LONGITUDE = ("longitude", "lon", "east")
"""The standard name, a short one, and the side of the globe that units name."""


def pairs(group: zarr.Group) -> Iterator[tuple[zarr.Array[Any], zarr.Array[Any]]]:
    """Yield the latitudes and longitudes of the granule's groups, its own first."""
    groups = [group]
    while groups:
        below: list[zarr.Group] = []
        for current in groups:
            arrays = [array for _, array in sorted(current.arrays()) if array.size]
            latitudes = [
                array for array in arrays if is_coordinate(array, "latitude", "lat", "north")
            ]
            longitudes = [
                array for array in arrays if is_coordinate(array, "longitude", "lon", "east")
            ]
            if latitudes and longitudes:
                yield latitudes[0], longitudes[0]
            below.extend(child for _, child in sorted(current.groups()))
        groups = below


def is_coordinate(array: zarr.Array[Any], name: str, short: str, side: str) -> bool:
    """Return whether an array holds coordinates, by the CF conventions or by its name."""
    if array.dtype.kind not in "iuf":
        return False
    return says_coordinate(array.attrs, array.basename, name, short, side)


def says_coordinate(
    attributes: Mapping[str, Any], basename: str, name: str, short: str, side: str
) -> bool:
    """Return whether attributes, or what an array of numbers is called, tell of coordinates."""
    if attributes.get("standard_name") == name:
        return True
    units = str(attributes.get("units", "")).lower().replace("_", "").replace(" ", "")
    degrees = units in (f"degrees{side}", f"degree{side}", "degrees", "degree", "")
    return degrees and basename.lower() in (name, short, f"{short}s", f"{name}s")


def are_axes(
    latitude: zarr.Array[Any],
    longitude: zarr.Array[Any],
    lat: NDArray[Any],
    lon: NDArray[Any],
) -> bool:
    """Return whether two 1-D arrays are the axes of a grid, and not the points of a track.

    Where their dimensions have no names, even steps tell: the grid's rectangle then holds what
    would be the track.
    """
    names = dimension_of(latitude), dimension_of(longitude)
    if not all(name is None or name.startswith("phony_dim") for name in names):
        return names[0] != names[1]
    return lat.shape != lon.shape or (_is_even(lat) and _is_even(np.unwrap(lon, period=360)))


def _is_even(values: NDArray[Any]) -> bool:
    steps = np.diff(values)
    return bool(len(steps) and np.allclose(steps, steps.mean(), rtol=1e-3) and steps.mean() != 0)


def distance(group: str, other: str) -> tuple[int, int]:
    """Return how far the coordinates of another group are from an array's: those above are near.

    Examples
    --------
    >>> distance("a/b", "a") < distance("a/b", "") < distance("a/b", "c")
    True
    """
    above = group == other or group.startswith(f"{other}/") or not other
    return (0 if above else 1, abs(depth(group) - depth(other)))


def depth(path: str) -> int:
    """Return how many groups deep a path is."""
    return path.count("/") + bool(path)


BANDS = frozenset({"band", "bands", "channel", "channels", "sample", "samples", "rgb", "rgba"})
"""Names of a last dimension that isn't one of the image."""


def image_axes(array: zarr.Array[Any]) -> tuple[int, int]:
    """Return the axes of an image's rows and columns: the last two, but for one of bands."""
    return axes_of_image(array.metadata.dimension_names or (None,) * array.ndim)  # type: ignore[union-attr]


def axes_of_image(names: Sequence[str | None]) -> tuple[int, int]:
    """Return the axes of rows and columns among dimensions, two at least, with such names."""
    last = len(names) - 1
    if len(names) >= 3 and str(names[-1]).lower() in BANDS:
        last -= 1
    return last - 1, last


def dimension_of(array: zarr.Array[Any]) -> str | None:
    """Return the name of an array's first dimension, None where it has none."""
    names = array.metadata.dimension_names  # type: ignore[union-attr]
    return None if not names else names[0]


def is_overview(shape: tuple[int, int], full: tuple[int, int]) -> bool:
    """Return whether an image is as wide as high as another, but for what rounding leaves."""
    if shape == full:
        return True
    factors = [large / small for large, small in zip(full, shape, strict=True) if small]
    if len(factors) < 2 or min(factors) <= 1:
        return False
    off = max(abs(large / max(factors) - small) for large, small in zip(full, shape, strict=True))
    return off <= 1 and max(factors) / min(factors) < 1.5
