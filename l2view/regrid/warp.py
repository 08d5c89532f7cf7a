"""Images brought onto a grid: by GDAL's warper, or by taking pixels where that is all it does.

GDAL's kernels are faster where no pixel is missing, so that what is missing is told to them just
where some are. How far a kernel reaches is set by the image and the grid, and not by the part
that is warped, so that parts have no seam.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
import rasterio.crs
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj.enums import WktVersion

from l2view.arrays.quiet import QUIET
from l2view.errors import QueryError
from l2view.regrid.overlaps import apply, around, project
from l2view.regrid.statistics import by_pixel
from l2view.regrid.values import cast
from l2view.text import unknown_name

type Resampling = Literal[
    "nearest",
    "bilinear",
    "cubic",
    "cubic_spline",
    "lanczos",
    "average",
    "mode",
    "max",
    "min",
    "med",
    "q1",
    "q3",
    "sum",
    "rms",
]
"""GDAL's ways to resample."""

RESAMPLINGS: tuple[str, ...] = get_args(Resampling.__value__)

RADIUS = {"bilinear": 1, "cubic": 2, "cubic_spline": 2, "lanczos": 3}
"""The pixels to each side that a kernel reaches, where the image isn't shrunk."""

POINTS = frozenset({"nearest", *RADIUS})
"""What asks an image for its value at a pixel's centre, and not in all of it."""

PICKED = frozenset({"nearest", "mode", "min", "max"})
"""What gives a pixel as it is, and computes nothing."""

FRAME = 2
"""The pixels of the frame around an image that is asked for those in a pixel."""

OVERSHOOTING = frozenset({"cubic", "lanczos"})
"""The kernels whose values may be beyond those of the pixels, by less than these differ."""

SAME = frozenset({"nearest", "bilinear", "cubic", "lanczos", "average", "mode"}) | {
    "max",
    "min",
    "med",
    "q1",
    "q3",
    "rms",
}
"""What gives a pixel as it is where the grid's pixels are the image's."""

TOLERANCE = 0.01
"""By how many pixels a projection may be approximated along a row."""

ALIKE = 1e-3
"""By how many pixels two grids may be off that are the same."""

WIDER = {"bool": "uint8", "int8": "int16", "float16": "float32"}
"""Data types that GDAL's warper doesn't have, and which it takes for them."""

PRIME_MERIDIAN = r'PRIMEM\["[^"]*",[-+.0-9eE]+(?:,AUTHORITY\["[^"]*","[^"]*"\])?\]'
"""A prime meridian in WKT 1."""

STEPS = (64, 16, 4)
"""The pixels between two points of a mesh, ever fewer until it tells."""

MESH = 17
"""The points along each axis of an image by which it is found where it lies on a grid."""

FEW_PIXELS = 3.0
"""The pixels of a grid along an axis that an image covers at most to be counted out."""

EXACT = 2**53
"""The integers up to which GDAL's warper, which counts in doubles, is exact."""


def require_resampling(said: Any) -> None:
    """Raise where there is no such resampling.

    Raises
    ------
    QueryError
        Naming those that there are.
    """
    if not isinstance(said, str) or said not in RESAMPLINGS:
        raise QueryError(unknown_name("resampling", str(said), RESAMPLINGS))


def reach(resampling: str, scale: tuple[float, float]) -> tuple[float, float]:
    """Return how many pixels a value is made of to each side, along rows' axis and columns'.

    Parameters
    ----------
    resampling
        How.
    scale
        The grid's pixels in one of the image, down and across.
    """
    if resampling == "nearest":
        return 1.0, 1.0
    radius = RADIUS.get(resampling, 1)
    down, across = (max(1.0, 1 / max(one, 1e-6)) for one in scale)
    return radius * down + 1, radius * across + 1


type Target = tuple[slice, slice]
"""The rows and columns of a part of an output window."""


@dataclass(frozen=True, eq=False)
class Piece:
    """What an image gives a part of an output window.

    Attributes
    ----------
    target
        The rows and columns of the window.
    values
        Of their shape.
    valid
        Of their shape, False where there is nothing; None where there is something everywhere.
    """

    target: Target
    values: NDArray[Any]
    valid: NDArray[np.bool_] | None


@lru_cache(maxsize=512)
def _rasterio_crs(wkt: str) -> rasterio.crs.CRS:
    return rasterio.crs.CRS.from_wkt(wkt)


