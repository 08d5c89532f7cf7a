"""Images on another grid: by GDAL's warper, or by taking pixels where that is all it does.

GDAL's kernels are faster where no pixel is missing, so that it hears of missing pixels only where
there are some. How far a kernel reaches is set by the image and the grid, and not by the part that
is warped, so that parts have no seam.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
from l2view.regrid.projection import (
    apply_transform,
    longitudes_around,
    pixel_centres,
    pixel_coordinates,
    project,
)
from l2view.regrid.statistics import pixel_statistics
from l2view.text import unknown_name

type Resampling = Literal[
    "nearest", "bilinear", "cubic", "cubic_spline", "lanczos",
    "average", "mode", "max", "min", "med", "q1", "q3", "sum", "rms"
]  # fmt: skip
"""GDAL's ways to resample."""

RESAMPLINGS: tuple[str, ...] = get_args(Resampling.__value__)

RADIUS = {"bilinear": 1, "cubic": 2, "cubic_spline": 2, "lanczos": 3}
"""The pixels to each side that a kernel reaches, where the image isn't shrunk."""

POINTWISE = frozenset({"nearest", *RADIUS})
"""What takes an image's value at a pixel's centre, and not in all of it."""

SELECTING = frozenset({"nearest", "mode", "min", "max"})
"""What gives a pixel as it is, and computes nothing."""

FRAME = 2  # the width in pixels of the frame around an image of which all pixels in one are taken

OVERSHOOTING = frozenset({"cubic", "lanczos"})
"""The kernels whose values may be beyond those of the pixels, by less than these differ."""

EXACT_WHEN_ALIGNED = frozenset(RESAMPLINGS) - {"cubic_spline", "sum"}
"""What gives a pixel as it is where the grid's pixels are the image's."""

TOLERANCE = 0.01  # by how many pixels a projection may be approximated along a row
ALIGNED = 1e-3  # by how many pixels two grids may be off that are the same

GDAL_DTYPES = {"bool": "uint8", "int8": "int16", "float16": "float32"}
"""Data types that GDAL's warper doesn't have, and which it takes for them."""

PRIME_MERIDIAN = r'PRIMEM\["[^"]*",[-+.0-9eE]+(?:,AUTHORITY\["[^"]*","[^"]*"\])?\]'
"""A prime meridian in WKT 1."""

STEPS = (64, 16, 4)  # the pixels between two points of a mesh, ever fewer until it is exact enough
SUBPIXEL_MESH = 17  # the points along each axis of an image by which its pixels are found on a grid
SUBPIXEL_SIZE = 3.0  # the pixels of a grid along an axis that an image covers at most to be binned
EXACT = 2**53  # the integers up to which GDAL's warper, which counts in doubles, is exact

type Masked = tuple[NDArray[Any], NDArray[np.bool_] | None]
"""Values, and where they are valid, of the same shape; None where they all are."""

type Target = tuple[slice, slice]  # the rows and columns of a part of an output window


@dataclass(frozen=True, eq=False)
class Tile:
    """What an image gives a part of an output window."""

    target: Target  # the rows and columns of the window
    values: NDArray[Any]  # of their shape
    valid: NDArray[np.bool_] | None  # of their shape; None where there is something everywhere

    def shift(self, down: int, across: int) -> Tile:
        """Return it as a tile of a larger window, in which its own begins at a row and column."""
        offsets = zip(self.target, (down, across), strict=True)
        rows, columns = (slice(side.start + by, side.stop + by) for side, by in offsets)
        return replace(self, target=(rows, columns))


