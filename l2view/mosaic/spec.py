"""What a mosaic is to be: its grid, its bands, and how granules become one image."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import odc.geo.xr  # noqa: F401 (which gives xarray's objects their grids)
from numpy.typing import DTypeLike
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError

from l2view.errors import QueryError
from l2view.geolocation.bands import Bands
from l2view.mosaic.composite import Reduce, require_reduce
from l2view.regrid.warp import Resampling, require_resampling
from l2view.search.place import corners

type Chunks = tuple[int, int] | int | None
"""The rows and columns of a chunk of a mosaic; None for one chunk."""

MAX_CHUNK_PIXELS = 1 << 28
MAX_CHUNKS = 10_000_000  # of a band


@dataclass(frozen=True, kw_only=True)
class MosaicSpec:
    """What a mosaic is to be, checked as far as it can be without granules.

    The fields are the options of `l2view.mosaic`.

    Raises
    ------
    QueryError
        Where an option is wrong, or the grid isn't given, or twice.
    """

    crs: Any = None
    resolution: float | Sequence[float] | None = None
    bbox: Sequence[float] | str | None = None
    like: Any = None
    bands: Bands = None
    chunks: Chunks = (1024, 1024)
    resampling: Resampling = "nearest"
    nodata: float | None = None
    dtype: DTypeLike | None = None
    order_by: str | Sequence[str] | None = None
    reduce: Reduce = "first"
    group_by: str | None = None
    epoch: Any = "2000-01-01"

    def __post_init__(self) -> None:
        if self.nodata is not None and not _is_real(self.nodata):
            raise QueryError(f"nodata={self.nodata!r} is no number")
        require_resampling(self.resampling)
        require_reduce(self.reduce)
        if self.like is None and (self.crs is None or self.resolution is None):
            raise QueryError("a mosaic takes crs= and resolution=, or like=")
        if self.like is not None and (self.crs, self.resolution, self.bbox) != (None,) * 3:
            raise QueryError("like= is the whole grid: leave crs=, resolution= and bbox= out")
        _ = self.corners, self.result_dtype, self.target_crs, self.pixel_size, self.first_instant

    @cached_property
    def grid(self) -> GeoBox | None:
        """The grid of `like`."""
        return None if self.like is None else _geobox_like(self.like)

    @cached_property
    def corners(self) -> tuple[float, float, float, float] | None:
        """West, south, east and north of `bbox`."""
        return None if self.bbox is None else corners(self.bbox)

    @cached_property
    def target_crs(self) -> CRS:
        """The CRS of the mosaic."""
        grid = self.grid
        return _parse_crs(self.crs) if grid is None or grid.crs is None else grid.crs

    @cached_property
    def pixel_size(self) -> tuple[float, float]:
        """The size of a pixel along x and y, both positive."""
        if self.grid is None:
            return _parse_resolution(self.resolution)
        return abs(self.grid.resolution.x), abs(self.grid.resolution.y)

    @cached_property
    def first_instant(self) -> np.datetime64:
        """The epoch, in microseconds."""
        try:
            instant = np.datetime64(self.epoch, "us")
        except (TypeError, ValueError) as error:
            raise QueryError(f"epoch={self.epoch!r} is no time, such as 2000-01-01") from error
        if np.isnat(instant):
            raise QueryError(f"epoch={self.epoch!r} is no time, such as 2000-01-01")
        return instant

    @cached_property
    def result_dtype(self) -> np.dtype[Any] | None:
        """The data type that is asked for, None for that of the values."""
        if self.dtype is None:
            return None
        try:
            dtype = np.dtype(self.dtype)
        except TypeError as error:
            raise QueryError(f"dtype={self.dtype!r} is no data type") from error
        if dtype.kind not in "iuf" or dtype.itemsize > 8 or dtype.name == "float16":
            raise QueryError(
                f"dtype={self.dtype!r}: a mosaic has integers, or floats of 32 or 64 bits"
            )
        return dtype

    def chunk_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the rows and columns of a chunk of a grid of some shape."""
        pair = _pair(self.chunks)
        if len(pair) != 2 or not all(map(_is_length, pair)):
            raise QueryError(
                f"chunks={self.chunks!r} is not the rows and columns of a chunk, such as "
                "(1024, 1024)"
            )
        rows, columns = (
            max(length if chunk in (None, -1) else min(int(chunk), length), 1)
            for chunk, length in zip(pair, shape, strict=True)
        )
        if rows * columns > MAX_CHUNK_PIXELS:
            raise QueryError(
                f"a chunk of {rows:,} × {columns:,} pixels is more than is made at once; the "
                f"mosaic has {shape[0]:,} × {shape[1]:,}: pass chunks=(1024, 1024), a bbox=, or "
                "a coarser resolution="
            )
        count = math.ceil(shape[0] / rows) * math.ceil(shape[1] / columns)
        if count > MAX_CHUNKS:
            raise QueryError(
                f"the mosaic would have {shape[0]:,} × {shape[1]:,} pixels in {count:,} chunks: "
                "pass a bbox=, a coarser resolution= or larger chunks="
            )
        return rows, columns


def _pair(value: Any) -> tuple[Any, ...]:
    """Return the members of a sequence; anything else twice."""
    sequence = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
    return tuple(value) if sequence else (value, value)


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_length(length: Any) -> bool:
    """None and -1 are the length of the mosaic."""
    integer = isinstance(length, int | np.integer) and not isinstance(length, bool)
    return length is None or bool(integer and (length > 0 or length == -1))


def _parse_crs(text: Any) -> CRS:
    try:
        crs = CRS(text)
    except (CRSError, TypeError, ValueError) as error:
        raise QueryError(
            f'crs={text!r} is no CRS: name one as "EPSG:32631", by WKT or by PROJ\'s parameters'
        ) from error
    if not (crs.geographic or crs.projected) or len(crs.proj.axis_info) > 2:
        raise QueryError(
            f"crs={text!r} has no two axes on a map: a mosaic takes a geographic or projected CRS "
            "of two dimensions"
        )
    return crs


def _parse_resolution(resolution: Any) -> tuple[float, float]:
    sizes = _pair(resolution)
    if len(sizes) != 2 or not all(_is_real(n) and math.isfinite(n) and n != 0 for n in sizes):
        raise QueryError(
            f"resolution={resolution!r} is no size of a pixel: a number in the CRS's unit, or a "
            "pair of them, along x and y"
        )
    return abs(float(sizes[0])), abs(float(sizes[1]))


def _geobox_like(like: Any) -> GeoBox:
    grid = like if isinstance(like, GeoBox) else getattr(getattr(like, "odc", None), "geobox", None)
    if not isinstance(grid, GeoBox) or grid.crs is None:
        raise QueryError(
            f"like={type(like).__name__} has no grid: pass a GeoBox of odc.geo, or a DataArray "
            "with evenly spaced coordinates and a CRS, as ds.rio.write_crs() and "
            "ds.odc.assign_crs() give it"
        )
    return grid
