"""The mosaic as an `xarray.Dataset`: what is asked, checked, and made lazy."""

from __future__ import annotations

import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xarray as xr
from numpy.typing import DTypeLike, NDArray
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from rasterix import RasterIndex

from l2view.cells.scan import require_free_loop
from l2view.errors import L2ViewWarning, QueryError, warn
from l2view.geolocation.bands import Bands
from l2view.mosaic.array import BandArray
from l2view.mosaic.composite import Reduce, require_reduce
from l2view.mosaic.periods import period_of
from l2view.mosaic.sources import Sources, hull_of_footprints, rasters, sources, swaths
from l2view.regrid.target import (
    chunks_of,
    crs_of,
    geobox_like,
    geobox_within,
    require_unit,
    resolution_of,
    together,
)
from l2view.regrid.warp import Resampling, require_resampling
from l2view.search import expressions
from l2view.search.place import box
from l2view.search.time import time_field
from l2view.text import unknown_name
from l2view.virtual.store import ViewStore
from l2view.virtual.tree import Tree

if TYPE_CHECKING:
    from l2view.view import View

type Engine = Literal["dask", "cubed"]
"""Whose arrays the bands are."""

type Chunks = tuple[int, int] | int | None
"""The rows and columns of a chunk of the mosaic; None for one chunk."""

ENGINES: tuple[str, ...] = get_args(Engine.__value__)

TIME, GROUP = "time", "group"
"""The dimension of groups of granules: of times, and of other values."""

FLOATS = 2
"""The bytes of integers whose means single precision holds well enough."""


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A mosaic before it is a Dataset.

    Attributes
    ----------
    grid
        The target.
    chunks
        The rows and columns of a chunk.
    bands
        The bands.
    labels
        The values of the first dimension, None where there is none.
    dimension
        Its name.
    attributes
        Of each band.
    count
        How many granules it is made of.
    """

    grid: GeoBox
    chunks: tuple[int, int]
    bands: tuple[BandArray, ...]
    labels: NDArray[Any] | None
    dimension: str
    attributes: Mapping[str, Mapping[str, Any]]
    count: int

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of a band's dimensions."""
        return ("y", "x") if self.labels is None else (self.dimension, "y", "x")


def mosaic(view: View, *, engine: Engine = "dask", **asked: Any) -> xr.Dataset:
    """Return a view as one lazy image (see `l2view.mosaic`)."""
    if engine not in ENGINES:
        raise QueryError(unknown_name("engine", str(engine), ENGINES))
    return dataset(planned(view, **asked), _lazy(engine))


def planned(
    view: View,
    *,
    crs: Any = None,
    resolution: float | Sequence[float] | None = None,
    bbox: Sequence[float] | None = None,
    like: Any = None,
    bands: Bands = None,
    chunks: Chunks = (1024, 1024),
    resampling: Resampling = "nearest",
    nodata: float | None = None,
    dtype: DTypeLike | None = None,
    sortby: str | Sequence[str] | None = None,
    reduce: Reduce = "first",
    temporal_grouping: str | None = None,
) -> Mosaic:
    """Return the mosaic of a view, of which nothing is read but where granules lie.

    The parameters and errors are those of `l2view.mosaic`.
    """
    if not isinstance(getattr(view, "view_store", None), ViewStore):
        raise QueryError(
            f"a mosaic is made of a view, and not of {type(view).__name__}: l2view.open(store) "
            "gives one"
        )
    require_free_loop()
    require_number(nodata)
    require_resampling(resampling)
    require_reduce(reduce)
    tree = view.view_store.tree
    if not len(tree.granules):
        raise QueryError("the view has no granules, and there is nothing to make a mosaic of")
    wanted = None if dtype is None else _dtype(dtype)
    grid, target, size = _target(crs, resolution, bbox, like)
    ranks = _ranks(tree, sortby)
    groups, labels, dimension = _groups(tree, temporal_grouping)
    found = sources(tree, bands, target, nodata, resampling)
    groups, labels = _of_those(found, groups, labels)
    if grid is None:
        require_unit(target, size, np.concatenate([one.native for one in found]))
        grid = geobox_within(target, size, bbox, _hull(tree, found, target, bbox))
    height, width = grid.shape
    lengths = chunks_of(chunks, (height, width))
    token = uuid4().hex
    made = [
        _band(one, grid, ranks, groups, labels, resampling, reduce, wanted, nodata, token)
        for one in found
    ]
    if not any(_may_touch(band, grid) for band in made):
        warn(
            "no granule of the view lies in the mosaic, which is empty: look at its bbox= or like=",
            L2ViewWarning,
        )
    return Mosaic(
        grid=grid,
        chunks=lengths,
        bands=tuple(made),
        labels=labels,
        dimension=dimension,
        attributes={one.band.name: one.attributes for one in found},
        count=int((groups >= 0).sum()),
    )