@dataclass(frozen=True, eq=False)
class Image:
    """An image with its grid."""

    values: NDArray[Any]  # of shape (rows, columns)
    valid: NDArray[np.bool_] | None  # of the same shape; None where no pixel is missing
    transform: Affine  # from (column, row) to coordinates of `crs`
    crs: CRS
    centre: float = 0.0  # the meridian from which longitudes are counted

    def positions_of(
        self, grid: GeoBox, columns: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the image's rows and columns at points of a grid, of shape (2, …)."""
        x, y = pixel_coordinates(grid, columns, rows, self.crs)
        if self.centre:
            x = longitudes_around(x, self.centre) - self.centre
        across, down = apply_transform(~self.transform, x, y)
        return np.stack([down, across])


@dataclass(frozen=True)
class Kernel:
    """How pixels are resampled."""

    resampling: str  # one of `RESAMPLINGS`
    scale: tuple[float, float]  # the grid's pixels in one of the image, down and across

    @property
    def reach(self) -> tuple[float, float]:
        """The image's pixels to each side, down and across, of which a value is made."""
        if self.resampling == "nearest":
            return 1.0, 1.0
        radius = RADIUS.get(self.resampling, 1)
        down, across = (max(1.0, 1 / max(scale, 1e-6)) for scale in self.scale)
        return radius * down + 1, radius * across + 1


def require_resampling(resampling: Any) -> None:
    """Raise a QueryError where there is no such resampling."""
    if not isinstance(resampling, str) or resampling not in RESAMPLINGS:
        raise QueryError(unknown_name("resampling", str(resampling), RESAMPLINGS))


def warp(image: Image, grid: GeoBox, kernel: Kernel, dtype: np.dtype[Any]) -> Masked:
    """Return an image's values on a grid, in their own data type or, of floats, in `dtype`.

    A QueryError is raised where an integer would be rounded.
    """
    resampling = kernel.resampling
    if image.crs == grid.crs and not image.centre:
        subset = subset_if_aligned(image, grid, resampling)
        if subset is not None:
            return subset
    if resampling == "nearest":
        return _nearest(image, grid)
    if resampling not in POINTWISE:
        binned = bin_subpixel_image(image, grid, resampling)
        if binned is not None:
            return binned
    return _warp_by_gdal(image, grid, kernel, dtype)


def bin_subpixel_image(image: Image, grid: GeoBox, resampling: str) -> Masked | None:
    """Return statistics of an image that is no larger than a few of a grid's pixels, else None.

    GDAL doesn't find what lies within a pixel. The statistics are of the image's pixels whose
    centres lie in each of the grid's.
    """
    if image.centre:
        return None
    assert grid.crs is not None
    points = [np.linspace(0, length, SUBPIXEL_MESH) for length in image.values.shape]
    columns, rows = np.meshgrid(points[1], points[0])
    x, y = project(*apply_transform(image.transform, columns, rows), image.crs, grid.crs)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return None
    height, width = grid.shape
    if grid.crs.geographic:
        middle = apply_transform(grid.transform, np.array(width / 2), np.array(height / 2))[0]
        x = longitudes_around(x, float(middle))
    across, down = apply_transform(~grid.transform, x, y)
    if min(np.ptp(across), np.ptp(down)) > SUBPIXEL_SIZE:
        return None
    centres = [np.arange(length) + 0.5 for length in image.values.shape]
    pixels = []
    for mesh in (down, across):
        rows = np.stack([np.interp(centres[1], points[1], row) for row in mesh])
        pixels.append(np.stack([np.interp(centres[0], points[0], row) for row in rows.T], axis=1))
    row, column = pixels
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    inside &= True if image.valid is None else image.valid
    numbers = row[inside].astype(np.int64) * width + column[inside].astype(np.int64)
    return pixel_statistics(image.values[inside], numbers, (height, width), resampling)


def _nearest(image: Image, grid: GeoBox) -> Masked:
    """Return the image's pixels in which the centres of a grid's lie, as they are.

    Their positions are interpolated on a mesh where that is exact enough, in a third of GDAL's
    time, and projected one by one otherwise.
    """
    height, width = image.values.shape
    shape = (grid.shape[0], grid.shape[1])
    values, valid = np.zeros(shape, image.values.dtype), np.ones(shape, bool)
    pixels = image.values.ravel()
    for rows, (down, across) in _positions(image, grid):
        with np.errstate(invalid="ignore"):
            inside = (down >= 0) & (down < height) & (across >= 0) & (across < width)
        if not inside.all():
            down, across = np.where(inside, down, 0), np.where(inside, across, 0)
        numbers = down.astype(np.int64) * width + across.astype(np.int64)
        pixels.take(numbers, out=values[rows], mode="clip")
        valid[rows] = inside if image.valid is None else inside & image.valid.ravel().take(numbers)
    return values, None if valid.all() else valid


def _positions(image: Image, grid: GeoBox) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield, for one block of a grid's rows after another, its centres' rows and columns."""
    height, width = grid.shape
    mesh = _position_mesh(image, grid)
    if mesh is not None:
        edges, positions = mesh
        for block, (start, stop) in enumerate(pairwise(edges.tolist())):
            rows = np.arange(start, min(stop, height))
            weight = ((rows + 0.5 - start) / (stop - start))[:, None]
            above, below = positions[:, block, None], positions[:, block + 1, None]
            yield slice(start, start + len(rows)), above + weight * (below - above)
        return
    for start in range(0, height, STEPS[0]):
        stop = min(start + STEPS[0], height)
        points = np.meshgrid(np.arange(width) + 0.5, np.arange(start, stop) + 0.5)
        yield slice(start, stop), image.positions_of(grid, *points)


def _position_mesh(
    image: Image, grid: GeoBox
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Return the image's rows and columns at edges between a grid's rows, to interpolate between.

    These are the rows of the grid that begin blocks, and one beyond, of shape (n + 1,), and the
    image's positions there, of shape (2, n + 1, columns of the grid). None where a mesh isn't exact
    enough (`TOLERANCE`).
    """
    height, width = grid.shape
    for step in STEPS:
        # In even steps, the last one beyond the edge; of fewer the bend isn't known.
        rows, columns = (np.arange(-(-n // step) + 1) * step for n in (height, width))
        if len(rows) < 4 or len(columns) < 4:
            continue
        mesh = image.positions_of(grid, *np.meshgrid(columns.astype(float), rows.astype(float)))
        if not np.isfinite(mesh).all():
            return None
        bends = [np.abs(np.diff(mesh, n=2, axis=axis)).max() for axis in (1, 2)]
        if max(bends) / 8 <= TOLERANCE:
            centres = np.arange(width) + 0.5
            return rows, np.array([[np.interp(centres, columns, row) for row in at] for at in mesh])
    return None


def subset_if_aligned(image: Image, grid: GeoBox, resampling: str) -> Masked | None:
    """Return pixels of an image in the grid's CRS that are those of the grid, else None."""
    matrix = ~image.transform @ grid.transform
    if matrix.b or matrix.d:
        return None
    height, width = grid.shape
    length = max(height, width)
    same_size = all(abs(scale - 1) * length < ALIGNED for scale in (matrix.a, matrix.e))
    same_origin = all(abs(offset - round(offset)) < ALIGNED for offset in (matrix.c, matrix.f))
    exact = resampling in EXACT_WHEN_ALIGNED and same_size and same_origin
    if not (resampling == "nearest" or exact):
        return None
    columns = _indices(matrix.a, matrix.c, width)
    rows = _indices(matrix.e, matrix.f, height)
    values, valid = image.values, image.valid
    inside = [(at >= 0) & (at < n) for at, n in zip((rows, columns), values.shape, strict=True)]
    if all(mask.all() for mask in inside):
        subset = _take(values, rows, columns)
        return subset, None if valid is None else _take(valid, rows, columns)
    rows, columns = rows.clip(0, values.shape[0] - 1), columns.clip(0, values.shape[1] - 1)
    mask = inside[0][:, None] & inside[1][None, :]
    if valid is not None:
        mask &= _take(valid, rows, columns)
    return _take(values, rows, columns), mask


def _indices(scale: float, offset: float, count: int) -> NDArray[np.int64]:
    """Return the image's pixel in which the centre of each of a grid's lies, along an axis.

    One between two pixels is in the second, whichever way rounding goes.
    """
    at = scale * (np.arange(count) + 0.5) + offset
    return np.floor(at + 1e-6 * abs(scale)).astype(np.int64)


def _take(
    values: NDArray[Any], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[Any]:
    """Return some rows and columns; without a copy where they follow one another."""
    if all(len(at) == 1 or (np.diff(at) == 1).all() for at in (rows, columns)):
        return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return values[rows[:, None], columns[None, :]]


@lru_cache(maxsize=512)
def _rasterio_crs(wkt: str) -> rasterio.crs.CRS:
    return rasterio.crs.CRS.from_wkt(wkt)


def _warp_by_gdal(image: Image, grid: GeoBox, kernel: Kernel, dtype: np.dtype[Any]) -> Masked:
    values, valid, transform = image.values, image.valid, image.transform
    source, resampling = values.dtype, kernel.resampling
    if resampling not in POINTWISE:
        # Else what GDAL makes of all pixels in one of the grid's that is partly beyond the image's
        # edge depends on what else is warped.
        valid = np.pad(np.ones(values.shape, bool) if valid is None else valid, FRAME)
        values = np.pad(values, FRAME)
        transform = transform @ Affine.translation(-FRAME, -FRAME)
    values, nodata = _with_nodata(_in_gdal_dtype(values, valid), valid, resampling)
    computed = values.dtype
    if dtype.kind == "f" and computed.kind in "iu":
        computed = np.result_type(dtype, np.float32)
    missing = np.nan if computed.kind == "f" else nodata
    if valid is not None:
        values = np.where(valid, values, values.dtype.type(nodata))
    assert grid.crs is not None
    warped = np.full(grid.shape, missing, dtype=computed)
    options: dict[str, Any] = {}
    if resampling in RADIUS:
        down, across = kernel.scale
        options = {"YSCALE": _snap_scale(down), "XSCALE": _snap_scale(across)}
    with QUIET:  # of what rasterio hides in a way that isn't for threads
        rasterio.warp.reproject(
            np.ascontiguousarray(values),
            warped,
            src_transform=transform,
            src_crs=_rasterio_crs(counted_from(image.crs, image.centre)),
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
    present = warped == warped if computed.kind == "f" else warped != missing
    if computed.kind in "iu" and computed != source and resampling != "sum":
        warped = cast(warped, np.dtype(np.uint8) if source.kind == "b" else source)
    return warped, None if present.all() else present


def cast(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return values in a data type; in one of integers they are rounded, and clipped to it."""
    if values.dtype == dtype:
        return values
    if dtype.kind in "iu" and values.dtype.kind in "iuf":
        bounds = np.iinfo(dtype)
        if values.dtype.kind == "f":
            rounded = np.nan_to_num(np.rint(values).astype(np.float64))
            with np.errstate(invalid="ignore"):  # the largest integers of 64 bits are no floats
                integers = rounded.clip(bounds.min, bounds.max).astype(dtype)
            return np.where(rounded >= float(bounds.max), dtype.type(bounds.max), integers)
        limits = np.iinfo(values.dtype)
        low, high = max(bounds.min, limits.min), min(bounds.max, limits.max)
        return values.clip(low, high).astype(dtype)
    with np.errstate(over="ignore"):  # what is too large for singles is infinite
        return values.astype(dtype)


def _in_gdal_dtype(values: NDArray[Any], valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Return values in a data type that GDAL's warper has, and in the machine's byte order."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype.itemsize == 8 and values.dtype.kind in "iu":
        farthest = max(_extremes(values, valid), key=abs)
        if abs(farthest) > EXACT:
            raise QueryError(
                f"{farthest:,} is an integer that can't be resampled exactly: take "
                'resampling="nearest"'
            )
    wider = GDAL_DTYPES.get(values.dtype.name)
    return values if wider is None else values.astype(wider)


def _extremes(values: NDArray[Any], valid: NDArray[np.bool_] | None) -> tuple[int, int]:
    values = values if valid is None else values[valid]
    return (int(values.min()), int(values.max())) if values.size else (0, 0)


def _with_nodata(
    values: NDArray[Any], valid: NDArray[np.bool_] | None, resampling: str
) -> tuple[NDArray[Any], Any]:
    """Return values, and a value that none of them has nor resampling makes of them.

    Where their data type has none, they are in a larger one.
    """
    if values.dtype.kind == "f":
        return values, np.nan
    bounds = np.iinfo(values.dtype)
    if values.dtype.itemsize == 8:
        return values, EXACT + 2 if bounds.min == 0 else -EXACT - 2
    if resampling == "sum":  # of as many pixels as there may be
        return values.astype(np.int64), -EXACT - 2
    low, high = _extremes(values, valid)
    beyond = (high - low + 1) * (resampling in OVERSHOOTING)
    if high + beyond < bounds.max:
        return values, bounds.max
    if low - beyond > bounds.min:
        return values, bounds.min
    larger = np.dtype({1: "i2", 2: "i4"}.get(values.dtype.itemsize, "i8"))
    return values.astype(larger), -EXACT - 2 if larger.itemsize == 8 else np.iinfo(larger).min


def _snap_scale(scale: float) -> float:
    """Return a scale, 1 where it nearly is, as that of two projections of one place."""
    return 1.0 if abs(scale - 1) < 0.05 else scale


def counted_from(crs: CRS, centre: float) -> str:
    """Return the WKT of a geographic CRS whose longitudes are counted from another meridian."""
    if not centre:
        return str(crs.to_wkt())
    prime_meridian = crs.proj.prime_meridian
    meridian = centre + (0.0 if prime_meridian is None else float(prime_meridian.longitude))
    wkt = crs.to_wkt(version=WktVersion.WKT1_GDAL)
    shifted = re.sub(PRIME_MERIDIAN, f'PRIMEM["of the window",{meridian!r}]', wkt, count=1)
    return re.sub(r',AUTHORITY\["[^"]*","[^"]*"\]\]$', "]", shifted)


def is_within_quarter_turn(grid: GeoBox, crs: CRS, centre: float) -> NDArray[np.bool_]:
    """Mask of the grid's pixels within 90° of a meridian, of its shape."""
    x, _ = pixel_coordinates(grid, *pixel_centres(grid), crs)
    far = np.abs(longitudes_around(x, centre) - centre)
    with np.errstate(invalid="ignore"):
        # One that lies at 90° is on one side only.
        return np.asarray(far < 90 if centre == 0 else far <= 90)
