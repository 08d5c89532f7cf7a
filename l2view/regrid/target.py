"""The grid that a mosaic is made on."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from odc.geo.types import resxy_
from pyproj.exceptions import CRSError

from l2view.errors import QueryError
from l2view.regrid.overlaps import project
from l2view.search.place import box

POINTS = 65
"""The points of a bounding box along each side that are projected."""

MOST_AT_ONCE = 1 << 28
"""The most pixels of a chunk."""

MOST_CHUNKS = 10_000_000
"""The most chunks of a band."""

DEGREE = 111_320.0
"""Metres in a degree of the equator."""

MOST_DEGREES = 10.0
"""The size of a pixel from which degrees are taken for metres."""

FAR = 2.1e7
"""The metres from a projection's origin beyond which nothing of the globe need lie."""

DEGREES = CRS("EPSG:4326")


def crs_of(said: Any) -> CRS:
    """Return a CRS.

    Raises
    ------
    QueryError
        Where it is none.
    """
    try:
        found = CRS(said)
    except (CRSError, TypeError, ValueError) as error:
        raise QueryError(
            f'crs={said!r} is no CRS: name one as "EPSG:32631", by WKT or by PROJ\'s parameters'
        ) from error
    if not (found.geographic or found.projected) or len(found.proj.axis_info) > 2:
        raise QueryError(
            f"crs={said!r} has no two axes on a map: a mosaic takes a geographic or projected CRS "
            "of two dimensions"
        )
    return found


def resolution_of(said: Any) -> tuple[float, float]:
    """Return the size of a pixel along x and y, both positive.

    Raises
    ------
    QueryError
        Where it is none.
    """
    several = isinstance(said, Sequence | np.ndarray) and not isinstance(said, str)
    pair = tuple(said) if several else (said, said)
    whole = len(pair) == 2 and all(
        isinstance(one, numbers.Real) and not isinstance(one, bool) for one in pair
    )
    if not whole or not all(math.isfinite(one) and one != 0 for one in pair):
        raise QueryError(
            f"resolution={said!r} is no size of a pixel: a number in the CRS's unit, or a pair of "
            "them, along x and y"
        )
    return abs(float(pair[0])), abs(float(pair[1]))


def metres(crs: CRS) -> float:
    """Return the metres in a unit of a CRS, in degrees those at the equator."""
    if crs.geographic:
        return DEGREE
    return float(crs.proj.axis_info[0].unit_conversion_factor)


def require_unit(crs: CRS, resolution: tuple[float, float], native: NDArray[np.float64]) -> None:
    """Raise where a resolution is in metres and the CRS's unit are degrees, or the other way.

    Parameters
    ----------
    crs
        The CRS of the target.
    resolution
        The size of a pixel.
    native
        The sizes of the sources' pixels in metres, of those that are known.

    Raises
    ------
    QueryError
        Saying what it would be in the right unit.
    """
    finest = min(resolution)
    meant = finest / DEGREE if crs.geographic else finest * DEGREE / metres(crs)
    if len(native):
        own = float(np.median(native))
        as_said, as_meant = (one * metres(crs) / own for one in (finest, meant))
        # A map may be in degrees of scenes in metres, but hardly in ten of them.
        far = (as_said > 1e3 and finest >= MOST_DEGREES) if crs.geographic else as_said < 1e-3
        wrong = far and 1e-2 <= as_meant <= 1e2
    else:
        wrong = finest >= 2 * MOST_DEGREES if crs.geographic else finest * metres(crs) < 0.01
    if wrong:
        unit, other = ("degrees", "metres") if crs.geographic else ("metres", "degrees")
        if not crs.geographic:
            unit = str(crs.proj.axis_info[0].unit_name)
        raise QueryError(
            f"resolution={finest:g} is in {unit}, the unit of {name_of(crs)}, and looks like "
            f"{other}: that is resolution={meant:.6g}"
        )


def name_of(crs: CRS) -> str:
    """Return a short name for a CRS."""
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs.proj.name)


def geobox_like(said: Any) -> GeoBox:
    """Return the grid of something that has one.

    Parameters
    ----------
    said
        A `GeoBox` of odc.geo's, or a DataArray or Dataset of xarray's with coordinates and a CRS.

    Raises
    ------
    QueryError
        Where it has none.
    """
    import odc.geo.xr  # noqa: F401 (which gives xarray's objects theirs)

    found = (
        said if isinstance(said, GeoBox) else getattr(getattr(said, "odc", None), "geobox", None)
    )
    if not isinstance(found, GeoBox) or found.crs is None:
        raise QueryError(
            f"like={type(said).__name__} has no grid: pass a GeoBox of odc.geo, or a DataArray "
            "with evenly spaced coordinates and a CRS, as ds.rio.write_crs() and "
            "ds.odc.assign_crs() give it"
        )
    return found