def _target(
    crs: Any, resolution: Any, bbox: Sequence[float] | None, like: Any
) -> tuple[GeoBox | None, CRS, tuple[float, float]]:
    """Return the grid where it is given, and its CRS and the size of its pixels.

    Raises
    ------
    QueryError
        Where they aren't said, said twice, or wrong.
    """
    if like is not None:
        if crs is not None or resolution is not None or bbox is not None:
            raise QueryError("like= is the whole grid: leave crs=, resolution= and bbox= out")
        grid = geobox_like(like)
        assert grid.crs is not None
        return grid, grid.crs, (abs(grid.resolution.x), abs(grid.resolution.y))
    if crs is None or resolution is None:
        raise QueryError("a mosaic takes crs= and resolution=, or like=")
    if bbox is not None:
        box(bbox)
    return None, crs_of(crs), resolution_of(resolution)


def _may_touch(band: BandArray, grid: GeoBox) -> bool:
    """Return whether a band has a granule that may lie on a grid; of swaths each may."""
    if band.swaths is not None and len(band.swaths):
        return True
    return band.rasters is not None and bool(len(band.rasters.touching(grid)))


def _of_those(
    found: Sequence[Sources], groups: NDArray[np.int64], labels: NDArray[Any] | None
) -> tuple[NDArray[np.int64], NDArray[Any] | None]:
    """Return the groups of granules that have some band, and their labels."""
    having = np.zeros(len(groups), dtype=bool)
    having[np.concatenate([one.rows for one in found])] = True
    groups = np.where(having, groups, -1)
    if labels is None:
        return groups, None
    used, numbers = np.unique(groups[groups >= 0], return_inverse=True)
    groups[groups >= 0] = numbers
    return groups, labels[used]


def require_number(nodata: Any) -> None:
    """Raise where what stands for nothing is no number.

    Raises
    ------
    QueryError
        Saying so.
    """
    if nodata is not None and (isinstance(nodata, bool) or not isinstance(nodata, numbers.Real)):
        raise QueryError(f"nodata={nodata!r} is no number")


def _dtype(said: DTypeLike) -> np.dtype[Any]:
    """Return the data type that is asked for.

    Raises
    ------
    QueryError
        Where it is none of numbers.
    """
    try:
        found = np.dtype(said)
    except TypeError as error:
        raise QueryError(f"dtype={said!r} is no data type") from error
    if found.kind not in "iuf" or found.itemsize > 8 or found.name == "float16":
        raise QueryError(f"dtype={said!r}: a mosaic has integers, or floats of 32 or 64 bits")
    return found


def _ranks(tree: Tree, sortby: str | Sequence[str] | None) -> NDArray[np.int64]:
    """Return the place of each granule in the order in which they are composed."""
    count = len(tree.granules)
    if sortby is None:
        return np.arange(count)
    whole = isinstance(sortby, str) or (
        isinstance(sortby, Sequence) and all(isinstance(one, str) for one in sortby)
    )
    if not whole:
        raise QueryError(f'sortby={sortby!r} is no SQL sort expression, such as "datetime DESC"')
    known = tree.granules.known
    return expressions.ranks(sortby, count, tree.granules.everything.names, known)