def warp(
    image: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    transform: Affine,
    crs: CRS,
    grid: GeoBox,
    resampling: str,
    scale: tuple[float, float],
    dtype: np.dtype[Any],
    centre: float = 0.0,
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return an image on a grid.

    Parameters
    ----------
    image
        Of shape (rows, columns).
    valid
        Of the same shape, False where a pixel is missing; None where none is.
    transform
        From the image's (column, row) to coordinates of `crs`.
    crs
        The image's CRS.
    grid
        The grid.
    resampling
        One of `RESAMPLINGS`.
    scale
        The grid's pixels in one of the image, down and across.
    dtype
        What values are wanted: those of integers are made in it where it is of floats.
    centre
        The meridian that the longitudes of an image in degrees are counted from.

    Returns
    -------
    values
        Of the grid's shape, in `dtype` or the image's.
    valid
        Of the grid's shape, False where there is nothing; None where there is something
        everywhere.
    """
    if crs == grid.crs and not centre:
        height, width = grid.shape
        matrix = ~transform @ grid.transform
        taken = _taken(image, valid, matrix, (height, width), resampling)
        if taken is not None:
            return taken
    if resampling == "nearest":
        return _nearest(image, valid, transform, crs, grid, centre)
    if resampling not in POINTS:
        held = _held(image, valid, transform, crs, grid, resampling, centre)
        if held is not None:
            return held
    wkt = counted_from(crs, centre)
    return _warped(image, valid, transform, wkt, grid, resampling, scale, dtype)


def _held(
    image: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    transform: Affine,
    crs: CRS,
    grid: GeoBox,
    resampling: str,
    centre: float,
) -> tuple[NDArray[Any], NDArray[np.bool_] | None] | None:
    """Return an image that is no larger than a few of a grid's pixels; None where it is.

    GDAL doesn't find what lies within a pixel. The statistics are of the image's pixels whose
    centres lie in each.
    """
    if centre:
        return None
    assert grid.crs is not None
    points = [np.linspace(0, length, MESH) for length in image.shape]
    columns, rows = np.meshgrid(points[1], points[0])
    x, y = project(*apply(transform, columns, rows), crs, grid.crs)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    if grid.crs.geographic:
        x = around(x, float(apply(grid.transform, *(np.array(n / 2) for n in grid.shape[::-1]))[0]))
    across, down = apply(~grid.transform, x, y)
    if min(np.ptp(across), np.ptp(down)) > FEW_PIXELS:
        return None
    height, width = grid.shape
    centres = [np.arange(length) + 0.5 for length in image.shape]
    at = []
    for places in (down, across):
        between = np.stack([np.interp(centres[1], points[1], row) for row in places])
        at.append(np.stack([np.interp(centres[0], points[0], one) for one in between.T], axis=1))
    inside = (at[0] >= 0) & (at[0] < height) & (at[1] >= 0) & (at[1] < width)
    inside &= True if valid is None else valid
    numbers = at[0][inside].astype(np.int64) * width + at[1][inside].astype(np.int64)
    return by_pixel(image[inside], numbers, (height, width), resampling)


def _nearest(
    image: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    transform: Affine,
    crs: CRS,
    grid: GeoBox,
    centre: float,
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the pixels of an image that the centres of a grid's lie in.

    Where they lie is interpolated on a mesh where that is exact enough, in a third of GDAL's time,
    and projected one by one otherwise. Values of all types stay as they are.
    """
    height, width = image.shape
    shape = (grid.shape[0], grid.shape[1])
    found, there = np.zeros(shape, image.dtype), np.ones(shape, bool)
    pixels = image.ravel()
    for rows, down, across in _places(transform, crs, grid, centre):
        with np.errstate(invalid="ignore"):
            inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
        whole = bool(inside.all())
        down, across = (one if whole else np.where(inside, one, 0) for one in (down, across))
        at = down.astype(np.int64) * width + across.astype(np.int64)
        pixels.take(at, out=found[rows], mode="clip")
        there[rows] = inside if valid is None else inside & valid.ravel().take(at)
    return found, None if there.all() else there


def _places(
    transform: Affine, crs: CRS, grid: GeoBox, centre: float
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.float64]]]:
    """Yield, for some rows of a grid after others, where their pixels' centres lie in an image."""
    assert grid.crs is not None
    height, width = grid.shape
    mesh = _mesh(transform, crs, grid, centre)
    if mesh is not None:
        edges, down, across = mesh
        for block, (first, last) in enumerate(pairwise(edges.tolist())):
            rows = np.arange(first, min(last, height))
            along = ((rows + 0.5 - first) / (last - first))[:, None]
            between = [at[block] + along * (at[block + 1] - at[block]) for at in (down, across)]
            yield slice(first, first + len(rows)), between[0], between[1]
        return
    for first in range(0, height, STEPS[0]):
        last = min(first + STEPS[0], height)
        points = np.meshgrid(np.arange(width) + 0.5, np.arange(first, last) + 0.5)
        x, y = project(*apply(grid.transform, points[0], points[1]), grid.crs, crs)
        across, down = apply(~transform, around(x, centre) - centre if centre else x, y)
        yield slice(first, last), down, across