def geobox_within(
    crs: CRS, resolution: tuple[float, float], bbox: Sequence[float] | None, hull: NDArray[Any]
) -> GeoBox:
    """Return a grid whose pixels lie at multiples of their size.

    Parameters
    ----------
    crs
        Its CRS.
    resolution
        The size of a pixel along x and y.
    bbox
        What it covers: west, south, east, north in degrees (EPSG:4326).
    hull
        What it covers otherwise, in its CRS.

    Raises
    ------
    QueryError
        Where it would cover nothing.
    """
    bounds = hull if bbox is None else _projected(bbox, crs)
    if not np.isfinite(bounds).all():
        what = "what the granules cover" if bbox is None else f"bbox={tuple(bbox)}"
        raise QueryError(
            f"{name_of(crs)} has no place for {what}; pass "
            + ("bbox= or like=" if bbox is None else "another bbox=, or like=")
        )
    x, y = resolution
    left, bottom, right, top = bounds.tolist()
    return GeoBox.from_bbox(BoundingBox(left, bottom, right, top, crs), resolution=resxy_(x, -y))


def _projected(bbox: Sequence[float], crs: CRS) -> NDArray[np.float64]:
    """Return the bounds of a box in degrees in a CRS."""
    box(bbox)  # which says what is wrong with it
    west, south, east, north = map(float, bbox)
    if west > east:
        east += 360
    longitudes, latitudes = np.meshgrid(
        np.linspace(west, east, POINTS), np.linspace(south, north, POINTS)
    )
    if crs.geographic:
        return np.array([west, south, east, north])
    return hull_of(*project(longitudes, latitudes, DEGREES, crs), crs)


def hull_of(x: NDArray[np.float64], y: NDArray[np.float64], crs: CRS) -> NDArray[np.float64]:
    """Return west, south, east and north of points in a CRS, NaN where it has none of them.

    Those are left out that lie farther away than the globe is large, as the pole opposite does.
    """
    known = np.isfinite(x) & np.isfinite(y)
    if crs.geographic:
        y = np.clip(y, -90, 90)
    else:
        known &= np.maximum(np.abs(x), np.abs(y)) * metres(crs) <= FAR
    if not known.any():
        return np.full(4, np.nan)
    return np.array([x[known].min(), y[known].min(), x[known].max(), y[known].max()])


def together(hulls: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return what holds several hulls, those that are NaN left out."""
    if not hulls:
        return np.full(4, np.nan)
    stacked = np.stack(hulls)
    return np.concatenate([np.fmin.reduce(stacked[:, :2]), np.fmax.reduce(stacked[:, 2:])])


def chunks_of(said: Any, shape: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns of a chunk.

    Parameters
    ----------
    said
        A number, a pair, or None for one chunk.
    shape
        That of the grid.

    Raises
    ------
    QueryError
        Where it is none, or would make too many chunks or too large ones.
    """
    pair = said if isinstance(said, Sequence) and not isinstance(said, str) else (said, said)
    if len(pair) != 2 or not all(map(_is_length, pair)):
        raise QueryError(
            f"chunks={said!r} is not the rows and columns of a chunk, such as (1024, 1024)"
        )
    found = [
        length if one in (None, -1) else min(int(one), length)
        for one, length in zip(pair, shape, strict=True)
    ]
    rows, columns = (max(one, 1) for one in found)
    if rows * columns > MOST_AT_ONCE:
        raise QueryError(
            f"a chunk of {rows:,} × {columns:,} pixels is more than is made at once; the mosaic "
            f"has {shape[0]:,} × {shape[1]:,}: pass chunks=(1024, 1024), a bbox=, or a coarser "
            "resolution="
        )
    count = math.ceil(shape[0] / rows) * math.ceil(shape[1] / columns)
    if count > MOST_CHUNKS:
        raise QueryError(
            f"the mosaic would have {shape[0]:,} × {shape[1]:,} pixels in {count:,} chunks: pass a "
            "bbox=, a coarser resolution= or larger chunks="
        )
    return rows, columns


def _is_length(said: Any) -> bool:
    """Return whether something is the length of a chunk: None and -1 are that of the mosaic."""
    whole = isinstance(said, int | np.integer) and not isinstance(said, bool)
    return said is None or bool(whole and (said > 0 or said == -1))