def _groups(tree: Tree, said: str | None) -> tuple[NDArray[np.int64], NDArray[Any] | None, str]:
    """Return the group of each granule, -1 for none, their labels, and what these are called."""
    count = len(tree.granules)
    if said is None:
        return np.zeros(count, dtype=np.int64), None, TIME
    if not isinstance(said, str) or not said.strip():
        raise QueryError(
            f'temporal_grouping={said!r} is neither a period, such as "P1M", nor an SQL expression'
        )
    if re.fullmatch(r"[Tt]?\d+[DWMYHdwmyh]", said.strip()):
        raise QueryError(f'temporal_grouping={said!r}: did you mean "P{said.strip()}"?')
    period = period_of(said.strip())
    if period is not None:
        name = time_field(tree.granules.everything)
        column = tree.granules.known([name]).column(0)
        values: NDArray[Any] = column.cast(pa.timestamp("us")).to_numpy().astype("M8[us]")
        values = period.starts(values)
        missing = np.isnat(values)
    else:
        known, names = tree.granules.known, tree.granules.everything.names
        told = expressions.values(said, count, names, known)
        if pa.types.is_dictionary(told.type):
            told = told.cast(told.type.value_type)
        if pa.types.is_floating(told.type):
            told = pc.if_else(pc.is_nan(told), pa.scalar(None, told.type), told)
        missing = told.is_null().to_numpy(zero_copy_only=False)
        if pa.types.is_date(told.type) or pa.types.is_timestamp(told.type):
            told = told.cast(pa.timestamp("us"))
        values = _plain(told, missing)
    if missing.all():
        raise QueryError(
            f"no granule is in a group of temporal_grouping={said!r}: all are NULL; group by "
            "another field"
        )
    if missing.any():
        lost = np.flatnonzero(missing)
        warn(
            f"{len(lost):,} of {count:,} granules are in no group of temporal_grouping={said!r}, "
            f"and no part of the mosaic: {tree.granules.some(lost.tolist())}",
            L2ViewWarning,
        )
    labels, numbers = np.unique(values[~missing], return_inverse=True)
    groups = np.full(count, -1, dtype=np.int64)
    groups[~missing] = numbers
    times = labels.dtype.kind == "M"
    return groups, labels, TIME if times else GROUP


def _plain(told: pa.ChunkedArray, missing: NDArray[np.bool_]) -> NDArray[Any]:
    """Return values as NumPy's, whatever stands for those that are missing.

    Raises
    ------
    QueryError
        Where they are of a type that groups can't be told by.
    """
    kind = told.type
    if pa.types.is_timestamp(kind):
        return np.asarray(told.to_numpy().astype("M8[us]"))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return np.array(["" if one is None else one for one in told.to_pylist()])
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_floating(kind):
        zero = False if pa.types.is_boolean(kind) else 0
        filled = told.fill_null(pa.scalar(zero, kind)) if missing.any() else told
        return np.asarray(filled.to_numpy())
    raise QueryError(f"temporal_grouping= gives {kind}: group by times, texts or numbers")


def _hull(
    tree: Tree, found: Sequence[Sources], target: Any, bbox: Sequence[float] | None
) -> NDArray[np.float64]:
    """Return what the granules cover in the target's CRS, NaN where it doesn't matter."""
    if bbox is not None:
        return np.full(4, np.nan)
    hulls = [one.hull for one in found]
    for one in found:
        for levels, _, members in one.swaths:
            outlines = one.footprints()[levels.inventory.rows[members]]
            hulls.append(hull_of_footprints(outlines, target))
    return together(hulls)


def _band(
    one: Sources,
    grid: GeoBox,
    ranks: NDArray[np.int64],
    groups: NDArray[np.int64],
    labels: NDArray[Any] | None,
    resampling: str,
    reduce: Reduce,
    wanted: np.dtype[Any] | None,
    nodata: float | None,
    token: str,
) -> BandArray:
    """Return one band on the target's grid."""
    source = np.dtype(np.uint8) if one.dtype.kind == "b" else one.dtype
    dtype = wanted or _made(source, resampling, reduce)
    return BandArray(
        name=one.band.name,
        grid=grid,
        times=None if labels is None else len(labels),
        rasters=rasters(one, grid, ranks, groups, nodata),
        swaths=swaths(one, ranks, groups, nodata, token),
        resampling=resampling,
        reduce=reduce,
        source=source,
        dtype=dtype,
        nodata=_nodata(one, dtype, resampling, reduce, nodata),
        shuns=dtype.kind in "iu" and reduce != "count" and bool(one.fills or nodata is not None),
    )


def _made(source: np.dtype[Any], resampling: str, reduce: Reduce) -> np.dtype[Any]:
    """Return the data type of what several images become."""
    if reduce == "count":
        return np.dtype(np.int32)
    if resampling == "sum" and source.kind in "iu":
        source = np.dtype(np.int64)
    if reduce in ("mean", "median") and source.kind in "iu":
        return np.dtype(np.float32 if source.itemsize <= FLOATS else np.float64)
    return source