def _mesh(
    transform: Affine, crs: CRS, grid: GeoBox, centre: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]] | None:
    """Return where the centres of a grid's pixels lie in an image, on some edges between rows.

    Returns
    -------
    edges
        The rows of the grid that begin blocks, and one beyond, of shape (n + 1,).
    down, across
        The rows and columns of the image, of shape (n + 1, columns of the grid). Between two
        edges they may be interpolated. None of all where a mesh doesn't tell (`TOLERANCE`).
    """
    assert grid.crs is not None
    height, width = grid.shape
    for step in STEPS:
        # In even steps, the last one beyond the edge; with fewer it isn't known how it bends.
        rows, columns = (np.arange(-(-n // step) + 1) * step for n in (height, width))
        if len(rows) < 4 or len(columns) < 4:
            continue
        points = np.meshgrid(columns.astype(float), rows.astype(float))
        x, y = project(*apply(grid.transform, points[0], points[1]), grid.crs, crs)
        if centre:
            x = around(x, centre) - centre
        found = apply(~transform, x, y)
        if not all(np.isfinite(one).all() for one in found):
            return None
        bent = [np.abs(np.diff(one, n=2, axis=axis)) for one in found for axis in (0, 1)]
        if max(float(one.max(initial=0.0)) for one in bent) / 8 <= TOLERANCE:
            centres = np.arange(width) + 0.5
            across, down = (
                np.stack([np.interp(centres, columns, row) for row in one]) for one in found
            )
            return rows, down, across
    return None


def _taken(
    image: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    matrix: Affine,
    shape: tuple[int, int],
    resampling: str,
) -> tuple[NDArray[Any], NDArray[np.bool_] | None] | None:
    """Return pixels of an image that are those of a grid, None where they aren't so simple.

    Parameters
    ----------
    matrix
        From the grid's (column, row) to the image's.
    """
    if matrix.b or matrix.d:
        return None
    moved = (matrix.c, matrix.f)
    alike = abs(matrix.a - 1) * max(shape) < ALIKE and abs(matrix.e - 1) * max(shape) < ALIKE
    whole = all(abs(one - round(one)) < ALIKE for one in moved)
    if not (resampling == "nearest" or (resampling in SAME and alike and whole)):
        return None
    across = _indices(matrix.a, matrix.c, shape[1])
    down = _indices(matrix.e, matrix.f, shape[0])
    inside = [(at >= 0) & (at < n) for at, n in ((down, image.shape[0]), (across, image.shape[1]))]
    if all(one.all() for one in inside):
        own = _picked(image, down, across)
        return own, None if valid is None else _picked(valid, down, across)
    down, across = down.clip(0, image.shape[0] - 1), across.clip(0, image.shape[1] - 1)
    there = inside[0][:, None] & inside[1][None, :]
    if valid is not None:
        there &= _picked(valid, down, across)
    return _picked(image, down, across), there


def _indices(scale: float, offset: float, count: int) -> NDArray[np.int64]:
    """Return which pixel of an image the centre of each of a grid's lies in.

    One that lies between two is of the second, whichever way rounding goes.
    """
    at = scale * (np.arange(count) + 0.5) + offset
    return np.floor(at + 1e-6 * abs(scale)).astype(np.int64)


def _picked(
    values: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[Any]:
    """Return some rows and columns; those that follow one another without a copy."""
    if all(len(one) == 1 or (np.diff(one) == 1).all() for one in (rows, columns)):
        return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return values[rows[:, None], columns[None, :]]


def _warped(
    image: NDArray[Any],
    valid: NDArray[np.bool_] | None,
    transform: Affine,
    wkt: str,
    grid: GeoBox,
    resampling: str,
    scale: tuple[float, float],
    dtype: np.dtype[Any],
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return an image on a grid, by GDAL's warper."""
    own = image.dtype
    if resampling not in POINTS:
        image, valid, transform = _framed(image, valid, transform)
    image, nodata = _with_nodata(_widened(image, valid), valid, resampling)
    kept = image.dtype
    if dtype.kind == "f" and kept.kind in "iu":
        kept = np.result_type(dtype, np.float32)
    missing = np.nan if kept.kind == "f" else nodata
    if valid is not None:
        image = np.where(valid, image, image.dtype.type(nodata))
    assert grid.crs is not None
    found = np.full(grid.shape, missing, dtype=kept)
    options: dict[str, Any] = {}
    if resampling in RADIUS:
        options = {"YSCALE": _near(scale[0]), "XSCALE": _near(scale[1])}
    with QUIET:  # of what rasterio hides in a way that isn't for threads
        rasterio.warp.reproject(
            np.ascontiguousarray(image),
            found,
            src_transform=transform,
            src_crs=_rasterio_crs(wkt),
            src_nodata=None if valid is None else nodata,
            dst_transform=grid.transform,
            dst_crs=_rasterio_crs(grid.crs.to_wkt()),
            dst_nodata=None if valid is None else missing,
            # Where pixels are missing, values made of few of them would be mixed with what stands
            # there; otherwise none is, and kernels are used that know of nothing missing.
            init_dest_nodata=valid is not None,
            resampling=rasterio.warp.Resampling[resampling],
            tolerance=TOLERANCE,
            **options,
        )
    there = found == found if kept.kind == "f" else found != missing
    if kept.kind in "iu" and kept != own and resampling != "sum":
        found = cast(found, np.dtype(np.uint8) if own.kind == "b" else own)
    return found, None if there.all() else there


def _framed(
    image: NDArray[Any], valid: NDArray[np.bool_] | None, transform: Affine
) -> tuple[NDArray[Any], NDArray[np.bool_], Affine]:
    """Return an image with a frame of missing pixels.

    What GDAL makes of all pixels in one of the grid's, where that is partly beyond the image's
    edge, otherwise depends on what else is warped.
    """
    there = np.ones(image.shape, bool) if valid is None else valid
    moved = transform @ Affine.translation(-FRAME, -FRAME)
    return np.pad(image, FRAME), np.pad(there, FRAME), moved


def _widened(image: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Return an image in a data type that GDAL's warper has, and in the machine's byte order.

    Raises
    ------
    QueryError
        Where an integer is one that it would round.
    """
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.dtype.itemsize == 8 and image.dtype.kind in "iu":
        taken = image if valid is None else image[valid]
        ends = (int(taken.min()), int(taken.max())) if taken.size else (0, 0)
        farthest = max(ends, key=abs)
        if abs(farthest) > EXACT:
            raise QueryError(
                f"{farthest:,} is an integer that can't be resampled exactly: take "
                'resampling="nearest"'
            )
    wider = WIDER.get(image.dtype.name)
    return image if wider is None else image.astype(wider)


def _with_nodata(
    image: NDArray[Any], valid: NDArray[np.bool_] | None, resampling: str
) -> tuple[NDArray[Any], Any]:
    """Return an image, and a value that none of its pixels has nor resampling makes of them.

    Where its data type has none, it is in a larger one.
    """
    if image.dtype.kind == "f":
        return image, np.nan
    bounds = np.iinfo(image.dtype)
    if image.dtype.itemsize == 8:
        return image, EXACT + 2 if bounds.min == 0 else -EXACT - 2
    taken = image if valid is None else image[valid]
    low, high = (int(taken.min()), int(taken.max())) if taken.size else (0, 0)
    beyond = (high - low + 1) * (resampling in OVERSHOOTING)
    if resampling == "sum":  # of as many pixels as there may be
        return image.astype(np.int64), -EXACT - 2
    if high + beyond < bounds.max:
        return image, bounds.max
    if low - beyond > bounds.min:
        return image, bounds.min
    larger = np.dtype({1: "i2", 2: "i4"}.get(image.dtype.itemsize, "i8"))
    return image.astype(larger), -EXACT - 2 if larger.itemsize == 8 else np.iinfo(larger).min


def _near(scale: float) -> float:
    """Return a scale, 1 where it nearly is, as that of two projections of one place."""
    return 1.0 if abs(scale - 1) < 0.05 else scale


def counted_from(crs: CRS, centre: float) -> str:
    """Return the WKT of a geographic CRS whose longitudes are counted from another meridian."""
    if not centre:
        return str(crs.to_wkt())
    own = crs.proj.prime_meridian
    meridian = centre + (0.0 if own is None else float(own.longitude))
    wkt = crs.to_wkt(version=WktVersion.WKT1_GDAL)
    shifted = re.sub(PRIME_MERIDIAN, f'PRIMEM["of the window",{meridian!r}]', wkt, count=1)
    return re.sub(r',AUTHORITY\["[^"]*","[^"]*"\]\]$', "]", shifted)


def is_within(grid: GeoBox, crs: CRS, centre: float) -> NDArray[np.bool_]:
    """Return which pixels of a grid lie within 90° of a meridian, of its shape."""
    assert grid.crs is not None
    columns, rows = np.meshgrid(np.arange(grid.shape[1]) + 0.5, np.arange(grid.shape[0]) + 0.5)
    x, _ = project(*apply(grid.transform, columns, rows), grid.crs, crs)
    far = np.abs(around(x, centre) - centre)
    with np.errstate(invalid="ignore"):
        # One that lies at 90° is on one side only.
        return np.asarray(far < 90 if centre == 0 else far <= 90)