def _nodata(
    one: Sources, dtype: np.dtype[Any], resampling: str, reduce: Reduce, said: float | None
) -> Any:
    """Return what stands where there is nothing.

    Raises
    ------
    QueryError
        Where the data type doesn't have it.
    """
    if reduce == "count":
        return dtype.type(0)
    if said is not None:
        if dtype.kind in "iu":
            bounds = np.iinfo(dtype)
            if not np.isfinite(said) or int(said) != said or not bounds.min <= said <= bounds.max:
                raise QueryError(
                    f'nodata={said!r} is no {dtype}, as "{one.band.name}" is: pass another, or '
                    'dtype="float32"'
                )
        made = dtype.type(said)
        if np.isfinite(said) and not np.isfinite(made):
            raise QueryError(f'nodata={said!r} is more than {dtype} holds: pass dtype="float64"')
        return made
    if dtype.kind == "f":
        return dtype.type(np.nan)
    bounds = np.iinfo(dtype)
    if resampling == "sum" and dtype.itemsize == 8:  # which may come to any other number
        return dtype.type(bounds.min)
    fills = [fill for fill in one.fills if bounds.min <= fill <= bounds.max]
    if len(fills) > 1:
        warn(
            f'"{one.band.name}" has several fill values ({", ".join(map(str, fills))}): '
            f"{fills[0]} stands for all of them in the mosaic; pass nodata= another, or "
            'dtype="float32"',
            L2ViewWarning,
        )
    if not fills:
        why = f"has a fill value that {dtype} has not" if one.fills else "says no fill value"
        warn(
            f'"{one.band.name}" {why}: 0 stands where nothing covers the mosaic, as it does for '
            'a value; pass nodata= another, or dtype="float32"',
            L2ViewWarning,
        )
    return dtype.type(fills[0] if fills else 0)


def _lazy(engine: str) -> Callable[[BandArray, tuple[int, ...]], Any]:
    return {"dask": _dask_array, "cubed": _cubed_array}[engine]


def _dask_array(band: BandArray, chunks: tuple[int, ...]) -> Any:
    import dask.array as da

    name = f"{band.name}-{uuid4().hex}"
    meta = np.empty((0,) * band.ndim, band.dtype)
    return da.from_array(  # type: ignore[no-untyped-call]
        band, chunks=chunks, name=name, meta=meta, asarray=False
    )


def _cubed_array(band: BandArray, chunks: tuple[int, ...]) -> Any:
    import cubed

    return cubed.from_array(band, chunks=chunks, asarray=False)


def dataset(made: Mosaic, lazy: Callable[[BandArray, tuple[int, ...]], Any]) -> xr.Dataset:
    """Return a mosaic as a Dataset.

    Parameters
    ----------
    made
        The mosaic.
    lazy
        Makes an array of a band and the shape of its chunks.
    """
    chunks = made.chunks if made.labels is None else (1, *made.chunks)
    variables = {}
    for band in made.bands:
        own = {"units": "1"} if band.reduce == "count" else made.attributes[band.name]
        attributes: dict[str, Any] = {**own, "grid_mapping": "spatial_ref"}
        if band.reduce != "count":
            attributes["_FillValue"] = band.nodata
        variables[band.name] = (made.dimensions, lazy(band, chunks), attributes)
    found = xr.Dataset(variables, coords=coordinates(made.grid))
    if made.labels is not None:
        found = found.assign_coords({made.dimension: made.labels})
    return found.assign_attrs(granules=made.count)


def coordinates(grid: GeoBox) -> xr.Coordinates:
    """Return the coordinates of a grid: its CRS, and the centres of its pixels, by an index."""
    assert grid.crs is not None
    height, width = grid.shape
    index = RasterIndex.from_transform(
        grid.transform, width=width, height=height, x_dim="x", y_dim="y", crs=grid.crs.proj
    )
    plain = xr_coords(grid, always_yx=True)
    made = xr.Coordinates.from_xindex(index)
    for name in ("x", "y"):
        if name in made and name in plain:
            made[name].attrs.update(plain[name].attrs)
    crs = plain["spatial_ref"]
    if grid.axis_aligned and height > 1 and width > 1:
        # The coordinates tell it, also of a part of the mosaic, of which this would be wrong.
        crs.attrs.pop("GeoTransform", None)
    return made.assign(spatial_ref=crs)
